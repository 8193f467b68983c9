"""A handful of samples that show everything an inspector must show, and a look at them."""

from __future__ import annotations

import PIL.Image
import pytest

from lorgnette.data.config import PackConfig
from lorgnette.data.inspect import Gatherer, Preview, TokenDecoder, rules, shares
from lorgnette.data.loader.batches import BatchBuilder
from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.data.record import Record
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.sample import Image, Sample, Text, Turn
from tests.data.plans import index_of

RED, BLUE = (250, 10, 20), (10, 30, 240)
HOSTILE = '<script>alert("x")</script> <image> \u202egnp.exe\u202c & co'


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (32, 16)) -> PIL.Image.Image:
    return PIL.Image.new("RGB", size, colour)


def samples() -> list[Sample]:
    """A caption, a conversation about two images, a text, and a text of signs that a page must not obey."""
    asked = (Turn("user"), Image(picture(BLUE)), Image(picture(RED, (16, 24))), Text("Which is red?"))
    return [
        Sample((Image(picture(RED)), Text("A red square, très rouge 🟥.", supervised=True)), {"name": "caption"}),
        Sample((*asked, Turn("assistant"), Text("The second.", supervised=True)), {"name": "two images"}),
        Sample((Text("Nothing to see here.", supervised=True),), {"name": "text"}),
        Sample((Text(HOSTILE, supervised=True),), {"name": "<b>hostile</b>"}),
    ]


class Listed:
    """A prepared source of samples that are at hand, each of one unit."""

    def __init__(self, listed: list[Sample]) -> None:
        self.listed = listed

    def record(self, number: int) -> Record:
        return Record((self.listed[number].segments,), meta=self.listed[number].meta)


def planned(listed: list[Sample], weight: float, processor: Processor) -> PlannedSource:
    """The index that preparing the samples would make."""
    rendered = [processor.render(one) for one in listed]
    tokens = [[len(one.tokens_T)] for one in rendered]
    images = [[(0, *image.source.size) for image in one.images] for one in listed]
    return PlannedSource("<b>hostile</b>", index_of(tokens, images), weight)


@pytest.fixture(scope="session")
def processor() -> Processor:
    texts = [one.text for one in samples()] * 3
    tokenizer = train_tokenizer(texts, vocabulary=330, special=SpecialTokens())
    images = ImageConfig(shortest=16, longest=32, patch=8, grid=4)
    return Processor(tokenizer, images, connector=PerceiverConfig(latents=2))


@pytest.fixture(scope="session")
def steps(processor) -> BatchBuilder:
    """Steps of one pack of eight samples, in two batches."""
    listed = samples(), samples()[:1]
    sources = tuple(planned(some, weight, processor) for some, weight in zip(listed, (3.0, 1.0), strict=True))
    pack = PackConfig(samples=8, packs_per_step=1)
    plan = PackedPlan(sources, pack, 1, processor.images, processor.connector)
    return BatchBuilder(plan, tuple(map(Listed, listed)), processor, micro_batches=2)


@pytest.fixture(scope="session")
def gatherer(processor) -> Gatherer:
    return Gatherer(processor, processor.tokenizer.vocabulary)


@pytest.fixture(scope="session")
def decoder(processor) -> TokenDecoder:
    return TokenDecoder(processor.tokenizer, processor.image_token)


@pytest.fixture(scope="session")
def look(gatherer, steps, processor) -> Preview:
    packs, refused = gatherer.steps(steps, 0, 2, most=64)
    titles = ["samples", "captions"]
    return Preview(
        "made for a test", tuple(packs), shares(titles, [3, 1]), refused=tuple(refused), facts=rules(processor)
    )
