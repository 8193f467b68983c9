"""The whole model on one screen: encode images, connect, merge, decode.

Shapes live in names. T tokens, P patches, C values per patch, I images, V visual tokens, D width, H query heads, G
key-value heads, N head width, S keys (cached and new), L latents, K vocabulary rows, B a stack of equal-length spans,
R query heads per key-value head. In an index of data: E records, U units of records, W addresses of images, Q hashes
asked for. On a page of a document: N runs of text, S strips of it, M places between columns. So `q_THN` is tokens by
heads by head width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lorgnette.model.batch import IGNORED, Batch, Spans
from lorgnette.model.config import VLMConfig
from lorgnette.model.connectors import build_connector
from lorgnette.model.context import CachedDocuments, Context
from lorgnette.model.initialise import initialise
from lorgnette.model.language import Decoder
from lorgnette.model.layers import Stack
from lorgnette.model.ops.loss import linear_log_probabilities, linear_losses
from lorgnette.model.vision import VisionEncoder


@dataclass(frozen=True)
class Output:
    """Output of a forward pass: the fields that `want` asked for; the others are None."""

    logits: Tensor | None = None
    """want="logits": a row per token (T,K). want="last": a row per document, of its last token (documents,K)."""
    loss_sum: Tensor | None = None
    """want="loss": cross-entropy summed over learned tokens, with its z-loss (float32 scalar)."""
    losses: Tensor | None = None
    """want="loss": the cross-entropy of each learned token, in their order (float32); no gradient."""
    learned: Tensor | None = None
    """want="loss": the number of learned tokens (int64 scalar)."""
    scores: Tensor | None = None
    """want="scores": log-probability of each token's target, 0 where nothing is learned (float32, T); no gradient."""


class VLM(nn.Module):
    """A vision-language model (Idefics2, paper §3.2). It knows neither tokenizer nor file format."""

    def __init__(self, config: VLMConfig):
        """Random weights, as of `initialise(0)`; shapes alone under `torch.device("meta")`."""
        super().__init__()
        self.config = config
        self.z_loss = 0.0
        """Weight of the squared log-normaliser of each learned token in the loss."""
        self.passes_by = True
        """Whether a batch without images passes the vision encoder by, where no gradient is wanted. Not if sharded."""
        device = torch.get_default_device()
        with torch.device("meta"):  # so that no weight is drawn twice
            self.vision = VisionEncoder(config.vision)
            self.connector = build_connector(config.connector, config.vision.width, config.language.width)
            self.language = Decoder(config.language, config.extra_vocabulary)
        if device != torch.device("meta"):
            self.initialise(0, device)

    def forward(
        self,
        batch: Batch,
        *,
        want: Literal["logits", "loss", "last", "scores"] = "logits",
        cache: CachedDocuments | None = None,
        visual_VD: Tensor | None = None,
    ) -> Output:
        """visual_VD: the batch's visual tokens where `encode_images` has made them already."""
        if visual_VD is None:
            visual_VD = self.encode_images(batch)
        x_TD = merge_visual_tokens(self.language.embedding(batch.tokens_T), visual_VD, batch.visual_V)
        context = self.context(batch, cache, self.rows_read(batch, want))
        hidden_TD = self.language(x_TD, context)
        return self.read_out(hidden_TD, context.rows_T, batch, want)

    def encode_images(self, batch: Batch) -> Tensor:
        """The visual tokens of all images of the batch, end to end: V,D.

        A batch without images passes empty tensors through, so that in training every rank touches the same weights.
        """
        if not len(batch.images) and not torch.is_grad_enabled() and self.passes_by:
            return self.connector.empty()
        patches_PD = self.vision(batch.patches_PC, batch.patch_positions_P, batch.images)
        visual_VD: Tensor = self.connector(patches_PD, batch.grids)
        return visual_VD

    def context(self, batch: Batch, cache: CachedDocuments | None, rows_T: Tensor | None) -> Context:
        """Build the context of this pass. The original code trains on a pack as on one long document."""
        if self.config.isolate_documents or not self.training:
            return Context(batch.positions_T, batch.documents, cache, rows_T)
        total = batch.documents.total
        return Context(torch.arange(total, device=batch.device), Spans((total,)), cache, rows_T)

    def rows_read(self, batch: Batch, want: str) -> Tensor | None:
        """The tokens whose hidden states are read: the decoder leaves out of its last MLP what nobody reads."""
        if want == "logits":
            return None
        if want == "last":
            return batch.document_starts[1:].long() - 1
        if want in ("loss", "scores"):
            return (batch.targets_T != IGNORED).nonzero()[:, 0]
        raise ValueError(f"want={want!r} is unknown; use logits, loss, last or scores")

    def read_out(self, hidden_TD: Tensor, rows_T: Tensor | None, batch: Batch, want: str) -> Output:
        """From the decoder's hidden states, of these rows, to what was asked for."""
        head = self.language.head
        if rows_T is None or want == "last":
            return Output(logits=head.logits(hidden_TD))
        targets = batch.targets_T[rows_T]
        if want == "loss":
            learned = torch.tensor(len(rows_T), device=batch.device)
            loss_sum, losses = linear_losses(hidden_TD, head.tables, targets, z_loss=self.z_loss)
            return Output(loss_sum=loss_sum, losses=losses, learned=learned)
        scores_T = torch.zeros(len(batch.tokens_T), device=hidden_TD.device)
        return Output(scores=scores_T.index_copy(0, rows_T, linear_log_probabilities(hidden_TD, head.tables, targets)))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; of those of the connector where parts differ."""
        return next(self.connector.parameters()).dtype

    def initialise(self, seed: int, device: torch.device | str | None = None) -> VLM:
        """Initialise all weights, each from `seed` and its name, on `device` (where the model is, if None)."""
        if device is not None or self.device == torch.device("meta"):
            self.to_empty(device=device or "cpu")
        initialise(self, seed)
        return self

    def gradient_checkpointing(self, enabled: bool = True) -> None:
        """Recompute activations in the backward pass, layer by layer, in every part (the perceiver too)."""
        for part in self.modules():
            if isinstance(part, Stack):
                part.checkpointed = enabled

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part: vision, connector, language (without the extra rows) and extra_vocabulary."""
        groups: dict[str, list[nn.Parameter]] = {"vision": [], "connector": [], "language": [], "extra_vocabulary": []}
        for name, parameter in self.named_parameters():
            extra = name.endswith((".embedding.extra", ".head.extra"))
            groups["extra_vocabulary" if extra else name.split(".")[0]].append(parameter)
        return groups


def merge_visual_tokens(tokens_TD: Tensor, visual_VD: Tensor, visual_V: Tensor) -> Tensor:
    """Fully autoregressive fusion: visual tokens take their places `visual_V` in the sequence (paper §2, Figure 2)."""
    return tokens_TD.index_copy(0, visual_V, visual_VD.to(tokens_TD.dtype))
