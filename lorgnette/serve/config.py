"""Settings of the server: where it listens, what it accepts, how long it waits."""

from __future__ import annotations

import pydantic

from lorgnette.settings import Settings


class ServeConfig(Settings):
    """Settings of the server. The defaults serve this machine alone, and trust nothing that a request says."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    port: int = pydantic.Field(default=8000, ge=0, le=65535)
    """Port to listen on; 0 for any free one."""
    name: str = "lorgnette"
    """Id of the model, as clients ask for it."""
    allow_hosts: tuple[str, ...] = ()
    """Names that the Host header may have beside the address listened on; `*` for any."""
    allow_image_urls: bool = False
    """Fetch images from public http(s) addresses; `data:` URLs alone if not."""
    strict: bool = False
    """Refuse keys of a request that are not known, which are ignored otherwise."""
    log_content: bool = False
    """Write prompts and answers to the log."""
    workers: pydantic.PositiveInt = 1
    """Processes, each with the model and an engine of its own, behind one address."""
    max_images: pydantic.PositiveInt = 16
    """Images of one request."""
    max_image_bytes: pydantic.PositiveInt = 20 * 2**20
    """Bytes of one image file."""
    max_request_bytes: pydantic.PositiveInt = 64 * 2**20
    """Bytes of all image files of a request. A body may be half as large again, for base64 and text."""
    max_pixels: pydantic.PositiveInt = 33_000_000
    """Pixels of one image."""
    max_open: pydantic.PositiveInt = 256
    """Requests that are open at the same time, those that wait included; more are answered 429."""
    max_body_memory: pydantic.PositiveInt = 512 * 2**20
    """Bytes of all bodies that are being read at the same time; more are answered 429."""
    body_seconds: pydantic.PositiveFloat = 60.0
    """Time in which a body must arrive."""
    unread_seconds: pydantic.PositiveFloat = 30.0
    """Time for which a client may leave a stream unread."""
    ping_seconds: pydantic.PositiveFloat = 15.0
    """Time without a token after which a comment keeps a stream's connection open."""
    drain_seconds: pydantic.PositiveFloat = 30.0
    """Time that running answers get to end once the server is told to stop."""

    @property
    def max_body_bytes(self) -> int:
        """Bytes of one body."""
        return self.max_request_bytes + self.max_request_bytes // 2

    @property
    def is_loopback(self) -> bool:
        """Return whether nothing but this machine can reach the server."""
        return self.host in LOOPBACK or self.host.startswith("127.")


LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names and addresses of this machine for itself."""
