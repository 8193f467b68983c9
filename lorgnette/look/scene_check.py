"""`lorgnette look --check`: are the maps right? On built-in pictures of one drawing, whose place is known."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from lorgnette.data.builtin.drawings import drawings, fit
from lorgnette.data.sources.scenes import DrawingAt, compose
from lorgnette.eval.metrics.metric import Floats, mean
from lorgnette.eval.results.bootstrap import Estimate, estimate
from lorgnette.inputs.processor import Processor
from lorgnette.look.faithfulness import check_map
from lorgnette.look.look import answer_tokens, asked
from lorgnette.look.occlusion import Cell, Occluder
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image
from lorgnette.seeds import derive_seed

CHECK_QUESTIONS = ("What colour is this drawing?", "What kind of thing is this?")
CHECK_CANVAS, DRAWING_SIDES = (128, 96), (40, 64)
"""Width and height of a scene, and the least and most of a drawing's longest side, in pixels."""
CHECK_ORDERS = 8
_MOST_TOKENS = 8


@dataclass(frozen=True)
class Scene:
    """A picture of one drawing, a question about it, and the drawing's place as shares of the picture."""

    image: Image
    question: str
    box: tuple[float, float, float, float]


def scenes(count: int) -> list[Scene]:
    """Drawings that no training split holds, each alone on a canvas, with a question about its colour or category."""
    table = drawings("test")
    usable = [n for n, one in enumerate(table) if one.whole and one.colour and one.category]
    found = []
    for number in range(count):
        draw = random.Random(derive_seed("look", number))
        chosen = draw.choice(usable)
        width, height = fit(table[chosen].width, table[chosen].height, *[draw.randint(*DRAWING_SIDES)] * 2)
        left, top = draw.randint(0, CHECK_CANVAS[0] - width), draw.randint(0, CHECK_CANVAS[1] - height)
        edges = left, top, left + width, top + height
        file = io.BytesIO()
        compose(*CHECK_CANVAS, (255, 255, 255), [DrawingAt(table, chosen, edges)]).save(file, "PNG")
        box = left / CHECK_CANVAS[0], top / CHECK_CANVAS[1], edges[2] / CHECK_CANVAS[0], edges[3] / CHECK_CANVAS[1]
        found.append(Scene(Image(file.getvalue()), CHECK_QUESTIONS[number % len(CHECK_QUESTIONS)], box))
    return found


@cache
def other_pictures() -> tuple[Image, ...]:
    """Pictures for `look` to compare with."""
    return tuple(scene.image for scene in scenes(4))


@dataclass(frozen=True)
class Check:
    """Means over scenes with 95 % intervals. The unit is nats a token unless it says otherwise."""

    gain: Estimate
    """Fall of log-probability by taking out the best cells of a map, over random ones; times 100."""
    energy: Estimate
    """Share of a map's positive part inside the drawing's box, in percent."""
    chance: Estimate
    """Share of the picture that the box fills, in percent: the energy of a map that knows nothing."""
    pointing: Estimate
    """Percent of maps whose best cell touches the box."""
    random_correlation: Estimate
    """Correlation of maps with those of the same model with random weights, times 100."""
    blind: Estimate
    """Log-probability with the image minus with the next scene's; times 100."""

    def plain(self) -> dict[str, list[float]]:
        """Values as lists of mean, low and high, in nats a token and in shares."""
        return {
            name: [round(part / 100, 4) for part in (one.value, one.low, one.high)] for name, one in vars(self).items()
        } | {"scenes": [self.gain.count]}


def check_scenes(
    model: VLM, processor: Processor, count: int = 100, on_done: Callable[[int, int], None] | None = None
) -> Check:
    """Look at built-in scenes, each with the model's own answer."""
    found = scenes(count)
    untrained = VLM(model.config).initialise(1, model.device).eval()
    rows = []
    for number, scene in enumerate(found):
        rows.append(_row(model, untrained, processor, scene, found[(number + 1) % len(found)].image))
        if on_done is not None:
            on_done(number + 1, len(found))
    columns = zip(*rows, strict=True)
    return Check(*(_mean([value for value in column if value is not None]) for column in columns))


def _row(model: VLM, untrained: VLM, processor: Processor, scene: Scene, other: Image) -> tuple[float | None, ...]:
    prompt = asked([scene.image], scene.question)
    tokens = answer_tokens(model, processor, prompt, None, _MOST_TOKENS)
    occluder = Occluder(model, processor, prompt, tokens)
    maps_CT, scores_T = occluder.maps()
    values = maps_CT.mean(1)
    by_chance = Occluder(untrained, processor, prompt, tokens).maps()[0].mean(1)
    spread = values.std() * by_chance.std()
    correlation = float(np.corrcoef(values, by_chance)[0, 1]) if spread > 0 else None
    alone = Occluder(model, processor, asked([other], scene.question), tokens).scores([()]).mean()
    shares = np.array(list(_shares(occluder.cells, scene.box)))
    positive = np.maximum(values, 0)
    energy = float((positive * shares).sum() / positive.sum()) if positive.sum() > 0 else None
    left, top, right, bottom = scene.box
    return (
        check_map(occluder, values, CHECK_ORDERS).gain,
        energy,
        (right - left) * (bottom - top),
        float(shares[int(values.argmax())] > 0),
        correlation,
        float(scores_T.mean() - alone),
    )


def _shares(cells: list[Cell], box: tuple[float, float, float, float]) -> Iterator[float]:
    """The share of each cell that lies in the box."""
    for cell in cells:
        left, top, right, bottom = cell.box
        along = max(0.0, min(right, box[2]) - max(left, box[0])) / (right - left)
        down = max(0.0, min(bottom, box[3]) - max(top, box[1])) / (bottom - top)
        yield along * down


def _mean(values: list[float]) -> Estimate:
    counts: Floats = np.column_stack([values, np.ones(len(values))])
    return estimate(counts, _ratio, range(len(values)))


def _ratio(sums: Floats) -> Floats:
    """A mean of what is no proportion, for which Wilson's interval is not."""
    return mean(sums)
