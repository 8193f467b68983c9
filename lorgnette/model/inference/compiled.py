"""A decoder whose decode steps are compiled by this computer's C compiler."""

from __future__ import annotations

from typing import Any

import torch

from lorgnette.errors import SettingsError
from lorgnette.model.inference.c_library import c_library, find_compiler
from lorgnette.model.inference.compiled_layers import PRODUCTS, SOURCE, PackedProduct, check_compiled
from lorgnette.model.inference.prepared_layers import is_plain
from lorgnette.model.language import Decoder
from lorgnette.model.ops.int8_product import Int8Product


def compile_decoder(decoder: Decoder) -> None:
    """Compile decode steps of a decoder from now on: each new token then takes one call of a library for each layer.

    Adapters that are put beside the weights later turn it off as long as they are there.
    Raises: SettingsError without a C compiler, for weights that are not in float32 on the CPU, and for adapters.
    """
    for weight in decoder.parameters():
        check_compiled(weight.device, weight.dtype)
    if not can_compile(decoder):
        raise SettingsError("compile: takes no adapters beside the weights; merge them, or leave out compile")
    c_library(SOURCE)
    decoder.compiled, decoder.prepared = True, None


def float32_compiled(device: torch.device, dtype: torch.dtype | None) -> torch.dtype:
    """The type in which a compiled model computes. Raises: SettingsError for another one or another device than it
    takes, or without a compiler."""
    check_compiled(device, dtype)
    find_compiler()
    return torch.float32


def can_compile(decoder: Decoder) -> bool:
    """Return whether all products of the layers are plain matrices, in float32 or in 8-bit integers."""
    if decoder.quantization is None:
        return all(map(is_plain, decoder.layers))
    layers: list[Any] = [*decoder.layers]
    kinds = Int8Product, PackedProduct
    return all(isinstance(getattr(layer.prepared, name), kinds) for layer in layers for name in PRODUCTS)
