import errno
import functools
import os
import platform
import random
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from lorgnette import files, leftovers
from lorgnette.errors import LorgnetteError
from lorgnette.files import (
    PAGE_MARK,
    DiskError,
    expand_user,
    hold,
    is_own_page,
    new_file,
    new_folder,
    replace_text,
    user_cache,
    write_json,
    write_text,
)

ANY = ("*", "*/")
any_folder = functools.partial(new_folder, ours=ANY)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    write_text(target, "first")
    with pytest.raises(RuntimeError), new_file(target) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("exchanges", [True, False], ids=["the system can exchange names", "it cannot"])
def test_a_folder_takes_the_place_of_the_old_one(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(leftovers, "exchange", lambda one, other: False)
    target = tmp_path / "model"
    for text in ("one", "two"):
        with new_folder(target, ANY) as beside:
            (beside / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), any_folder(target) as beside:
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EIO, "cannot be written")],
)
def test_a_disk_that_refuses_is_one_sentence(tmp_path, number, expected):
    with pytest.raises(DiskError, match=expected), new_file(tmp_path / "a"):
        raise OSError(number, "reason")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_met_for_real():
    with pytest.raises(DiskError, match="disk is full"), new_file("/dev/full") as beside:
        with open("/dev/full", "w") as full:
            full.write("x")
        beside.touch()


def test_json_refuses_what_is_not_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def killed_writer(target, program, when=""):
    """A process that is killed by SIGKILL in the midst of writing `target`; returns what it left beside it."""
    code = f"""
import os, sys, pathlib
from lorgnette import files, leftovers
target = pathlib.Path(sys.argv[1])
{program}
"""
    ended = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return sorted(path.name for path in target.parent.iterdir() if path != target)


KILL = "os.kill(os.getpid(), 9)"
IN_FILE = f"with files.new_file(target) as beside:\n    beside.write_text('half')\n    {KILL}"
IN_FOLDER = f"with files.new_folder(target, ['*']) as beside:\n    (beside / 'half').write_text('')\n    {KILL}"


@pytest.mark.parametrize("name", ["out", "a.b.c", "[x]*?", "line\nbreak", "bad\udcff\udcfe", "x" * 250, "é" * 120])
def test_what_a_killed_writer_left_is_removed_by_the_next_and_said(tmp_path, name, capfd):
    target = tmp_path / name
    for program, write in ((IN_FILE, new_file), (IN_FOLDER, any_folder)):
        assert len(killed_writer(target, program)) == 1
        files._cleared.clear()
        with write(target) as beside:
            beside.write_text("whole") if write is new_file else (beside / "whole").touch()
        assert [path.name for path in tmp_path.iterdir()] == [name]
        said = capfd.readouterr().err
        assert said.count("left half written") == 1
        leftovers.remove(target)


def test_what_is_not_left_by_a_killed_writer_of_ours_stays(tmp_path):
    ours = leftovers.beside(tmp_path / "out").name
    _, host, machine, _, began, _ = ours.rsplit(".", 5)
    dead = str(subprocess.Popen([sys.executable, "-c", ""]).pid + 10**6)
    stay = [
        ours,  # this very process writes it
        f".out.{host}.{machine}.{os.getppid()}.{leftovers._began(os.getppid())}.tmp",
        f".out.elsewhere.{machine}.{dead}.{began}.tmp",  # another machine's, and new
        f".out.{host}.00000000.{dead}.{began}.tmp",
        f".out.{host}.{machine}.{dead}.{began}.tmpx",
        f"out.{host}.{machine}.{dead}.{began}.tmp",
        f".out.{host}.{machine}.x{dead}.{began}.tmp",
        ".out.tmp", ".out.old", ".tmp", "out.tmp", ".out.backup.123.tmp", f".out.{platform.node()}.{dead}.tmp",
    ]  # fmt: skip
    go = [
        f".out.{host}.{machine}.{dead}.{began}.tmp",
        f".out.{host}.{machine}.{os.getpid()}.{int(began) + 1}.tmp",  # our number, but another process had it
        f".other.{host}.{machine}.{dead}.{began}.old",
        f".out.elsewhere.{machine}.{dead}.7.tmp",  # changed below to have been written two days ago
        f".later.{platform.node()}.{dead}.tmp",
    ]
    (tmp_path / "other").touch()
    for name in (*stay, *go):
        (tmp_path / name).mkdir() if name.endswith("old") else (tmp_path / name).touch()
    for name in go[-2:]:
        os.utime(tmp_path / name, (time.time() - 2 * leftovers.DAY,) * 2)
    assert len(list(leftovers.clear(tmp_path))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["other", *stay])


def test_a_folder_of_another_machine_that_is_still_filled_stays(tmp_path):
    left = tmp_path / ".out.elsewhere.00000000.1.1.tmp"
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "new").touch()
    for path in (left, left / "deep"):
        os.utime(path, (time.time() - 2 * leftovers.DAY,) * 2)
    assert not list(leftovers.clear(tmp_path)) and left.exists()
    os.utime(left / "deep" / "new", (time.time() - 2 * leftovers.DAY,) * 2)
    assert list(leftovers.clear(tmp_path)) and not left.exists()


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_is_never_missing_for_long(tmp_path, exchanged, capfd):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").touch()
    program = IN_FOLDER.replace(KILL, "pass") + f"\n{KILL}"
    if not exchanged:  # killed between the two renames that are needed then
        renames = f"replace = os.replace\nos.replace = lambda *a: (replace(*a), {KILL})"
        program = f"leftovers.exchange = lambda *_: False\n{renames}\n{program}"
    killed_writer(target, program)
    assert target.exists() == exchanged
    with new_folder(tmp_path / "another", ()):
        pass
    assert [path.name for path in target.iterdir()] == ["half" if exchanged else "old"]
    assert ("put back" in capfd.readouterr().err) != exchanged
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "model"]


def test_a_link_to_a_folder_is_replaced_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "kept").touch()
    (tmp_path / "link").symlink_to("real")
    with new_folder(tmp_path / "link", ANY) as beside:
        (beside / "new").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]
    assert (tmp_path / "link" / "new").exists() and (tmp_path / "real" / "kept").exists()


@pytest.mark.parametrize("write", [new_file, any_folder])
@pytest.mark.parametrize("length", [200, 245, 255, 256, 300, 5000])
def test_a_name_that_the_disk_does_not_take_is_one_sentence(tmp_path, write, length):
    target = tmp_path / ("x" * length)
    try:
        with write(target) as beside:
            beside.touch() if write is new_file else None
        assert length <= 255 and target.exists()
    except DiskError as error:
        assert length > 255 and "File name too long" in str(error)


HOLD = """
import sys
from lorgnette.files import hold
hold(sys.argv[1], "somebody else has it")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lock_refuses_another_process_and_ends_with_a_kill(tmp_path):
    lock = tmp_path / ".lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdin=-1, stdout=-1) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(LorgnetteError, match="somebody else has it"):
            hold(lock, "somebody else has it")
        other.kill()
    first, second = hold(lock, "refused"), hold(lock, "refused")
    first(), first()
    assert subprocess.run([sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.DEVNULL).returncode == 1
    second()
    assert subprocess.run([sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.DEVNULL).returncode == 0


def test_a_lock_of_a_killed_process_is_free_though_its_children_live(tmp_path):
    child = "import os, time\nif os.fork():\n    time.sleep(60)\n"  # the child prints
    program = HOLD.replace("print(", child + "print(").replace("sys.stdin.read()", "time.sleep(60)")
    lock = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(lock)], stdin=-1, stdout=-1, start_new_session=True
    ) as one:
        assert one.stdout.readline() == b"held\n"
        one.kill()
        one.wait()
        try:
            hold(lock, "refused")()
        finally:
            os.killpg(one.pid, signal.SIGKILL)
    assert lock.exists()


def test_without_a_home_the_cache_is_a_folder_of_ones_own(tmp_path, monkeypatch, capfd):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    files._cache_without_home.cache_clear()
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = user_cache()
    assert found.parent == tmp_path and stat.S_IMODE(found.stat().st_mode) == 0o700
    assert user_cache() == found
    assert capfd.readouterr().err.count("no home directory") == 1
    files._cache_without_home.cache_clear()
    found.chmod(0o777)
    with pytest.raises(DiskError, match="belongs to somebody else"):
        user_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    with pytest.raises(DiskError, match="belongs to somebody else"):
        user_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", "/absolute")
    assert user_cache() == Path("/absolute/lorgnette")


REPLACES = """
import pathlib, sys
from lorgnette.files import new_folder
target, number = pathlib.Path(sys.argv[1]), 0
print("begins", flush=True)
while True:
    number += 1
    with new_folder(target, ['*']) as beside:
        for name in "abc":
            (beside / name).write_text(str(number))
"""


def test_a_folder_is_whole_whenever_its_writer_is_killed_and_nothing_is_left(tmp_path, capfd):
    draw, target = random.Random(0), tmp_path / "out"
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", REPLACES, str(target)], stdout=-1) as writer:
            assert writer.stdout.readline() == b"begins\n"
            time.sleep(draw.uniform(0.02, 0.1))
            writer.kill()
        if target.exists():  # one of those that were written, and all of it
            assert len({(target / name).read_text() for name in "abc"}) == 1
    with new_folder(target, ANY) as beside:
        (beside / "last").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in target.iterdir()] == ["last"]


@pytest.mark.parametrize("ours", [(), ("a", "b.*"), ("c/",)])
def test_a_folder_with_what_no_writer_wrote_is_refused_and_stays(tmp_path, ours):
    target = tmp_path / "out"
    for name in ("notes.txt", "a.txt", "c", ".hidden"):
        target.mkdir()
        (target / name).write_text("mine")
        with pytest.raises(DiskError, match=f"holds {name}, which lorgnette did not write"), new_folder(target, ours):
            raise AssertionError("nothing is written")
        assert (target / name).read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["out"]
        (target / name).unlink()
        with pytest.raises(DiskError, match="notes"), new_folder(target, ours) as beside:
            (beside / "new").touch()
            (target / "notes").write_text("written meanwhile")
        assert [path.name for path in target.iterdir()] == ["notes"]
        (target / "notes").unlink()
        target.rmdir()


def test_a_file_is_no_folder_to_replace(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DiskError, match="is a file"), new_folder(tmp_path / "out", ANY):
        raise AssertionError("nothing is written")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_page_replaces_a_page_and_nothing_else(tmp_path):
    target, page = tmp_path / "page.html", "<head>" + PAGE_MARK.decode()
    for before in (None, "", page):
        if before is not None:
            target.write_text(before)
        replace_text(target, page + "new", is_own_page)
        assert target.read_text().endswith("new")
    target.write_text("<html>mine")
    with pytest.raises(DiskError, match="did not write"):
        replace_text(target, page, is_own_page)
    assert target.read_text() == "<html>mine"
    for other in (tmp_path, Path("/dev/null")):
        with pytest.raises(DiskError, match="is no file"):
            replace_text(other, page, is_own_page)


def test_a_path_of_a_home_that_is_not_there_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/of/one")
    assert expand_user("~/a") == Path("/of/one/a")
    assert expand_user("~nobody-of-that-name/a") == Path("~nobody-of-that-name/a")

    def fail(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", fail)
    assert expand_user("~/a") == Path("~/a")
