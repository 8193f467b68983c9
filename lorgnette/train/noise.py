"""NEFTune (Jain et al. 2023): noise on embedded tokens in training, put around the model from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lorgnette.model.batch import Batch, Spans
from lorgnette.model.vlm import VLM


class Neftune:
    """Noise while it is entered: uniform within alpha / sqrt(L D), L a document's own length and D its width.

    Only in training mode. Visual tokens are not embedded by the table and get none.
    """

    def __init__(self, model: VLM, alpha: float) -> None:
        self.model, self.alpha = model, alpha
        self._documents = Spans(())
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
        self._documents = inputs[0].documents

    def _disturb(self, embedding: nn.Module, inputs: tuple[Tensor, ...], tokens_TD: Tensor) -> Tensor | None:
        if not self.model.training:
            return None
        lengths = self._documents.lengths_on(tokens_TD.device)
        length_T = torch.repeat_interleave(lengths, lengths)
        reach_T = self.alpha / (length_T * tokens_TD.shape[-1]).sqrt()
        noise_TD = torch.empty_like(tokens_TD).uniform_(-1, 1)
        return tokens_TD + noise_TD * reach_T[:, None].to(tokens_TD.dtype)
