"""Readers of folders that lorgnette wrote, with one file mutated: runs, results of evaluations, prepared sources."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutators import encoded, mutate_bytes, mutate_json, mutate_yaml

Make = Callable[[Path], Sequence[str]]
"""Fills a folder; gives the patterns of its files that are mutated."""
Use = Callable[[Path, str], Any]
"""Uses a folder in which the file of that name is mutated, by the ways that read the file."""


@cache
def good(make: Make) -> tuple[Path, tuple[str, ...]]:
    """A good folder, written once in each process that asks, and the files of it that are mutated."""
    folder = Path(tempfile.mkdtemp(prefix="lorgnette-good-")) / "good"
    folder.mkdir()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        patterns = make(folder)
    files = {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    assert len(files) >= len(patterns), f"{make.__name__} writes none of some of {patterns}"
    return folder, tuple(sorted(file for file in files if (folder / file).is_file()))


def seeds(make: Make) -> list[bytes]:
    folder, files = good(make)
    return [f"{files[0]}\n".encode() + (folder / files[0]).read_bytes()]


def mutated(make: Make, rng: Random) -> bytes:
    """The name of a file, a line break, and its content, mutated as what it is."""
    folder, files = good(make)
    name = rng.choice(files)
    return name.encode() + b"\n" + _changed(rng, Path(name).suffix, (folder / name).read_bytes())


def _changed(rng: Random, suffix: str, content: bytes) -> bytes:
    if rng.random() < 0.15:
        return rng.choice((b"", b"\n", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 3_000, b"9" * 5_000))
    if suffix == ".json" and rng.random() < 0.8:
        return encoded(mutate_json(rng, [json.loads(content)]))
    if suffix == ".jsonl" and content.strip() and rng.random() < 0.8:
        rows = content.splitlines()
        number = rng.randrange(len(rows))
        rows[number] = encoded(mutate_json(rng, [json.loads(rows[number])]))
        return b"\n".join(rows) + b"\n"
    if suffix == ".yaml" and rng.random() < 0.8:
        import yaml

        return encoded(mutate_yaml(rng, [yaml.safe_load(content)]))
    if suffix == ".safetensors" and rng.random() < 0.7:
        length = int.from_bytes(content[:8], "little")
        head = encoded(mutate_json(rng, [json.loads(content[8 : 8 + length])]))
        return len(head).to_bytes(8, "little") + head + content[8 + length :]
    return mutate_bytes(rng, [content])


def read(make: Make, use: Use, content: bytes, folder: Path) -> None:
    """Copy the good folder, put the mutated file in its place, and use the copy."""
    name, _, changed = content.partition(b"\n")
    place = folder / "folder"
    shutil.copytree(good(make)[0], place)
    (place / name.decode()).write_bytes(changed)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        use(place, name.decode())


def evaluation(folder: Path) -> Sequence[str]:
    """Results of one task of two questions."""
    from lorgnette.data.rejected import RejectedRow
    from lorgnette.eval.metrics import Reference
    from lorgnette.eval.results.store import Example, ResultsFolder

    settings = {
        "task": "vqav2",
        "metric": "vqa_accuracy",
        "questions": 3,
        "split": "validation",
        "size": 3,
        "model": "m",
    }
    store = ResultsFolder(folder)
    store.begin(settings, {"began": "now", "torch": "2"})
    truth = Reference(("yes", "no"), ("a", "b"))
    asked = [Example(n, f"row {n}", "kind/inner", "Which?", "yes", truth, ("0" * 8,), id=str(n)) for n in range(2)]
    store.append(asked, {"0" * 8: b"picture"})
    store.reject({2: RejectedRow("row 2", "", "unreadable image")})
    store.finish(store.result())
    return ("settings.json", "summary.json", "examples.jsonl", "refused.jsonl", "sessions.jsonl")


def _use_evaluation(folder: Path, name: str) -> None:
    from lorgnette.cli.results import compare, rescore, submission
    from lorgnette.errors import LorgnetteError
    from lorgnette.eval.results import bootstrap
    from lorgnette.eval.results.store import ResultsFolder

    bootstrap.resample.__defaults__ = (20,)  # in this process, which reads inputs alone: draws take all the time
    refused: list[LorgnetteError] = []
    good_one = good(evaluation)[0]
    ways: list[Callable[[], Any]] = [
        lambda: ResultsFolder(folder).begin({"task": "vqav2", "metric": "vqa_accuracy"}),
        lambda: compare([good_one, folder], folder / "page.html", 9, None, False),
        lambda: submission(folder, folder / "out.json", True),
        lambda: rescore(folder, None, False),
        lambda: rescore(folder, None, True),
    ]
    for way in ways:
        try:
            way()
        except LorgnetteError as error:
            refused.append(error)
    if len(refused) > 1:  # the first way refuses other settings always
        raise refused[-1]


SMALL = {
    "vision": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "patch": 8, "grid": 4},
    "connector": {"projection_width": 32, "latents": 2, "depth": 1, "heads": 2, "head_width": 8, "kv_heads": 1},
    "language": {"vocabulary": 300, "width": 16, "layers": 1, "heads": 2, "kv_heads": 1, "mlp_width": 32},
}


def run(folder: Path) -> Sequence[str]:
    """A run of two steps that has not written its model, with a kept step, a log and adapters."""
    import warnings

    from rich.console import Console

    from lorgnette.inputs.config import SpecialTokens
    from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
    from lorgnette.run import Run
    from lorgnette.train.callbacks import Callback
    from lorgnette.train.checkpoint import manager
    from lorgnette.train.checkpoint.debug_step import keep_step
    from lorgnette.train.loop import Trainer

    warnings.simplefilter("ignore")
    train_tokenizer(["What colour?"] * 4, vocabulary=300, special=SpecialTokens()).save(folder / "tokenizer")
    row = {"messages": [{"role": "user", "content": "What colour?"}, {"role": "assistant", "content": "red"}]}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
    vocabulary = Tokenizer.load(folder / "tokenizer").vocabulary
    model = SMALL | {"language": SMALL["language"] | {"vocabulary": vocabulary - 3}, "image_token": vocabulary - 2}
    values = {
        "name": "small", "threads": 1, "tokenizer": {"path": str(folder / "tokenizer")},
        "images": {"shortest": 16, "longest": 32, "patch": 8, "grid": 4}, "model": model,
        "loader": {"workers": 0}, "evaluation": {"keep_best": False},
        "stages": [{
            "name": "one", "steps": 2, "pack": {"samples": 1, "packs_per_step": 1},
            "sources": [{"kind": "chat", "path": str(folder / "rows.jsonl")}],
        }],
    }  # fmt: skip

    class Keep(Callback):
        def on_step_end(self, run: Any, state: Any, metrics: Any) -> None:
            if metrics.total_step == 1:
                progress = manager.Progress(state.progress.run, 0, 0, 0, 0.0)
                keep_step(folder / "run" / "replay", progress, trainer_batches(trainer), state.model, 0, state.world)

    trainer = Trainer(Run.parse(values), folder / "run", Console(quiet=True), callbacks=[Keep()])
    trainer.train()
    return ("run/run.yaml", "run/log.jsonl", "run/data.json", "run/checkpoints/*/*", "run/checkpoints/*/.metadata",
            "run/replay/*/replay.json", "run/replay/*/*.safetensors")  # fmt: skip


def trainer_batches(trainer: Any) -> list[Any]:
    """The batches of a run's first step."""
    from lorgnette.train.data import build_data

    steps = build_data(trainer.run, 0, trainer.processor)
    return list(steps.batches(0))


@cache
def _good_run() -> Any:
    from lorgnette.run import Run

    return Run.load(good(run)[0] / "run" / "run.yaml")


def _use_run(folder: Path, name: str) -> None:
    from rich.console import Console

    from lorgnette.cli.train import open_model, plot
    from lorgnette.errors import LorgnetteError
    from lorgnette.train.checkpoint.debug_step import replay
    from lorgnette.train.loop import Trainer

    quiet, place = Console(quiet=True), folder / "run"
    refused: list[LorgnetteError] = []
    ways: dict[str, Callable[[], Any]] = {
        "open": lambda: open_model(str(place)),
        "replay": lambda: replay(place / "replay" / "step-000001", quiet),
        "plot": lambda: plot(place),
        "train": lambda: Trainer(_good_run(), place, quiet).train(),
    }
    readers_of = {
        "run.yaml": tuple(ways),
        "replay": ("replay",),
        "log.jsonl": ("plot", "train"),
        "data.json": ("train",),
    }
    for way in (ways[one] for one in readers_of.get(name.split("/")[1], ("open", "train"))):
        try:
            way()
        except LorgnetteError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def prepared(folder: Path) -> Sequence[str]:
    """A prepared source of chats."""
    rows = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}] * 3
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _use_prepared(folder, "rows.jsonl")
    hidden = ".lorgnette/*"
    return (f"{hidden}/index-*/prepared.json", f"{hidden}/index-*/index.parquet", f"{hidden}/chunks/*.parquet",
            f"{hidden}/converted-*/*")  # fmt: skip


def _use_prepared(folder: Path, name: str) -> None:
    from lorgnette.data.config import PreparedConfig
    from lorgnette.data.inspect import source_config
    from lorgnette.data.prepare import prepare
    from tests.hub.tiny import tiny_processor

    config = source_config("chat", str(folder / "rows.jsonl"), [])
    assert isinstance(config, PreparedConfig)
    for again in (False, True):  # from the index, and from what it was made of
        made = prepare(config, tiny_processor(), workers=1)
        for number in range(len(made)):
            made.record(number)
        if not again:
            (made.folder / "prepared.json").unlink()


RUN_FOLDERS: dict[str, tuple[Make, Use]] = {
    "evaluations": (evaluation, _use_evaluation),
    "runs": (run, _use_run),
    "prepared": (prepared, _use_prepared),
}
"""Name -> what makes a good folder, and what uses one."""
PARTS = {
    name: (partial(seeds, make), partial(mutated, make), partial(read, make, use))
    for name, (make, use) in RUN_FOLDERS.items()
}
"""Name -> seeds, mutation and reader, as `readers.Reader` takes them."""
