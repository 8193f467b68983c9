"""Whatever stands in a checkpoint folder, `load` opens it or raises a lorgnette error: no other crash, no hang."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lorgnette.errors import LorgnetteError
from lorgnette.hub.describe import describe, lines
from lorgnette.hub.load import load
from tests.hub.conftest import write_upstream
from tests.hub.tiny import tiny_config

JSON_FILES = ("config.json", "processor_config.json", "tokenizer_config.json", "tokenizer.json")
FILES = (*JSON_FILES, "model.safetensors", "chat_template.jinja", "generation_config.json")

SIZES = st.integers(-(2**70), 2**70) | st.sampled_from([-1, 0, 1, 2, 3, 7, 10**6, 2**31, 2**63])
SCALARS = st.none() | st.booleans() | SIZES | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def keys_within(values: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every path to a value of nested settings; the words of a tokenizer are left out, as they are too many."""
    if not isinstance(values, dict) or path[-1:] == ("vocab",):
        return [path]
    return [path, *(found for key, value in values.items() for found in keys_within(value, (*path, key)))]


def replaced(values: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    return values | {path[0]: replaced(values[path[0]], path[1:], value)}


class Folder:
    """One good folder, copied anew for each trial."""

    def __init__(self) -> None:
        self.good = Path(tempfile.mkdtemp(prefix="lorgnette-fuzz-"))
        write_upstream(self.good, tiny_config())
        self.settings = {name: json.loads((self.good / name).read_text()) for name in JSON_FILES}
        self.paths = [(name, path) for name, values in self.settings.items() for path in keys_within(values)]

    def outcome(self, spoil: Any) -> str:
        """`opened` or `refused`: what `load` makes of the spoiled copy. Raises: errors that are not lorgnette's."""
        opened_by: list[str] = []
        with tempfile.TemporaryDirectory() as name:
            folder = Path(shutil.copytree(self.good, Path(name) / "spoiled"))
            spoil(folder)
            for way, opened in (("load", load), ("describe", lambda path: list(lines(describe(path))))):
                with contextlib.suppress(LorgnetteError):
                    opened(folder)
                    opened_by.append(way)
        return "opened" if "load" in opened_by else "refused"


FOLDER: list[Folder] = []
EITHER = ("opened", "refused")


def folder() -> Folder:
    if not FOLDER:
        FOLDER.append(Folder())
    return FOLDER[0]


trials = settings(max_examples=60, suppress_health_check=list(HealthCheck))


@trials
@given(st.data())
def test_any_value_of_any_setting(data: st.DataObject) -> None:
    name, path = data.draw(st.sampled_from(folder().paths))
    values = replaced(folder().settings[name], path, data.draw(VALUES))
    assert folder().outcome(lambda spoiled: (spoiled / name).write_text(json.dumps(values))) in EITHER


@trials
@given(st.sampled_from(FILES), st.binary(max_size=64), st.floats(0, 1))
def test_any_file_cut_off_or_overwritten(name: str, noise: bytes, where: float) -> None:
    def spoil(spoiled: Path) -> None:
        content = (spoiled / name).read_bytes()
        at = int(where * len(content))
        (spoiled / name).write_bytes(content[:at] + noise)

    assert folder().outcome(spoil) in EITHER


@trials
@given(st.sampled_from(FILES), st.binary(min_size=1, max_size=8), st.floats(0, 1))
def test_any_bytes_changed_in_place(name: str, noise: bytes, where: float) -> None:
    def spoil(spoiled: Path) -> None:
        content = bytearray((spoiled / name).read_bytes())
        at = int(where * min(len(content) - len(noise), 9000))  # the head of the weights is where their shapes stand
        content[at : at + len(noise)] = noise
        (spoiled / name).write_bytes(content)

    assert folder().outcome(spoil) in EITHER


@trials
@given(st.sets(st.sampled_from(FILES), min_size=1))
def test_any_files_missing(names: set[str]) -> None:
    outcome = folder().outcome(lambda spoiled: [(spoiled / name).unlink() for name in names])
    needed = {"config.json", "processor_config.json", "tokenizer.json", "model.safetensors"}
    assert outcome == "refused" if names & needed else outcome in EITHER


@trials
@given(st.data())
def test_any_tensor_missing_or_mis_shaped(data: st.DataObject) -> None:
    held = load_file(folder().good / "model.safetensors")
    name = data.draw(st.sampled_from(sorted(held)))
    change = data.draw(st.sampled_from(["drop", "flatten", "halve", "rename", "scalar"]))
    tensor = held.pop(name)
    if change == "rename":
        held[data.draw(st.text(min_size=1, max_size=8))] = tensor
    elif change != "drop":
        held[name] = {"flatten": tensor.flatten(), "halve": tensor[: len(tensor) // 2], "scalar": tensor.sum()}[change]
        held[name] = held[name].clone()
    assert folder().outcome(lambda spoiled: save_file(held, spoiled / "model.safetensors")) in EITHER


def test_a_deep_nest_is_refused() -> None:
    for name in JSON_FILES:
        for nest in ('{"a":' * 100_000, "[" * 100_000 + "]" * 100_000):
            outcome = folder().outcome(lambda spoiled, name=name, nest=nest: (spoiled / name).write_text(nest))
            assert outcome == "refused", name
