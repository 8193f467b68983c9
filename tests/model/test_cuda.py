"""On a GPU in bf16, the model computes what it computes on a CPU in float32."""

from __future__ import annotations

import pytest
import torch

from benchmarks.gpu import correct
from lorgnette.model.ops.attention import has_varlen

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("name", correct.CHECKS)
def test_equals_the_cpu(name: str) -> None:
    assert correct.off(name, "cuda") == {}


def test_half_precision_takes_the_kernels_for_spans() -> None:
    assert has_varlen(torch.empty(1, 1, 8, device="cuda", dtype=torch.bfloat16))
    assert not has_varlen(torch.empty(1, 1, 8, device="cuda"))
