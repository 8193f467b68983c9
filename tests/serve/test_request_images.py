"""Images of strangers: what is read, what is refused, and what is never opened or fetched."""

from __future__ import annotations

import base64
import http.server
import io
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from lorgnette.inputs.access import Access
from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.http import request_images
from lorgnette.serve.http.request_images import ImageReader
from tests.hub.tiny import picture
from tests.serve.running import Running, data_url, png, shown


def read(url: str, **settings: Any) -> bytes:
    return ImageReader(ServeConfig(**settings)).read(url, "messages[0]")


def encoded(kind: str, image: PIL.Image.Image | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    (image or picture(40, 30)).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_four_formats_are_read(kind: str) -> None:
    content = encoded(kind)
    assert read(data_url(content, kind.lower())) == content
    assert read(data_url(content, "whatever")) == content, "what the file is decides, not what is said of it"


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "ICO", "PPM", "TGA", "PCX"])
def test_other_formats_are_refused(kind: str) -> None:
    with pytest.raises(ApiError, match="PNG, JPEG, WebP or GIF"):
        read(data_url(encoded(kind), kind.lower()))


def test_base64_in_the_forms_of_clients() -> None:
    content = png()
    text = base64.b64encode(content).decode()
    wrapped = "\n".join(text[at : at + 76] for at in range(0, len(text), 76))
    for form in (wrapped, text.rstrip("="), text.replace("+", "-").replace("/", "_"), text.replace("\n", "\r\n")):
        assert read(f"data:image/png;base64,{form}") == content
    assert read(f"DATA:;base64,{text}") == content


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png;base64,",
        "data:image/png;base64",
        "data:image/png;base64,!!!!",
        "data:image/png;base64,AAAA",
        "data:text/html,<script>",
        "data:",
        "",
    ],
)
def test_what_is_no_image_is_refused(url: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(url)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, "invalid_image", "messages[0]")


@pytest.mark.parametrize(
    "url",
    [
        *("{path}", "file://{path}", "FILE://{path}", "/etc/passwd", "../../etc/passwd", "//host/share"),
        *("\\\\host\\share", "ftp://host/a.png", "gopher://host", "s3://bucket/a.png", "hf://a/b", "blob:http://a"),
    ],
)
def test_no_path_and_no_other_scheme_is_opened(tiny: Running, tmp_path: Path, url: str) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(png())
    url = url.replace("{path}", str(path))
    with pytest.raises(ApiError, match="data: URL"):
        read(url, allow_image_urls=True)
    asked = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    status, _, reply = tiny.ask(asked)
    assert status == 400
    assert str(tmp_path) not in reply["error"]["message"]


def test_limits_of_files_and_requests() -> None:
    content = png(60, 60)
    with pytest.raises(ApiError, match="exceeds 0 MiB"):
        read(data_url(content), max_image_bytes=len(content) - 1)
    reader = ImageReader(ServeConfig(max_images=2, max_request_bytes=2 * len(content)))
    assert reader.read(data_url(content), "a") == reader.read(data_url(content), "b")
    with pytest.raises(ApiError) as refused:
        reader.read(data_url(content), "c")
    assert refused.value.code == "too_many_images"
    reader = ImageReader(ServeConfig(max_request_bytes=len(content)))
    reader.read(data_url(content), "a")
    with pytest.raises(ApiError, match="together"):
        reader.read(data_url(content), "b")


def webp_bomb() -> bytes:
    """A WebP that says that it has 6,000 x 6,000 pixels."""
    side = (5999).to_bytes(3, "little")
    chunk = b"VP8X" + (10).to_bytes(4, "little") + bytes(4) + side + side
    return b"RIFF" + (len(chunk) + 4).to_bytes(4, "little") + b"WEBP" + chunk + bytes(100)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP", "JPEG"])
def test_a_bomb_is_refused_by_its_header(kind: str) -> None:
    content = webp_bomb() if kind == "WEBP" else encoded(kind, PIL.Image.new("L", (6000, 6000)))
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="33000000 pixels"):
            read(data_url(content))
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content",
    [
        encoded("JPEG", picture(40, 30).convert("CMYK")),
        encoded("PNG", PIL.Image.new("I;16", (20, 20))),
        encoded("PNG", PIL.Image.new("1", (1, 1))),
        encoded("PNG", PIL.Image.new("RGB", (1, 2000))),
        encoded("PNG", PIL.Image.new("RGBA", (30, 30), (9, 9, 9, 0))),
        encoded("GIF", save_all=True, append_images=[picture(40, 30, seed) for seed in range(1, 40)]),
        encoded("JPEG", exif=PIL.Image.Exif().tobytes() + bytes(100)),
    ],
    ids=["cmyk", "16 bits", "1 x 1", "1 x 2000", "alpha", "frames", "exif"],
)
def test_odd_images_are_answered(tiny: Running, content: bytes) -> None:
    status, _, reply = tiny.ask(shown("what?", content))
    assert status == 200, reply


def test_what_a_file_says_of_itself_is_no_key(tiny: Running) -> None:
    """Two pictures with one EXIF ImageID are two pictures."""
    exif = PIL.Image.Exif()
    exif[0x800D] = "same"
    first, second = (encoded("JPEG", picture(60, 60, seed), exif=exif) for seed in (1, 2))
    asked = [{**shown("what?", one), "logprobs": True} for one in (first, second)]
    answers = [tiny.ask(one)[2]["choices"][0]["logprobs"]["content"][0]["logprob"] for one in asked]
    assert answers[0] != answers[1]


class Site(http.server.BaseHTTPRequestHandler):
    """A site with an image, redirects, and a body without end."""

    def do_GET(self) -> None:
        if self.path.startswith("/hop"):
            left = int(self.path[4:])
            self.send_response(302)
            self.send_header("Location", f"/hop{left - 1}" if left else "/a.png")
            self.end_headers()
            return
        content = b"no image" if self.path == "/text" else png()
        self.send_response(200)
        if self.path != "/endless":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        try:
            self.wfile.write(content)
            while self.path == "/endless":
                self.wfile.write(bytes(65536))
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "192.168.1.1", "169.254.169.254"),
        *("2130706433", "0177.0.0.1", "0x7f.1", "127.1", "[fe80::1]", "[64:ff9b::7f00:1]", "100.64.0.1", "0.0.0.0"),
        *("a\\@127.0.0.1", "user:password@127.0.0.1", "224.0.0.1", "[fd00::1]"),
    ],
)
def test_nothing_but_public_addresses_is_fetched(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    connected: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, place: connected.append(place))
    with pytest.raises(ApiError) as refused:
        read(f"http://{host}/a.png", allow_image_urls=True)
    assert connected == []
    assert refused.value.code == "invalid_image"
    assert "127.0.0.1" not in refused.value.message


def test_other_ports_are_not_fetched() -> None:
    with pytest.raises(ApiError, match="cannot be fetched"):
        read("http://93.184.216.34:6379/", allow_image_urls=True)


def test_addresses_are_not_fetched_unless_allowed(tiny: Running, site: str) -> None:
    with pytest.raises(ApiError, match="fetches no images"):
        read(f"http://{site}/a.png")
    with pytest.raises(ApiError, match="cannot be fetched"):
        read(f"http://{site}/a.png", allow_image_urls=True)
    _, _, reply = tiny.ask({"messages": [{"role": "user", "content": f"http://{site}/a.png"}], "max_tokens": 1})
    assert reply["usage"]["prompt_tokens_details"]["image_tokens"] == 0, "an address in a text is text"


def test_an_allowed_site_is_fetched_within_the_limits(monkeypatch: pytest.MonkeyPatch, site: str) -> None:
    monkeypatch.setattr(request_images, "PUBLIC", Access(hosts=frozenset({"127.0.0.1"})))
    assert read(f"http://{site}/a.png", allow_image_urls=True) == png()
    assert read(f"http://{site}/hop2", allow_image_urls=True) == png(), "three redirects"
    reader = ImageReader(ServeConfig(allow_image_urls=True))
    monkeypatch.setattr(reader, "_fetching_seconds", 0.0)
    with pytest.raises(ApiError, match="within 10 seconds"):
        reader.read(f"http://{site}/a.png", "the last image of a request")
    for path in ("hop3", "endless", "text"):
        with pytest.raises(ApiError):
            read(f"http://{site}/{path}", allow_image_urls=True, max_image_bytes=2**20)
