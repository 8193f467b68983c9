"""Paths and addresses that data names, and the downloader: what is refused, and that nothing is waited for."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lorgnette.errors import ImageError
from lorgnette.inputs import access as module
from lorgnette.inputs import image_io
from lorgnette.inputs.access import OWN_HAND, Access, AccessError, ByteBudget, is_public, read_file, within
from lorgnette.inputs.downloader import fetch

STRANGE = [
    *("127.0.0.1", "127.255.255.254", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
    *("100.64.0.1", "192.0.0.8", "198.18.0.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "2001::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b:1::1"),
    *("3fff::1", "100::1", "", "no address"),
]


@pytest.mark.parametrize("address", STRANGE)
def test_addresses_that_are_not_public(address: str):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808"]
)
def test_public_addresses(address: str):
    assert is_public(address)


class Server:
    """Answers each connection by a function of the socket and the path that was asked for."""

    def __init__(self, answer: Callable[[socket.socket, str], None]) -> None:
        self.asked: list[str] = []
        self.answer = answer
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                one, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(one,), daemon=True).start()

    def _one(self, one: socket.socket) -> None:
        with one:
            try:
                path = one.recv(65536).split(b" ")[1].decode()
                self.asked.append(path)
                self.answer(one, path)
            except (OSError, IndexError):
                self.asked.append("gone")


def drip(one: socket.socket, start: bytes) -> None:
    one.sendall(start)
    while True:
        one.sendall(b"a")
        time.sleep(0.02)


def answer(one: socket.socket, path: str) -> None:
    ok = b"HTTP/1.1 200 OK\r\n"
    if path.startswith("/to?"):
        one.sendall(b"HTTP/1.1 302 Found\r\nLocation: %s\r\n\r\n" % path[4:].encode())
    elif path == "/loop":
        one.sendall(b"HTTP/1.1 302 Found\r\nLocation: /loop\r\n\r\n")
    elif path == "/header":
        drip(one, ok + b"X-Slow: ")
    elif path == "/status":
        drip(one, b"HTTP/1.1 ")
    elif path == "/body":
        drip(one, ok + b"\r\n")
    elif path == "/chunks":
        drip(one, ok + b"Transfer-Encoding: chunked\r\n\r\n")
    elif path == "/silent":
        time.sleep(1)
    elif path == "/endless":
        one.sendall(ok + b"\r\n" + bytes(3 * 2**20))
    elif path == "/says":
        one.sendall(ok + b"Content-Length: 99999999999\r\n\r\n")
    elif path == "/cut":
        one.sendall(ok + b"Content-Length: 10\r\n\r\nabc")
    elif path == "/chunked":
        one.sendall(ok + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
    else:
        one.sendall(ok + b"Content-Length: 4\r\n\r\nhere")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server(answer)
    yield made
    made.socket.close()


def url(server: Server, path: str = "/", host: str = "127.0.0.1") -> str:
    return f"http://{host}:{server.port}{path}"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0"]
)
def test_data_is_not_fetched_from_this_machine_under_any_name(server: Server, host: str):
    before = len(server.asked)
    with pytest.raises(AccessError, match=r"no public address; list the host in `allow_hosts`"):
        fetch(url(server, host=host), Access(), 2)
    assert len(server.asked) == before
    assert fetch(url(server, host=host), Access(hosts=frozenset({host})), 2) == b"here"
    assert fetch(url(server, host=host), Access(hosts=frozenset({f"{host}:{server.port}"})), 2) == b"here"
    assert fetch(url(server, host=host), OWN_HAND, 2) == b"here"


@pytest.mark.parametrize("host", ["[::1]", "[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "[fe80::1]"])
def test_no_connection_is_tried_to_private_addresses(host: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: pytest.fail("connected"))
    with pytest.raises(AccessError, match="no public address"):
        fetch(f"http://{host}/latest/meta-data", Access(), 2)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://localhost:1/", "no public address"),
        ("//169.254.169.254/latest", "no public address"),
        ("file:///etc/hostname", "not an http or https address"),
        ("ftp://127.0.0.1/a", "not an http or https address"),
        ("http://[", "no address"),
        ("http://u:p@127.0.0.1/", "password"),
        ("", "more than 10 times"),
    ],
)
def test_each_redirect_is_checked(server: Server, target: str, reason: str):
    policy = Access(hosts=frozenset({"127.0.0.1"}))
    with pytest.raises(AccessError, match=reason):
        fetch(url(server, f"/to?{target}" if target else "/loop"), policy, 2)
    assert fetch(url(server, "/to?/here"), policy, 2) == b"here"


def names(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Makes `picture.example` mean these addresses, at the first question, the second ...; gives what was asked."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: int, *more: Any, **about: Any) -> Any:
        if host != "picture.example":
            return real(host, port, *more, **about)
        if about.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_every_address_of_a_name_must_be_public(monkeypatch: pytest.MonkeyPatch):
    names(monkeypatch, ["8.8.8.8", "127.0.0.1"])
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: pytest.fail("connected"))
    with pytest.raises(AccessError, match=r"picture.example is at 127.0.0.1"):
        fetch("http://picture.example/", Access(), 2)


def test_the_address_that_was_checked_is_connected_to(monkeypatch: pytest.MonkeyPatch):
    """A name that means another address a moment later (DNS rebinding) gains nothing: it is asked for once."""
    asked, connected = names(monkeypatch, ["8.8.8.8"], ["127.0.0.1"]), []

    def connect(plain: socket.socket, place: Any) -> None:
        connected.append(place)
        raise ConnectionRefusedError("closed")

    monkeypatch.setattr(socket.socket, "connect", connect)
    with pytest.raises(AccessError, match="closed"):
        fetch("http://picture.example/", Access(), 2)
    assert asked == ["picture.example"] and connected == [("8.8.8.8", 80)]


def test_a_name_that_is_resolved_for_ever_is_given_up(monkeypatch: pytest.MonkeyPatch):
    def resolve(host: str, port: int, *more: Any, **about: Any) -> Any:
        if about.get("flags"):
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        threading.Event().wait(3)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    start = time.monotonic()
    with pytest.raises(AccessError, match=r"longer than 0.2 seconds"):
        fetch("http://picture.example/", Access(), 0.2)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("path", ["/header", "/status", "/body", "/chunks", "/silent"])
def test_one_deadline_counts_for_everything(server: Server, path: str):
    start = time.monotonic()
    with pytest.raises(AccessError, match=r"takes longer than 0.3 seconds"):
        fetch(url(server, path), OWN_HAND, 0.3)
    assert time.monotonic() - start < 2


def test_a_handshake_without_end_is_given_up(server: Server):
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(AccessError, match=r"longer than 0.3 seconds"):
        fetch(f"https://127.0.0.1:{silent.getsockname()[1]}/", OWN_HAND, 0.3)


@pytest.mark.parametrize("path", ["/endless", "/says"])
def test_answers_without_end_are_refused(server: Server, path: str):
    with pytest.raises(AccessError, match="exceeds 1 MiB"):
        fetch(url(server, path), OWN_HAND, 5, 2**20)


def test_answers_are_read_whole_or_not_at_all(server: Server):
    assert fetch(url(server, "/chunked"), OWN_HAND, 2) == b"abcdef"
    with pytest.raises(AccessError) as caught:
        fetch(url(server, "/cut"), OWN_HAND, 2)
    assert caught.value.passing


@pytest.mark.parametrize("path", ["/header", "/status"])
def test_an_image_of_a_slow_server_is_given_up(server: Server, path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(image_io, "DOWNLOAD_SECONDS", 0.3)
    with pytest.raises(ImageError, match=r"longer than 0.3 seconds"):
        image_io.open_image(url(server, path))


def test_a_proxy_of_the_environment_is_for_the_users_own_addresses(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", url(server))
    monkeypatch.delenv("no_proxy", raising=False)
    assert fetch("http://picture.example/by/proxy", OWN_HAND, 2) == b"here"
    assert server.asked[-1] == "http://picture.example/by/proxy"
    names(monkeypatch, ["127.0.0.1"])
    with pytest.raises(AccessError, match="no public address"):
        fetch("http://picture.example/by/proxy", Access(), 2)
    assert fetch("http://picture.example/by/proxy", Access(proxy=True), 2) == b"here"


# Paths


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with one image, and a secret beside it."""
    (tmp_path / "source" / "images").mkdir(parents=True)
    (tmp_path / "source" / "images" / "a.png").write_bytes(b"picture")
    (tmp_path / "sourcery").mkdir()
    (tmp_path / "secret").write_text("key")
    (tmp_path / "sourcery" / "secret").write_text("key")
    os.symlink(tmp_path / "secret", tmp_path / "source" / "link.png")
    os.symlink(tmp_path, tmp_path / "source" / "up")
    os.symlink("images/a.png", tmp_path / "source" / "inner.png")
    os.symlink("/nowhere", tmp_path / "source" / "dangling.png")
    os.symlink("self.png", tmp_path / "source" / "self.png")
    os.mkfifo(tmp_path / "source" / "fifo.png")
    return tmp_path / "source"


@pytest.mark.parametrize("name", ["images/a.png", "./images/../images/a.png", "inner.png", "images//a.png"])
def test_files_below_the_root_are_found(source: Path, name: str):
    policy = Access((str(source),))
    assert policy.path(name, str(source)).read_bytes() == b"picture"
    assert policy.path(str(source / name)).read_bytes() == b"picture"
    assert policy.path(f"../{name}", str(source / "images")).read_bytes() == b"picture"


@pytest.mark.parametrize(
    "name",
    [
        *("../secret", "../sourcery/secret", "images/../../secret", "link.png", "up/secret", "/etc/hostname"),
        *("/proc/self/environ", "/dev/zero", "up/../../etc/hostname", "fifo.png", "images", "", "."),
        *("dangling.png", "self.png", "%2e%2e/secret", "..\\secret", "C:\\secret", "\\\\host\\share", "C:/secret"),
        *("a\x00b", "x" * 300, "x/" * 5000, "\ud800", "nothing.png", "~/secret", "/../../etc/hostname"),
    ],
)
def test_what_data_may_not_name_is_refused(source: Path, name: str):
    with pytest.raises(AccessError) as caught:
        Access((str(source),)).path(name, str(source))
    assert len(str(caught.value)) < 500


def test_outside_is_read_if_it_is_allowed(source: Path):
    assert Access((str(source),), any_path=True).path("../secret", str(source)).read_text() == "key"
    assert Access((str(source), str(source.parent / "sourcery"))).path("../sourcery/secret", str(source)).exists()
    with pytest.raises(AccessError, match="operating system"):
        Access((str(source),), any_path=True).path("/proc/self/environ", str(source))
    with pytest.raises(AccessError, match=r"`image_folder`.*`allow_outside: true`"):
        Access((str(source),)).path("../secret", str(source))


def test_only_regular_files_of_a_size_are_read(source: Path):
    with pytest.raises(AccessError, match="regular file"):
        read_file(source / "fifo.png")
    with pytest.raises(AccessError, match="regular file"):
        read_file("/dev/zero", 10)
    with pytest.raises(AccessError, match="more than 0 MiB"):
        read_file(source / "images" / "a.png", 6)
    assert read_file(source / "images" / "a.png", 7) == b"picture"


@pytest.mark.parametrize(
    "link",
    [
        *("file:///etc/hostname", "local:///etc/hostname", "filecache::file:///etc/hostname", "s3://bucket/key"),
        *("simplecache::s3://b/k", "s3://b/k::file:///etc/hostname", "S3x://b", "memory://a", "simplecache::http://x/"),
    ],
)
def test_schemes_are_refused_unless_they_are_listed(link: str):
    with pytest.raises(AccessError, match="allow_schemes"):
        Access(schemes=frozenset({"s3"} - ({"s3"} if link == "s3://bucket/key" else set()))).check_scheme(link)
    every = frozenset({"file", "local", "filecache", "s3", "simplecache", "s3x", "memory", "http"})
    assert Access(schemes=every).check_scheme(link) is None


def test_threads_share_a_budget_of_bytes():
    budget, most, held, lock = ByteBudget(100), [0], [0], threading.Lock()
    two_at_once = threading.Barrier(2, timeout=30)

    def work(size: int) -> None:
        with budget.hold(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
            two_at_once.wait()  # each waits inside for another
            with lock:
                held[0] -= size

    threads = [threading.Thread(target=work, args=(40,)) for _ in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most[0] == 80
    with budget.hold(1000), pytest.raises(TimeoutError), budget.hold(1, time.monotonic() + 0.05):
        pytest.fail("held beyond the budget")


def test_what_runs_within_seconds_gives_its_result_or_its_error():
    assert within(5, max, 1, 2) == 2
    with pytest.raises(ValueError, match="abc"):
        within(5, int, "abc")
    with pytest.raises(TimeoutError):
        within(0.05, threading.Event().wait, 2)
    assert module.SECONDS == 30.0
