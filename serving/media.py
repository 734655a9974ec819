"""Where pictures and videos of a request may come from and how they are opened: vLLM's own media connector. Imports vLLM.

A server that may not fetch does not even look a host name up. Pictures are opened as every other command opens them, so
that one file has the same pixels everywhere. What a client has to mend is its mistake (400), in a sentence.
"""

from __future__ import annotations

from typing import Any

from vllm import envs
from vllm.multimodal.media import MEDIA_CONNECTOR_REGISTRY, MediaConnector
from vllm.multimodal.media.base import MediaWithBytes
from vllm.multimodal.media.image import ImageMediaIO
from vllm.multimodal.media.video import VideoMediaIO

from ..patches.errors import LostattnError
from .data_url import is_data_url, split_data_url
from .images import MAX_PIXELS, open_image
from .video_limits import VideoLimits

CONNECTOR = "lostattn"
NOWHERE = "media.invalid"  # a name that RFC 2606 keeps from ever existing: the only allowed domain when none is allowed


class Pictures(ImageMediaIO):
    """Opens pictures as RGB by `lostattn.serving.images.open_image`."""

    def load_bytes(self, data: bytes) -> Any:
        """The picture with its bytes, from which vLLM makes its identity. ValueError for what is no picture."""
        if self.image_mode != "RGB":
            raise LostattnError(
                "pictures are opened as RGB here, as lostattn ask opens them: leave image_mode out of media_io_kwargs"
            )
        image = open_image(data, envs.VLLM_MAX_IMAGE_PIXELS or MAX_PIXELS, self.rgba_background_color)
        return MediaWithBytes(image, data, {"opened_by": CONNECTOR, "background": list(self.rgba_background_color)})


@MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)
class StrictConnector(MediaConnector):
    """Takes base64 data URLs, and other URLs only if the server's owner allowed their source."""

    def load_from_url(self, url: str, media_io: Any, **options: Any) -> Any:
        """As in vLLM; ValueError for all that the client has to mend."""
        return super().load_from_url(self._checked(url), _ours(media_io), **options)

    async def load_from_url_async(self, url: str, media_io: Any, **options: Any) -> Any:
        """As in vLLM; ValueError for all that the client has to mend."""
        return await super().load_from_url_async(self._checked(url), _ours(media_io), **options)

    def _checked(self, url: str) -> str:
        """The URL as vLLM reads it, if it may be used."""
        if is_data_url(url):
            kind, body = split_data_url(url)
            return f"data:{kind};base64,{body}"
        url = url.strip()
        if url.partition(":")[0].lower() == "file":
            if self.allowed_local_media_path is None:
                raise LostattnError("this server reads no files: send the content as a base64 data URL")
        elif NOWHERE in self.allowed_media_domains:
            raise LostattnError("this server fetches no URLs: send the content as a base64 data URL")
        return url


def _ours(media_io: Any) -> Any:
    """vLLM's readers of pictures and videos replaced by ours; readers of other media as they are."""
    if type(media_io) is VideoMediaIO:
        from .video_media import Videos  # which imports OpenCV

        return Videos(media_io, VideoLimits.from_env())
    if type(media_io) is not ImageMediaIO:
        return media_io
    given = {"rgba_background_color": media_io.rgba_background_color}
    return Pictures(image_mode=media_io.image_mode, **{**media_io.kwargs, **given})
