"""NEFTune (Jain et al. 2023): noise on embedded tokens in training, put around the model from outside."""

from __future__ import annotations

import threading
import zlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lorgnette.model.batch import Batch
from lorgnette.model.vlm import VLM


class Neftune:
    """Noise while it is entered: uniform within alpha / sqrt(L D), L a document's own length and D its width.

    Only in training mode. Visual tokens are not embedded by the table and get none. The noise of a pack depends on
    torch's seed and on what the pack holds, whichever other packs are computed before it or beside it.
    """

    def __init__(self, model: VLM, alpha: float) -> None:
        self.model, self.alpha = model, alpha
        self._now = threading.local()
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Neftune:
        if self.alpha:
            embedding = self.model.language.embedding
            self._hooks.append(self.model.register_forward_pre_hook(self._remember))
            self._hooks.append(embedding.register_forward_hook(self._disturb))
        return self

    def __exit__(self, *_: Any) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _remember(self, model: nn.Module, inputs: tuple[Batch, ...]) -> None:
        self._now.batch = inputs[0]

    def _disturb(self, embedding: nn.Module, inputs: tuple[Tensor, ...], tokens_TD: Tensor) -> Tensor | None:
        if not self.model.training:
            return None
        batch: Batch = self._now.batch
        lengths = batch.documents.lengths_on(tokens_TD.device)
        length_T = torch.repeat_interleave(lengths, lengths)
        reach_T = self.alpha / (length_T * tokens_TD.shape[-1]).sqrt()
        held = repr((batch.refs, batch.names, batch.documents.lengths)).encode()
        generator = torch.Generator(tokens_TD.device).manual_seed(torch.initial_seed() ^ zlib.crc32(held))
        noise_TD = torch.empty_like(tokens_TD).uniform_(-1, 1, generator=generator)
        return tokens_TD + noise_TD * reach_T[:, None].to(tokens_TD.dtype)
