# ruff: noqa: E501
"""Every file of a tokenizer's folder, and what other programs leave in them: held to transformers' AutoTokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from lorgnette.errors import CheckpointError
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from tests.inputs.conftest import CORPUS, mistral_like, old_checkpoint

PAGE = (
    "User: 12 34 56.78 %\n\tÀ côté d'une église, naïve e\u0301 ﬁn… 日本語のテキスト 한국어 🎈👩‍👩‍👧 "
    "  two   spaces\r\n\n\n" + "x" * 300 + " antidisestablishmentarianism <i>bold</i> it's we'll I'M"
)


def write(folder: Path, name: str, values: Any) -> None:
    (folder / name).write_text(json.dumps(values), encoding="utf-8")


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A byte-level tokenizer without any file but tokenizer.json."""
    train_tokenizer(CORPUS, vocabulary=420).save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    return tmp_path


ALL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
AS_OBJECTS = {key: {"content": token, "lstrip": False, "normalized": False} for key, token in ALL.items()}
DECODER = {"1": {"content": "<s>", "special": True, "normalized": False}}
FILES: dict[str, dict[str, Any]] = {
    "config alone": {"tokenizer_config": ALL},
    "map alone": {"special_tokens_map": ALL},
    "map of objects": {"tokenizer_config": {}, "special_tokens_map": AS_OBJECTS},
    "map before config": {"tokenizer_config": ALL | {"eos_token": "<pad>"}, "special_tokens_map": AS_OBJECTS},
    "nulls in config": {"tokenizer_config": dict.fromkeys(ALL), "special_tokens_map": ALL},
    "nulls in map": {"tokenizer_config": ALL, "special_tokens_map": {"pad_token": None}},
    "decoder, so no map": {"tokenizer_config": {"eos_token": "</s>", "added_tokens_decoder": DECODER}, "special_tokens_map": ALL},
    "objects in config": {"tokenizer_config": {key: token | {"__type": "AddedToken"} for key, token in AS_OBJECTS.items()}},
    "additional in config": {"tokenizer_config": ALL | {"additional_special_tokens": ["<a>", "<b>"]}},
    "additional in map": {"tokenizer_config": ALL, "special_tokens_map": {"additional_special_tokens": ["<c>"]}},
    "additional in both": {"tokenizer_config": {"additional_special_tokens": ["<a>"]}, "special_tokens_map": {"additional_special_tokens": ["<c>"]}},
    "extra as list": {"tokenizer_config": ALL | {"extra_special_tokens": ["<a>"]}},
    "extra as names": {"tokenizer_config": ALL | {"extra_special_tokens": {"video_token": "<video>"}}},
    "a name of its own": {"tokenizer_config": ALL | {"video_token": "<video>"}},
    "extra in both": {"tokenizer_config": {"extra_special_tokens": ["<a>"]}, "special_tokens_map": {"extra_special_tokens": ["<a>", "<b>"]}},
    "tokens that are new": {"tokenizer_config": ALL | {"cls_token": "<cls>", "mask_token": "<mask>"}},
    "added_tokens.json": {"tokenizer_config": ALL, "added_tokens": {"<new>": 500, "<c>": 501}, "special_tokens_map": {"cls_token": "<c>"}},
    "decoder with new rows": {
        "tokenizer_config": ALL
        | {"added_tokens_decoder": {"600": {"content": "<late>", "special": False}, "500": {"content": "<early>", "special": True}}}
    },
    "add_bos_token": {"tokenizer_config": ALL | {"add_bos_token": False, "add_eos_token": True}},
    "prefix space": {"tokenizer_config": ALL | {"add_prefix_space": True}},
    "gpt-2's class": {"tokenizer_config": {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8}},
}  # fmt: skip


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_special_tokens_are_upstreams(files, folder):
    for name, values in files.items():
        write(folder, f"{name}.json", values)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    assert (ours.bos, ours.eos, ours.pad) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
    assert ours.named_tokens == {
        key: token for key, token in theirs.special_tokens_map.items() if isinstance(token, str)
    }
    special = {token.content for token in theirs.added_tokens_decoder.values() if token.special}
    assert special <= set(ours.special_tokens)
    for token in theirs.added_tokens_encoder:
        assert ours._file.token_to_id(token) == theirs.convert_tokens_to_ids(token), token
    assert [*ours.prefix, *ours.encode(PAGE), *ours.suffix] == theirs(PAGE).input_ids
    ours.save(folder / "saved")
    saved, again = AutoTokenizer.from_pretrained(folder / "saved"), Tokenizer.load(folder / "saved")
    assert saved(PAGE).input_ids == theirs(PAGE).input_ids
    assert saved.special_tokens_map.items() >= ours.named_tokens.items()
    assert (again.bos, again.eos, again.pad, again.special_tokens) == (
        ours.bos,
        ours.eos,
        ours.pad,
        ours.special_tokens,
    )


@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast"])
@pytest.mark.parametrize("settings", [{}, {"eos_token": None, "pad_token": None}])
def test_a_class_has_tokens_of_its_own_where_no_file_names_them(name, settings, tmp_path):
    mistral_like(tmp_path)
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": name} | settings)
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert (ours.bos, ours.eos, ours.pad) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)


@pytest.mark.parametrize("settings", [None, {}, {"tokenizer_class": None}, {"bos_token": "<s>"}], ids=str)
@pytest.mark.parametrize(
    "model", [{"model_type": "idefics2"}, {"model_type": "x", "tokenizer_class": "LlamaTokenizer"}]
)
def test_a_class_that_no_tokenizer_file_names_is_the_models(model, settings, tmp_path):
    mistral_like(tmp_path)
    write(tmp_path, "config.json", model)
    (tmp_path / "tokenizer_config.json").unlink(missing_ok=True)
    if settings is not None:
        write(tmp_path, "tokenizer_config.json", settings)
    ours = Tokenizer.load(tmp_path)
    if model["model_type"] != "x":
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        assert (ours.bos, ours.eos, ours.pad) == (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id)
        assert [*ours.prefix, *ours.encode(PAGE), *ours.suffix] == theirs(PAGE).input_ids
    assert (ours.bos, ours.eos) == (1, 2)


def with_stored_use(folder: Path) -> None:
    """A tokenizer.json as a fine-tuning script leaves it: truncation to 8 tokens, and padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder, pad_token="<pad>")
    tokenizer(["a", "b c"], padding="max_length", truncation=True, max_length=8)
    tokenizer.save_pretrained(folder)
    assert read(folder, "tokenizer.json")["truncation"]["max_length"] == 8
    assert read(folder, "tokenizer.json")["padding"] is not None


def test_stored_truncation_and_padding_are_never_used(folder):
    write(folder, "tokenizer_config.json", ALL)
    before = Tokenizer.load(folder)
    with_stored_use(folder)
    ours, text = Tokenizer.load(folder), "How many red boxes are beside it? " * 40
    for first in (True, False):
        assert ours.encode(text, first=first) == before.encode(text, first=first)
        assert ours.encode("A", first=first) == before.encode("A", first=first)
    assert (ours.prefix, ours.suffix) == (before.prefix, before.suffix)
    ours.save(folder / "saved")
    assert read(folder / "saved", "tokenizer.json")["truncation"] is None
    assert read(folder / "saved", "tokenizer.json")["padding"] is None
    theirs = AutoTokenizer.from_pretrained(folder / "saved")
    assert theirs(text).input_ids == [*ours.prefix, *ours.encode(text)]


def test_a_processor_of_a_folder_with_stored_truncation_reads_whole_texts(tmp_path):
    old_checkpoint(tmp_path, pad_token="<pad>")
    whole = Processor.load(tmp_path).tokenizer.encode(PAGE)
    with_stored_use(tmp_path)
    assert Processor.load(tmp_path).tokenizer.encode(PAGE) == whole


def test_stored_dropout_is_never_used(folder):
    write(folder, "tokenizer_config.json", ALL)
    expected = Tokenizer.load(folder).encode(PAGE)
    values = read(folder, "tokenizer.json")
    values["model"]["dropout"] = 0.5
    write(folder, "tokenizer.json", values)
    ours = Tokenizer.load(folder)
    assert all(ours._encode(PAGE, True).ids == tuple(expected) for _ in range(3))
    ours.save(folder / "saved")
    assert read(folder / "saved", "tokenizer.json")["model"]["dropout"] is None


def byte_level(folder: Path, name: str, **parts: Any) -> None:
    """A byte-level tokenizer with another pipeline, saved under the name of a class that rebuilds its own."""
    train_tokenizer(CORPUS, vocabulary=420).save(folder)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    for part, value in parts.items():
        setattr(backend, part, value)
    backend.save(str(folder / "tokenizer.json"))
    write(folder, "tokenizer_config.json", ALL | {"tokenizer_class": name})


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False)
PIPELINES: dict[str, dict[str, Any]] = {
    "digits": {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), BYTES])},
    "lower case": {"normalizer": normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()])},
    "prefix space": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=True)},
    "no regex": {"pre_tokenizer": pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)},
    "no prefix": {"post_processor": processors.ByteLevel(trim_offsets=False)},
}


@pytest.mark.parametrize(
    "name", ["GPT2Tokenizer", "GPT2TokenizerFast", "Qwen2Tokenizer", "CodeLlamaTokenizer", "Unheard"]
)
@pytest.mark.parametrize("parts", PIPELINES.values(), ids=PIPELINES)
def test_a_saved_tokenizer_gives_our_ids_in_transformers(name, parts, tmp_path):
    byte_level(tmp_path, name, **parts)
    ours = Tokenizer.load(tmp_path)
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs(PAGE, add_special_tokens=False).input_ids == ours.encode(PAGE)
    assert Tokenizer.load(tmp_path / "saved").encode(PAGE) == ours.encode(PAGE)


@pytest.mark.parametrize("settings", [{}, {"legacy": True}, {"add_prefix_space": False}])
@pytest.mark.parametrize("flags", [{}, {"byte_fallback": False, "fuse_unk": False}, {"ignore_merges": True}])
def test_a_llama_tokenizer_is_rebuilt_on_both_sides(settings, flags, tmp_path):
    mistral_like(tmp_path, tokenizer_class="LlamaTokenizer", **settings)
    values = read(tmp_path, "tokenizer.json")
    values["model"] |= flags
    write(tmp_path, "tokenizer.json", values)
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    ours.save(tmp_path / "saved")
    for text in (PAGE, " a ball", "ball", "日本", ""):
        ids = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode(text) == ids == Tokenizer.load(tmp_path / "saved").encode(text)
        assert AutoTokenizer.from_pretrained(tmp_path / "saved")(text, add_special_tokens=False).input_ids == ids
        assert ours.decode(ids) == theirs.decode(ids)


def test_what_would_change_another_programs_reading_is_not_saved(folder):
    extra = {"auto_map": {"AutoTokenizer": ["a.B", None]}, "split_special_tokens": True, "name_or_path": "me/mine"}
    write(folder, "tokenizer_config.json", ALL | extra)
    Tokenizer.load(folder).save(folder / "saved")
    assert not extra.keys() & read(folder / "saved", "tokenizer_config.json").keys()


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"])
@pytest.mark.parametrize(
    "values",
    [{"eos_token": {}}, {"extra_special_tokens": [{}]}, {"added_tokens_decoder": {"x": 1}}, {"a": {"b": 1}}, []],
)
def test_files_that_make_no_sense_are_refused_or_passed_over(file, values, folder):
    write(folder, file, values)
    try:
        assert Tokenizer.load(folder).vocabulary > 0
    except CheckpointError as error:
        assert str(folder) in str(error)


def test_a_word_piece_tokenizer_opens(tmp_path):
    backend = tokenizers.Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2, "ball": 3}, unk_token="[UNK]"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    backend.enable_truncation(2)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).encode("ab ball a ball") == [1, 2, 3, 1, 3]


def test_two_tokens_of_one_id_are_refused(folder):
    """A copy of such a tokenizer would keep one of the two by chance, and fail by chance on a merge of the other."""
    stored = read(folder, "tokenizer.json")
    one, other = list(stored["model"]["vocab"])[-2:]
    stored["model"]["vocab"][one] = stored["model"]["vocab"][other]
    write(folder, "tokenizer.json", stored)
    with pytest.raises(CheckpointError, match=r"have the same id, .*damaged"):
        Tokenizer.load(folder)


def test_an_id_beyond_every_table_is_refused(folder):
    """A byte of damage in an id would else ask for gigabytes, one row for each id below it."""
    stored = read(folder, "tokenizer.json")
    stored["model"]["vocab"][next(reversed(stored["model"]["vocab"]))] = 141_000_000
    write(folder, "tokenizer.json", stored)
    with pytest.raises(CheckpointError, match="has the id 141000000; the file is damaged"):
        Tokenizer.load(folder)
