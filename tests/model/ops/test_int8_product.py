"""Products in 8-bit integers equal their plain version, row by row."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lorgnette.errors import SettingsError
from lorgnette.model.ops import int8_product
from lorgnette.model.ops.int8_product import Int8Product, activation_levels, check_int8, plain_int8_product

pytestmark = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="this processor has no engine for int8"
)


def linear(rows: int, width: int, *, bias: bool = False) -> nn.Linear:
    torch.manual_seed(rows + width)
    made = nn.Linear(width, rows, bias=bias)
    with torch.no_grad():
        made.weight.mul_(torch.logspace(-3, 2, rows)[:, None])  # rows of different sizes
    return made.requires_grad_(False)


@pytest.mark.parametrize("levels", [127, 63])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 8), (40, 32), (96, 576), (33, 17)])
def test_equals_its_plain_version(rows: int, width: int, bias: bool, levels: int) -> None:
    one, x = linear(rows, width, bias=bias), torch.randn(7, width) * torch.logspace(-4, 4, 7)[:, None]
    product = Int8Product(one)
    product.levels = min(levels, activation_levels())
    expected = plain_int8_product(x, one.weight, product.levels) + (one.bias if bias else 0)
    scale = x.abs().amax(-1, keepdim=True) * one.weight.abs().amax(-1)
    # a step of an activation may be rounded to the other side of a half
    assert ((product(x) - expected).abs() <= 1.01 / product.levels * scale + 1e-6).all()
    exact = nn.functional.linear(x, one.weight, one.bias)
    assert ((product(x) - exact).abs() <= 0.02 * scale * width**0.5).all()
    more = torch.randn(7, rows)
    torch.testing.assert_close(product.plus(x, more), product(x) + more)


def test_several_matrices_are_one() -> None:
    parts, x = [linear(24, 32), linear(8, 32), linear(16, 32)], torch.randn(3, 32)
    assert torch.equal(Int8Product(*parts)(x), torch.cat([Int8Product(one)(x) for one in parts], -1))


def test_a_row_does_not_depend_on_its_company() -> None:
    """Neither on how many rows there are, nor on how large their numbers are: to the last bit."""
    product, x = Int8Product(linear(48, 64)), torch.randn(16, 64)
    alone = torch.cat([product(row[None]) for row in x])
    assert torch.equal(product(x), alone)
    x[3:] *= 1e6
    assert torch.equal(product(x)[:3], alone[:3])


def test_zeros_stay_zeros_and_nan_stays_nan() -> None:
    product, x = Int8Product(linear(8, 16)), torch.zeros(3, 16)
    x[1, 3] = float("nan")
    x[2] = 1.0
    out = product(x)
    assert (out[0] == 0).all()
    assert out[1].isnan().all()
    assert out[2].isfinite().all()


def test_a_processor_without_the_engine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_product, "ENGINE", "abacus")
    with pytest.raises(SettingsError, match="quantize int8: needs the abacus engine"):
        check_int8()
