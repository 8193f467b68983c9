"""A decoder whose products are of 8-bit integers: for answering, not for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lorgnette.errors import SettingsError
from lorgnette.model.adapted_layers import AdaptedLinear, Int8Linear
from lorgnette.model.context import Context
from lorgnette.model.inference.prepared_layers import PreparedLayer, is_plain, linears_of
from lorgnette.model.language import Decoder, DecoderLayer
from lorgnette.model.ops.int8_product import Int8Product, check_int8
from lorgnette.model.ops.products import AdaptedProduct, Product

QUANTIZATIONS = ("int8",)
"""Names of what `quantise` can make."""


class Int8Layer(nn.Module):
    """A decoder layer with 8-bit integer products. Norms stay as they are, and so does attention itself."""

    def __init__(self, layer: DecoderLayer) -> None:
        super().__init__()
        self.prepared = PreparedLayer(layer, [int8_product(linears) for linears in linears_of(layer)])
        self.norms = nn.ModuleDict({name: one for name, one in layer.named_children() if name.endswith("norm")})

    def forward(self, x_TD: Tensor, context: Context) -> Tensor:
        """As `DecoderLayer.forward`. Raises: SettingsError if a gradient is asked for."""
        if x_TD.requires_grad:
            raise SettingsError("quantize int8: integer weights have no gradients; load the model without quantize")
        with torch.no_grad():
            return self.prepared(x_TD, context)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Int8Layer:
        """Refuse what would move or convert the norms alone."""
        became = fn(torch.empty(0))
        if became.dtype != torch.float32 or became.device.type != "cpu":
            raise SettingsError("quantize int8: the model stays on the CPU in float32; load it again without quantize")
        return super()._apply(fn, recurse)


def quantise(decoder: Decoder, how: str) -> None:
    """Replace the layers of a decoder by quantised ones, each as soon as it is made. Embedding and head stay.

    Raises: SettingsError for another name than `int8`, for a processor without such products, and for weights that are
    not in float32 on the CPU.
    """
    check_quantization(how)
    if not all(is_plain(layer, AdaptedLinear, Int8Linear) for layer in decoder.layers):
        raise SettingsError("quantize int8: the decoder carries adapters of training, or is quantised already")
    table = decoder.embedding.table
    if table.dtype != torch.float32 or table.device.type != "cpu":
        raise SettingsError(
            f"quantize int8: is for float32 on the CPU, and the weights are {table.dtype} on {table.device}"
        )
    decoder.prepared = None
    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer)
        decoder.layers[index] = Int8Layer(layer).train(layer.training)
    decoder.quantization = how


@torch.no_grad()
def int8_product(linears: Sequence[nn.Module]) -> Product:
    """Linear layers that take the same input as one product in 8 bits; adapters beside them stay in float32."""
    layers: list[Any] = [*linears]
    bases = [one.base_layer if isinstance(one, AdaptedLinear) else one for one in layers]
    product = Int8Product(*bases)
    if not any(isinstance(one, AdaptedLinear) for one in layers):
        return product
    downs, ups, shares = [], [], []
    for one, base in zip(layers, bases, strict=True):
        share = None
        if isinstance(one, AdaptedLinear):
            downs.append(one.lora_down.detach())
            ups.append(one.lora_up.detach() * one.scale)
            over = base if isinstance(base, Int8Linear) else Int8Linear.of(base)
            share = one.shares(over.weight)  # of what it stands on, as PEFT has it
        else:
            ups.append(torch.zeros(base.out_features, 0))
        shares.append(torch.ones(base.out_features) if share is None else share)
    has_shares = any(getattr(one, "magnitude", None) is not None for one in layers)
    share_E = torch.cat(shares) if has_shares else None
    return AdaptedProduct(product, torch.cat(downs), torch.block_diag(*ups), share_E, product.bias_D)


def check_quantization(how: str) -> None:
    """Raises: SettingsError for an unknown name, or one that this processor cannot compute."""
    check_quantization_name(how)
    check_int8()


def check_quantization_name(how: str | None) -> None:
    """Raises: SettingsError for an unknown name, on any processor."""
    if how not in (*QUANTIZATIONS, None):
        raise SettingsError(f"quantize {how!r:.40}: is unknown; use {', '.join(QUANTIZATIONS)}")
