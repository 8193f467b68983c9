"""Packs that are computed at the same time: the gradients, noise and all, are those of one pack after another."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from lorgnette.errors import LorgnetteError
from lorgnette.train.adapters.neftune import Neftune, document_seeds
from lorgnette.train.data import build_data
from lorgnette.train.gradients import add_gradients, parallel_microbatches, threads_for
from lorgnette.train.logging.log import read_log
from lorgnette.train.loop import Trainer
from lorgnette.train.parallel import DistributedContext
from lorgnette.train.setup import build
from lorgnette.train.stages import prepare_parts
from tests.train.test_run import QUIET


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3, "as it was found"
    torch.set_num_threads(before)


def gradients(run, at_once: int, alpha: float = 0.0):
    """The gradients and losses of a first step in four packs."""
    run = run.override("stages.0.pack.samples=8", "stages.0.micro_batches=4")
    model, processor = build(run)
    prepare_parts(model, run.stages[0], seed=0)
    model.train()
    batches = build_data(run, 0, processor).batches(0)
    assert len(batches) == 4
    torch.manual_seed(5)
    with Neftune(model, alpha):
        losses = add_gradients(model, batches, 4, 10, DistributedContext(), at_once)
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}, losses


@pytest.mark.parametrize("alpha", [0.0, 5.0], ids=["plain", "NEFTune"])
@pytest.mark.parametrize("mode", ["full", "frozen", "lora", "dora"])
@pytest.mark.parametrize("checkpointed", [False, True], ids=["kept", "recomputed"])
def test_parallel_microbatches_give_the_bits_of_packs_in_turn(tiny, mode, alpha, checkpointed):
    lora = "{rank: 2, dropout: 0.0}"
    run = tiny.override(*(f"stages.0.{part}.mode={mode}" for part in ("vision", "language")), f"stages.0.lora={lora}")
    if checkpointed:
        run = run.override("stages.0.checkpointing=[vision, connector, language]")
    together, losses = gradients(run, 3, alpha)
    torch.set_num_threads(1)  # the share of each
    in_turn, wanted = gradients(run, 1, alpha)
    torch.set_num_threads(3)
    assert losses == wanted
    assert together.keys() == in_turn.keys()
    for name, gradient in in_turn.items():
        assert (gradient is None) == (together[name] is None), name
        assert gradient is None or torch.equal(gradient, together[name]), name
        assert gradient is None or gradient.stride() == together[name].stride(), f"{name}: fused AdamW would go astray"


@pytest.mark.parametrize(
    ("costs", "most", "threads"),
    [
        ([], 4, 1),
        ([5], 4, 1),
        ([5, 5], 4, 2),
        ([7, 3], 2, 1),
        ([4, 4, 4], 2, 1),
        ([6, 4, 3, 3], 2, 2),
        ([9, 1, 1, 1], 4, 1),
    ],
)
def test_as_many_threads_as_end_together(costs, most, threads):
    assert threads_for(costs, most) == threads


def test_noise_differs_between_packs_and_follows_the_seed(tiny):
    model, processor = build(tiny)
    model.train()
    one, other = build_data(tiny.override("stages.0.micro_batches=2"), 0, processor).batches(0)

    def embedded(batch, seed: int):
        torch.manual_seed(seed)
        with Neftune(model, 5.0) as noise:
            noise._remember(model, (batch,))
            return model.language.embedding(torch.zeros(batch.documents.total, dtype=torch.int64))

    assert torch.equal(embedded(one, 1), embedded(one, 1))
    assert not torch.equal(embedded(one, 1), embedded(one, 2))
    least = min(one.documents.total, other.documents.total)
    assert not torch.equal(embedded(one, 1)[:least], embedded(other, 1)[:least])


def test_noise_is_that_of_each_document_whatever_pack_it_stands_in_and_what_it_is_called(tiny):
    model, processor = build(tiny)
    model.train()

    def noise_of(run):
        found = {}
        for batch in build_data(run, 0, processor).batches(0):
            zeros = torch.zeros(batch.documents.total, dtype=torch.int64)
            batch = dataclasses.replace(batch, names=(str(run.digest()),) * len(batch.documents), refs=())
            with Neftune(model, 5.0, seed=3) as noise:
                noise._remember(model, (batch,))
                drawn = model.language.embedding(zeros) - model.language.embedding.table[0]
            for tokens, one in zip(*(t.split(batch.documents.lengths) for t in (batch.tokens_T, drawn)), strict=True):
                found.setdefault(tuple(tokens.tolist()), []).append(one)
        return {key: sorted(one.sum().item() for one in ones) for key, ones in found.items()}

    whole, cut = noise_of(tiny), noise_of(tiny.override("stages.0.micro_batches=3"))
    assert whole == cut
    [batch] = build_data(tiny, 0, processor).batches(0)
    patches_PC = batch.patches_PC.clone()
    patches_PC[0, 0] ^= 1  # of the first document's image, as that is the first image
    other = dataclasses.replace(batch, patches_PC=patches_PC)
    same = [a == b for a, b in zip(document_seeds(batch, 3), document_seeds(other, 3), strict=True)]
    shown = int((batch.visual_positions_V[0] >= batch.document_starts).sum()) - 1
    assert [number for number, equal in enumerate(same) if not equal] == [shown], "that document's alone changed"


def test_dropout_is_that_of_each_pack_in_whatever_order_packs_are_computed(tiny):
    lora = "stages.0.lora={rank: 2, dropout: 0.5}"
    run = tiny.override("stages.0.language.mode=lora", lora, "stages.0.micro_batches=4")
    model, processor = build(run)
    prepare_parts(model, run.stages[0], seed=0)
    with torch.no_grad():  # adapters begin as the identity, of which dropout takes nothing away
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    model.train()
    batches = build_data(run, 0, processor).batches(0)
    with Neftune(model, 0.0, dropout=True, seed=7) as noise, torch.no_grad():
        losses = [float(model(batch, output="loss").loss_sum) for batch in batches]
        assert [float(model(batch, output="loss").loss_sum) for batch in reversed(batches)] == losses[::-1]
        noise.seed = 8
        assert float(model(batches[0], output="loss").loss_sum) != losses[0]


def test_what_goes_wrong_in_one_pack_is_told_and_none_is_left_computing(tiny, monkeypatch):
    model, processor = build(tiny)
    batches = build_data(tiny.override("stages.0.micro_batches=4"), 0, processor).batches(0)
    forward, computed = type(model).forward, []

    def failing(self, batch, **kwargs):
        computed.append(batch.names)
        if batch is batches[1]:
            raise LorgnetteError("this pack")
        return forward(self, batch, **kwargs)

    monkeypatch.setattr(type(model), "forward", failing)
    with pytest.raises(LorgnetteError, match="this pack"):
        add_gradients(model, batches, 4, 10, DistributedContext(), 2)
    seen = len(computed)
    time.sleep(0.1)
    assert not any("made" in vars(part) for part in model.modules())
    assert len(computed) == seen


def test_only_one_where_threads_would_draw_from_one_generator(tiny):
    stage = tiny.stages[0]
    assert parallel_microbatches(tiny, stage, DistributedContext()) == 3
    assert parallel_microbatches(tiny.override("parallel_microbatches=2"), stage, DistributedContext()) == 2
    dropping = stage.override("language.mode=lora", "lora.dropout=0.1")
    assert parallel_microbatches(tiny, dropping, DistributedContext()) == 1
    assert parallel_microbatches(tiny.override("compile=true"), stage, DistributedContext()) == 1


@pytest.mark.parametrize("mode", ["full", "lora", "dora"])
@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_a_run_learns_the_same_however_many_packs_are_computed_at_once(short, tmp_path, mode, optimiser):
    logs = []
    modes = [f"stages.0.{part}.mode={mode}" for part in ("vision", "language")]
    short = short.override(*modes, "stages.0.lora={rank: 2, dropout: 0.0}", f"stages.0.optimiser={optimiser}")
    for at_once in (1, 3):
        run = short.override(
            "threads=3", f"parallel_microbatches={at_once}", "stages.0.micro_batches=3", "stages.0.lr=0.01"
        )
        Trainer(run, tmp_path / str(at_once), QUIET).train()
        logs.append([row["loss"] for row in read_log(tmp_path / str(at_once) / "log.jsonl")])
    assert logs[1] == pytest.approx(logs[0], rel=1e-5)
