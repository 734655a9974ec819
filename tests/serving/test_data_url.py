"""Data URLs as people write them."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lostattn.patches.errors import LostattnError
from lostattn.serving.data_url import is_data_url, read_data_url, split_data_url

DATA = bytes(range(256)) + b"\xfb\xff\xbe"  # with + and / in its base64, and padding
PLAIN = base64.b64encode(DATA).decode()
SAFE = base64.urlsafe_b64encode(DATA).decode()

GOOD = {
    "as in the books": f"data:image/png;base64,{PLAIN}",
    "upper": f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
    "mixed": f"Data:image/PNG;Base64,{PLAIN}",
    "charset": f"data:image/png;charset=utf-8;base64,{PLAIN}",
    "name": f"data:image/png;name=a%20b.png;base64,{PLAIN}",
    "no type": f"data:;base64,{PLAIN}",
    "spaces": f"  data: image/png ; base64 , {PLAIN}\n",
    "url-safe": f"data:image/png;base64,{SAFE}",
    "no padding": f"data:image/png;base64,{SAFE.rstrip('=')}",
    "percent": f"data:image/png;base64,{quote(PLAIN, safe='')}",
    "lines": "data:image/png;base64,\r\n" + "\n".join(PLAIN[i : i + 76] for i in range(0, len(PLAIN), 76)),
    "percent lines": f"data:image/png;base64,{PLAIN[:40]}%0A{PLAIN[40:]}",
    "quoted head": f"data:image/png%3Bbase64,{PLAIN}",
    "order": f"data:image/png;base64;charset=x,{PLAIN}",
    "only the scheme": f"data:base64;base64,{PLAIN}",
}


@pytest.mark.parametrize("name", GOOD)
def test_every_form_is_read(name: str) -> None:
    assert is_data_url(GOOD[name]) and read_data_url(GOOD[name]) == DATA
    assert base64.b64decode(split_data_url(GOOD[name])[1], validate=True) == DATA


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("data:", "needs a comma"),
        ("data:image/png;base64", "needs a comma"),
        ("data:,", "must be base64"),
        ("data:image/png,abc", "must be base64"),
        ("data:image/png,%89PNG%0D%0A", "must be base64"),
        ("data:image/png;base32,AAAA", "must be base64"),
        ("data:image/png;base64,", "holds no data"),
        ("data:image/png;base64, \n", "holds no data"),
        ("data:image/png;base64,====", "holds no data"),
        ("data:image/png;base64,@@@@", "damaged or cut off"),
        ("data:image/png;base64,AAAAA", "damaged or cut off"),
        ("data:image/png;base64,AA=A", "damaged or cut off"),
        ("data:image/png;base64,AAAA\u00e9", "damaged or cut off"),
        ("data:image/png;base64,AAAA#x", "damaged or cut off"),
        ("data:image/png;base64,%ZZ", "damaged or cut off"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(url: str, said: str) -> None:
    for reading in (read_data_url, split_data_url):
        with pytest.raises(LostattnError, match=said) as error:
            reading(url)
        assert "\n" not in str(error.value) and len(str(error.value)) < 120


@given(st.binary(min_size=1), st.sampled_from(["", ";charset=utf-8", ";a=b;c=d"]), st.booleans(), st.booleans())
def test_bytes_come_back(data: bytes, parameters: str, safe: bool, bare: bool) -> None:
    body = (base64.urlsafe_b64encode if safe else base64.b64encode)(data).decode()
    assert read_data_url(f"data:image/jpeg{parameters};base64,{body.rstrip('=') if bare else body}") == data


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, f"data:{text}", f"data:;base64,{text}"):
        if is_data_url(url):
            try:
                read_data_url(url)
            except LostattnError as error:
                assert "\n" not in str(error)
