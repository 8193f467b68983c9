"""Randomness of a training step, put around the model from outside: NEFTune's noise (Jain et al. 2023) and dropout.

What is drawn depends on the step's seed and on what a document or pack holds: not on ranks, on the order in which
packs are computed, on names or on paths. So a run has equal losses on any number of ranks and wherever its data lie.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lorgnette.model.batch import Batch
from lorgnette.model.vlm import VLM
from lorgnette.seeds import derive_seed


class Neftune:
    """Noise while it is entered: uniform within alpha / sqrt(L D), L a document's own length and D its width.

    Only in training mode. Visual tokens are not embedded by the table and get none. Each document's noise is drawn from
    the seed and the document's tokens and pixels.
    dropout: seed torch's generator before each pack, from the seed and what the pack holds, for layers that draw
    from it. Packs are to be computed one after another then.
    seed: of the step, which the loop sets; torch's own where it is None.
    """

    def __init__(self, model: VLM, alpha: float, *, dropout: bool = False, seed: int | None = None) -> None:
        self.model, self.alpha, self.dropout, self.seed = model, alpha, dropout, seed
        self._now = threading.local()
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Neftune:
        if self.alpha or self.dropout:
            self._hooks.append(self.model.register_forward_pre_hook(self._remember))
        if self.alpha:
            self._hooks.append(self.model.language.embedding.register_forward_hook(self._disturb))
        return self

    def __exit__(self, *_: Any) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _remember(self, model: nn.Module, inputs: tuple[Batch, ...]) -> None:
        if not model.training:
            return
        seed = torch.initial_seed() if self.seed is None else self.seed
        self._now.seeds = document_seeds(inputs[0], seed)
        self._now.lengths = inputs[0].documents
        if self.dropout:
            torch.manual_seed(derive_seed(seed, *self._now.seeds))

    def _disturb(self, embedding: nn.Module, inputs: tuple[Tensor, ...], tokens_TD: Tensor) -> Tensor | None:
        if not self.model.training:
            return None
        lengths = self._now.lengths.lengths_on(tokens_TD.device)
        length_T = torch.repeat_interleave(lengths, lengths)
        reach_T = self.alpha / (length_T * tokens_TD.shape[-1]).sqrt()
        generator, noise_TD = torch.Generator(tokens_TD.device), torch.empty_like(tokens_TD)
        for seed, document_TD in zip(self._now.seeds, noise_TD.split(self._now.lengths.lengths), strict=True):
            document_TD.uniform_(-1, 1, generator=generator.manual_seed(seed))
        return tokens_TD + noise_TD * reach_T[:, None].to(tokens_TD.dtype)


def document_seeds(batch: Batch, seed: int) -> list[int]:
    """A seed for each document of a pack, from `seed` and the document's tokens and, by sums, its images' pixels."""
    content_T, device = batch.tokens_T.clone(), batch.device
    if len(batch.images):
        lengths = batch.images.lengths_on(device)
        image_P = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
        pixels_I = lengths.long().index_add(0, image_P, batch.patches_PC.sum(1, dtype=torch.int64))
        content_T[batch.visual_positions_V] += pixels_I.repeat_interleave(len(batch.visual_positions_V) // len(lengths))
    held, starts = content_T.cpu().numpy(), batch.documents.starts
    return [derive_seed(seed, held[first:last].tobytes()) for first, last in pairwise(starts)]
