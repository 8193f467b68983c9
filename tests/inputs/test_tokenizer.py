"""Tokenizers: trained, saved, opened by both sides."""

from __future__ import annotations

import json
import pickle

import pytest
import tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from lorgnette.errors import CheckpointError, DataError
from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from tests.inputs.conftest import CORPUS, mistral_like

SPECIAL = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]


def test_special_tokens_are_the_last_rows_in_upstreams_order(tokenizer):
    last = [tokenizer.vocabulary - 3, tokenizer.vocabulary - 2, tokenizer.vocabulary - 1]
    assert [tokenizer.id(token) for token in SPECIAL] == last
    assert [tokenizer.id(token) for token in ("<unk>", "<s>", "</s>", "<pad>")] == [0, 1, 2, 3]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (1, 2, 3)


def test_training_is_deterministic_and_keeps_to_its_size(tokenizer):
    again = train_tokenizer(CORPUS, vocabulary=420)
    assert again._file.to_str() == tokenizer._file.to_str()
    assert tokenizer.vocabulary <= 420
    assert train_tokenizer([], vocabulary=263).vocabulary == 263
    with pytest.raises(DataError, match=r"262 is too small: .* need 263"):
        train_tokenizer(CORPUS, vocabulary=262)


@pytest.mark.parametrize("text", ["A red ball.", "  two  spaces ", "日本語 🎈\n\tÀ", "<image> typed</s>", ""])
def test_decode_undoes_encode(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.id(token) for token in [*SPECIAL, "</s>"]} & set(ids)
    assert tokenizer.encode_with_offsets(text).ids == tuple(ids)


def test_half_a_character_is_refused(tokenizer):
    with pytest.raises(DataError, match="half of a surrogate pair"):
        tokenizer.encode("a truncated emoji \ud83c")


def test_special_tokens_are_left_out_of_decoded_text_unless_kept(tokenizer):
    ids = [tokenizer.bos, *tokenizer.encode("Left."), tokenizer.id("<end_of_utterance>")]
    assert tokenizer.decode(ids) == "Left."
    assert tokenizer.decode(ids, keep_special=True) == "<s>Left.<end_of_utterance>"


def test_both_sides_open_what_was_saved(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    text = "How many red boxes are beside it?"
    assert ours.encode(text) == tokenizer.encode(text)
    assert theirs(text).input_ids == [*ours.prefix, *ours.encode(text), *ours.suffix] == [1, *ours.encode(text)]
    assert [theirs.convert_tokens_to_ids(token) for token in SPECIAL] == [ours.id(token) for token in SPECIAL]
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (ours.bos, ours.eos, ours.pad)
    assert len(theirs) == ours.vocabulary
    file = Tokenizer.load(tmp_path / "tokenizer.json")
    assert file.encode(text) == ours.encode(text)


def test_a_copy_in_another_process_is_the_same(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    text = "<image> and red boxes"
    assert copy.encode(text) == tokenizer.encode(text)
    assert copy.encode(text, first=False) == tokenizer.encode(text, first=False)
    assert copy.special == tokenizer.special


def test_missing_special_tokens_become_new_last_rows(tmp_path):
    mistral_like(tmp_path, pad_token="<pad>", additional_special_tokens=[{"content": "<extra>"}])
    base = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    ours = Tokenizer.load(tmp_path, SpecialTokens(around_image="<edge>"))
    rows = [ours.id(token) for token in ["<pad>", "<extra>", "<edge>", "<image>", "<end_of_utterance>"]]
    assert rows == [len(base) + number for number in range(5)]
    assert ours.vocabulary == len(base) + 5
    assert ours.pad == len(base)


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "LlamaTokenizer"])
@pytest.mark.parametrize("settings", [{}, {"add_bos_token": False}, {"add_bos_token": True, "add_eos_token": True}])
@pytest.mark.parametrize("template", ["<s> $A", "$A", "$A </s>", "<s> $A </s>"])
def test_what_stands_around_a_text_is_upstreams(name, settings, template, tmp_path):
    mistral_like(tmp_path, tokenizer_class=name, **settings)
    backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.post_processor = TemplateProcessing(single=template, special_tokens=[("<s>", 1), ("</s>", 2)])
    backend.save(str(tmp_path / "tokenizer.json"))
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert (ours.prefix, ours.suffix) == ((1,) * template.startswith("<s>"), (2,) * template.endswith("</s>"))
    assert theirs("A ball").input_ids == [*ours.prefix, *ours.encode("A ball"), *ours.suffix]


def test_an_unknown_special_token_is_refused(tokenizer):
    with pytest.raises(DataError, match=r"no special token '<video>'; it has .*<image>"):
        tokenizer.id("<video>")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tokenizer.json", None, "no such file; a checkpoint needs its tokenizer.json"),
        ("tokenizer.json", "{}", "cannot be read as a tokenizer"),
        ("tokenizer.json", "no json", "cannot be read as a tokenizer"),
        ("tokenizer_config.json", "no json", "is not JSON"),
        ("tokenizer_config.json", "[1]", "holds a list; expected a JSON object"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(file, content, reason, tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=rf"{file}: {reason}"):
        Tokenizer.load(tmp_path)
