"""Random indexes that have the published statistics of OBELICS and of The Cauldron, without their data.

OBELICS has 2.5 images and 816 tokens a document (353M images and 115B tokens in 141M documents), here in paragraphs.
The Cauldron's sets have the images, questions and answer tokens of `SETS`, mixed as the paper's Table 14 does.
"""

from __future__ import annotations

import numpy as np

from lorgnette.data.config import AugmentConfig, PackConfig
from lorgnette.data.index import Index
from lorgnette.data.plan.mixture import PlannedSource
from lorgnette.data.plan.pack_plan import PackedPlan
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.configs.connector_config import PerceiverConfig

SETS = {  # weight, images, questions, answer tokens: The Cauldron's largest sets of each category, and one in text only
    "vqav2": (0.7, 82_772, 443_757, 1_595_929),
    "tallyqa": (0.15, 98_680, 183_986, 738_254),
    "localized_narratives": (0.04, 507_444, 507_444, 21_328_731),
    "rendered_text": (0.04, 999_000, 999_000, 27_207_774),
    "docvqa": (2, 10_189, 39_463, 337_829),
    "textcaps": (1, 21_953, 21_953, 389_658),
    "chart2text": (0.3, 26_985, 30_242, 2_852_827),
    "dvqa": (0.1, 200_000, 2_325_316, 8_346_234),
    "plotqa": (0.015, 157_070, 20_249_479, 8_478_299),
    "tabmwp": (0.25, 22_729, 23_059, 1_948_166),
    "tat_qa": (1.5, 2_199, 13_215, 283_776),
    "clevr_math": (0.2, 70_000, 788_650, 3_184_656),
    "ai2d": (4, 3_099, 9_708, 38_832),
    "nlvr2": (1, 50_426, 86_373, 259_119),
    "openhermes": (0.01, 1_006_223, 1_006_223, 248_553_747),
}
TWO_IMAGES, TEXT_ONLY = ("nlvr2",), ("openhermes",)
QUESTION_TOKENS, ROLE_TOKENS = 18, 8
"""Of a question, and of what marks two turns."""


def obelics(records: int) -> tuple[PlannedSource, ...]:
    """Documents of paragraphs, with images in units of their own among them; all text is learned."""
    draw = np.random.default_rng(0)
    length_E = draw.lognormal(np.log(816) - 0.5 * 0.9**2, 0.9, records)
    images_E = draw.geometric(1 / 2.5, records)
    units_E = 1 + draw.poisson(length_E / 70) + images_E
    owner_U = np.repeat(np.arange(records), units_E)
    place_U = np.arange(len(owner_U)) - np.repeat(np.cumsum(units_E) - units_E, units_E)
    is_image_U = np.zeros(len(owner_U), dtype=bool)
    shuffled = np.lexsort((draw.random(len(owner_U)), owner_U))  # which units of a record are images
    is_image_U[shuffled] = place_U < images_E[owner_U]
    share_U = np.where(is_image_U, 0, draw.gamma(1.5, 1.0, len(owner_U)))
    tokens_U = np.rint(share_U * (length_E / np.bincount(owner_U, share_U))[owner_U])
    tokens_U = np.where(is_image_U, 0, np.clip(tokens_U, 1, 1500))
    return (PlannedSource("obelics-like", _index(units_E, tokens_U, tokens_U, images_E, place_U[is_image_U], draw)),)


def cauldron(records: int) -> tuple[PlannedSource, ...]:
    """Sets of questions on images: the images are the head, a question with its answer is a unit."""
    draw = np.random.default_rng(1)
    sets, total = [], sum(images for _, images, _, _ in SETS.values())
    for title, (weight, images, questions, answers) in SETS.items():
        many = max(1000, records * images // total)
        units_E = 1 + draw.poisson(max(0.0, questions / images - 1), many)
        units = int(units_E.sum())
        answer_U = 1 + np.rint(draw.gamma(1.5, answers / questions / 1.5, units))
        question_U = np.rint(QUESTION_TOKENS * draw.lognormal(0, 0.4, units)) + ROLE_TOKENS
        shown_E = np.full(many, 0 if title in TEXT_ONLY else 2 if title in TWO_IMAGES else 1)
        unit_I = np.full(int(shown_E.sum()), -1)
        index = _index(units_E, answer_U + question_U, answer_U, shown_E, unit_I, draw)
        sets.append(PlannedSource(title, index, weight * images, most_units=7))
    return tuple(sets)


def plan_of(sources: tuple[PlannedSource, ...]) -> PackedPlan:
    """Packs of section 4.1, with half of the samples split and half of the images enlarged."""
    augment = AugmentConfig(split=0.5, upscale=0.5)
    return PackedPlan(sources, PackConfig(), 0, ImageConfig(), PerceiverConfig(), augment)


def _index(
    units_E: np.ndarray,
    tokens_U: np.ndarray,
    supervised_U: np.ndarray,
    images_E: np.ndarray,
    unit_I: np.ndarray,
    draw: np.random.Generator,
) -> Index:
    """An index with images shaped as the web's, in row groups of a hundred records."""
    records, images = len(units_E), len(unit_I)
    side, aspect = draw.lognormal(6.55, 0.4, images), draw.lognormal(0.2, 0.35, images)
    number, hashes = np.arange(records), np.zeros(images, np.uint64)
    heads = np.full(records, 2)
    rows = (number * 0, number // 100, number % 100, heads, units_E, images_E, tokens_U, supervised_U, unit_I)
    shapes = (np.maximum(1, side * aspect**0.5), np.maximum(1, side / aspect**0.5))
    return Index(("made",), *(values.astype(np.int32) for values in (*rows, *shapes)), hashes, hashes)
