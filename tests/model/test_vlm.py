"""Properties of the whole model: packed equals separate, isolation, gradients, checkpointing, initialisation."""

from __future__ import annotations

import dataclasses
import platform
import resource
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lorgnette.errors import DataError, SettingsError
from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.configs.language_config import ROPE_SCALINGS, LanguageConfig
from lorgnette.model.ops.allocator import keep_freed_memory
from lorgnette.model.rope import SCALINGS
from lorgnette.model.vlm import VLM

DOCUMENTS = [[(3, 5), (2, 2)], [], [(8, 8)], [(2, 2), (5, 3), (1, 1)], []]


def only(batch: Batch, index: int, images: tuple[int, int]) -> Batch:
    """The batch of one document of a batch, with its images from the first to before the second number."""
    tokens = slice(*batch.documents.starts[index : index + 2])
    patches = slice(batch.images.starts[images[0]], batch.images.starts[images[1]])
    visual = (
        batch.visual_positions_V[(batch.visual_positions_V >= tokens.start) & (batch.visual_positions_V < tokens.stop)]
        - tokens.start
    )
    return Batch(
        tokens_T=batch.tokens_T[tokens],
        targets_T=batch.targets_T[tokens],
        positions_T=batch.positions_T[tokens],
        documents=SequenceLengths((batch.documents.lengths[index],)),
        patches_PC=batch.patches_PC[patches],
        patch_positions_P=batch.patch_positions_P[patches],
        grids=batch.grids[slice(*images)],
        visual_positions_V=visual,
    )


def separate(batch: Batch, documents: list) -> list[Batch]:
    ends = [sum(map(len, documents[: index + 1])) for index in range(len(documents))]
    return [only(batch, index, (end - len(documents[index]), end)) for index, end in enumerate(ends)]


@pytest.mark.parametrize(
    "overrides", [{}, {"language": {"sliding_window": 6}}, {"language": {"tied_embeddings": True}}]
)
def test_packed_equals_separate(tiny, overrides: dict) -> None:
    """Logits, loss and gradients of a pack are those of its documents one by one."""
    config = tiny.config(**overrides)
    packed, apart = tiny.model(config), tiny.model(config)
    batch = tiny.batch(config, DOCUMENTS)
    singles = separate(batch, DOCUMENTS)
    torch.testing.assert_close(
        packed(batch).logits, torch.cat([apart(one).logits for one in singles]), atol=2e-6, rtol=1e-5
    )

    out = packed(batch, output="loss")
    out.loss_sum.backward()
    outs = [apart(one, output="loss") for one in singles]
    torch.stack([one.loss_sum for one in outs]).sum().backward()
    assert (
        out.supervised_tokens == sum(one.supervised_tokens for one in outs) == (batch.targets_T != IGNORE_INDEX).sum()
    )
    for (name, ours), theirs in zip(packed.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(
            ours.grad, theirs.grad, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_one_sample_changes_no_other(tiny) -> None:
    """Other pixels and other words in one document leave every bit of the others' logits as it was."""
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    first, last = batch.documents.starts[2], batch.documents.starts[3]
    tokens, patches = batch.tokens_T.clone(), batch.patches_PC.clone()
    tokens[first : first + 5] = (tokens[first : first + 5] + 1) % config.language.vocabulary
    patches[batch.images.starts[2] : batch.images.starts[3]] ^= 255
    before, after = model(batch).logits, model(dataclasses.replace(batch, tokens_T=tokens, patches_PC=patches)).logits
    assert torch.equal(before[:first], after[:first])
    assert torch.equal(before[last:], after[last:])
    assert (before[first:last] - after[first:last]).abs().amax(1).min() > 0


def test_documents_may_be_joined_as_in_the_original(tiny) -> None:
    """`isolate_documents: false` trains on a pack as on one long document, and changes nothing outside training."""
    config, joined = tiny.config(), tiny.config(isolate_documents=False)
    batch = tiny.batch(config, DOCUMENTS)
    one = dataclasses.replace(
        batch, documents=SequenceLengths((batch.documents.total,)), positions_T=torch.arange(batch.documents.total)
    )
    model, original = tiny.model(config), tiny.model(joined)
    torch.testing.assert_close(original.train()(batch).logits, model(one).logits)
    assert not torch.allclose(original(batch).logits, model(batch).logits, atol=1e-3)
    assert torch.equal(original.eval()(batch).logits, model(batch).logits)


def test_loss_last_and_scores_agree_with_logits(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    logits = model(batch).logits
    loss = F.cross_entropy(logits, batch.targets_T, ignore_index=IGNORE_INDEX, reduction="sum")
    torch.testing.assert_close(model(batch, output="loss").loss_sum, loss)
    ends = [end - 1 for end in batch.documents.starts[1:]]
    torch.testing.assert_close(model(batch, output="last").logits, logits[ends])
    scores = model(batch, output="scores").scores
    torch.testing.assert_close(-scores.sum(), loss)
    assert scores[batch.targets_T == IGNORE_INDEX].abs().max() == 0
    with pytest.raises(ValueError, match="use logits, loss, last or scores"):
        model(batch, output="everything")


def test_visual_tokens_can_be_made_beforehand(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    visual_VD = model.encode_images(batch)
    assert visual_VD.shape == (len(batch.images) * config.connector.latents, config.language.width)
    torch.testing.assert_close(model(batch, visual_VD=visual_VD).logits, model(batch).logits)


@pytest.mark.parametrize("frozen", [(), ("vision",), ("vision", "language"), ("connector",)])
@pytest.mark.parametrize("documents", [DOCUMENTS, [[], []]], ids=["images", "text only"])
def test_gradients_reach_what_is_trained_and_nothing_else(tiny, frozen: tuple, documents: list) -> None:
    """Without images too: a rank without them takes part in every parameter's gradient, as zeros."""
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, documents)
    for part in frozen:
        for parameter in model.parts()[part]:
            parameter.requires_grad_(False)
    model(batch, output="loss").loss_sum.backward()
    for part, parameters in model.parts().items():
        for parameter in parameters:
            if part in frozen:
                assert parameter.grad is None
            else:
                assert parameter.grad is not None
    seen = [p for p in model.parts()["connector"] if p.grad is not None and p.grad.abs().max() > 0]
    assert bool(seen) == (documents is DOCUMENTS and "connector" not in frozen)


def test_parts_hold_every_parameter_once(tiny) -> None:
    for tied in (False, True):
        model = tiny.model(tiny.config(language={"tied_embeddings": tied}))
        held = [id(p) for parameters in model.parts().values() for p in parameters]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        assert len(model.parts()["extra_vocabulary"]) == (1 if tied else 2)


def test_checkpointing_covers_every_part_and_changes_no_gradient(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)

    def step() -> tuple[dict[str, Tensor], int]:
        saved: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = model(batch, output="loss").loss_sum
        loss.backward()
        weights = sum(p.untyped_storage().nbytes() for p in model.parameters())
        return {name: p.grad.clone() for name, p in model.named_parameters()}, sum(saved.values()) - weights

    plain, much = step()
    for stack in model.stacks().values():
        stack.checkpointed = True
    again, little = step()
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, msg=lambda text, name=name: f"{name}: {text}")
    assert little < much / 3
    for stack in model.stacks().values():
        stack.checkpointed = False
    assert step()[1] == much


def test_weights_come_from_the_seed_and_their_names_alone(tiny) -> None:
    config = tiny.config()
    with torch.device("meta"):
        empty = VLM(config)
    first, second, other = empty.initialise(3), VLM(config).initialise(3), VLM(config).initialise(4)
    deeper = VLM(tiny.config(connector={"depth": 3})).initialise(3)
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        assert name.endswith(("bias", "norm.weight")) or not torch.equal(a, c), name
    assert torch.equal(deeper.vision.patch_embedding.weight, first.vision.patch_embedding.weight)


def test_deviations_are_those_of_the_released_code(tiny) -> None:
    config = tiny.config(language={"width": 256, "mlp_width": 512}, connector={"depth": 3})
    model = VLM(config).initialise(0)
    layer = model.connector.layers[0]
    for weight, expected in (
        (model.connector.latents, (1 / 256) ** 0.5),
        (model.language.embedding.table, (1 / 256) ** 0.5),
        (layer.mlp.gate.weight, (0.4 / 256) ** 0.5),
        (layer.mlp.down.weight, (0.4 / (2 * 1024)) ** 0.5),
        (layer.attention.output.weight, (0.4 / (2 * 3 * 32)) ** 0.5),
    ):
        assert weight.std().item() == pytest.approx(expected, rel=0.06)


def test_rope_scalings_are_checked(tiny) -> None:
    batch = tiny.batch(tiny.config(), [[]], text=30)
    long = tiny.config(language={"max_positions": 20, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}})
    with pytest.raises(DataError, match="30 tokens exceeds the 20 positions"):
        tiny.model(long)(batch)
    with pytest.raises(SettingsError, match="'spiral' is unknown; use one of default, linear, dynamic, llama3, yarn"):
        LanguageConfig.parse({"rope_scaling": {"rope_type": "spiral"}})
    with pytest.raises(SettingsError, match="'yarn' needs the number original_max_position_embeddings"):
        LanguageConfig.parse({"rope_scaling": {"rope_type": "yarn", "factor": 2}})
    with pytest.raises(SettingsError, match="'linear' of lorgnette knows no mscale"):
        LanguageConfig.parse({"rope_scaling": {"rope_type": "linear", "factor": 2, "mscale": 1}})
    assert set(SCALINGS) == set(ROPE_SCALINGS)


def test_training_goes_on_after_inference_mode(tiny) -> None:
    """Caches of attention and sequence lengths hold ordinary tensors, whatever mode filled them first."""
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, [[(3, 7), (2, 2), (3, 7)], [(2, 2)]], text=11)
    with torch.inference_mode():
        expected = model(batch, output="loss").loss_sum.item()
        starts = batch.document_starts
    loss = model(batch, output="loss").loss_sum
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert not starts.is_inference()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_few_images_at_a_time_are_all_at_once(tiny, monkeypatch) -> None:
    """Logits and gradients do not depend on how many rows a CPU works on at a time."""
    config = tiny.config()
    batch, found = tiny.batch(config, DOCUMENTS), []
    for elements in (2**22, 36 * 30, 1):
        monkeypatch.setattr("lorgnette.model.ops.tiling.ROWS_OF_A_CACHE", elements)
        model = tiny.model(config)
        logits = model(batch).logits
        model(batch, output="loss").loss_sum.backward()
        found.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for others in found[1:]:
        for whole, cut in zip(found[0], others, strict=True):
            torch.testing.assert_close(cut, whole, atol=1e-5, rtol=1e-4)
    assert [piece.lengths for piece in SequenceLengths((3, 4, 9, 1, 1)).pieces(7)] == [(3, 4), (9,), (1, 1)]
    assert SequenceLengths(()).pieces(7) == [SequenceLengths(())]


FAULTS = """
import resource
import torch
from lorgnette.model.ops.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**24).fill_(0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

assert keep_freed_memory()
print(*(faults() for _ in range(40)))  # the heap takes a few rounds to settle
"""


def test_freed_memory_is_kept_where_glibc_is() -> None:
    """Blocks of 64 MiB that were freed come back with their pages, so that writing to them again faults on few.

    In a process of its own: what a thousand tests have left in the heap of this one decides where blocks lie.
    """
    if not keep_freed_memory():
        assert not (sys.platform == "linux" and platform.libc_ver()[0] == "glibc")
        return
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120)
    counts = [int(one) for one in ran.stdout.split()]
    assert sum(counts[-8:]) / 8 < 2**26 // resource.getpagesize() // 10


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"language": {"sliding_window": 6}},
        {"language": {"tied_embeddings": True, "qk_norm": True}},
        {"language": {"attention_bias": True, "kv_heads": 4}},
        {"language": {"layers": 1}},
        {"isolate_documents": False},
    ],
    ids=str,
)
def test_gradients_of_the_loss_are_those_through_all_logits(tiny, overrides: dict) -> None:
    """Positions that nobody reads are left out of the last layer's queries and MLP, and of nothing else."""
    config = tiny.config(**overrides)
    model, batch = tiny.model(config).train(), tiny.batch(config, [[(3, 4), (8, 8)], [], [(2, 2)]])
    supervised = (batch.targets_T != IGNORE_INDEX).clone()
    supervised[::3] = False
    supervised[slice(*batch.documents.starts[1:3])] = False  # a document of which nothing is learned
    batch = dataclasses.replace(batch, targets_T=batch.targets_T.where(supervised, IGNORE_INDEX))
    fast = torch.autograd.grad(model(batch, output="loss").loss_sum, list(model.parameters()))
    slow_loss = F.cross_entropy(model(batch).logits, batch.targets_T, reduction="sum", ignore_index=IGNORE_INDEX)
    slow = torch.autograd.grad(slow_loss, list(model.parameters()))
    for ours, right in zip(fast, slow, strict=True):
        torch.testing.assert_close(ours, right, atol=1e-5, rtol=1e-4)


def test_a_batch_of_which_nothing_is_learned_has_gradients_of_zero(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, [[(3, 4)], []])
    batch = dataclasses.replace(batch, targets_T=torch.full_like(batch.targets_T, IGNORE_INDEX))
    model(batch, output="loss").loss_sum.backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())
