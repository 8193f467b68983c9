"""Train the vision encoders in the roles of CLIP-H and EVA-CLIP (paper, Table 2): by captions, at low resolution.

    python scripts/contrastive_vision.py vision-clip          # about 2 minutes of one core
    python scripts/contrastive_vision.py vision-clip-large    # about 4
    python scripts/contrastive_vision.py vision-clip --ship   # writes lorgnette/hub/shipped/vision-clip

CLIP's loss (Radford et al., 2021): each drawing of a batch has to find its own caption among all of the batch, and each
caption its drawing. Drawings are those of the train split, 64 pixels large, turned, mirrored and recoloured; captions
are the titles that they came with and sentences made from what is known of them. The text tower is thrown away.
Training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distil_vision import muon_of, rate_share
from drawing_views import VIEWS, views
from torch import Tensor, nn
from torch.nn import functional

from corpus.drawn.captions import COLOUR_WORDS
from corpus.drawn.layout import single
from corpus.drawn.pairs import clean_caption
from lorgnette.data.builtin.drawings import Drawings
from lorgnette.files import new_file
from lorgnette.hub.formats.backbones import write_vision_backbone
from lorgnette.hub.source import SHIPPED
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import Patches, patchify
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.context import Context
from lorgnette.model.language import Decoder
from lorgnette.model.vision import VisionEncoder
from lorgnette.run import Run, find_recipe
from lorgnette.train.optim import set_lr
from lorgnette.train.setup import build

FOLDER = Path("runs/backbones")
WIDTH = 128
"""Of the space in which drawings and captions meet."""
FIRST_SCALE, LARGEST_SCALE = 1 / 0.07, 100.0
"""CLIP's factor of the cosines, before training and at most."""
CLEAN = 0.6
"""Share of captions that are sentences made from what is known; the others are titles as they were found."""

EVERY, KEPT_EVERY = 20, 10
"""Steps between examinations, and between those that training can go on from."""


@dataclass(frozen=True)
class Role:
    """Sizes of an encoder, and steps of its training."""

    width: int
    heads: int
    steps: int
    layers: int = 4
    mlp_width: int = 768

    def run(self) -> Run:
        """The run whose encoder and decoder are the two towers: 4 x 4 patches at most, two layers for captions."""
        sizes = {name: getattr(self, name) for name in ("width", "heads", "layers", "mlp_width")}
        towers = [f"model.vision.{name}={value}" for name, value in {**sizes, "grid": 4}.items()]
        small = ["images.longest=64", "images.grid=4", "model.language.layers=2"]
        tokenizer = f"tokenizer.path={SHIPPED / 'language'}"
        return Run.load(find_recipe("micro"), ["init={}", tokenizer, *towers, *small])


ROLES = {
    "vision-clip": Role(192, 6, 160),
    "vision-clip-large": Role(256, 8, 240),
}
"""The first is as large as `builtin:vision`, as CLIP-H is of SigLIP's order; the second larger and trained longer, as
EVA-CLIP is."""


# Drawings and their captions.


def shown(rng: random.Random, table: Drawings, index: int, config: ImageConfig) -> Patches:
    """A drawing (or a view of it) alone on a light canvas, in patches."""
    return patchify(single(rng, table, index, config.longest).draw(table), config)


def pair(rng: random.Random, drawing: int, config: ImageConfig) -> tuple[Patches, str]:
    """A view of a drawing of the train split with a caption: of a recoloured one, none that names a colour."""
    table = views("train")
    index = drawing * VIEWS + rng.randrange(VIEWS)
    text = _caption(rng, table, index)
    if table[index].colour != table[drawing * VIEWS].colour and COLOUR_WORDS & set(text.lower().split()):
        index = drawing * VIEWS
        text = _caption(rng, table, index)
    return shown(rng, table, index, config), text


def _caption(rng: random.Random, table: Drawings, index: int) -> str:
    row = table[index]
    return clean_caption(row, rng) if rng.random() < CLEAN or not row.title else row.title


def pairs_of_step(step: int, count: int, config: ImageConfig) -> list[tuple[Patches, str]]:
    """The pairs of a step, of different drawings: a pure function of the step."""
    rng = random.Random(f"contrast {step}")
    return [pair(rng, drawing, config) for drawing in rng.sample(range(len(views("train")) // VIEWS), count)]


# The two towers.


class Towers(nn.Module):
    """An encoder of drawings and one of captions, each with a linear map into the space where they meet."""

    def __init__(self, vision: VisionEncoder, language: Decoder, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.vision, self.language, self.tokenizer = vision, language, tokenizer
        self.of_drawing = nn.Linear(vision.config.width, WIDTH, bias=False)
        self.of_caption = nn.Linear(language.config.width, WIDTH, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))

    def drawings(self, shown: list[Patches]) -> Tensor:
        """Unit vectors of drawings (B,D): the mean of the states of their patches, mapped."""
        return functional.normalize(self.of_drawing(mean_states(self.vision, shown)), dim=1)

    def captions(self, texts: list[str]) -> Tensor:
        """Unit vectors of captions (B,D): the state of the token that ends each, mapped."""
        end = self.tokenizer.eos
        assert end is not None
        rows = [[*self.tokenizer.encode(text), end] for text in texts]
        lengths = SequenceLengths(tuple(map(len, rows)))
        positions_T = torch.cat([torch.arange(length) for length in lengths.lengths])
        embedded_TD = self.language.embedding(torch.tensor([token for row in rows for token in row]))
        states_TD = self.language(embedded_TD, Context(positions_T, lengths))
        last_B = torch.tensor(lengths.starts[1:]) - 1
        return functional.normalize(self.of_caption(states_TD[last_B]), dim=1)

    def loss(self, pairs: list[tuple[Patches, str]]) -> Tensor:
        """CLIP's loss: the mean cross-entropy of drawings to captions and of captions to drawings."""
        scale = self.log_scale.exp().clamp(max=LARGEST_SCALE)
        scores_BB = scale * self.drawings([one for one, _ in pairs]) @ self.captions([text for _, text in pairs]).T
        own_B = torch.arange(len(pairs))
        return (functional.cross_entropy(scores_BB, own_B) + functional.cross_entropy(scores_BB.T, own_B)) / 2


def mean_states(vision: VisionEncoder, shown: list[Patches]) -> Tensor:
    """The mean of the states of each image's patches: B,D."""
    lengths = torch.tensor([len(one) for one in shown])
    states_PD = vision(
        torch.from_numpy(np.concatenate([one.pixels_PC for one in shown])),
        torch.from_numpy(np.concatenate([one.positions_P for one in shown])),
        tuple((one.rows, one.columns) for one in shown),
    )
    owner_P = torch.repeat_interleave(torch.arange(len(shown)), lengths)
    sums_BD = torch.zeros(len(shown), states_PD.shape[1]).index_add(0, owner_P, states_PD)
    return sums_BD / lengths[:, None]


def share_found(scores_BB: Tensor, texts: list[str]) -> tuple[float, float]:
    """R@1 of drawings to captions, and that of a guess. A caption that reads as the own one does is right, too."""
    alike_BB = torch.tensor([[one == other for other in texts] for one in texts])
    found_B = scores_BB.argmax(1)
    right = alike_BB[torch.arange(len(texts)), found_B].float().mean().item()
    return right, alike_BB.float().mean().item()


@torch.no_grad()
def retrieval(towers: Towers, split: str, config: ImageConfig) -> tuple[float, float]:
    """R@1 of all drawings of a split among its captions (sentences), and that of a guess."""
    table, rng = views(split), random.Random(0)
    indices = range(0, len(table), VIEWS)
    texts = [clean_caption(table[index], rng) for index in indices]
    patches = [shown(rng, table, index, config) for index in indices]
    return share_found(towers.drawings(patches) @ towers.captions(texts).T, texts)


# Training.


class Course:
    """An encoder on its way: goes on from `folder`, and is kept there."""

    def __init__(self, options: argparse.Namespace) -> None:
        role = ROLES[options.encoder]
        self.folder, self.steps = options.folder / options.encoder, options.steps or role.steps
        self.count = options.batch
        self.model, self.processor = build(role.run())
        torch.manual_seed(0)
        self.towers = Towers(self.model.vision, self.model.language, self.processor.tokenizer)
        others = [value for name, value in self.towers.named_parameters() if not name.startswith("vision.")]
        self.optimiser = muon_of(self.model.vision, others, options.rate, options.muon_rate)
        self.done, self.seconds = 0, 0.0
        if (file := self.folder / "progress.pt").exists():
            kept = torch.load(file, weights_only=True)
            self.towers.load_state_dict(kept["towers"])
            self.optimiser.load_state_dict(kept["optimiser"])
            self.done, self.seconds = kept["step"], kept["seconds"]

    def save(self) -> None:
        """Keep all that it takes to go on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {"towers": self.towers.state_dict(), "optimiser": self.optimiser.state_dict()}
        with new_file(self.folder / "progress.pt") as beside:
            torch.save(state | {"step": self.done, "seconds": self.seconds}, beside)

    def learn(self) -> float:
        """One step. Returns the loss."""
        began = time.process_time()
        set_lr(self.optimiser, rate_share(self.done, self.steps))
        loss = self.towers.loss(pairs_of_step(self.done, self.count, self.processor.images))
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.done += 1
        self.seconds += time.process_time() - began
        return loss.item()

    def examine(self, split: str = "validation") -> dict[str, Any]:
        """R@1 on drawings that were not trained on, with the steps and the processor time so far."""
        found, chance = retrieval(self.towers, split, self.processor.images)
        scores = {f"{split}_r1": round(found, 4), "chance": round(chance, 4)}
        return {"step": self.done, "cpu_s": round(self.seconds), **scores}


def train(options: argparse.Namespace) -> None:
    """Train an encoder to the end, and write it as a backbone."""
    course, recent = Course(options), list[float]()
    while course.done < course.steps:
        recent = [*recent[1 - EVERY :], course.learn()]
        if course.done % KEPT_EVERY == 0 or course.done == course.steps:
            course.save()
        if course.done % EVERY == 0 or course.done == course.steps:
            row = {**course.examine(), "loss": round(sum(recent) / len(recent), 3)}
            with (course.folder / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    print(json.dumps(course.examine("test")), flush=True)
    folder = SHIPPED / options.encoder if options.ship else course.folder / "vision"
    write_vision_backbone(course.model, course.processor, folder, torch.float16 if options.ship else torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoder", choices=ROLES)
    parser.add_argument("--steps", type=int, help="another number than the role's")
    parser.add_argument("--batch", type=int, default=128, help="pairs of a step")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--muon-rate", type=float, default=0.01)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ship", action="store_true", help="write it into the package, at half precision")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
