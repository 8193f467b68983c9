"""The device that is chosen, of faked computers, and the numbers that Apple's GPUs lack, found in the source."""

from __future__ import annotations

import ast

import pytest
import torch

from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.model.ops.device import choose_device, in_float64
from lorgnette.run import Run
from lorgnette.train import parallel
from tests.house.source import modules

COMPUTERS = {
    "no GPU": (False, False, {}, "cpu"),
    "no GPU, the fourth process": (False, False, {"LOCAL_RANK": "3"}, "cpu"),
    "CUDA": (True, False, {}, "cuda:0"),
    "CUDA, the fourth process": (True, False, {"LOCAL_RANK": "3"}, "cuda:3"),
    "Apple": (False, True, {}, "mps"),
}


@pytest.mark.parametrize(("cuda", "mps", "environment", "expected"), COMPUTERS.values(), ids=COMPUTERS)
def test_the_best_device_is_taken(monkeypatch: pytest.MonkeyPatch, cuda, mps, environment, expected) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device("auto", environment) == torch.device(expected)
    assert choose_device("cpu", environment) == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "said"), [("cuda", "no CUDA device"), ("mps", "no MPS"), ("npu", "PyTorch cannot use it")]
)
def test_a_device_that_is_not_here_is_refused_by_name(name: str, said: str) -> None:
    if name == "cuda" and torch.cuda.is_available():
        name, said = "cuda:99", "no CUDA device"
    with pytest.raises(CheckpointError, match=f"device {name}: {said}.*use device='cpu'"):
        choose_device(name)


def test_an_apple_gpu_trains_in_one_process_and_in_float32(monkeypatch: pytest.MonkeyPatch, short_run: Run) -> None:
    monkeypatch.setattr(parallel, "choose_device", lambda wanted: torch.device("mps"))
    world = parallel.start_distributed("auto")
    assert world.device.type == "mps" and not parallel.half_precision(short_run, world)
    with pytest.raises(SettingsError, match=r"precision bf16.*Apple GPU; set precision to fp32 or auto"):
        parallel.half_precision(short_run.override("precision=bf16"), world)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(SettingsError, match="Apple GPU trains in one process: start it without torchrun"):
        parallel.start_distributed("auto")


@pytest.fixture
def short_run() -> Run:
    stage = {"name": "one", "steps": 1, "sources": [{"kind": "chat", "path": "rows.jsonl"}]}
    return Run.parse({"name": "short", "stages": [stage]})


def test_float64_is_the_oracle_itself() -> None:
    x = torch.rand(5)
    assert torch.equal(in_float64(x), x.double())


ON_THE_CPU = {
    "lorgnette/hub/checkpoint.py": "types of stored tensors, which are read on the CPU",
    "lorgnette/hub/parity.py": "both sides of a proof are computed on the CPU",
    "lorgnette/infer/sampling.py": "draws are of generators on the CPU",
    "lorgnette/infer/engine/token_sampler.py": "draws are of generators on the CPU",
    "lorgnette/look/heat.py": "of numpy",
    "lorgnette/model/ops/device.py": "it moves them there",
}
"""Modules that hold float64 on the CPU alone, each with its reason."""
ROOMS = ("model", "infer", "look", "hub", "eval.models", "offline", "serve")
ROOMS += tuple(f"train.{name}" for name in "adapters loop step gradients muon optim validation".split())


def test_no_float64_is_asked_of_a_device_that_may_have_none() -> None:
    """MPS has no float64: `.double()` follows `.cpu()`, or is `in_float64`."""
    found = []
    for module in modules("lorgnette"):
        name = module.path.removeprefix("lorgnette/").removesuffix(".py").replace("/", ".")
        if not name.startswith(ROOMS) or module.path in ON_THE_CPU:
            continue
        for node in ast.walk(module.tree):
            named = isinstance(node, ast.Attribute) and node.attr in ("float64", "double", "complex128")
            if named and ".cpu()" not in ast.unparse(node):
                found.append(f"{module.path}:{node.lineno}: {ast.unparse(node)}")
    assert found == []
