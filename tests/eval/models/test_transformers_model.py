"""Models of transformers as the answerer: an exported model says what ours says, and any other family will do."""

from __future__ import annotations

import builtins
import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import tokenizers
import torch
import transformers
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import CheckpointError, LorgnetteError, SettingsError
from lorgnette.eval.benchmark import Asking
from lorgnette.eval.models import open_model
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.models.transformers_model import TransformersModel
from lorgnette.eval.runner import evaluate
from lorgnette.eval.tasks import task_named
from lorgnette.hub.checkpoint_hash import checkpoint_digest
from lorgnette.hub.export import export
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import SAMPLES, picture, question, tiny_model, tiny_processor, tiny_tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

PROMPTS = (*SAMPLES, Sample((*question("the cat?", (50, 40)).segments, Turn("assistant"), Text("a cat"), Turn("user"),
                             Text("sure?"))))  # fmt: skip
"""Conversations and documents with one, no and three images, in an order and its reverse."""
CANDIDATES = (
    ["a cat", "red", "a circle over the mat"],
    ["the"],
    ["red ", "blue\n", " red"],
    [" the mat", " the mat and", "", " a  "],
    [],
    ["the cat", "the mat", ""],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tiny_model(seed=1), tiny_processor(), tmp_path_factory.mktemp("peer") / "model")


@pytest.fixture(scope="module")
def ours() -> LorgnetteModel:
    return LorgnetteModel(tiny_model(seed=1), tiny_processor())


def peer(folder: Path, **options: Any) -> TransformersModel:
    answerer = open_model(f"transformers:{folder}", **options)
    assert isinstance(answerer, TransformersModel)
    return answerer


@pytest.mark.parametrize("split", [None, True])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_exported_model_says_and_scores_what_ours_does(folder: Path, split: bool | None, batch_size: int) -> None:
    theirs = peer(folder, split=split, batch_size=batch_size)
    mine = LorgnetteModel(tiny_model(seed=1), tiny_processor(), split=split)
    for order in (PROMPTS, PROMPTS[::-1]):
        assert theirs.generate(order, max_tokens=12) == mine.generate(order, max_tokens=12)
    assert len(set(mine.generate(PROMPTS, max_tokens=12))) == len(PROMPTS)
    assert theirs.generate(PROMPTS, max_tokens=12, stop=["t"]) == mine.generate(PROMPTS, max_tokens=12, stop=["t"])
    found, expected = (one.score(PROMPTS, CANDIDATES) for one in (theirs, mine))
    assert [len(row) for row in found] == [len(row) for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "asking"),
    [("drawings", {}), ("scene_vqa", {"shots": 2}), ("text_vqa", {"shots": 1, "form": "chat"}), ("scene_captions", {})],
    ids=lambda value: str(value),
)
def test_tasks_are_answered_alike(folder: Path, ours: LorgnetteModel, name: str, asking: dict) -> None:
    task = task_named(name, Asking(**asking))
    mine, alone, together = (
        evaluate(task, answerer, limit=5, batch_size=5) for answerer in (ours, peer(folder, batch_size=1), peer(folder))
    )
    for theirs in (alone, together):
        assert [one.answer for one in theirs.examples] == [one.answer for one in mine.examples]
        assert theirs.overall == mine.overall
    assert together.settings["model"] == f"transformers:{folder}"


def test_a_tokenizer_whose_offsets_leave_out_spaces(folder: Path) -> None:
    plain, trimming = peer(folder), peer(folder)
    backend = trimming.tokenizer.backend_tokenizer
    steps = [backend.post_processor, tokenizers.processors.ByteLevel(trim_offsets=True)]
    backend.post_processor = tokenizers.processors.Sequence(steps)
    prompts = [SAMPLES[0], SAMPLES[3]]
    found = trimming.score(prompts, [["a cat", "the mat "], [" the mat", " red  "]])
    expected = plain.score(prompts, [["a cat", "the mat"], [" the mat", " red"]])
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-5)


def test_multiple_choice_by_likelihood(folder: Path, ours: LorgnetteModel) -> None:
    samples = [
        dataclasses.replace(question("which?", (40, 30 + n)), meta={"name": f"q{n}", "answer": "A", "options": "abc"})
        for n in range(4)
    ]
    texts = [["Answer: A", "Answer: B", "Answer: C"]] * 4
    for row, wanted in zip(peer(folder).score(samples, texts), ours.score(samples, texts), strict=True):
        assert row == pytest.approx(wanted, abs=1e-4)


def test_half_precision_as_on_a_gpu(folder: Path) -> None:
    theirs = peer(folder)
    half = TransformersModel(theirs.model.to(torch.bfloat16), theirs.processor, identity="half")
    assert half.environment()["dtype"] == "bfloat16"
    assert all(half.generate(PROMPTS[:3], max_tokens=4))
    (found,), (wanted,) = half.score(PROMPTS[:1], [["red"]]), peer(folder).score(PROMPTS[:1], [["red"]])
    assert found == pytest.approx(wanted, rel=0.05)
    assert half.encode_images([picture(40, 60)]).dtype == "float32"


def test_pictures_look_alike_to_both(folder: Path, ours: LorgnetteModel) -> None:
    images = [picture(40, 60), picture(84, 30, seed=1), picture(28, 28, seed=2)]
    mine, theirs = ours.encode_images(images), peer(folder, split=True).encode_images(images)
    assert theirs == pytest.approx(mine, abs=1e-5)
    assert theirs.dtype == mine.dtype
    assert abs(theirs[0] - theirs[1]).max() > 1e-3


def test_what_is_known_of_it(folder: Path, ours: LorgnetteModel) -> None:
    theirs = peer(folder, split=False)
    assert theirs.identity == f"transformers:{folder}, images in one crop"
    assert theirs.weights == checkpoint_digest(folder)
    assert theirs.environment()["transformers"] == transformers.__version__
    assert theirs.environment()["dtype"] == "float32"
    chat, document = theirs.rendered_prompts([PROMPTS[0], PROMPTS[4]])
    assert chat == "User:<image>what colour is the cat?<end_of_utterance>\nAssistant:"
    assert document == "<image> is a"


def test_text_that_spells_a_special_token_stays_text(folder: Path) -> None:
    theirs = peer(folder)
    odd = question("is <image> a <end_of_utterance>?", (40, 40))
    assert theirs.rendered_prompts([odd])[0].startswith("User:<image>is < image> a < end_of_utterance>?<")
    (seen,) = theirs.generate([odd], max_tokens=4)
    assert isinstance(seen, str)
    assert theirs.score([odd], [["<image>", "red"]])[0][0] < 0


def test_an_upside_down_photograph_is_seen_upright(folder: Path, tmp_path: Path) -> None:
    upright = picture(40, 60)
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    theirs = peer(folder)
    pictures = (upright, tmp_path / "turned.png", upright.rotate(180))
    samples = [Sample((Turn("user"), Image(one), Text("what?"))) for one in pictures]
    (first,), (second,), (upside_down,) = theirs.score(samples, [["red"]] * 3)
    assert second == pytest.approx(first, rel=1e-6) != upside_down  # some kernels round by where a tensor lies


# --- other families


TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}\n{% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image>{% else %}{{ c['text'] }}{% endif %}{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant\n{% endif %}"
)


def small_tokenizer(folder: Path, **settings: Any) -> Any:
    tiny_tokenizer().save(folder)
    return transformers.AutoTokenizer.from_pretrained(folder, **settings)


def llava(folder: Path, **settings: Any) -> Path:
    """A random LLaVA: CLIP, a two-layer connector and Llama."""
    tokenizer = small_tokenizer(folder, **settings)
    vision = transformers.CLIPVisionConfig(
        hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=None,
    )  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )  # fmt: skip
    torch.manual_seed(3)
    model = transformers.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.generation_config.update(eos_token_id=2, do_sample=True, temperature=0.7)
    model.save_pretrained(folder)
    images = transformers.CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = transformers.LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", chat_template=TEMPLATE,
        num_additional_image_tokens=1,
    )  # fmt: skip
    processor.save_pretrained(folder)
    return folder


def idefics3(folder: Path) -> Path:
    """A random Idefics3, the family of SmolVLM: SigLIP, pixel shuffle and Llama."""
    tokenizer = small_tokenizer(folder)
    vision = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 56, "patch_size": 14}
    text = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    config = transformers.Idefics3Config(
        vision_config=vision, text_config=text, image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2, pad_token_id=3,
    )  # fmt: skip
    torch.manual_seed(4)
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.Idefics3ImageProcessorPil(size={"longest_edge": 112}, max_image_size={"longest_edge": 56})
    transformers.Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=TEMPLATE).save_pretrained(folder)
    return folder


FAMILIES = {"llava": llava, "idefics3": idefics3}


@pytest.fixture(scope="module", params=FAMILIES)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


def slowly(theirs: TransformersModel, sample: Sample, tokens: int) -> str:
    """The oracle: upstream's own calls on one prompt, argmax by argmax, without a cache."""
    messages: list[dict[str, Any]] = []
    for segment in sample.segments:
        if isinstance(segment, Turn):
            messages.append({"role": segment.role, "content": []})
        elif isinstance(segment, Image):
            messages[-1]["content"].append({"type": "image"})
        else:
            messages[-1]["content"].append({"type": "text", "text": segment.text})
    text = theirs.processor.apply_chat_template(messages, add_generation_prompt=True)
    images = [image.source for image in sample.images]
    inputs = dict(theirs.processor(text=text, **({"images": [images]} if images else {}), return_tensors="pt"))
    said: list[int] = []
    for _ in range(tokens):
        with torch.no_grad():
            token = int(theirs.model(**inputs).logits[0, -1].argmax())
        if token == 2:
            break
        said.append(token)
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([[token]])], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return theirs.tokenizer.decode(said, skip_special_tokens=True).removeprefix(" ")


def test_any_other_family(other: Path) -> None:
    theirs = peer(other, batch_size=3)
    chats = [sample for sample in PROMPTS if sample.is_chat]
    answers = theirs.generate(chats, max_tokens=6)
    assert answers == [slowly(theirs, sample, 6) for sample in chats]
    assert len(set(answers)) > 1
    assert peer(other, batch_size=1).generate(PROMPTS, max_tokens=6) == theirs.generate(PROMPTS, max_tokens=6)
    candidates = [["the cat", "red", ""], *[["blue"]] * 5]
    alone = [peer(other).score([sample], [texts])[0] for sample, texts in zip(PROMPTS, candidates, strict=True)]
    for row, wanted in zip(theirs.score(PROMPTS, candidates), alone, strict=True):
        assert row == pytest.approx(wanted, abs=1e-4)
    assert theirs.encode_images([picture(40, 60)]).shape == (1, 24)


def test_a_score_is_the_chain_of_next_tokens(other: Path) -> None:
    theirs, sample = peer(other), SAMPLES[0]
    start, whole = (theirs.rendered_prompts([sample])[0] + text for text in ("", "the cat"))
    image = [[one.source for one in sample.images]]
    inputs = theirs.processor(text=whole, images=image, return_tensors="pt")
    before = theirs.processor(text=start, images=image, return_tensors="pt")["input_ids"].shape[1]
    with torch.no_grad():
        scores = theirs.model(**inputs).logits[0].double().log_softmax(-1)
    tokens = inputs["input_ids"][0]
    wanted = sum(scores[at - 1, tokens[at]].item() for at in range(before, len(tokens)))
    assert theirs.score([sample], [["the cat"]])[0] == pytest.approx([wanted], abs=1e-5)


def test_the_switch_for_crops(tmp_path: Path) -> None:
    other = idefics3(tmp_path / "idefics3")
    opened = {split: peer(other, split=split) for split in (True, False)}
    lengths = {
        split: one._inputs([one._prompt(SAMPLES[0])], "left")["input_ids"].shape[1] for split, one in opened.items()
    }
    assert lengths[True] - lengths[False] > 4 * 4, "four crops more, of four tokens each and their marks"
    with pytest.raises(SettingsError, match="has no switch for crops"):
        peer(llava(tmp_path / "llava"), split=True)


def test_what_a_processor_cannot_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = peer(folder)

    def fails(*arguments: Any, **options: Any) -> None:
        raise ValueError("too small")

    monkeypatch.setattr(type(theirs.processor), "__call__", fails)
    with pytest.raises(CheckpointError, match="its processor cannot read unnamed sample: too small"):
        theirs.generate(SAMPLES[:1], max_tokens=3)


def test_a_tokenizer_without_a_pad_token(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = llava(tmp_path / "llava")
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (file := folder / name).exists():
            values = {key: value for key, value in json.loads(file.read_text()).items() if key != "pad_token"}
            file.write_text(json.dumps(values))
    with caplog.at_level(logging.WARNING):
        theirs = peer(folder)
    assert "no pad token; prompts of a batch are filled up with </s>" in caplog.text
    assert theirs.generate(SAMPLES[:3], max_tokens=6) == peer(folder, batch_size=1).generate(SAMPLES[:3], max_tokens=6)


def test_a_model_without_a_chat_template(tmp_path: Path) -> None:
    folder = llava(tmp_path / "llava")
    (folder / "chat_template.jinja").unlink()
    theirs = peer(folder)
    with pytest.raises(SettingsError, match="--form base"):
        theirs.generate([SAMPLES[0]], max_tokens=3)
    assert theirs.rendered_prompts([SAMPLES[4]]) == ["<image> is a"], "the processor names its image token"
    theirs.processor.image_token = None
    del theirs.__dict__["_image_mark"]
    with pytest.raises(SettingsError, match="names no image token; ask with --form chat"):
        theirs.rendered_prompts([SAMPLES[4]])


def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="transformers does not open it: "):
        peer(tmp_path)
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name == "transformers":
            raise ImportError("No module named 'transformers'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(LorgnetteError, match="pip install transformers"):
        peer(tmp_path)


def test_a_processor_that_writes_on_cannot_score(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = peer(folder)
    real = type(theirs.processor).__call__
    monkeypatch.setattr(
        type(theirs.processor), "__call__",
        lambda self, text, **options: real(self, text=[f"{one}\n" for one in text], **options),
    )  # fmt: skip
    with pytest.raises(SettingsError, match="writes on after a text; ask with --choices generation"):
        theirs.score([SAMPLES[0]], [["red"]])


class Blind:
    """A model that shows nothing of what it sees."""

    def __init__(self, model: Any) -> None:
        self.inner = model

    def __getattr__(self, name: str) -> Any:
        if name == "get_image_features":
            raise AttributeError(name)
        return getattr(self.inner, name)


def test_features_that_are_not_shown(folder: Path) -> None:
    theirs = peer(folder)
    theirs.model = Blind(theirs.model)
    with pytest.raises(SettingsError, match="choose shots with --choose random"):
        theirs.encode_images([picture(30, 30)])


def test_the_command(folder: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> dict[str, Any]:
        common = ["eval", "--tasks", "scene_vqa", "--limit", "4", "--shots", "2", "--choose", "rices", "--json"]
        done = CliRunner().invoke(app, [*common, *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.output)["scene_vqa"])

    theirs = run("--model", f"transformers:{folder}", "--pool", "16", "--folder", str(tmp_path / "theirs"))
    ours = run("--model", str(folder), "--pool", "16")
    assert theirs["overall"] == ours["overall"]
    assert theirs["model"] == f"transformers:{folder}"
    assert theirs["weights"] == ours["weights"]
