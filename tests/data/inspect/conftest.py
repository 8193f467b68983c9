"""A handful of samples that show everything an inspector must show, and a look at them."""

from __future__ import annotations

import PIL.Image
import pytest

from lorgnette.data.inspect import Gatherer, Preview, Speller, rules, shares
from lorgnette.data.loader.batches import Steps
from lorgnette.data.plan.sample_ref import Plan
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.config import PerceiverConfig
from lorgnette.sample import Image, Sample, Text, Turn

RED, BLUE = (250, 10, 20), (10, 30, 240)
HOSTILE = '<script>alert("x")</script> <image> \u202egnp.exe\u202c & co'


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (32, 16)) -> PIL.Image.Image:
    return PIL.Image.new("RGB", size, colour)


def samples() -> list[Sample]:
    """A caption, a conversation about two images, a text, and a text of signs that a page must not obey."""
    asked = (Turn("user"), Image(picture(BLUE)), Image(picture(RED, (16, 24))), Text("Which is red?"))
    return [
        Sample((Image(picture(RED)), Text("A red square, très rouge 🟥.", learn=True)), {"name": "caption"}),
        Sample((*asked, Turn("assistant"), Text("The second.", learn=True)), {"name": "two images"}),
        Sample((Text("Nothing to see here.", learn=True),), {"name": "text"}),
        Sample((Text(HOSTILE, learn=True),), {"name": "<b>hostile</b>"}),
    ]


class Listed:
    """A source of samples that are at hand."""

    def __init__(self, listed: list[Sample]) -> None:
        self.listed, self.size = listed, len(listed)

    def __getitem__(self, index: int) -> Sample:
        return self.listed[index]


@pytest.fixture(scope="session")
def processor() -> Processor:
    texts = [one.text for one in samples()] * 3
    tokenizer = train_tokenizer(texts, vocabulary=330, special=SpecialTokens())
    images = ImageConfig(shortest=16, longest=32, patch=8, grid=4)
    return Processor(tokenizer, images, connector=PerceiverConfig(latents=2))


@pytest.fixture(scope="session")
def steps(processor) -> Steps:
    sources = (Listed(samples()), Listed(samples()[:1]))
    return Steps(Plan(sizes=(4, 1), weights=(3.0, 1.0), samples_per_step=8, seed=1), sources, processor, 2)


@pytest.fixture(scope="session")
def gatherer(processor) -> Gatherer:
    return Gatherer(processor, processor.tokenizer.vocabulary)


@pytest.fixture(scope="session")
def speller(processor) -> Speller:
    return Speller(processor.tokenizer, processor.image_token)


@pytest.fixture(scope="session")
def look(gatherer, steps, processor) -> Preview:
    packs, refused = gatherer.steps(steps, 0, 2, most=64)
    titles = ["samples", "captions"]
    return Preview(
        "made for a test", tuple(packs), shares(titles, [3, 1]), refused=tuple(refused), facts=rules(processor)
    )
