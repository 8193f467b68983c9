"""Prepared layers compiled for decode steps: one call of a library for each layer, written in C (`decode_step.c`).

Passes of any other kind, such as those over prompts, run through `PreparedLayer`, which is the plain version too; of
an 8-bit model its products are the library's (`PackedProduct`), so that the integers are held once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.errors import SettingsError
from lorgnette.model.context import Context, DecodeRows
from lorgnette.model.inference.c_library import c_library
from lorgnette.model.layers import RMSNorm
from lorgnette.model.ops.int8_product import Int8Product
from lorgnette.model.ops.products import FloatProduct, Product

if TYPE_CHECKING:
    from lorgnette.model.inference.prepared_layers import PreparedLayer

SOURCE = Path(__file__).with_name("decode_step.c")
ZERO = 128
"""The byte that stands for 0 in the library's 8-bit activations."""


def check_compiled(device: torch.device, dtype: torch.dtype | None) -> None:
    """Raises: SettingsError where compiled steps do not compute."""
    if device.type != "cpu" or dtype not in (None, torch.float32):
        found = f"device {device}" if device.type != "cpu" else f"dtype {dtype}"
        raise SettingsError(f"compile: is for float32 on the CPU, not {found}: leave one of the two out")


class _Matrix(ctypes.Structure):
    """`Product` of the C source."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("weight", "packed", "steps", "start", "bias")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "levels")),
    ]


PRODUCTS = ("qkv", "output", "gate_up", "down")
_NORMS = ("attention_norm", "mlp_norm", "attention_post_norm", "mlp_post_norm", "query_norm", "key_norm")
_SIZES = ("width", "heads", "kv_heads", "head_width", "mlp_width", "window", "norm_offset", "gelu")
_NUMBERS = ("eps", "query_scale", "cap")
_BUFFERS = ("normed", "qkv", "attended", "gate_up", "gated", "ranges", "scores", "integers")


class _Layer(ctypes.Structure):
    """`Layer` of the C source."""

    _fields_ = [
        *((name, _Matrix) for name in PRODUCTS),
        *((name, ctypes.c_void_p) for name in _NORMS),
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_float) for name in _NUMBERS),
    ]


class _Pass(ctypes.Structure):
    """`Pass` of the C source."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("rows", "longest", "threads")),
        *((name, ctypes.c_void_p) for name in ("starts", "lengths", *_BUFFERS)),
    ]


class PackedProduct:
    """An `Int8Product` by the library, which holds the same integers in panels: their only copy in a compiled model."""

    def __init__(self, product: Int8Product) -> None:
        rounded_VD, steps_V = product.unpacked()
        self.rows, self.columns = rounded_VD.shape
        self.levels = product.levels
        lanes = _constant("lanes")
        fours = F.pad(rounded_VD, (0, -self.columns % 4)).unflatten(1, (-1, 4))
        self.packed = _whole_panels(fours, lanes).unflatten(0, (-1, lanes)).transpose(1, 2).contiguous()
        self.steps_V = _whole_panels(steps_V, lanes)
        self.start_V = _whole_panels(-ZERO * rounded_VD.sum(-1, dtype=torch.int32), lanes)
        self.bias_V = None if product.bias_D is None else _whole_panels(product.bias_D, lanes)

    def __call__(self, x_TD: Tensor) -> Tensor:
        """The product of each row, in float32."""
        return self._product(x_TD, None)

    def plus(self, x_TD: Tensor, more_TD: Tensor) -> Tensor:
        """The product of each row, added to another tensor."""
        return self._product(x_TD, more_TD.contiguous())

    def tensors(self) -> list[Tensor]:
        """The tensors whose memory `matrix` points to."""
        return [one for one in (self.packed, self.steps_V, self.start_V, self.bias_V) if one is not None]

    def matrix(self) -> _Matrix:
        return _Matrix(
            packed=self.packed.data_ptr(),
            steps=self.steps_V.data_ptr(),
            start=self.start_V.data_ptr(),
            bias=None if self.bias_V is None else self.bias_V.data_ptr(),
            rows=self.rows,
            columns=self.columns,
            levels=self.levels,
        )

    def _product(self, x_TD: Tensor, more_TD: Tensor | None) -> Tensor:
        assert x_TD.dtype == torch.float32
        assert x_TD.shape[1:] == (self.columns,)
        x_TD, tile = x_TD.contiguous(), _constant("tile")
        out_TD = torch.empty(len(x_TD), self.rows, dtype=torch.float32, device="cpu")
        integers = torch.empty(tile, self.packed.shape[1] * 4, dtype=torch.uint8, device="cpu")
        ranges = torch.empty(tile, dtype=torch.float32, device="cpu")
        room = {"integers": integers.data_ptr(), "ranges": ranges.data_ptr()}
        facts, matrix = _Pass(rows=len(x_TD), threads=torch.get_num_threads(), **room), self.matrix()
        more = None if more_TD is None else more_TD.data_ptr()
        places = ctypes.addressof(facts), ctypes.addressof(matrix), x_TD.data_ptr(), out_TD.data_ptr(), more
        _function("lorgnette_multiply", len(places))(*places)
        return out_TD


def _whole_panels(rows: Tensor, lanes: int) -> Tensor:
    """Rows, filled up with zeros to a multiple of the rows of a panel."""
    return torch.cat((rows, rows.new_zeros(-len(rows) % lanes, *rows.shape[1:])))


def _constant(name: str) -> int:
    return ctypes.c_int64.in_dll(c_library(SOURCE), f"lorgnette_{name}").value


def _function(name: str, arguments: int) -> Any:
    """A function of the library that takes addresses and returns nothing."""
    found = getattr(c_library(SOURCE), name)
    found.argtypes, found.restype = (ctypes.c_void_p,) * arguments, None
    return found


class CompiledLayer:
    """A prepared layer that takes decode steps by the library, and everything else as it is."""

    def __init__(self, layer: PreparedLayer) -> None:
        for name in PRODUCTS:
            if isinstance(getattr(layer, name), Int8Product):
                setattr(layer, name, PackedProduct(getattr(layer, name)))
        self.plain, self.run = layer, _function("lorgnette_decode_layer", 7)
        self.tensors: list[Tensor] = []
        """What the library reads, so that it stays where it is."""
        self.norms = [one if isinstance(one, RMSNorm) else None for one in _norms_of(layer)]
        attend, first = layer.attend, layer.attention_norm
        assert isinstance(first, RMSNorm)
        products = {name: self._matrix(getattr(layer, name)) for name in PRODUCTS}
        norms = {
            name: None if norm is None else self._address(norm.weight.detach())
            for name, norm in zip(_NORMS, self.norms, strict=True)
        }
        sizes = {
            "width": products["output"].rows,
            "heads": attend.heads,
            "kv_heads": attend.kv_heads,
            "head_width": attend.head_width,
            "mlp_width": layer.hidden,
            "window": attend.window or 0,
            "norm_offset": int(first.offset),
            "gelu": int(layer.gelu),
        }
        numbers = {"eps": first.eps, "query_scale": attend.query_scale, "cap": attend.cap or 0.0}
        self.facts = _Layer(**products, **norms, **sizes, **numbers)
        self.place = ctypes.addressof(self.facts)

    def __call__(self, x_TD: Tensor, context: Context) -> Tensor:
        """As `DecoderLayer`."""
        cache = context.cache
        rows = None if cache is None else cache.decode_rows
        read = len(x_TD) if context.rows_T is None else len(context.rows_T)
        if cache is None or rows is None or read != len(x_TD):
            return self.plain(x_TD, context)
        if rows.work is None:
            rows.work = _Work(rows, self.facts)
        attend = self.plain.attend
        keys, values = cache.tables(attend.index)
        rotary = context.rotary if attend.window is None else context.local_rotary
        turns = rotary if attend.turns else None
        addresses = (None, None) if turns is None else (turns[0].data_ptr(), turns[1].data_ptr())
        states: Tensor = rows.work.states_BD
        if x_TD is not states:  # layers one after the other work in place
            states.copy_(x_TD)
        self.run(rows.work.place, self.place, keys.data_ptr(), values.data_ptr(), *addresses, states.data_ptr())
        return states

    def is_current(self) -> bool:
        """Return whether the norms' weights are where they were; products know it themselves."""
        places = [one.weight.data_ptr() for one in self.norms if one is not None]
        return places == [getattr(self.facts, name) for name in _NORMS if getattr(self.facts, name) is not None]

    def _address(self, tensor: Tensor) -> int:
        assert tensor.is_contiguous()
        self.tensors.append(tensor)
        return tensor.data_ptr()

    def _matrix(self, product: Product) -> _Matrix:
        if isinstance(product, FloatProduct):
            rows, columns = product.weight_ED.shape
            bias = None if product.bias_E is None else self._address(product.bias_E)
            return _Matrix(weight=self._address(product.weight_ED), bias=bias, rows=rows, columns=columns)
        assert isinstance(product, PackedProduct)
        self.tensors += product.tensors()
        return product.matrix()


def _norms_of(layer: PreparedLayer) -> Sequence[nn.Module]:
    """The norms of a layer in the order of `_NORMS`."""
    attend = layer.attend
    outer = layer.attention_norm, layer.mlp_norm, layer.attention_post_norm, layer.mlp_post_norm
    return (*outer, attend.query_norm, attend.key_norm)


class _Work:
    """Working memory of one pass, which all its layers share."""

    def __init__(self, rows: DecodeRows, layer: _Layer) -> None:
        self.places_2B = torch.tensor((tuple(rows.starts), tuple(rows.lengths)), device="cpu")  # int64
        count, longest, threads = len(rows.starts), max(rows.lengths), torch.get_num_threads()
        inner = layer.heads * layer.head_width
        floats = {
            "normed": count * layer.width,
            "qkv": count * layer.qkv.rows,
            "attended": count * inner,
            "gate_up": count * layer.gate_up.rows,
            "gated": count * layer.mlp_width,
            "ranges": count,
            "scores": threads * (layer.heads // layer.kv_heads) * longest,
            "integers": count * -(-max(layer.width, inner, layer.mlp_width) // 4),
        }
        rounded = {name: -(-size // 16) * 16 for name, size in floats.items()}  # whole lines of the cache
        self.memory = torch.empty(sum(rounded.values()), dtype=torch.float32, device="cpu")
        places, place = {}, self.memory.data_ptr()
        for name, size in rounded.items():
            places[name], place = place, place + 4 * size
        where = {"starts": self.places_2B[0].data_ptr(), "lengths": self.places_2B[1].data_ptr()}
        self.states_BD = torch.empty(count, layer.width, dtype=torch.float32, device="cpu")
        self.facts = _Pass(rows=count, longest=longest, threads=threads, **where, **places)
        self.place = ctypes.addressof(self.facts)
