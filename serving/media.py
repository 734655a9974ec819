"""Where the pictures of a request may come from: vLLM's own media connector, made strict. Imports vLLM.

vLLM answers some mistakes of a client with "internal server error", among them decompression bombs beyond Pillow's own
limit; here they are the client's mistakes (400), and a server that may not fetch does not even look a host name up.
"""

from __future__ import annotations

from typing import Any

from PIL import Image
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector

CONNECTOR = "lostattn"
NOWHERE = "media.invalid"  # a name that RFC 2606 keeps from ever existing: the only allowed domain when none is allowed


class BombError(Image.DecompressionBombError, ValueError):
    """Pillow's error for pictures with far too many pixels, as an error of the client."""


@MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)
class StrictConnector(MediaConnector):
    """Takes base64 data URLs, and other URLs only if the server's owner allowed their source."""

    def load_from_url(self, url: str, media_io: Any, **options: Any) -> Any:
        """As in vLLM; ValueError for all that the client has to mend."""
        self._check(url)
        return super().load_from_url(url, media_io, **options)

    async def load_from_url_async(self, url: str, media_io: Any, **options: Any) -> Any:
        """As in vLLM; ValueError for all that the client has to mend."""
        self._check(url)
        return await super().load_from_url_async(url, media_io, **options)

    def _check(self, url: str) -> None:
        scheme = url.partition(":")[0].lower()
        if scheme == "data":
            if not url.partition(",")[0].lower().endswith(";base64"):
                raise ValueError("a data URL must be base64: data:image/png;base64,...")
        elif scheme == "file":
            if self.allowed_local_media_path is None:
                raise ValueError("this server reads no files: send the picture as a base64 data URL")
        elif NOWHERE in self.allowed_media_domains:
            raise ValueError("this server fetches no URLs: send the picture as a base64 data URL")


Image.DecompressionBombError = BombError  # type: ignore[misc]  # what Pillow raises is looked up here
