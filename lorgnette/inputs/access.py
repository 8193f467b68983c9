"""Access to paths and addresses: rules for what data may name, and one reader of files.

A path or an address comes from the user's own hand (the command line, a setting, Python) or out of data that somebody
else made (a row, a page, an archive, a request). `OWN_HAND` is the policy of the first; every source of data has an
`Access` of its own, made of its settings, for what its rows and pages name.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import queue
import re
import socket
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lorgnette.errors import DataError
from lorgnette.untrusted import quoted, reason_of

SECONDS = 30.0
"""The whole of a fetch: resolution, connection, TLS, headers, body and redirects."""
MOST_BYTES = 64 * 2**20
"""Bytes of a file or answer that data names."""
UNREAL = ("/proc", "/sys", "/dev")
"""Folders whose files are the state of the machine. Data never names one, whatever the settings allow."""
OTHER_MACHINE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
"""Absolute paths of Windows: a drive, or a share of the network."""

GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""The public addresses of IPv6; all others are local, reserved or translated."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20")))
"""Networks of protocols and documentation that some versions of `ipaddress` call global."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Found = TypeVar("_Found")


class AccessError(DataError):
    """A path or address that may not be used, or that cannot be read. passing: whether another try may succeed."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


class CheckedPath(type(Path())):  # type: ignore[misc]  # the class of the platform
    """A real path that a policy has allowed. `read_file` refuses it once a symbolic link stands somewhere in it."""


@dataclass(frozen=True, slots=True)
class Access:
    """A policy for paths and addresses. The defaults are those for data of somebody else."""

    roots: tuple[str, ...] = ()
    """Folders below which files may be read, once symbolic links are resolved."""
    hosts: frozenset[str] = frozenset()
    """Hosts (`name` or `name:port`) that may be fetched from though their addresses are not public."""
    schemes: frozenset[str] = frozenset()
    """Schemes of URLs beside http and https, for fsspec to open."""
    ports: frozenset[int] = frozenset()
    """Ports that may be connected to; none named for all."""
    any_path: bool = False
    any_address: bool = False
    proxy: bool = False
    """Use the proxy that the environment names. It resolves names itself, so addresses cannot be checked."""
    has_settings: bool = True
    """True if settings of the user can allow more; errors then name these settings."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "roots", tuple(map(os.path.realpath, self.roots)))

    def advised(self, reason: str, advice: str) -> AccessError:
        """A refusal, with the setting that would allow it where there are settings."""
        return AccessError(f"{reason}; {advice}" if self.has_settings else reason)

    def path(self, name: str, folder: str = "") -> Path:
        """The real path of a regular file that data names, from `folder` if it is relative.

        Raises: AccessError if there is none, if it lies outside of what may be read, or is a device, pipe or socket.
        """
        if not self.any_path and OTHER_MACHINE.match(name):
            raise AccessError(f"{quoted(name)} is a path of another machine; write it relative to the file that has it")
        try:
            real = os.path.realpath(os.path.join(folder, name))
            kind = os.stat(real).st_mode
        except FileNotFoundError:
            kind = 0
        except (OSError, ValueError) as error:  # a null character, or a name longer than file systems take
            raise AccessError(f"{quoted(name)} is no path ({reason_of(error)})") from None
        if self is not OWN_HAND:
            self._check_inside(real, name)
        if not kind:
            raise AccessError(f"{quoted(os.path.join(folder, name))}, which does not exist")
        if not stat.S_ISREG(kind):
            raise AccessError(f"{quoted(name)} is not a regular file")
        return Path(real) if self is OWN_HAND else CheckedPath(real)

    def _check_inside(self, real: str, name: str) -> None:
        if any(is_below(real, folder) for folder in UNREAL):
            raise AccessError(f"{quoted(name)} is a file of the operating system")
        if not self.any_path and not any(is_below(real, root) for root in self.roots):
            raise self.advised(
                f"{quoted(name)} leads outside of the source's folder",
                "set `image_folder` to the folder of the images, or `allow_outside: true` if you trust the source",
            )

    def check_scheme(self, url: str) -> None:
        """Raises: AccessError unless each scheme of a URL (`simplecache::s3://...` has two) is allowed."""
        for part in (link.partition("://")[0].lower() for link in url.split("::")):
            if self is not OWN_HAND and part not in self.schemes:
                raise self.advised(
                    f"{quoted(url)}, and data may name http and https alone",
                    f"list {quoted(part, 40)!r} in `allow_schemes` to open it with your credentials",
                )

    def addresses(self, host: str, port: int, deadline: float) -> list[Any]:
        """Resolve a host, as `socket.getaddrinfo` does; exactly these addresses are to be connected to.

        Raises: AccessError if it cannot be resolved in time, or one of its addresses may not be used.
        """
        if self.ports and port not in self.ports:
            raise AccessError(f"port {port} may not be connected to")
        found = _resolve(host, port, deadline)
        allowed = self.any_address or not self.hosts.isdisjoint({host.lower().rstrip("."), f"{host.lower()}:{port}"})
        for *_, place in found:
            if not allowed and not is_public(place[0]):
                raise self.advised(
                    f"{quoted(host)} is at {place[0]}, which is no public address", "list the host in `allow_hosts`"
                )
        return found


OWN_HAND = Access(any_path=True, any_address=True, proxy=True)
"""The policy for what the user names: any path, any address."""


_BUDGETS: weakref.WeakSet[ByteBudget] = weakref.WeakSet()


class ByteBudget:
    """Bytes that threads may hold at the same time, all of them together."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.reset()
        _BUDGETS.add(self)

    def reset(self) -> None:
        """Give all bytes back: for a forked process, in which the threads that had them do not exist."""
        self._held = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, size: int, deadline: float | None = None) -> Iterator[None]:
        """Waits until `size` bytes are free, or nothing is held at all: what exceeds the total goes by itself.

        Raises: TimeoutError at the deadline, a time of `time.monotonic`.
        """
        with self._changed:
            left = None if deadline is None else time_left(deadline)
            if not self._changed.wait_for(lambda: not self._held or self._held + size <= self.total, left):
                raise TimeoutError
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


def _reset_budgets() -> None:
    for budget in _BUDGETS:
        budget.reset()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_reset_budgets)


def is_link(path: str) -> bool:
    """Return whether a string is an http(s) address."""
    return path.lower().startswith(("http://", "https://"))


def is_below(path: str, folder: str) -> bool:
    """Return whether a real path is a folder or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def is_public(address: str) -> bool:
    """Return whether an address is one of the public internet, also the one that is embedded in an IPv6 address."""
    try:
        ip: Address = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in NAT64 else None)
        if inner is not None:
            return is_public(str(inner))
        if ip not in GLOBAL_V6:
            return False
    special = ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified
    return ip.is_global and not special and not any(ip in network for network in NOT_PUBLIC)


def read_file(path: str | Path, most_bytes: int | None = None) -> bytes:
    """The content of a regular file. A pipe or device is never waited for.

    Raises: AccessError for another kind of file, one of more than `most_bytes`, or a `CheckedPath` that leads
        elsewhere by now; OSError if it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            raise AccessError(f"{quoted(str(path))} is not a regular file")
        if isinstance(path, CheckedPath) and not _is_still(path, opened):
            raise AccessError(f"{quoted(str(path))} has become a link since it was looked at")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read() if most_bytes is None else file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if most_bytes is not None and len(content) > most_bytes:
        raise AccessError(f"{quoted(str(path))} has more than {most_bytes >> 20} MiB")
    return content


def _is_still(path: Path, opened: os.stat_result) -> bool:
    """Return whether a real path is one still, and leads to the file that was opened."""
    return os.path.realpath(path) == str(path) and os.path.samestat(os.lstat(path), opened)


def within(seconds: float, function: Callable[..., _Found], *arguments: Any) -> _Found:
    """Call a function in a thread and return its result. Raises: TimeoutError when the time is up, and leaves it."""
    done: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            done.put((True, function(*arguments)))
        except BaseException as error:
            done.put((False, error))

    threading.Thread(target=work, name="within", daemon=True).start()
    try:
        ended, result = done.get(timeout=max(0.0, seconds))
    except queue.Empty:
        raise TimeoutError(f"no end within {seconds:.3g} seconds") from None
    if not ended:
        raise result
    found: _Found = result
    return found


def _resolve(host: str, port: int, deadline: float) -> list[Any]:
    """Raises: AccessError, TimeoutError."""
    try:
        with contextlib.suppress(socket.gaierror):  # digits in any form (127.1, 0x7f000001) need no server of names
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return within(time_left(deadline), socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
    except UnicodeError:
        raise AccessError(f"{quoted(host)} is no name of a host") from None
    except socket.gaierror as error:
        raise AccessError(f"{quoted(host)}: {reason_of(error)}", passing=error.errno == socket.EAI_AGAIN) from None


def time_left(deadline: float) -> float:
    """Seconds until a deadline. Raises: TimeoutError if there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
