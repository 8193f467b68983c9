"""Images of a request: decoded from `data:` URLs, or fetched where the server allows it, and checked before the engine.

What this module takes is bytes and nothing else: no path, no other scheme. A file is looked at by its first bytes and
its header; the pixels are decoded by the engine, when they are needed.
"""

from __future__ import annotations

import time

from lorgnette.errors import DataError, ImageError
from lorgnette.images import decode_base64
from lorgnette.inputs.access import Access, AccessError, is_link
from lorgnette.inputs.downloader import fetch
from lorgnette.inputs.image_io import image_size
from lorgnette.serve.api.api_errors import ApiError, image_message
from lorgnette.serve.config import ServeConfig

FETCH_SECONDS, FETCH_REDIRECTS = 10.0, 3
"""Time for all images of a request together, and redirects of each."""
PUBLIC = Access(ports=frozenset({80, 443}), has_settings=False)
"""Addresses that a request may name: public ones, at the two ports of the web."""
SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
"""How files of PNG, JPEG and GIF begin; those of WebP have their mark further on."""


class ImageReader:
    """Reads the images of one request, up to the limits of the server."""

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self.count = self.bytes = 0
        self._fetching_seconds = FETCH_SECONDS

    def read(self, url: str, param: str) -> bytes:
        """The file of an image. param: path of the field that holds it. Raises: ApiError 400 naming the field."""
        self.count += 1
        if self.count > self.config.max_images:
            raise _invalid(param, f"more than {self.config.max_images} images; send fewer", "too_many_images")
        content = self._content(url, param)
        self.bytes += len(content)
        if len(content) > self.config.max_image_bytes:
            raise _invalid(param, f"the image exceeds {self.config.max_image_bytes >> 20} MiB; scale it down")
        if self.bytes > self.config.max_request_bytes:
            raise _invalid(param, f"the images exceed {self.config.max_request_bytes >> 20} MiB together")
        self._check(content, param)
        return content

    def _content(self, url: str, param: str) -> bytes:
        if url[:5].lower() == "data:":
            try:
                return decode_base64(url, param)
            except DataError as error:
                raise ApiError(400, str(error), param=param, code="invalid_image") from None
        if not is_link(url):
            raise _invalid(param, "an image is a data: URL (data:image/png;base64,...) here; no path is opened")
        if not self.config.allow_image_urls:
            raise _invalid(param, "this server fetches no images; send a data: URL, or start it with allow_image_urls")
        began = time.monotonic()
        try:
            left, most = max(0.0, self._fetching_seconds), self.config.max_image_bytes
            content = fetch(url, PUBLIC, left, most, redirects=FETCH_REDIRECTS)
            self._fetching_seconds -= time.monotonic() - began
            return content
        except AccessError:
            limits = f"{FETCH_SECONDS:g} seconds and {self.config.max_image_bytes >> 20} MiB"
            said = f"the image cannot be fetched; its address must be public, and answer within {limits}"
            raise _invalid(param, said) from None

    def _check(self, content: bytes, param: str) -> None:
        is_webp = content[:4] == b"RIFF" and content[8:12] == b"WEBP"
        if not content.startswith(SIGNATURES) and not is_webp:
            raise _invalid(param, "the image is no PNG, JPEG, WebP or GIF; convert it to one of these")
        try:
            image_size(content, param, self.config.max_pixels)
        except ImageError as error:
            raise ApiError(400, image_message(error), param=param, code="invalid_image") from None


def _invalid(param: str, message: str, code: str = "invalid_image") -> ApiError:
    return ApiError(400, f"{param}: {message}", param=param, code=code)
