"""The decoder's layers prepared for inference: fewer products, and fewer calls between them.

Query, key and value are one product, and so are gate and up. `DecoderLayer` is the plain version of the same, which
serves passes with gradients and passes without a KV cache, and the oracle of the tests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.model.context import Context
from lorgnette.model.inference.compiled_layers import CompiledLayer
from lorgnette.model.layers import GeGLU, RMSNorm, SwiGLU
from lorgnette.model.ops.attention import attention
from lorgnette.model.ops.gelu_tanh import plain_gelu_tanh
from lorgnette.model.ops.products import FloatProduct, Product
from lorgnette.model.ops.tiling import in_rows

if TYPE_CHECKING:
    from lorgnette.model.language import Decoder, DecoderAttention, DecoderLayer


class PreparedLayer:
    """A decoder layer as a function of hidden states, without gradients."""

    def __init__(self, layer: DecoderLayer, products: Sequence[Product]) -> None:
        """products: of query, key and value as one, of the output, of gate and up as one, and of down."""
        self.qkv, self.output, self.gate_up, self.down = products
        self.attend = PreparedAttention(layer.attention)
        self.attention_norm, self.mlp_norm = layer.attention_norm, layer.mlp_norm
        self.attention_post_norm, self.mlp_post_norm = layer.attention_post_norm, layer.mlp_post_norm
        self.has_post_norms = isinstance(layer.mlp_post_norm, RMSNorm)
        self.hidden = layer.mlp.hidden
        self.gelu = isinstance(layer.mlp, GeGLU)
        self.activation = plain_gelu_tanh if self.gelu else F.silu

    def __call__(self, x_TD: Tensor, context: Context) -> Tensor:
        """As `DecoderLayer.forward`."""
        rows_T = context.rows_T
        attended_TD = self.attend(self.qkv(normed(x_TD, self.attention_norm)), context)
        if rows_T is not None and len(rows_T) != len(x_TD):
            attended_TD, x_TD = attended_TD.index_select(0, rows_T), x_TD.index_select(0, rows_T)
        if not self.has_post_norms:
            x_TD = self.output.plus(attended_TD, x_TD)
            return self.down.plus(self._gated(normed(x_TD, self.mlp_norm)), x_TD)
        x_TD = normed(self.output(attended_TD), self.attention_post_norm).add_(x_TD)
        return normed(self.down(self._gated(normed(x_TD, self.mlp_norm))), self.mlp_post_norm).add_(x_TD)

    def _gated(self, x_TD: Tensor) -> Tensor:
        return in_rows(self._gated_rows, x_TD, 2 * self.hidden)

    def _gated_rows(self, x_TD: Tensor) -> Tensor:
        gate, up = self.gate_up(x_TD).chunk(2, -1)
        return self.activation(gate).mul_(up)


class PreparedAttention:
    """From queries, keys and values that one product has made to the attention output of all tokens."""

    def __init__(self, plain: DecoderAttention) -> None:
        self.index, self.head_width, self.window, self.cap = plain.index, plain.head_width, plain.window, plain.cap
        self.turns, self.query_scale = plain.turns, plain.query_scale
        self.heads = plain.query.out_features // plain.head_width
        self.kv_heads = plain.key.out_features // plain.head_width
        self.query_norm, self.key_norm = plain.query_norm, plain.key_norm
        self.has_norms = isinstance(plain.query_norm, RMSNorm)

    def __call__(self, qkv_TD: Tensor, context: Context) -> Tensor:
        """Query heads, key heads and value heads side by side, to T, heads * head width."""
        heads, documents = self.heads + self.kv_heads, context.documents
        all_THN = qkv_TD.unflatten(-1, (-1, self.head_width))
        qk_THN, v_TGN = all_THN[:, :heads], all_THN[:, heads:]
        if self.has_norms:
            q_THN, k_TGN = qk_THN.split((self.heads, self.kv_heads), 1)
            qk_THN = torch.cat((normed(q_THN, self.query_norm), normed(k_TGN, self.key_norm)), 1)
        if self.turns:
            rotary = context.rotary if self.window is None else context.local_rotary
            assert rotary is not None
            cos, sin = rotary
            qk_THN = torch.addcmul(qk_THN * cos, qk_THN.roll(self.head_width // 2, -1), sin)
        q_THN, k_TGN = qk_THN[:, : self.heads], qk_THN[:, self.heads :]
        q_THN = q_THN if self.query_scale == 1 else q_THN * self.query_scale
        if context.cache is not None:
            return context.cache.attend(self.index, q_THN, k_TGN, v_TGN, documents).flatten(1)
        new = q_THN, k_TGN, v_TGN
        return attention(*new, documents, documents, causal=True, window=self.window, cap=self.cap).flatten(1)


def normed(x: Tensor, norm: nn.Module) -> Tensor:
    """As `RMSNorm.forward`, without gradients and by few operations: on a CPU their number is what a step costs."""
    assert isinstance(norm, RMSNorm)
    weight = norm.weight + 1 if norm.offset else norm.weight
    if x.dtype != torch.float32 or x.device.type != "cpu":
        return F.rms_norm(x, weight.shape, weight, norm.eps)
    root = math.sqrt(x.shape[-1])
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(_constant(root * math.sqrt(norm.eps)))
    return torch.addcdiv(_constant(0.0), x * weight, length, value=root)


@lru_cache(maxsize=64)
def _constant(value: float) -> Tensor:
    with torch.inference_mode(False):  # it is kept
        return torch.tensor([value], device="cpu")


class PreparedDecoder:
    """The layers of a decoder, prepared; the weights stay its own. See `prepare`."""

    def __init__(self, decoder: Decoder) -> None:
        self.plain: list[Any] = [*decoder.layers]
        self.products: list[list[FloatProduct]] = []
        self.layers: list[PreparedLayer] = []
        for layer in self.plain:
            if decoder.quantization is None:
                self.products.append([FloatProduct(*linears) for linears in linears_of(layer)])
                self.layers.append(PreparedLayer(layer, self.products[-1]))
            else:
                self.layers.append(layer.prepared)
        self.steps = [CompiledLayer(one) for one in self.layers] if decoder.compiled else []
        """The same compiled for decode steps, where the decoder is; see `compiled.compile_decoder`."""

    def is_current(self, decoder: Decoder) -> bool:
        """Return whether these are the decoder's layers still, and each parameter is where it was."""
        same = self.plain == [*decoder.layers]
        parts: list[FloatProduct | CompiledLayer] = [one for products in self.products for one in products]
        return same and all(one.is_current() for one in [*parts, *self.steps])

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        """Leave a copy of the decoder without prepared layers: its parameters are views of nothing joined."""


def prepare(decoder: Decoder) -> bool:
    """Prepare a decoder's layers for inference, unless they are; whether they can be.

    Layers that are not as lorgnette builds them, such as those that carry adapters, are left as they are, and so is a
    decoder in training. No memory is added: parameters become views of the joined tensors.
    """
    if decoder.training or (decoder.quantization is None and not all(map(is_plain, decoder.layers))):
        decoder.prepared = None
    elif decoder.prepared is None or not decoder.prepared.is_current(decoder):
        decoder.prepared = PreparedDecoder(decoder)
    return decoder.prepared is not None


def linears_of(layer: DecoderLayer) -> tuple[tuple[nn.Linear, ...], ...]:
    """The linear layers of a decoder layer, those that take the same input together, in the order of a pass."""
    plain, mlp = layer.attention, layer.mlp
    return (plain.query, plain.key, plain.value), (plain.output,), (mlp.gate, mlp.up), (mlp.down,)


def is_plain(layer: Any, *also: type[nn.Module]) -> bool:
    """Return whether a layer is as lorgnette builds it: without adapters, hooks and wrappers.

    also: kinds of linear layers that may stand there beside `nn.Linear`.
    """
    if type(getattr(layer, "mlp", None)) not in (SwiGLU, GeGLU) or not hasattr(layer, "attention"):
        return False
    linears = [one for group in linears_of(layer) for one in group]
    kinds = (nn.Linear, *also)
    return all(type(one) in kinds and not one._forward_hooks and not one._forward_pre_hooks for one in linears)
