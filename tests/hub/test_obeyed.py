"""Image and generation settings of a checkpoint are obeyed as transformers obeys them, or refused by name."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from lorgnette.errors import CheckpointError, DataError, LorgnetteError, SettingsError
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.hub.export import export, save
from lorgnette.hub.join import VisionBackbone, build
from lorgnette.hub.keys import warn_once
from lorgnette.hub.load import load
from lorgnette.infer.chat import Chat
from lorgnette.infer.engine.request import SamplingParams
from lorgnette.infer.generate import generate
from lorgnette.infer.reference import generate_reference
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import FILTERS
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.test_join import write_decoder, write_siglip
from tests.hub.tiny import SAMPLES, picture, tiny_config, tiny_model, tiny_processor


def rewrite(folder: Path, file: str, change: dict[str, Any], group: str = "") -> Path:
    path = folder / file
    values = json.loads(path.read_text()) if path.is_file() else {}
    here = values[group] if group else values
    here |= change
    path.write_text(json.dumps(values))
    return folder


def pixels_of(processor: Processor, image: Any) -> np.ndarray:
    """Normalised pixels of each patch, as the encoder sees them."""
    batch = processor([Sample((Image(image), Text("x")))], split=processor.images.split)
    channel = torch.arange(batch.patches_PC.shape[1]) // processor.images.patch**2
    mean, std = torch.tensor(processor.mean)[channel], torch.tensor(processor.std)[channel]
    return ((batch.patches_PC.float() / 255 - mean) / std).numpy()


def their_pixels(folder: Path, image: Any) -> np.ndarray:
    """The same of transformers' PIL backend: whole patches of each image, end to end."""
    reader = transformers.Idefics2ImageProcessorPil.from_pretrained(folder)
    read = reader(image, return_tensors="np", do_pad=True)
    found = []
    for pixels, mask in zip(read["pixel_values"][0], read["pixel_attention_mask"][0], strict=True):
        height, width = mask[:, 0].sum() // 14 * 14, mask[0].sum() // 14 * 14
        cut = pixels[:, :height, :width].reshape(3, height // 14, 14, width // 14, 14).transpose(1, 3, 0, 2, 4)
        found.append(cut.reshape(-1, 3 * 14 * 14))
    return np.concatenate(found)


IMAGE_SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"resample": number} for number, name in enumerate(FILTERS)},
    "one mean": {"image_mean": 0.4, "image_std": 0.3},
    "means": {"image_mean": [0.48, 0.45, 0.40], "image_std": [0.26, 0.27, 0.28]},
    "not normalised": {"do_normalize": False},
    "not rescaled": {"do_rescale": False},
    "another factor": {"rescale_factor": 1 / 127.5},
    "another factor, not normalised": {"rescale_factor": 1 / 127.5, "do_normalize": False},
    "split": {"do_image_splitting": True},
    "switches null": {"do_image_splitting": None, "do_normalize": None, "do_rescale": None},
    "square": {"size": {"height": 56, "width": 56}},
    "square by a list": {"size": [56, 56]},
    "other sides": {"size": {"shortest_edge": 42, "longest_edge": 70}},
    "keys of other classes": {"max_image_size": {"longest_edge": 70}, "do_center_crop": True, "crop_size": 20},
}


@pytest.mark.parametrize("values", IMAGE_SETTINGS.values(), ids=IMAGE_SETTINGS)
@pytest.mark.parametrize("file", ["processor_config.json", "preprocessor_config.json"])
def test_image_settings_give_transformers_pixels(copied: Path, tmp_path: Path, file: str, values: dict) -> None:
    if file.startswith("pre"):
        pictures = json.loads((copied / "processor_config.json").read_text())["image_processor"]
        (copied / file).write_text(json.dumps(pictures | values))
        (copied / "processor_config.json").write_text('{"image_seq_len": 4}')
    else:
        rewrite(copied, file, values, "image_processor")
    image = picture(100, 61)
    model, processor = load(copied)
    ours, theirs = pixels_of(processor, image), their_pixels(copied, image)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-6 * max(1, np.abs(theirs).max())
    if "resample" in values:
        assert np.array_equal(np.rint(ours * 127.5), np.rint(theirs * 127.5)), "exactly its pixels"
    again = Processor.load(save(model, processor, tmp_path / "again"))
    assert np.array_equal(pixels_of(again, image), ours), "and so after lorgnette import"


def test_null_is_the_default_where_upstream_of_4_40_had_one(copied: Path) -> None:
    expected = load(copied)[1]
    nothing = {"resample": None, "image_mean": None, "image_std": None, "rescale_factor": None}
    found = load(rewrite(copied, "processor_config.json", nothing, "image_processor"))[1]
    assert (found.images, found.mean, found.std) == (expected.images, expected.mean, expected.std)


UNOBEYABLE: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown filter": ({"resample": 6}, "resample is 6; known are 0 nearest, 1 lanczos"),
    "a filter by name": ({"resample": "bicubic"}, "resample is bicubic; known are"),
    "no resizing": ({"do_resize": False}, "do_resize is false"),
    "no resizing by null": ({"do_resize": None}, "do_resize is false or null"),
    "a switch that is text": ({"do_normalize": "yes"}, "do_normalize is yes; expected true or false"),
    "one side": ({"size": {"shortest_edge": 42}}, "has neither shortest_edge and longest_edge nor equal"),
    "a number": ({"size": 42}, "has neither shortest_edge"),
    "most sides": ({"size": {"max_height": 42, "max_width": 42}}, "has neither shortest_edge"),
    "not square": ({"size": {"height": 42, "width": 56}}, "has neither shortest_edge"),
    "another class": ({"image_processor_type": "BlipImageProcessor"}, "image_processor_type is BlipImageProcessor"),
    "two means": ({"image_mean": [0.5, 0.5]}, "image_mean: mean and std need a value for each of the 3"),
    "no deviation": ({"image_std": 0}, "std is zero for a channel"),
    "a factor of nothing": ({"rescale_factor": 0}, "rescale_factor is 0"),
}


@pytest.mark.parametrize(("values", "message"), UNOBEYABLE.values(), ids=UNOBEYABLE)
def test_image_settings_that_cannot_be_obeyed_are_named(copied: Path, values: dict, message: str) -> None:
    with pytest.raises(LorgnetteError, match=message):
        load(rewrite(copied, "processor_config.json", values, "image_processor"))


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("resize", ["exact", "fast"])
def test_a_filter_is_obeyed_by_either_way_to_resize(name: str, resize: str) -> None:
    images = tiny_processor().images.model_copy(update={"resample": name, "resize": resize})
    exact = images.model_copy(update={"resize": "exact"})
    ours, slow = (
        pixels_of(dataclasses.replace(tiny_processor(), images=one), picture(90, 50)) for one in (images, exact)
    )
    assert np.abs(ours - slow).max() <= 2.5 / 127.5 if name == "bilinear" else np.array_equal(ours, slow)


def test_a_siglip_of_transformers_5_keeps_its_means(tmp_path: Path) -> None:
    write_siglip(tmp_path / "vision")
    reader = transformers.SiglipImageProcessorPil(image_mean=[0.48, 0.45, 0.40], image_std=0.3)
    (tmp_path / "vision" / "processor_config.json").write_text(
        json.dumps({"image_processor": reader.to_dict()}, default=list)
    )
    vision = VisionBackbone.open(tmp_path / "vision")
    assert vision.config.mean == (0.48, 0.45, 0.40)
    assert vision.config.std == (0.3, 0.3, 0.3)
    write_decoder(tmp_path / "language", "llama", {})
    _, processor = build(tmp_path / "vision", tmp_path / "language")
    assert processor.mean == vision.config.mean


# --- Generation -------------------------------------------------------------------------------------------------------

QUESTION = SAMPLES[1]


def theirs(folder: Path, sample: Sample, **asked: Any) -> list[int]:
    """The ids that transformers' generate chooses with the folder's generation_config.json."""
    model = transformers.Idefics2ForConditionalGeneration.from_pretrained(folder).eval()
    processor = load(folder)[1]
    tokens = processor([sample], add_generation_prompt=True).tokens_T[None]
    with torch.no_grad():
        found = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), **asked)
    return found[0, tokens.shape[1] :].tolist()


def third_token(folder: Path) -> int:
    return generate(*load(folder), QUESTION, GenerationConfig(max_tokens=3))[0].tokens[2]


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("many", [True, False])
def test_every_end_token_ends_an_answer(copied: Path, tmp_path: Path, file: str, many: bool) -> None:
    end = third_token(copied)
    (copied / "generation_config.json").unlink(missing_ok=True)
    rewrite(copied, file, {"eos_token_id": [2, end] if many else end})
    model, processor = load(copied)
    for folder in (copied, export(model, processor, tmp_path / "out"), save(model, processor, tmp_path / "ours")):
        model, processor = load(folder)
        [answer] = generate(model, processor, [QUESTION], GenerationConfig(max_tokens=12))
        assert (len(answer.tokens), answer.finish) == (3, "end")
        assert theirs(folder, QUESTION, max_new_tokens=12) == list(answer.tokens)
        assert {2, end} <= set(processor.generation.end_tokens) | {processor.tokenizer.eos}


def varied(folder: Path) -> list[int]:
    return list(generate(*load(folder), QUESTION, GenerationConfig(max_tokens=24))[0].tokens)


SLOTS = [[tiny_processor().tokenizer.id(token)] for token in ("<fake_token_around_image>", "<image>")]
RULES: dict[str, Any] = {
    "repetition": lambda said: {"repetition_penalty": 1.7},
    "n-grams": lambda said: {"no_repeat_ngram_size": 2},
    "bad words": lambda said: {"bad_words_ids": [[said[0]], [said[2], said[3]], [2]]},
    "suppressed": lambda said: {"suppress_tokens": [said[1], said[4], 10**6]},
    "suppressed first": lambda said: {"begin_suppress_tokens": [said[0]]},
    "min_new_tokens": lambda said: {"min_new_tokens": 9, "eos_token_id": [2, said[3]]},
    "min_length": lambda said: {"min_length": 35, "eos_token_id": [2, said[3]]},
    "forced end": lambda said: {"forced_eos_token_id": 77},
    "forced ends": lambda said: {"forced_eos_token_id": [77]},
    "forced first": lambda said: {"forced_bos_token_id": 77},
    "all at once": lambda said: {
        "repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "bad_words_ids": [[said[0]]], "min_new_tokens": 5,
        "suppress_tokens": [said[1]], "begin_suppress_tokens": [said[2]], "forced_eos_token_id": 60,
    },
    "nothing": lambda said: {
        "repetition_penalty": None, "bad_words_ids": None, "suppress_tokens": [], "temperature": 0.5, "top_p": 0.3,
        "do_sample": False, "num_beams": 1, "transformers_version": "4.40.0", "max_length": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_rules_of_generation_choose_transformers_tokens(copied: Path, tmp_path: Path, rule: Any) -> None:
    values = {"eos_token_id": 2} | rule(varied(copied))
    values["bad_words_ids"] = SLOTS + (values.get("bad_words_ids") or [])  # ours never says an image's tokens
    (copied / "generation_config.json").write_text(json.dumps(values))
    model, processor = load(copied)
    settings = GenerationConfig(max_tokens=24)
    for sample in (QUESTION, SAMPLES[3]):
        [answer] = generate(model, processor, sample, settings)
        assert list(answer.tokens) == theirs(copied, sample, max_new_tokens=24, do_sample=False)
        assert generate_reference(model, processor, sample, settings) == answer
    asked = SAMPLES[1::2]
    together = generate(model, processor, asked, settings)
    assert together == [generate_reference(model, processor, sample, settings) for sample in asked]
    again = generate(*load(export(model, processor, tmp_path / "out")), asked, settings)
    assert [answer.tokens for answer in again] == [answer.tokens for answer in together]


def test_a_prompt_of_one_token_is_followed_by_the_forced_first(copied: Path) -> None:
    rewrite(copied, "generation_config.json", {"forced_bos_token_id": 77, "eos_token_id": 2})
    model, processor = load(copied)
    [answer] = generate(model, processor, Sample((Text(""),)), GenerationConfig(max_tokens=3))
    assert (answer.prompt_tokens, answer.tokens[0]) == (1, 77)


def test_lengths_and_stop_strings_hold_where_the_caller_gives_none(copied: Path) -> None:
    model, processor = load(copied)
    whole = generate(model, processor, QUESTION, GenerationConfig(max_tokens=20))[0]
    assert len(whole.tokens) == 20
    for values, tokens in (
        ({"max_new_tokens": 7}, 7),
        ({"max_length": whole.prompt_tokens + 5}, 5),
        ({"max_length": 3, "max_new_tokens": 4}, 4),
    ):
        (copied / "generation_config.json").write_text(json.dumps({"eos_token_id": 2} | values))
        model, processor = load(copied)
        assert len(generate(model, processor, QUESTION)[0].tokens) == tokens == len(theirs(copied, QUESTION))
        assert len(generate(model, processor, QUESTION, GenerationConfig(max_tokens=9))[0].tokens) == 9
    rewrite(copied, "generation_config.json", {"max_length": 3, "max_new_tokens": None})
    with pytest.raises(DataError, match=r"reach the max_length of 3 in the checkpoint's generation_config.json"):
        generate(*load(copied), QUESTION)
    place = len(whole.text) // 2
    (copied / "generation_config.json").write_text(json.dumps({"stop_strings": whole.text[place]}))
    [answer] = generate(*load(copied), QUESTION, GenerationConfig(max_tokens=20))
    assert answer.finish == "stop"
    assert answer.text == whole.text[: whole.text.index(whole.text[place])]


def test_sampling_that_the_checkpoint_asks_for(copied: Path) -> None:
    """The caller's own words come first; evaluation is greedy whatever a checkpoint says."""
    greedy = generate(*load(copied), QUESTION, GenerationConfig(max_tokens=12))[0].tokens
    rewrite(copied, "generation_config.json", {"do_sample": True, "temperature": 5.0, "top_p": 0.99, "top_k": 0})
    model, processor = load(copied)
    drawn = generate(model, processor, QUESTION, GenerationConfig(max_tokens=12))[0].tokens
    written = GenerationConfig(max_tokens=12, temperature=5.0, top_p=0.99)
    assert drawn == generate(model, processor, QUESTION, written)[0].tokens != greedy
    assert generate(model, processor, QUESTION, GenerationConfig(max_tokens=12, temperature=0.0))[0].tokens == greedy
    assert Chat(model, processor).params == SamplingParams()
    [answer] = LorgnetteModel(model, processor).generate([QUESTION], max_tokens=12)
    assert answer == processor.tokenizer.decode(list(greedy)).removeprefix(" ")
    rewrite(copied, "generation_config.json", {"temperature": None, "top_p": None, "top_k": None, "min_p": 0.25})
    rules = load(copied)[1].generation
    assert (rules.temperature, rules.top_k, rules.top_p, rules.min_p) == (1.0, 50, 1.0, 0.25), "transformers' defaults"
    assert rules.sampling == {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": 0.25}


@pytest.mark.parametrize(
    ("asked", "said"), [({"num_beams": 4}, "num_beams 4"), ({"typical_p": 0.9, "num_beams": 1}, "typical_p 0.9")]
)
def test_a_way_to_choose_tokens_that_is_not_ours_is_refused_unless_the_caller_chooses(
    copied: Path, asked: dict[str, Any], said: str
) -> None:
    greedy = GenerationConfig(max_tokens=6, temperature=0.0)
    [wanted] = generate(*load(copied), QUESTION, greedy)
    model, processor = load(rewrite(copied, "generation_config.json", asked))
    for run in (generate, generate_reference):
        with pytest.raises(SettingsError, match=f"generation_config.json asks for {said}, which .* give a temperature"):
            run(model, processor, QUESTION, GenerationConfig(max_tokens=6))
    assert generate(model, processor, QUESTION, greedy) == [wanted]
    assert LorgnetteModel(model, processor).generate([QUESTION], max_tokens=6), "evaluation is always greedy"


BAD_RULES: dict[str, tuple[dict[str, Any], str]] = {
    "an end that is text": ({"eos_token_id": "</s>"}, "eos_token_id is </s>; expected an id, or a list of ids"),
    "ends that are text": ({"eos_token_id": [2, "x"]}, "expected an id, or a list of ids"),
    "words that are no ids": ({"bad_words_ids": ["a"]}, "bad_words"),
    "an empty word": ({"bad_words_ids": [[]]}, "bad_words_ids holds an empty sequence"),
    "a negative penalty": ({"repetition_penalty": -1}, "repetition_penalty"),
    "a probability above 1": ({"do_sample": True, "top_p": 3}, "top_p"),
    "a switch that is a number": ({"do_sample": 1, "temperature": 2.0}, "do_sample is 1; expected true or false"),
    "a switch that is text": ({"do_sample": "true"}, "do_sample is true; expected true or false"),
    "no number": ({"pad_token_id": float("nan")}, "generation_config.json: cannot be understood"),
}


@pytest.mark.parametrize(("values", "message"), BAD_RULES.values(), ids=BAD_RULES)
def test_rules_that_cannot_be_understood_are_named(copied: Path, values: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        load(rewrite(copied, "generation_config.json", values))
    assert "generation_config.json" in str(caught.value)


def test_what_is_not_obeyed_is_said_once_by_name(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_once.cache_clear()
    rewrite(copied, "generation_config.json", {"num_beams": 4, "brand_new_key": 3, "min_p": None})
    rewrite(copied, "config.json", {"logit_scale": 0.1, "temperature": 0.2}, "text_config")
    rewrite(copied, "processor_config.json", {"auto_map": {"AutoProcessor": "x.Y"}})
    for _ in range(2):
        load(copied)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    for expected in (
        "generation_config.json: num_beams is 4, which is not obeyed",
        "generation_config.json: brand_new_key is a key that lorgnette does not know",
        "config.json: text_config: logit_scale is a key that lorgnette does not know",
        "config.json: text_config: temperature is 0.2, which is not obeyed",
        "processor_config.json: auto_map is",
    ):
        assert sum(expected in one for one in said) == 1, expected
    assert len(said) == 5


# --- Prompts and arguments --------------------------------------------------------------------------------------------


def short_model(positions: int, **language: Any) -> tuple[VLM, Processor]:
    config = tiny_config(max_positions=positions, **language)
    return tiny_model(config), tiny_processor(config)


LONG = Sample((Turn("user"), Text("the cat sat on the mat; " * 20)), {"name": "the long one"})


def test_a_prompt_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    model, processor = short_model(64)
    length = processor([LONG], add_generation_prompt=True).documents.total
    assert length > 64
    for ask in (lambda: generate(model, processor, [QUESTION, LONG]), lambda: Chat(model, processor).ask(LONG.text)):
        with pytest.raises(
            DataError, match="exceed the 64 positions of the model; shorten the text, or show fewer images"
        ):
            ask()
    model, processor = short_model(length)
    [answer] = generate(model, processor, LONG, GenerationConfig(max_tokens=9))
    assert (len(answer.tokens), answer.finish) == (1, "length"), "one more token is known, and no place for another"
    model, processor = short_model(length + 3)
    assert len(generate(model, processor, LONG, GenerationConfig(max_tokens=9))[0].tokens) == 4
    for kind, positions in (("linear", 64), ("yarn", 99)):
        rope = {"rope_type": kind, "factor": length / 64 + 1} | (
            {"original_max_position_embeddings": 64} if kind == "yarn" else {}
        )
        model, processor = short_model(positions, rope_scaling=rope)
        assert generate(model, processor, LONG, GenerationConfig(max_tokens=2)), "stretched positions are enough"


def test_an_evaluation_counts_prompts_that_are_too_long_and_goes_on() -> None:
    model, processor = short_model(64)
    alone = LorgnetteModel(*short_model(64)).generate([QUESTION], max_tokens=4)
    answers = LorgnetteModel(model, processor).generate([QUESTION, LONG, QUESTION], max_tokens=4)
    assert [answers[0], answers[2]] == alone * 2
    assert answers[1] == ""
    assert "exceed the 64 positions" in getattr(answers[1], "declined")  # noqa: B009
    scores = LorgnetteModel(model, processor).score([QUESTION, LONG], [["a", "b"], ["a", "b"]])
    assert scores[0] == LorgnetteModel(model, processor).score([QUESTION], [["a", "b"]])[0]
    assert scores[1] == [float("-inf")] * 2


def test_one_sample_and_one_stop_string_are_lists_of_one() -> None:
    model, processor = tiny_model(), tiny_processor()
    settings = GenerationConfig(max_tokens=4)
    assert generate(model, processor, QUESTION, settings) == generate(model, processor, [QUESTION], settings)
    assert GenerationConfig(stop="abc").stop == ("abc",)
    with pytest.raises(DataError, match=r"a str is no Sample; Sample\.from_messages makes one"):
        generate(model, processor, "hello")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="a dict is no Sample"):
        generate(model, processor, [{"role": "user"}])  # type: ignore[list-item]


def test_weights_without_numbers_are_said(tmp_path: Path) -> None:
    model, processor = tiny_model(), tiny_processor()
    with torch.no_grad():
        model.language.layers[0].mlp.up.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"computes NaN \(not a number\) instead of scores"):
        generate(model, processor, QUESTION)
    assert isinstance(processor.tokenizer, Tokenizer)
