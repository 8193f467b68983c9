"""Keys of tokenizer.json are obeyed, said by name, or refused; a panic of the library is an error like others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorgnette.errors import CheckpointError
from lorgnette.hub.keys import warn_once
from lorgnette.hub.load import load
from lorgnette.inputs.tokenizer import Tokenizer

Json = dict[str, Any]


def changed(folder: Path, change: Callable[[Json], Any]) -> Path:
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    return folder


UNKNOWN: dict[str, tuple[Callable[[Json], Any], str]] = {
    "model": (lambda v: v["model"].update(foo=1), "model: foo is a key that lorgnette does not know"),
    "added token": (lambda v: v["added_tokens"][4].update(foo=1), "added_tokens: foo is a key that lorgnette"),
    "pre-tokenizer": (lambda v: v["pre_tokenizer"].update(foo=1), "pre_tokenizer: foo is a key that tokenizers does"),
    "decoder": (lambda v: v["decoder"].update(foo=1), "decoder: foo is a key that tokenizers does not know"),
    "part of a sequence": (
        lambda v: v.update(normalizer={"type": "Sequence", "normalizers": [{"type": "NFC", "foo": 1}]}),
        "normalizer: foo is a key that tokenizers does not know",
    ),
    "dropout": (lambda v: v["model"].update(dropout=0.5), "model: dropout is 0.5, which is not obeyed"),
}


@pytest.mark.parametrize(("change", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_keys_without_an_effect_are_said(
    copied: Path, change: Callable[[Json], Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = load(copied)[1].tokenizer.encode("the cat sat")
    assert not caplog.text
    warn_once.cache_clear()
    found = load(changed(copied, change))[1].tokenizer
    assert found.encode("the cat sat") == expected
    assert f"tokenizer.json: {message}" in caplog.text
    assert len(caplog.records) == 1


def test_a_panic_of_the_library_is_a_sentence(copied: Path) -> None:
    """It is no Exception in Python: `except Exception` lets it through."""
    changed(copied, lambda values: values["model"].update(continuing_subword_prefix="##"))
    for read in (load, Tokenizer.load):
        with pytest.raises(CheckpointError, match=r"tokenizer.json: cannot be read as a tokenizer \(slice index"):
            read(copied)


def test_a_panic_in_use_is_a_sentence(copied: Path) -> None:
    tokenizer = Tokenizer.load(copied)

    class Broken:
        def encode(self, *given: Any, **asked: Any) -> Any:
            raise PanicException("index out of bounds")

        decode = encode

    tokenizer._first = Broken()  # type: ignore[assignment]
    with pytest.raises(CheckpointError, match=r"fails on the text 'the' \(index out of bounds\)"):
        tokenizer.encode("the")
    with pytest.raises(CheckpointError, match=r"cannot decode the ids \[1, 2\] \(index out of bounds\)"):
        tokenizer.decode([1, 2])


class PanicException(BaseException):
    """As pyo3's, which cannot be imported."""

    __module__ = "pyo3_runtime"


@pytest.mark.parametrize("file", ["tokenizer.model", "vocab.json"])
def test_a_tokenizer_in_an_older_form_is_named(copied: Path, file: str) -> None:
    (copied / "tokenizer.json").unlink()
    (copied / file).write_text("x")
    with pytest.raises(CheckpointError, match=rf"needs its tokenizer.json, and there is {file} only; in transformers"):
        load(copied)
