"""Shots: which stand before a question hangs on seed and question alone, and they are Samples like all else."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorgnette.data.record import Refused
from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.fewshot import FewShot
from lorgnette.eval.image_checks import image_digest
from lorgnette.eval.models.base import Model
from lorgnette.eval.runner import evaluate
from lorgnette.eval.task import Task, prompt_of, transcript
from lorgnette.sample import Image, ImageSource, Sample, Text, Turn


def picture(number: int) -> bytes:
    """A grey, a little darker for each number."""
    file = io.BytesIO()
    PIL.Image.new("RGB", (8, 8), (number, number, number)).save(file, "PNG")
    return file.getvalue()


def solved(number: int, form: str = "base", split: str = "train") -> Sample:
    meta = {"name": f"{split}/{number}", "answer": f"a{number}"}
    image = Image(picture(number + 100 * (split == "test")))
    if form == "chat":
        turns = (Turn("user"), image, Text(f"q{number}?"), Turn("assistant"), Text(f"a{number}", supervised=True))
        return Sample(turns, meta)
    return Sample((image, Text(f"q{number}?"), Text(f" a{number}", supervised=True)), meta)


class Greys:
    """Sees how dark a picture is, as a direction in the plane. `looks` counts the pictures looked at."""

    encodes_images = True

    def __init__(self) -> None:
        self.looks = 0

    def encode_images(self, images: Sequence[ImageSource]) -> np.ndarray:
        self.looks += len(images)
        greys = [PIL.Image.open(io.BytesIO(image)).getpixel((0, 0))[0] for image in images]  # type: ignore[arg-type,index]
        return np.array([[np.cos(grey / 200), np.sin(grey / 200)] for grey in greys], np.float32)


class Holes(Sequence[Sample]):
    """A training split with rows that cannot be read."""

    def __init__(self, size: int, holes: set[int]) -> None:
        self.size, self.holes = size, holes

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if index in self.holes:
            raise Refused("no image", f"row {index}")
        return solved(index)


EXAMPLES = [solved(number) for number in range(40)]
PROMPTS = [prompt_of(solved(number, split="test")) for number in range(12)]


def test_a_document_goes_on_after_its_shots() -> None:
    shots = FewShot(EXAMPLES[:2], 2, instruction="Answer.\n")
    (whole,) = shots.before(PROMPTS[:1])
    first, second = sorted([0, 1], key=lambda n: transcript(whole).index(f"q{n}?"))
    assert transcript(whole) == f"Answer.\n[image] q{first}? a{first}\n[image] q{second}? a{second}\n[image] q0?"
    assert not any(isinstance(one, Text) and one.supervised for one in whole.segments)
    assert whole.meta == PROMPTS[0].meta


def test_a_conversation_goes_on_after_theirs() -> None:
    examples = [solved(7, "chat")]
    (whole,) = FewShot(examples, 1).before([prompt_of(solved(3, "chat", "test"))])
    assert transcript(whole) == "user: [image] q7?\nassistant: a7\nuser: [image] q3?"
    assert [one.role for one in whole.segments if isinstance(one, Turn)] == ["user", "assistant", "user"]


def test_without_shots_only_the_instruction_stands_before() -> None:
    assert transcript(FewShot((), 0, instruction="Look.\n").before(PROMPTS[:1])[0]) == "Look.\n[image] q0?"


@pytest.mark.parametrize("choose", ["random", "rices", "text"])
@settings(max_examples=25)
@given(order=st.permutations(range(12)), cut=st.integers(1, 11), seed=st.integers(0, 3))
def test_neither_order_nor_batch_nor_rank_matters(choose: str, order: list[int], cut: int, seed: int) -> None:
    def fresh() -> FewShot:
        return FewShot(EXAMPLES, 4, choose, seed, encoder=Greys())  # type: ignore[arg-type]

    expected = {prompt.name: transcript(whole) for prompt, whole in zip(PROMPTS, fresh().before(PROMPTS), strict=True)}
    for share in (order[:cut], order[cut:]):  # two ranks, each with shots of its own
        asked = [PROMPTS[number] for number in share]
        for prompt, whole in zip(asked, fresh().before(asked), strict=True):
            assert transcript(whole) == expected[prompt.name]


def test_questions_and_seeds_get_different_shots() -> None:
    shots = FewShot(EXAMPLES, 4)
    shown = {transcript(whole).rpartition("[image]")[0] for whole in shots.before(PROMPTS)}
    assert len(shown) == len(PROMPTS)
    assert FewShot(EXAMPLES, 4, seed=1).before(PROMPTS) != shots.before(PROMPTS)


def test_likest_pictures_come_last() -> None:
    encoder = Greys()
    shots = FewShot(EXAMPLES, 3, "rices", encoder=encoder)
    asked = Sample((Image(picture(20)), Text("?")), {"name": "asked"})
    (whole,) = shots.before([asked])
    assert [image_digest(image.source) for image in whole.images] == [
        image_digest(picture(number)) for number in (18, 21, 19, 20)
    ], "its own picture is not among them; of equals the first is likest"
    assert encoder.looks == 41
    shots.before([asked])
    assert encoder.looks == 42, "the pool is looked at once"


def test_text_only_shots_have_no_pictures() -> None:
    (whole,) = FewShot(EXAMPLES, 2, "text").before(PROMPTS[:1])
    assert whole.images == PROMPTS[0].images
    assert transcript(whole).count("q") == 3


def test_rows_that_cannot_be_read_are_replaced() -> None:
    holes = FewShot(Holes(40, set(range(0, 40, 2))), 4)
    for whole in holes.before(PROMPTS):
        assert len(whole.images) == 5
    with pytest.raises(DataError, match="test/0: 3 examples to show, not 4"):
        FewShot(Holes(4, {1}), 4).before(PROMPTS)


def test_a_shot_without_an_answer_teaches_nothing_and_is_not_shown() -> None:
    silent = Sample((Image(picture(50)), Text("q?"), Text(" ", supervised=True)), {"name": "silent"})
    with pytest.raises(DataError, match="0 examples"):
        FewShot([silent], 1).before(PROMPTS[:1])


def test_the_pool_bounds_what_is_read() -> None:
    read: set[int] = set()

    class Counts(Holes):
        def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
            read.add(index)
            return super().__getitem__(index)

    for _ in range(3):
        FewShot(Counts(200, set()), 4, pool=10).before([solved(n, split="test") for n in range(100)])
    assert len(read) == 10


def test_retrieval_needs_a_model_that_looks() -> None:
    with pytest.raises(SettingsError, match="use random"):
        FewShot(EXAMPLES, 4, "rices")


class Copies(Model):
    """Answers with the answer of its last shot: right only if shots and pictures are what they should be."""

    def __init__(self) -> None:
        self.prompts: list[Sample] = []

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        self.prompts += samples
        return [transcript(sample).split(" a")[-1].split("\n")[0] for sample in samples]


def test_blind_swaps_the_questions_picture_and_not_the_shots() -> None:
    samples = [solved(number, split="test") for number in range(12)]
    task = Task("few", samples, shots=FewShot(EXAMPLES, 2), form="base")
    seen, blind = Copies(), Copies()
    evaluate(task, seen)
    result = evaluate(task, blind, blind=True)
    for one, other in zip(seen.prompts, blind.prompts, strict=True):
        assert one.images[:2] == other.images[:2]
        assert one.images[2] != other.images[2]
        assert one.text == other.text
    assert all(len(example.images) == 1 for example in result.examples), "intervals are by the question's own picture"
    assert all(example.prompt.count("[image ") == 3 for example in result.examples)
    assert result.settings["shots"]["count"] == 2
