"""Tokens spelt for people: nothing lost, nothing hidden."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorgnette.data.inspect.token_text import runs
from lorgnette.sample import Sample, Text
from tests.data.inspect.conftest import samples


def chips_of(processor, decoder, sample, most=None):
    rendered = processor.render(sample)
    return rendered, list(decoder.chips(rendered.tokens_T, rendered.loss_mask_T, rendered.visual_tokens, most))


@pytest.mark.parametrize("number", range(len(samples())))
def test_the_chips_of_a_document_are_its_tokens(processor, decoder, number):
    rendered, chips = chips_of(processor, decoder, samples()[number])
    assert [one for chip in chips for one in chip.ids] == rendered.tokens_T.tolist()
    assert [chip.position for chip in chips] == np.cumsum([0, *(len(chip.ids) for chip in chips)])[:-1].tolist()
    supervised = sum(len(chip.ids) for chip in chips if chip.supervised)
    assert supervised == rendered.loss_mask_T[1:].sum()


def test_an_image_is_one_chip_and_its_number(processor, decoder):
    _, chips = chips_of(processor, decoder, samples()[1])
    images = [chip for chip in chips if chip.kind == "image"]
    assert [(chip.image, len(chip.ids), chip.supervised) for chip in images] == [(0, 2, False), (1, 2, False)]


def test_what_a_user_spells_is_text_and_no_image(processor, decoder):
    _, chips = chips_of(processor, decoder, samples()[3])
    assert not [chip for chip in chips if chip.kind == "image"]
    assert "<image>" in "".join(chip.text for chip in chips if chip.kind == "text")


@settings(max_examples=40)
@given(text=st.text(min_size=1, max_size=30))
def test_texts_are_spelt_as_they_are_decoded(processor, decoder, text):
    rendered, chips = chips_of(processor, decoder, Sample((Text(text, supervised=True),)))
    whole = "".join(chip.text for chip in chips if chip.kind == "text")
    inner = [one for one in rendered.tokens_T.tolist() if one not in decoder._special]
    if "\ufffd" not in whole:
        assert whole == processor.tokenizer.decode(inner)


def test_a_character_of_several_tokens_is_one_chip(processor, decoder):
    sample = Sample((Text("a 𝔛 b", supervised=True),))
    _, chips = chips_of(processor, decoder, sample)
    [chip] = [chip for chip in chips if "𝔛" in chip.text]
    assert len(chip.ids) > 1


def test_a_long_document_is_spelt_to_a_limit(processor, decoder):
    _, chips = chips_of(processor, decoder, samples()[2], most=4)
    assert 4 <= sum(len(chip.ids) for chip in chips) <= 7


def test_runs_join_what_is_learned_alike(processor, decoder):
    _, chips = chips_of(processor, decoder, samples()[1])
    grouped = runs(iter(chips))
    assert [supervised for supervised, _ in grouped] == [bool(n % 2) ^ grouped[0][0] for n in range(len(grouped))]
    assert [chip for _, group in grouped for chip in group] == chips
