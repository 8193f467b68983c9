"""Samples to tokens and patches, and many of them to one batch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend

from lorgnette.errors import DataError, ImageError
from lorgnette.inputs.render import Rendered
from lorgnette.inputs.templates.template import IDEFICS2_TEMPLATE, JinjaTemplate
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.model.batch import IGNORE_INDEX
from lorgnette.sample import Image, Sample, Text, Turn
from tests.inputs.conftest import noise


def chat(*contents: Text | Image, answer: str = "Left.") -> Sample:
    return Sample((Turn("user"), *contents, Turn("assistant"), Text(answer, supervised=True)), {"name": "row 3"})


def caption(width: int = 40, height: int = 30) -> Sample:
    return Sample((Image(noise(width, height)), Text("A red ball.", supervised=True)))


def samples() -> list[Sample]:
    return [
        chat(Image(noise(40, 30)), Text("Which?"), Image(noise(20, 90))),
        chat(Text("No image here.")),
        caption(),
        Sample((Text("A plain document."),)),
    ]


def test_a_document_stands_between_begin_and_end(processor):
    tokenizer = processor.tokenizer
    rendered = processor.render(caption())
    assert rendered.tokens_T[0] == tokenizer.bos
    assert rendered.tokens_T[-1] == tokenizer.eos
    assert tokenizer.decode(rendered.tokens_T[rendered.loss_mask_T], keep_special=True) == "A red ball.</s>".replace(
        "A", " A", 1
    )
    assert not processor.render(Sample((Text("Not supervised."),))).loss_mask_T.any()
    assert processor.render(caption(), add_generation_prompt=True).tokens_T[-1] != tokenizer.eos


def test_text_is_tokenised_as_if_it_had_no_seams(processor):
    whole = processor.render(Sample((Text("The quick brown fox"),)))
    parts = processor.render(Sample((Text("The qu"), Text(""), Text("ick bro", supervised=True), Text("wn fox"))))
    assert parts.tokens_T.tolist() == whole.tokens_T.tolist()
    supervised = processor.tokenizer.decode(parts.tokens_T[parts.loss_mask_T])
    assert "ick bro" in supervised
    assert supervised in "The quick brown fox"


def test_each_image_has_its_slot_and_its_patches(processor):
    rendered = processor.render(samples()[0])
    around = processor.tokenizer.id("<fake_token_around_image>")
    assert (rendered.tokens_T == processor.image_token).sum() == 2 * processor.connector.latents
    assert (rendered.tokens_T == around).sum() == 4
    assert [(image.rows, image.columns) for image in rendered.images] == [(2, 2), (5, 2)]


def test_neighbouring_images_share_a_token(processor):
    rendered = processor.render(chat(Image(noise(9, 9)), Text(""), Image(noise(9, 9)), Text("?")))
    assert (rendered.tokens_T == processor.tokenizer.id("<fake_token_around_image>")).sum() == 3


@pytest.mark.parametrize("by_default", [False, True])
@pytest.mark.parametrize("split", [None, False, True])
def test_splitting_is_the_same_for_text_and_images(processor, by_default, split):
    images = processor.images.model_copy(update={"split": by_default})
    processor = dataclasses.replace(processor, images=images)
    crops = 5 if (by_default if split is None else split) else 1
    batch = processor(samples(), split=split)
    assert len(batch.images) == 3 * crops
    assert len(batch.visual_positions_V) == 3 * crops * processor.connector.latents


def test_packed_equals_separate(processor):
    batch = processor(samples())
    alone = [processor([sample]) for sample in samples()]
    fields = ("tokens_T", "targets_T", "positions_T", "patches_PC", "patch_positions_P")
    for field in fields:
        assert torch.equal(getattr(batch, field), torch.cat([getattr(one, field) for one in alone])), field
    assert batch.documents.lengths == tuple(one.documents.total for one in alone)
    assert batch.images.lengths == tuple(length for one in alone for length in one.images.lengths)
    starts = batch.documents.starts
    assert torch.equal(
        batch.visual_positions_V,
        torch.cat([one.visual_positions_V + start for one, start in zip(alone, starts, strict=False)]),
    )


def test_targets_are_the_next_learned_tokens(processor):
    rendered = [processor.render(sample) for sample in samples()]
    batch = processor.pack(rendered)
    expected = []
    for one in rendered:
        following = [*zip(one.tokens_T, one.loss_mask_T, strict=True)][1:]
        expected += [int(token) if supervised else IGNORE_INDEX for token, supervised in following] + [IGNORE_INDEX]
    assert batch.targets_T.tolist() == expected
    assert batch.targets_T.dtype == batch.tokens_T.dtype == batch.visual_positions_V.dtype == torch.int64
    assert batch.patches_PC.dtype == torch.uint8


def test_a_document_never_predicts_the_next_one(processor):
    tokens = np.array([5, 6, 7])
    one = Rendered(tokens, np.ones(3, dtype=bool), (), (), "all learned")
    assert processor.pack([one, one]).targets_T.tolist() == [6, 7, IGNORE_INDEX, 6, 7, IGNORE_INDEX]


def test_no_element_is_padding(processor):
    batch = processor(samples())
    assert batch.documents.total == len(batch.tokens_T) == len(batch.targets_T) == len(batch.positions_T)
    assert batch.images.total == len(batch.patches_PC) == len(batch.patch_positions_P)


def test_a_batch_without_images_or_without_samples(processor):
    batch = processor([samples()[1]])
    assert batch.patches_PC.shape == (0, 3 * 14 * 14)
    assert len(batch.images) == len(batch.visual_positions_V) == len(batch.patch_positions_P) == 0
    assert len(processor([]).tokens_T) == 0


def test_a_generation_prompt_opens_the_answer(processor):
    rendered = processor.render(Sample((Turn("user"), Text("Hi."))), add_generation_prompt=True)
    assert processor.tokenizer.decode(rendered.tokens_T).endswith("\nAssistant:")


ANSWERED = Sample((Turn("user"), Text("How many?"), Turn("assistant"), Text("There are")), {"name": "row 4"})


def test_a_last_text_is_continued(processor):
    """It ends with the text, without the end of the utterance; upstream's template and ours as code agree."""
    as_jinja = dataclasses.replace(processor, template=JinjaTemplate(IDEFICS2_TEMPLATE, processor.tokenizer))
    prompts = [one.render(ANSWERED, continue_final_message=True) for one in (processor, as_jinja)]
    assert prompts[0].tokens_T.tolist() == prompts[1].tokens_T.tolist()
    assert processor.decode(prompts[0].tokens_T.tolist()) == (
        "<s>User: How many?<end_of_utterance>\nAssistant: There are"
    )
    whole = processor.render(ANSWERED).tokens_T.tolist()
    assert prompts[0].tokens_T.tolist() == whole[: len(prompts[0].tokens_T)]
    batch = processor([ANSWERED], continue_final_message=True)
    assert batch.tokens_T.tolist() == prompts[0].tokens_T.tolist()


def test_a_prompt_continues_the_assistant_and_answers_the_user(processor):
    asked = Sample(ANSWERED.segments[:2])
    batch = processor.prompts([ANSWERED, asked])
    separate = [
        processor([ANSWERED], continue_final_message=True),
        processor([asked], add_generation_prompt=True),
    ]
    assert batch.tokens_T.tolist() == torch.cat([one.tokens_T for one in separate]).tolist()
    empty = Sample((*asked.segments, Turn("assistant")))
    assert processor.decode(processor.prompts([empty]).tokens_T.tolist()).endswith("Assistant:")


def test_what_cannot_be_continued_is_refused(processor):
    picture = Sample((Turn("user"), Text("?"), Turn("assistant"), Image(noise(9, 9))), {"name": "row 5"})
    with pytest.raises(DataError, match="exclude each other"):
        processor.render(ANSWERED, add_generation_prompt=True, continue_final_message=True)
    with pytest.raises(DataError, match="row 5: continue_final_message needs a last turn with a text"):
        processor.render(picture, continue_final_message=True)
    with pytest.raises(DataError, match="a document has no message to continue"):
        processor.render(Sample((Text("A document"),)), continue_final_message=True)


def test_a_document_begins_as_the_tokenizer_begins_a_text(processor, tmp_path):
    """As upstream: the beginning of sequence that a tokenizer names but does not put is not put here either."""
    backend = Backend.from_str(processor.tokenizer._file.to_str())
    backend.post_processor = None
    tokenizer = Tokenizer(backend, processor.tokenizer.settings, processor.tokenizer.special)
    assert tokenizer.bos is not None
    plain = dataclasses.replace(processor, tokenizer=tokenizer)
    assert plain.render(caption()).tokens_T.tolist() == processor.render(caption()).tokens_T.tolist()[1:]


def altered(rendered: Rendered, **changes: object) -> Rendered:
    return dataclasses.replace(rendered, **changes)


def test_what_was_cut_or_forged_is_refused(processor):
    whole = processor.render(samples()[0])
    cases = {
        "4 visual tokens for 2 images that become 8": altered(
            whole, tokens_T=whole.tokens_T[:9], loss_mask_T=whole.loss_mask_T[:9]
        ),
        "1 images for 2 slots": altered(whole, images=whole.images[:1]),
        "visual tokens are marked as supervised": altered(whole, loss_mask_T=np.ones_like(whole.loss_mask_T)),
        "0 tokens": altered(
            whole, tokens_T=whole.tokens_T[:0], loss_mask_T=whole.loss_mask_T[:0], images=(), visual_tokens=()
        ),
        "learning marks": altered(whole, loss_mask_T=whole.loss_mask_T[:-1]),
        "expected 588 values each": altered(
            whole, images=tuple(altered(image, pixels_PC=image.pixels_PC[:, :5]) for image in whole.images)
        ),
    }
    for reason, rendered in cases.items():
        with pytest.raises(DataError, match=rf"^row 3: .*({reason})"):
            processor.pack([rendered])


def test_a_bad_image_is_named_by_its_sample(processor):
    with pytest.raises(ImageError, match="row 3, image 2: not an image"):
        processor.render(chat(Image(noise(9, 9)), Image(b"no image")))
