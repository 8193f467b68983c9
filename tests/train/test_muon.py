"""Muon: its steps are orthogonal, its groups hold the right matrices, and the rest is AdamW to the bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from lorgnette.train.muon import Muon, _iterated, orthogonal
from lorgnette.train.optim import build_optimiser
from lorgnette.train.setup import build
from lorgnette.train.stages import prepare_parts

pytestmark = pytest.mark.kernels


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 4), (2, 4, 16), (1, 1, 5)])
def test_the_update_has_the_singular_vectors_of_the_momentum_and_none_of_its_values(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonal(matrices)
    values = left.mT @ found @ right.mT  # diagonal, where the singular vectors are the same
    diagonal = values.diagonal(dim1=-2, dim2=-1)
    assert diagonal.min() > 0.5 and diagonal.max() < 1.3
    torch.testing.assert_close(values, torch.diag_embed(diagonal), atol=1e-3, rtol=0)


def test_matrices_stacked_for_one_product_step_as_each_alone():
    matrices = torch.randn(4, 6, 9)
    alone = torch.cat([orthogonal(one[None]) for one in matrices])
    torch.testing.assert_close(orthogonal(matrices), alone)


@pytest.mark.parametrize("shape", [(2, 6, 12), (2, 40, 9), (1, 16, 64)])
@pytest.mark.parametrize("smallest", [1e-1, 1e-6])
def test_matrices_of_few_rows_step_as_by_the_plain_iteration(shape, smallest):
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    matrices = left * torch.logspace(0, math.log10(smallest), left.shape[-1]) @ right
    wide = shape[1] < shape[2]
    exact = (matrices if wide else matrices.mT).double()
    exact = _iterated(exact / exact.flatten(1).norm(dim=1)[:, None, None], 5)
    torch.testing.assert_close(orthogonal(matrices), (exact if wide else exact.mT).float(), atol=1e-3, rtol=0)


def test_groups_without_muon_step_as_adamw():
    weights = [torch.nn.Parameter(torch.ones(3, 3)) for _ in range(2)]
    settings = {"lr": 0.1, "betas": (0.9, 0.98), "weight_decay": 0.1}
    optimisers = [torch.optim.AdamW([weights[0]], **settings), Muon([{"params": [weights[1]]}], **settings)]
    for _ in range(3):
        for weight, optimiser in zip(weights, optimisers, strict=True):
            weight.grad = torch.arange(9.0).view(3, 3) - weight.detach()
            optimiser.step()
    assert torch.equal(*weights)


def test_a_step_is_as_long_as_its_learning_rate_says():
    weight = torch.nn.Parameter(torch.zeros(8, 8))
    optimiser = Muon([{"params": [weight], "lr": 0.02, "muon": True, "weight_decay": 0.0}])
    weight.grad = torch.randn(8, 8) * 1e-4
    optimiser.step()
    assert 0.01 < torch.linalg.matrix_norm(weight.detach(), 2) < 0.03
    assert weight.grad is None


@pytest.mark.parametrize("shape", [(16, 16), (32, 16), (16, 64), (8, 16)])
def test_its_updates_are_those_of_torch(shape):
    """From the same weights and gradients each time; torch iterates in bfloat16, and so differs by about 1e-2."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.zeros(shape)) for _ in range(2))
    one = Muon([{"params": [ours], "lr": 0.02, "muon": True, "weight_decay": 0.1}])
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1)
    for _ in range(20):
        start, gradient = (torch.randn(shape, generator=generator) for _ in range(2))
        for weight, optimiser in ((ours, one), (theirs, other)):
            weight.data.copy_(start)
            weight.grad = gradient.clone()
            optimiser.step()
        gap = torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs - start)
        assert gap < 0.08  # measured: at most 0.037 over 20 seeds and two sets of kernels


def test_matrices_inside_layers_take_muon_and_nothing_else_does(tiny):
    model, _ = build(tiny)
    stage = tiny.override("stages.0.optimiser=muon", "stages.0.muon_lr=0.5", "stages.0.vision.lr=0.006").stages[0]
    prepare_parts(model, stage, seed=0)
    groups = build_optimiser(model, stage).param_groups
    names = [name for group in groups for name in group["names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for group in groups:
        if group["muon"]:
            assert all(parameter.ndim == 2 for parameter in group["params"])
            assert group["peak_lr"] == pytest.approx(1.0 if group["names"][0].startswith("vision.") else 0.5)
        else:
            matrices = [name for name, p in zip(group["names"], group["params"], strict=True) if p.ndim == 2]
            assert all("layers" not in name for name in matrices)


def test_its_state_is_loaded_as_of_any_optimiser():
    start = [torch.randn(4, 6), torch.randn(6)]

    def fresh() -> Muon:
        matrix, vector = (torch.nn.Parameter(one.clone()) for one in start)
        return Muon([{"params": [matrix], "muon": True}, {"params": [vector]}], lr=0.1)

    def step(optimiser: Muon, seed: int) -> None:
        torch.manual_seed(seed)
        for group in optimiser.param_groups:
            for weight in group["params"]:
                weight.grad = torch.randn(weight.shape)
        optimiser.step()

    one, other = fresh(), fresh()
    step(one, 1)
    with torch.no_grad():
        for mine, theirs in zip(other.param_groups, one.param_groups, strict=True):
            mine["params"][0].copy_(theirs["params"][0])
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for optimiser in (one, other):
        step(optimiser, 2)
    for mine, theirs in zip(other.param_groups, one.param_groups, strict=True):
        assert torch.equal(mine["params"][0], theirs["params"][0])
