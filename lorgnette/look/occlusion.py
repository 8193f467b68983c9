"""Occlusion maps: the log-probability of each answer token without each cell of the image.

A cell's patches are removed, not painted over: the batch has no padding, and the encoder takes any patches with their
positions, so the model reads a picture with a hole and no strange colour. Where a connector or a rule of positions
needs the whole grid, the patches take the mean colour of their image instead (`Occluder.removes` says which).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lorgnette.errors import DataError
from lorgnette.infer.generate import evaluating
from lorgnette.inputs.processor import Processor
from lorgnette.look.steps import Steps, finish
from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.configs.vision_config import VisionConfig
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample

MOST_CELLS = 8
"""Cells along a side of a crop, at most."""
PASS_TOKENS, PASS_PATCHES = 2048, 4096
"""Text tokens and patches of a pass over several variants of an image; one variant may have more."""


class Cell(NamedTuple):
    """A rectangle of patches of one crop, that is removed as a whole."""

    crop: int
    """Number of the crop among those of the prompt."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom as shares of the crop."""
    patches: tuple[int, ...]
    """Places of its patches among those of all crops."""


def cells_of(grids: Sequence[tuple[int, int]]) -> list[Cell]:
    """The cells of crops of so many rows and columns of patches, crop by crop, row by row."""
    starts = accumulate((rows * columns for rows, columns in grids), initial=0)
    crops = enumerate(zip(starts, grids, strict=False))
    return [cell for crop, (start, grid) in crops for cell in _cut(crop, start, grid)]


def _cut(crop: int, start: int, grid: tuple[int, int]) -> Iterator[Cell]:
    rows, columns = grid
    down, along = (np.linspace(0, side, min(side, MOST_CELLS) + 1).round().astype(int) for side in grid)
    for top, bottom in pairwise(down):
        for left, right in pairwise(along):
            patches = [start + row * columns + column for row in range(top, bottom) for column in range(left, right)]
            yield Cell(crop, (left / columns, top / rows, right / columns, bottom / rows), tuple(patches))


class Occluder:
    """Scores one answer to one prompt, with patches taken out of its images."""

    def __init__(
        self,
        model: VLM,
        processor: Processor,
        prompt: Sample,
        answer: Sequence[int],
        work: tuple[int, int] = (PASS_TOKENS, PASS_PATCHES),
    ) -> None:
        """answer: token ids whose log-probabilities are asked for. work: text tokens and patches of a pass.

        Raises: DataError if the prompt shows no image, or there is no answer; ImageError.
        """
        batch = processor.prompts([prompt])
        if not batch.grids:
            raise DataError(f"{prompt.name}: shows no image to look at")
        if not answer:
            raise DataError(f"{prompt.name}: the answer is empty; give one as text")
        self.model, self.answer, self.work = model, tuple(answer), work
        self.batch = _answered(batch, self.answer)
        self.cells = cells_of(batch.grids)
        self.removes = _takes_any_patches(model)
        """Whether patches are removed; else they take the mean colour of their crop."""

    def scores(self, without: Iterable[Sequence[int]]) -> np.ndarray:
        """Log-probability of each answer token (natural logarithm): a row for each set of cells that is taken out.

        without: numbers of cells. A crop of which nothing would be left keeps its first patch. Shape: sets, tokens.
        """
        return finish(self.score_steps(without))

    def score_steps(self, without: Iterable[Sequence[int]]) -> Steps[np.ndarray]:
        """As `scores`, one pass of the model at a time."""
        found = [np.empty((0, len(self.answer)))]
        for batch in self._batches(self._variant(cells) for cells in without):
            with evaluating(self.model), torch.no_grad():
                scores_T = self.model(batch.to(self.model.device), output="scores").scores
            rows = scores_T.cpu()[batch.targets_T != IGNORE_INDEX].double()
            found.append(rows.view(-1, len(self.answer)).numpy())
            yield
        return np.concatenate(found)

    def maps(self) -> tuple[np.ndarray, np.ndarray]:
        """Drop of log-probability of each token without each cell (cells, tokens), and the scores of the whole."""
        return finish(self.map_steps())

    def map_steps(self) -> Steps[tuple[np.ndarray, np.ndarray]]:
        """As `maps`, one pass of the model at a time."""
        scores = yield from self.score_steps([(), *((number,) for number in range(len(self.cells)))])
        return scores[0] - scores[1:], scores[0]

    def _variant(self, cells: Sequence[int]) -> Batch:
        gone = [patch for number in cells for patch in self.cells[number].patches]
        if not gone:
            return self.batch
        if not self.removes:
            return dataclasses.replace(self.batch, patches_PC=_painted(self.batch, gone))
        kept_P = torch.ones(len(self.batch.patches_PC), dtype=torch.bool)
        kept_P[gone] = False
        crops = kept_P.split(list(self.batch.images.lengths))
        for kept in crops:
            kept[0] |= not kept.any()  # an image has a patch
        left = [int(kept.sum()) for kept in crops]
        return dataclasses.replace(
            self.batch,
            patches_PC=self.batch.patches_PC[kept_P],
            patch_positions_P=self.batch.patch_positions_P[kept_P],
            grids=tuple((1, count) for count in left),
        )

    def _batches(self, variants: Iterable[Batch]) -> Iterator[Batch]:
        """Variants packed end to end, up to so many tokens and patches a pass."""
        waiting: list[Batch] = []
        most_tokens, most_patches = self.work
        tokens = patches = 0
        for one in variants:
            if waiting and (tokens + len(one.tokens_T) > most_tokens or patches + len(one.patches_PC) > most_patches):
                yield joined(waiting)
                waiting, tokens, patches = [], 0, 0
            waiting.append(one)
            tokens, patches = tokens + len(one.tokens_T), patches + len(one.patches_PC)
        if waiting:
            yield joined(waiting)


def joined(batches: Sequence[Batch]) -> Batch:
    """Batches end to end, as one."""
    starts = accumulate((len(one.tokens_T) for one in batches), initial=0)
    return Batch(
        tokens_T=torch.cat([one.tokens_T for one in batches]),
        targets_T=torch.cat([one.targets_T for one in batches]),
        positions_T=torch.cat([one.positions_T for one in batches]),
        documents=SequenceLengths(tuple(length for one in batches for length in one.documents.lengths)),
        patches_PC=torch.cat([one.patches_PC for one in batches]),
        patch_positions_P=torch.cat([one.patch_positions_P for one in batches]),
        grids=tuple(grid for one in batches for grid in one.grids),
        visual_positions_V=torch.cat(
            [one.visual_positions_V + start for one, start in zip(batches, starts, strict=False)]
        ),
    )


def _answered(batch: Batch, answer: tuple[int, ...]) -> Batch:
    """A prompt followed by an answer, whose tokens are the targets."""
    tokens_T = torch.cat([batch.tokens_T, torch.tensor(answer[:-1], dtype=torch.int64)])
    targets_T = torch.full_like(tokens_T, IGNORE_INDEX)
    targets_T[-len(answer) :] = torch.tensor(answer)
    length = len(tokens_T)
    return dataclasses.replace(
        batch,
        tokens_T=tokens_T,
        targets_T=targets_T,
        positions_T=torch.arange(length),
        documents=SequenceLengths((length,)),
    )


def _takes_any_patches(model: VLM) -> bool:
    """Return whether the model reads any subset of an image's patches: no part of it needs their grid."""
    vision, connector = model.config.vision, model.config.connector
    return isinstance(connector, PerceiverConfig) and isinstance(vision, VisionConfig) and not vision.interpolates


def _painted(batch: Batch, gone: Sequence[int]) -> Tensor:
    """Patches of which some have the mean colour of their image."""
    patches_PC, width = batch.patches_PC.clone(), batch.patches_PC.shape[1] // 3
    holes_P = torch.zeros(len(patches_PC), dtype=torch.bool)
    holes_P[list(gone)] = True
    for start, end in zip(batch.images.starts, batch.images.starts[1:], strict=False):
        colour_3 = batch.patches_PC[start:end].view(-1, 3, width).float().mean((0, 2)).round().to(torch.uint8)
        patches_PC[start:end][holes_P[start:end]] = colour_3.repeat_interleave(width)
    return patches_PC
