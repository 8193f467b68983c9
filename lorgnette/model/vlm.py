"""The whole model on one screen: encode images, connect, fuse, decode.

Shapes live in names. T tokens, P patches, C values per patch, I images, V visual tokens, D width, H query heads, G key-
value heads, N head width, S keys (cached and new), L latents, K vocabulary rows, B equal-length spans, R query heads
per key-value head. In an index of data: E records, U units of records, W addresses of images, Q hashes asked for. On a
page: N runs of text, S strips of it, M places between columns. So `q_THN` is tokens by heads by head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.config import VLMConfig
from lorgnette.model.connectors import build_connector
from lorgnette.model.context import CachedDocuments, Context
from lorgnette.model.fusion import build_fusion
from lorgnette.model.initialise import initialise
from lorgnette.model.language import Decoder
from lorgnette.model.layers import Stack
from lorgnette.model.ops.loss import linear_log_probabilities, linear_losses
from lorgnette.model.sight import VisualTokens
from lorgnette.model.vision import build_encoder


@dataclass(frozen=True)
class Output:
    """Output of a forward pass: the fields that `output` asked for; the others are None."""

    logits: Tensor | None = None
    """output="logits": a row per token (T,K). output="last": a row per document, of its last token (documents,K)."""
    loss_sum: Tensor | None = None
    """output="loss": cross-entropy summed over supervised tokens, with its z-loss (float32 scalar)."""
    losses: Tensor | None = None
    """output="loss": the cross-entropy of each supervised token, in their order (float32); no gradient."""
    supervised_tokens: Tensor | None = None
    """output="loss": the number of supervised tokens (int64 scalar)."""
    scores: Tensor | None = None
    """output="scores": log-probability of each token's target, 0 where nothing is learned (float32, T); no gradient."""


class VLM(nn.Module):
    """A vision-language model (Idefics2, paper §3.2). It knows neither tokenizer nor file format."""

    def __init__(self, config: VLMConfig):
        """Random weights, as of `initialise(0)`; shapes alone under `torch.device("meta")`."""
        super().__init__()
        self.config = config
        self.z_loss = 0.0
        """Weight of the squared log-normaliser of each supervised token in the loss."""
        self.passes_by = True
        """Skip the vision encoder for a batch without images, where no gradient is needed; False if sharded."""
        device = torch.get_default_device()
        with torch.device("meta"):  # so that no weight is drawn twice
            self.vision = build_encoder(config.vision)
            widths = config.vision.width, config.language.width
            self.connector = build_connector(config.connector, *widths, config.vision.class_tokens)
            self.fusion = build_fusion(config)
            self.language = Decoder(config.language, config.extra_vocabulary)
        if device != torch.device("meta"):
            self.initialise(0, device)

    def forward(
        self,
        batch: Batch,
        *,
        output: Literal["logits", "loss", "last", "scores"] = "logits",
        cache: CachedDocuments | None = None,
        visual_VD: Tensor | None = None,
    ) -> Output:
        """Encode images, connect, fuse, decode. visual_VD: visual tokens that `encode_images` has made already."""
        visual = self.visual_tokens(batch, visual_VD)
        context = self.context(batch, visual, cache, self.rows_read(batch, output))
        x_TD = self.fusion(self.language.embedding(batch.tokens_T), visual)
        hidden_TD = self.language(x_TD, context, self.fusion.before)
        return self.read_out(hidden_TD, context.rows_T, batch, output)

    def visual_tokens(self, batch: Batch, visual_VD: Tensor | None = None) -> VisualTokens:
        """Visual tokens of the batch, encoded now if they are not given, and the slots that they belong to."""
        states_VD = self.encode_images(batch) if visual_VD is None else visual_VD
        images, slots = self.connector.visual_tokens(batch.grids), batch.visual_positions_V
        return VisualTokens(states_VD, images, slots, batch.positions_T, batch.documents)

    def encode_images(self, batch: Batch) -> Tensor:
        """The visual tokens of all images of the batch, end to end: V,D.

        A batch without images passes empty tensors through, so that in training every rank touches the same weights.
        """
        if not len(batch.images) and not torch.is_grad_enabled() and self.passes_by:
            return self.no_visual_tokens()
        patches_PD = self.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
        visual_VD: Tensor = self.connector(patches_PD, batch.grids)
        return visual_VD

    def no_visual_tokens(self) -> Tensor:
        """Visual tokens of no image, of the model's device and dtype: 0,D."""
        return torch.empty(0, self.config.visual_width, device=self.device, dtype=self.dtype)

    def context(
        self, batch: Batch, visual: VisualTokens, cache: CachedDocuments | None = None, rows_T: Tensor | None = None
    ) -> Context:
        """Build the context of this pass. The original code trains on a pack as on one long document."""
        positions_T, documents = batch.positions_T, batch.documents
        if self.training and not self.config.isolate_documents:
            positions_T = torch.arange(documents.total, device=batch.device)
            documents = SequenceLengths((documents.total,))
        return Context(positions_T, documents, cache, rows_T, visual)

    def rows_read(self, batch: Batch, output: str) -> Tensor | None:
        """The tokens whose hidden states are read: the decoder leaves out of its last MLP what nobody reads."""
        if output == "logits":
            return None
        if output == "last":
            return batch.document_starts[1:].long() - 1
        if output in ("loss", "scores"):
            return (batch.targets_T != IGNORE_INDEX).nonzero()[:, 0]
        raise ValueError(f"output={output!r} is unknown; use logits, loss, last or scores")

    def read_out(self, hidden_TD: Tensor, rows_T: Tensor | None, batch: Batch, output: str) -> Output:
        """From the decoder's hidden states, of these rows, to what was asked for."""
        head = self.language.head
        if rows_T is None or output == "last":
            return Output(logits=head.logits(hidden_TD))
        targets = batch.targets_T[rows_T]
        if output == "loss":
            supervised_tokens = torch.tensor(len(rows_T), device=batch.device)
            loss_sum, losses = linear_losses(hidden_TD, head.tables, targets, z_loss=self.z_loss, cap=head.cap)
            return Output(loss_sum=loss_sum, losses=losses, supervised_tokens=supervised_tokens)
        scores_T = torch.zeros(len(batch.tokens_T), device=hidden_TD.device)
        read_T = linear_log_probabilities(hidden_TD, head.tables, targets, cap=head.cap)
        return Output(scores=scores_T.index_copy(0, rows_T, read_T))

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; of those of the connector, or of the encoder if it has none, where parts differ."""
        return next(self.connector.parameters(), next(self.vision.parameters())).dtype

    def initialise(self, seed: int, device: torch.device | str | None = None) -> VLM:
        """Initialise all weights, each from `seed` and its name, on `device` (where the model is, if None)."""
        if device is not None or self.device == torch.device("meta"):
            self.to_empty(device=device or "cpu")
        initialise(self, seed)
        return self

    def stacks(self) -> dict[str, Stack]:
        """Parts made of blocks, by name, in the order in which a pass runs through them; those without any left out."""
        parts = {"vision": self.vision, "connector": self.connector, "fusion": self.fusion, "language": self.language}
        return {name: part for name, part in parts.items() if next(part.parameters(), None) is not None}

    def blocks(self) -> Iterator[nn.Module]:
        """Blocks of all parts: compiled, checkpointed and sharded one by one."""
        for part in self.stacks().values():
            yield from part.blocks()

    def parts(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by part: those of `stacks` (language without the extra rows), and extra_vocabulary."""
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in (*self.stacks(), "extra_vocabulary")}
        for name, parameter in self.named_parameters():
            extra = name.endswith((".embedding.extra", ".head.extra"))
            groups["extra_vocabulary" if extra else name.split(".")[0]].append(parameter)
        return groups
