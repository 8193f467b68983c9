"""LoRA and DoRA on the output table, which is no linear layer here but rows that the loss reads.

PEFT computes an adapted layer; this computes the adapted table, once for each forward pass. It has no dropout, and is
saved as PEFT's adapter of transformers' `lm_head`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lorgnette.errors import SettingsError
from lorgnette.model.language import Decoder, TokenEmbedding
from lorgnette.run import LoraConfig
from lorgnette.train.adapters.fused_lora import adapted_weight


class LowRank(nn.Module):
    """A table (K,D) plus a product of rank R, and as DoRA with the length of each row learned apart."""

    def __init__(self, table: Tensor, config: LoraConfig, *, dora: bool) -> None:
        super().__init__()
        rows, width = table.shape
        self.scale = config.alpha / config.rank
        self.lora_down = nn.Parameter(torch.empty(config.rank, width))
        self.lora_up = nn.Parameter(torch.zeros(rows, config.rank))
        self.lora_lengths = nn.Parameter(table.detach().norm(dim=1)) if dora else None
        if config.init == "gaussian":
            nn.init.normal_(self.lora_down, std=1 / config.rank)
        else:
            nn.init.kaiming_uniform_(self.lora_down, a=math.sqrt(5))

    def forward(self, table: Tensor) -> Tensor:
        return adapted_weight(table, self.lora_down, self.lora_up, self.scale, self.lora_lengths)[0]


def adapt_head(decoder: nn.Module, config: LoraConfig, *, dora: bool) -> None:
    """Adapt the output table of a decoder, in place; its extra rows train in full. Starts as the identity.

    Raises: SettingsError if the table is that of the embedding too.
    """
    assert isinstance(decoder, Decoder)
    if decoder.head is decoder.embedding:
        raise SettingsError("lora.targets name the head, which is tied to the embedding in this model: leave out head")
    parametrize.register_parametrization(decoder.head, "table", LowRank(decoder.head.table, config, dora=dora))


def adapted_head(model: nn.Module) -> TokenEmbedding | None:
    """The output table of a model, if it is adapted."""
    tables = (module for module in model.modules() if isinstance(module, TokenEmbedding))
    return next((table for table in tables if parametrize.is_parametrized(table, "table")), None)


def merge_head(model: nn.Module) -> None:
    """Put the adapted table in the place of the one it adapts. Does nothing where there is none."""
    if (head := adapted_head(model)) is not None:
        parametrize.remove_parametrizations(head, "table", leave_parametrized=True)
        extra = head.extra
        del head.extra  # so that parameters are in their old order again: sums over them depend on it
        head.extra = extra


def plain_name(name: str) -> str:
    """The name that a parameter has where the head is not adapted."""
    return name.replace(".parametrizations.table.original", ".table")


def head_tensors(head: TokenEmbedding) -> Iterator[tuple[str, Tensor]]:
    """The head's adapter under PEFT's names, for a table with the extra rows, which it leaves as they are."""
    low_rank = head.parametrizations["table"][0]  # type: ignore[index]
    assert isinstance(low_rank, LowRank)
    yield "lora_A.weight", low_rank.lora_down.detach()
    yield "lora_B.weight", F.pad(low_rank.lora_up.detach(), (0, 0, 0, len(head.extra)))
    if low_rank.lora_lengths is not None:
        yield "lora_magnitude_vector", torch.cat([low_rank.lora_lengths, head.extra.norm(dim=1)]).detach()
