"""Every two choices that may stand together are in a model here, and each of these models is held to one battery."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lorgnette.errors import SettingsError
from lorgnette.hub.export import save
from lorgnette.hub.load import load
from lorgnette.infer.generate import generate
from lorgnette.infer.reference import generate_reference
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.run import Run
from lorgnette.train.data import build_data
from lorgnette.train.optim import build_optimiser
from lorgnette.train.setup import build
from lorgnette.train.stages import prepare_parts
from lorgnette.train.step import train_step
from tests.hub.tiny import question
from tests.infer.engine.driving import ask, engine, request, same_or_close
from tests.model.choices import CONNECTORS, FUSIONS
from tests.model.cover import DECODERS, ENCODERS, POLICIES, REFUSED, Row, completed, cover, every_pair, pairs_of

SAMPLES = (question("What colour?", (40, 24)), question("Say green."), question("red or blue?", (16, 30), (32, 32)))
ANSWER = GenerationConfig(max_tokens=4)
RunOf = Callable[[Row], Run]


@pytest.fixture
def run_of(tiny) -> RunOf:
    """Make the run of a row: a stage that trains the connector, the fusion and the decoder beside a frozen encoder."""

    def make(row: Row) -> Run:
        connector, encoder, fusion, decoder, policy = row
        values: dict[str, Any] = tiny.plain()
        images = {"patch": 8, "grid": 4} | POLICIES[policy]
        if "position_rule" in ENCODERS[encoder]:
            images["positions"] = "interpolated"
        vision = {"width": 24, "layers": 1, "heads": 2, "mlp_width": 32, "patch": 8, "grid": 4} | ENCODERS[encoder]
        language = values["model"]["language"] | {"width": 32, "heads": 4, "kv_heads": 2} | DECODERS[decoder]
        values["images"] = images
        values["model"] |= {
            "vision": vision, "language": language, "connector": CONNECTORS[connector].plain(),
            "fusion": FUSIONS[fusion],
        }  # fmt: skip
        stage = values["stages"][0] | {"vision": {"mode": "frozen"}, "pack": {"samples": 3, "packs_per_step": 1}}
        return Run.parse(values | {"stages": [stage]})

    return make


def drawn(run: Run) -> tuple[VLM, Processor]:
    """The model of a run with norms and biases that are not just ones and zeros, and its processor."""
    model, processor = build(run)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval(), processor


def test_every_pair_is_in_a_model_or_is_refused() -> None:
    rows = cover().values()
    found = {pair for row in rows for pair in pairs_of(row)}
    assert found == every_pair() - REFUSED.keys()
    assert len(rows) <= 135, "about as many as the two longest lists have pairs"


@pytest.mark.parametrize("pair", REFUSED, ids=lambda pair: ", ".join(value for _, value in sorted(pair)))
def test_choices_that_do_not_fit_are_refused_with_the_reason(run_of: RunOf, pair: frozenset) -> None:
    with pytest.raises(SettingsError, match=REFUSED[pair]):
        run_of(completed(pair))


@pytest.mark.parametrize("row", cover().values(), ids=cover())
def test_a_model_of_these_choices(run_of: RunOf, row: Row, tmp_path) -> None:
    run = run_of(row)
    model, processor = drawn(run)
    with torch.no_grad():
        packed = model(processor(SAMPLES)).logits
        alone = torch.cat([model(processor([sample])).logits for sample in SAMPLES])
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=1e-5)
    answers = generate(model, processor, SAMPLES, ANSWER)
    expected = [generate_reference(model, processor, sample, ANSWER) for sample in SAMPLES]
    assert all(map(same_or_close, [model] * 3, [processor] * 3, SAMPLES, answers, expected)), "cached equals whole"
    assert all(one.tokens for one in answers)
    check_engine(model, processor, expected)
    check_files(model, processor, tmp_path)
    check_step(run, model, processor)


def check_engine(model: VLM, processor: Processor, expected: list) -> None:
    """Two requests side by side are answered as each by itself."""
    asked = [request(number, SAMPLES[number], max_tokens=4) for number in (0, 2)]
    images = {} if model.config.fusion == "autoregressive" else {"image_kv_bytes": 2**20}
    found = ask(engine(model, processor, tokens_per_step=32, **images), *asked)
    for number in (0, 2):
        assert same_or_close(model, processor, SAMPLES[number], found[str(number), 0], expected[number])


def check_files(model: VLM, processor: Processor, folder) -> None:
    """Saved and opened, settings and weights are the same."""
    save(model, processor, folder / "saved")
    again, read = load(folder / "saved")
    assert (again.config, read.images, read.connector) == (model.config, processor.images, processor.connector)
    stored = dict(again.named_parameters())
    assert stored.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.named_parameters())


def check_step(run: Run, model: VLM, processor: Processor) -> None:
    """One training step gives a gradient to, and changes, what trains, and nothing else."""
    stage = run.stages[0]
    prepare_parts(model.train(), stage, seed=0)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = build_optimiser(model, stage)
    result = train_step(model, build_data(run, 0, processor).batches(0), optimiser, stage.max_grad_norm)
    assert result.loss > 0 and result.images
    for name, parameter in model.named_parameters():
        trains = not name.startswith("vision.")
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trains, name
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if not name.startswith("vision.")}
