"""Streamed text of real decoders: exact at every step, and in time proportional to its length."""

from __future__ import annotations

import random
import time

import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from lorgnette.infer.text import TextStream
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from tests.inputs.conftest import CORPUS, mistral_like

WORDS = ["A", "red", "ball", "日本語", "🎈🎈", "naïve", "\n\n", "  two", "12 34", "«é»", "e\u0301", "\ufffd", "x" * 40]


def text_of(length: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(length))


@pytest.fixture(scope="module", params=["byte level", "byte fallback", "no prefix space", "unigram"])
def any_tokenizer(request, tmp_path_factory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "byte level":
        return train_tokenizer(CORPUS, vocabulary=420)
    if request.param == "unigram":
        pieces = [("<unk>", 0.0), *((char, -3.0) for char in sorted(set("".join([*WORDS, "▁stop here never"]))))]
        backend = Backend(models.Unigram(pieces, unk_id=0))
        backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        backend.save(str(folder / "tokenizer.json"))
    else:
        space = {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False} if "space" in request.param else {}
        mistral_like(folder, **space)
    return Tokenizer.load(folder)


@pytest.mark.parametrize("length", [1, 30, 300])
def test_pieces_add_up_to_the_decoded_text(any_tokenizer, length):
    for seed in range(4):
        ids = any_tokenizer.encode(text_of(length, seed))
        for chat in (False, True):
            decode = any_tokenizer.decode if not chat else lambda ids: any_tokenizer.decode(ids).removeprefix(" ")
            stream, shown = TextStream(decode), ""
            for number, token in enumerate(ids, 1):
                shown += stream.push(token)
                if number % 50 == 0:
                    whole = decode(ids[:number])
                    assert whole.startswith(shown) or whole.endswith("\ufffd")
            shown += stream.close()
            assert shown == stream.text == decode(ids)


def test_stop_strings_are_found_wherever_the_window_is(any_tokenizer):
    text = text_of(200, seed=1) + " ball stop here" + text_of(5, seed=2)
    ids = any_tokenizer.encode(text)
    stream = TextStream(any_tokenizer.decode, ["stop here", "never"])
    for token in ids:
        stream.push(token)
        if stream.stopped:
            break
    assert stream.stopped
    assert stream.text == any_tokenizer.decode(ids).partition("stop here")[0]


def test_a_character_that_is_never_finished_is_one_mark(any_tokenizer):
    ids = any_tokenizer.encode("🎈" * 40)
    stream = TextStream(any_tokenizer.decode)
    shown = "".join(stream.push(token) for token in ids[:-1]) + stream.close()
    assert shown.rstrip("\ufffd") in ("🎈" * 39, " " + "🎈" * 39)
    assert shown.count("\ufffd") <= 1


def test_four_thousand_tokens_take_a_moment(any_tokenizer):
    ids = (any_tokenizer.encode(text_of(400, seed=3)) * 20)[:8000]

    def seconds(count: int) -> float:
        began, stream = time.thread_time(), TextStream(any_tokenizer.decode)
        for token in ids[:count]:
            stream.push(token)
        return time.thread_time() - began

    seconds(100)
    assert min(seconds(4000) for _ in range(2)) < 0.6
    assert min(seconds(8000) for _ in range(2)) < 3.5 * min(seconds(4000) for _ in range(3)), "in proportion"


def test_a_leading_space_is_kept_where_none_was_put(tmp_path):
    mistral_like(tmp_path, tokenizer_class="LlamaTokenizer", add_prefix_space=False)
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.decode(tokenizer.encode(" a ball")) == " a ball"
