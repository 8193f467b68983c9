"""Libraries that this computer's C compiler makes of sources in the package, kept in the user's cache."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

from lorgnette.errors import SettingsError
from lorgnette.files import explain_disk, new_file, user_cache

FLAGS = ("-march=native", "-mprefer-vector-width=512", "-fopenmp-simd")
"""Of these, the ones that a compiler does not know are left out, such as Clang's on Apple silicon."""
ALWAYS = ("-std=gnu11", "-O3", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")


@cache
def c_library(source: Path) -> ctypes.CDLL:
    """Compile a source, unless this computer has done so before, and open the library.

    Raises: SettingsError where there is no C compiler, or where it fails; DiskError where the cache cannot be written.
    """
    compiler = find_compiler()
    path = user_cache() / "compiled" / f"{source.stem}-{_key(source, compiler)}.so"
    if not path.is_file():
        with new_file(path) as beside:
            _compile(compiler, source, beside)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise SettingsError(f"compile: {path} cannot be opened ({error}); remove it, or leave out compile") from error


def find_compiler() -> list[str]:
    """The C compiler's command: what `CC` in the environment says, or cc, gcc or clang. Raises: SettingsError."""
    given = shlex.split(os.environ.get("CC", ""))
    for words in [given] if given else [["cc"], ["gcc"], ["clang"]]:
        found = shutil.which(words[0])
        if found is not None:
            return [found, *words[1:]]
    raise SettingsError(
        f"compile: needs a C compiler, and {'CC is ' + shlex.join(given) if given else 'cc, gcc and clang are'} not on"
        " this computer; install one (apt install gcc, or xcode-select --install), or leave out compile"
    )


def _compile(compiler: list[str], source: Path, target: Path) -> None:
    """Try with OpenMP and all flags first, then with fewer: what a compiler does not know, it refuses."""
    complaint = ""
    for flags in ((*FLAGS, "-fopenmp"), FLAGS, ("-march=native",), ()):
        done = subprocess.run(
            [*compiler, *ALWAYS, *flags, str(source), "-o", str(target), "-lm"], capture_output=True, text=True
        )
        if not done.returncode:
            return
        complaint = complaint or next(iter(done.stderr.splitlines()), f"exit status {done.returncode}")
    raise SettingsError(f"compile: {shlex.join(compiler)} cannot compile {source.name}: {complaint}; leave out compile")


def _key(source: Path, compiler: list[str]) -> str:
    """Digest of all that the library depends on: the source, the compiler, and the processor that it is made for."""
    with explain_disk(source):
        text = source.read_bytes()
    version = subprocess.run([*compiler, "--version"], capture_output=True).stdout
    parts = (text, version, shlex.join(compiler).encode(), repr((FLAGS, ALWAYS)).encode(), _processor().encode())
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _processor() -> str:
    """The processor's kind and its instruction sets: a home folder may be shared by computers that differ."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(errors="replace").splitlines() if about.is_file() else []
    kinds = ("model name", "flags", "Features", "CPU part")
    found = {line for line in lines if line.startswith(kinds)}
    return "\n".join((platform.machine(), platform.processor(), *sorted(found)))
