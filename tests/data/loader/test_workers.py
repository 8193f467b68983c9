"""The loader: the same steps for any number of workers, from any step on, and after a worker or all was killed."""

import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time

import pytest

from lorgnette.data.config import LoaderConfig
from lorgnette.data.loader.workers import LoaderError, read_steps
from lorgnette.data.plan.sample_ref import digest_of
from lorgnette.errors import DataError
from tests.data.loader.test_batches import prepared_again, same
from tests.data.squares import prepared, steps_of

STEPS = 8


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return prepared(tmp_path_factory.mktemp("data") / "squares")


def workers(number: int) -> LoaderConfig:
    return LoaderConfig(workers=number, prefetch=2)


@pytest.mark.parametrize("number", [1, 4])
def test_the_number_of_workers_changes_nothing(squares, number):
    steps = steps_of(squares)
    alone = list(read_steps(steps, 0, STEPS, workers(0)))
    assert [len(batches) for batches in alone] == [6] * STEPS
    read = list(read_steps(steps_of(squares), 0, STEPS, workers(number)))
    assert all(same(ours, theirs) for ours, theirs in zip(read, alone, strict=True))
    for step, batches in enumerate(read):
        assert digest_of(ref for batch in batches for ref in batch.refs) == steps.plan.digest(step)


@pytest.mark.parametrize("first", [1, 5, 7])
def test_going_on_at_any_step_gives_the_same(squares, first):
    whole = list(read_steps(steps_of(squares), 0, STEPS, workers(0)))
    rest = list(read_steps(steps_of(squares), first, STEPS, workers(2)))
    assert all(same(ours, theirs) for ours, theirs in zip(rest, whole[first:], strict=True))


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_with_workers_read_their_share(squares, world):
    whole = list(read_steps(steps_of(squares), 0, 3, workers(0)))
    for rank in range(world):
        mine = list(read_steps(steps_of(squares, rank, world), 0, 3, workers(2)))
        assert all(same(ours, theirs[rank::world]) for ours, theirs in zip(mine, whole, strict=True))


def children() -> list[int]:
    listed = subprocess.run(["pgrep", "-P", str(os.getpid())], capture_output=True, text=True).stdout
    return [int(one) for one in listed.split()]


@pytest.mark.parametrize("after", [0.0, 0.5], ids=["at work", "idle"])
@pytest.mark.timeout(60)
def test_killed_workers_are_replaced_and_nothing_is_lost_or_doubled(squares, after):
    whole = list(read_steps(steps_of(squares), 0, STEPS, workers(0)))
    before, read = set(children()), []
    for batches in read_steps(steps_of(squares), 0, STEPS, workers(2)):
        read.append(batches)
        if len(read) in (1, 4):
            time.sleep(after)
            for child in set(children()) - before if len(read) == 4 else [max(set(children()) - before)]:
                os.kill(child, signal.SIGKILL)
    assert all(same(ours, theirs) for ours, theirs in zip(read, whole, strict=True))
    assert not set(children()) - before


class KilledOnce:
    """Steps of which one worker is killed once: while it computes, or in the midst of sending what it made."""

    def __init__(self, steps, mark, sending):
        self.steps, self.mark, self.sending, self.parts = steps, mark, sending, steps.parts

    def part(self, step, part):
        if step == 3 and not self.mark.exists():
            self.mark.touch()

            def half(connection, sent, *_):
                os.write(connection.fileno(), bytes(sent)[: max(5, len(sent) // 2)])
                os.kill(os.getpid(), signal.SIGKILL)

            if not self.sending:
                os.kill(os.getpid(), signal.SIGKILL)
            multiprocessing.connection.Connection._send = half
        return self.steps.part(step, part)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("sending", [False, True], ids=["computing", "sending"])
@pytest.mark.timeout(60)
def test_a_worker_that_is_killed_once_hangs_nothing(squares, tmp_path, number, sending):
    whole = list(read_steps(steps_of(squares), 0, STEPS, workers(0)))
    steps = KilledOnce(steps_of(squares), tmp_path / "killed", sending)
    read = list(read_steps(steps, 0, STEPS, workers(number)))
    assert (tmp_path / "killed").exists()
    assert all(same(ours, theirs) for ours, theirs in zip(read, whole, strict=True))


class Deadly:
    """Steps in the making of which a worker dies."""

    parts = 1

    def part(self, step, part):
        os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_are_killed_at_the_same_step_twice_end_the_run():
    with pytest.raises(LoaderError, match=r"killed twice while building step 3.*lower loader\.workers"):
        list(read_steps(Deadly(), 3, 9, workers(1)))


@pytest.mark.parametrize("number", [0, 1])
def test_an_error_of_a_sample_reaches_the_reader_as_its_own_sentence(tmp_path, number):
    source = prepared(tmp_path / "squares")
    (tmp_path / "squares" / "0.parquet").unlink()
    with pytest.raises(DataError, match=r"no sample of pack 0 can be used.*no such file"):
        list(read_steps(steps_of(prepared_again(source)), 0, 1, workers(number)))


class Awkward(Exception):
    """Cannot be made again from its text alone, as what travels between processes must."""

    def __init__(self, name, reason):
        super().__init__(f"{name}: {reason}")


class Failing:
    """Steps that cannot be made, from the second on."""

    parts = 1

    def __init__(self, steps, error):
        self.steps, self.error = steps, error

    def part(self, step, part):
        if step:
            raise self.error
        return self.steps.part(step, part)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(DataError("row 7 is no picture"), DataError), (KeyError("width"), KeyError), (Awkward("a", "b"), LoaderError)],
)
@pytest.mark.timeout(60)
def test_an_error_has_its_type_its_text_and_its_turn(squares, error, expected):
    reader = read_steps(Failing(steps_of(squares), error), 0, 4, workers(2))
    next(reader)
    with pytest.raises(expected) as caught:
        next(reader)
    assert str(error) in str(caught.value)
    if expected is type(error):
        assert str(caught.value) == str(error)
        assert any("raise self.error" in note for note in caught.value.__notes__), "where it arose is told"


@pytest.mark.timeout(120)
def test_without_fork_workers_are_spawned(squares, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    whole = list(read_steps(steps_of(squares), 0, 2, workers(0)))
    read = list(read_steps(steps_of(squares), 0, 2, workers(1)))
    assert all(same(ours, theirs) for ours, theirs in zip(read, whole, strict=True))


def test_ctrl_c_is_left_to_the_reader(squares):
    before, read = set(children()), []
    for batches in read_steps(steps_of(squares), 0, STEPS, workers(2)):
        read.append(batches)
        if len(read) == 2:
            started = set(children()) - before
            for child in started:
                os.kill(child, signal.SIGINT)
            time.sleep(0.2)
            assert started <= set(children())
    assert len(read) == STEPS


def test_a_reader_that_stops_early_leaves_no_worker(squares):
    before = set(children())
    reader = read_steps(steps_of(squares), 0, STEPS, workers(2))
    next(reader)
    assert set(children()) - before
    reader.close()
    assert not set(children()) - before


READ = """
import sys
from lorgnette.data.loader.workers import read_steps
from tests.data.squares import prepared, steps_of
from tests.data.loader.test_workers import workers
from lorgnette.data.plan.sample_ref import digest_of
from pathlib import Path
for batches in read_steps(steps_of(prepared(Path(sys.argv[1]))), int(sys.argv[2]), 200, workers(2)):
    print(digest_of(ref for batch in batches for ref in batch.refs), flush=True)
"""


def test_killed_as_a_whole_it_leaves_no_worker_and_goes_on_where_it_was(tmp_path):
    plan = steps_of(prepared(tmp_path / "squares")).plan
    command = [sys.executable, "-c", READ, str(tmp_path / "squares")]
    with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, text=True) as process:
        read = [process.stdout.readline().strip() for _ in range(3)]
        listed = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        process.kill()
    deadline = time.time() + 20
    while any(os.path.exists(f"/proc/{one}") for one in listed) and time.time() < deadline:
        time.sleep(0.1)
    assert len(listed) >= 2 and not any(os.path.exists(f"/proc/{one}") for one in listed), "workers were left behind"
    with subprocess.Popen([*command, "3"], stdout=subprocess.PIPE, text=True) as process:
        read += [process.stdout.readline().strip() for _ in range(3)]
        process.kill()
    assert read == [plan.digest(step) for step in range(6)]
