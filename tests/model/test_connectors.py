"""Every connector: parity with its oracle, counts of visual tokens, packing, empty batches and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector

from lorgnette.model.config import LinearConfig, PerceiverConfig, PixelShuffleConfig, parse_connector
from lorgnette.model.connectors import CONNECTORS, build_connector
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.vlm import VLM

KINDS = {
    "perceiver": PerceiverConfig(projection_width=40, latents=8, depth=2, heads=4, head_width=8, kv_heads=2),
    "linear": LinearConfig(),
    "pixel shuffle by 2": PixelShuffleConfig(),
    "pixel shuffle by 3": PixelShuffleConfig(side=3),
}
V, D = 24, 32
every_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)


def grids_of(config) -> tuple[tuple[int, int], ...]:
    """Shapes that the connector takes."""
    return tuple((rows * config.multiple, columns * config.multiple) for rows, columns in ((1, 2), (3, 1), (2, 2)))


def made(config, seed: int = 0):
    connector = build_connector(config, V, D)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return connector


def patches(grids, seed: int = 1) -> torch.Tensor:
    total = sum(rows * columns for rows, columns in grids)
    return torch.randn(total, V, generator=torch.Generator().manual_seed(seed))


def test_every_kind_of_settings_has_a_class_and_comes_back_from_plain_values():
    assert set(CONNECTORS) == {type(config) for config in KINDS.values()}
    for config in KINDS.values():
        assert parse_connector(config.plain()) == config
    assert parse_connector({"latents": 3}) == PerceiverConfig(latents=3), "settings without a kind are a perceiver's"


@every_kind
def test_it_makes_as_many_visual_tokens_as_its_settings_say(config):
    connector, grids = made(config), grids_of(config)
    visual_VD = connector(patches(grids), grids)
    counts = [config.visual_tokens(*grid) for grid in grids]
    assert visual_VD.shape == (sum(counts), D)
    assert connector.visual_tokens(grids).lengths == tuple(counts)
    assert config.visual_tokens(*np.array(grids).T).tolist() == counts


@every_kind
def test_packed_images_equal_separate_ones(config):
    connector, grids = made(config), grids_of(config)
    x = patches(grids)
    parts = x.split([rows * columns for rows, columns in grids])
    alone = [connector(part, (grid,)) for part, grid in zip(parts, grids, strict=True)]
    torch.testing.assert_close(connector(x, grids), torch.cat(alone), atol=1e-5, rtol=1e-5)


@every_kind
def test_gradients_reach_every_weight_and_of_no_image_they_are_zero(config):
    connector, grids = made(config), grids_of(config)
    x = patches(grids).requires_grad_()
    connector(x, grids).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in connector.parameters())
    assert x.grad.abs().sum() > 0
    connector.zero_grad()
    nothing = connector(torch.empty(0, V, requires_grad=True), ())
    assert nothing.shape == connector.empty().shape == (0, D)
    nothing.sum().backward()
    assert all(not parameter.grad.any() for parameter in connector.parameters())


@pytest.mark.parametrize("side", [1, 2, 3])
def test_pixel_shuffle_is_that_of_idefics3(side):
    config = PixelShuffleConfig(side=side)
    theirs = Idefics3Connector(
        transformers.Idefics3Config(
            vision_config={"hidden_size": V}, text_config={"model_type": "llama", "hidden_size": D}, scale_factor=side
        )
    )
    ours = made(config)
    theirs.modality_projection.proj.weight.data.copy_(ours.projection.weight)
    grid = (2 * side, 2 * side)
    x = patches((grid,))
    torch.testing.assert_close(ours(x, (grid,)), theirs(x[None])[0], atol=1e-6, rtol=1e-6)


def test_sides_that_squares_do_not_fill_are_refused():
    with pytest.raises(ValueError, match="squares of 2 x 2 patches, which do not fill an image of 4 x 3"):
        PixelShuffleConfig().visual_tokens(4, 3)
    with pytest.raises(ValueError, match="do not fill"):
        made(PixelShuffleConfig())(patches(((4, 3),)), ((4, 3),))
    with pytest.raises(ValueError, match="do not fill"):
        PixelShuffleConfig().visual_tokens(np.array([4, 4]), np.array([4, 3]))


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (PerceiverConfig(depth=1), 309_084_160),
        (PerceiverConfig(), 743_219_200),
        (PerceiverConfig(latents=128), 743_481_344),
        (LinearConfig(), 4_718_592),
        (PixelShuffleConfig(side=2), 18_874_368),
    ],
)
def test_parameters_at_the_papers_sizes(config, count):
    with torch.device("meta"):
        assert sum(one.numel() for one in build_connector(config, 1152, 4096).parameters()) == count


@every_kind
def test_a_model_with_it_answers_the_same_packed_and_from_a_cache(tiny, config):
    whole = tiny.config(connector=config.plain())
    model: VLM = tiny.model(whole)
    unit = config.multiple
    documents = [[(unit, 2 * unit)], [], [(2 * unit, unit), (unit, unit)]]
    batch = tiny.batch(whole, documents)
    with torch.no_grad():
        logits = model(batch).logits
        cache = KVCache(whole)
        last = model(batch, output="last", cache=cache).logits
        torch.testing.assert_close(last, logits[batch.document_starts[1:].long() - 1], atol=1e-5, rtol=1e-5)
        following = torch.tensor([1, 2, 3])
        step = model(cache.next(following), output="last", cache=cache).logits
    ends = batch.documents.starts[1:]
    tokens = torch.cat([torch.cat([batch.tokens_T[a:b], following[n : n + 1]])
                        for n, (a, b) in enumerate(zip(batch.documents.starts, ends, strict=False))])  # fmt: skip
    longer = _longer(batch, tokens)
    with torch.no_grad():
        full = model(longer, output="last").logits
    torch.testing.assert_close(step, full, atol=1e-5, rtol=1e-5)


def _longer(batch, tokens_T):
    """The batch with one token more at the end of each document."""
    import dataclasses

    from lorgnette.model.batch import SequenceLengths

    lengths = tuple(length + 1 for length in batch.documents.lengths)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(batch.documents.lengths))
    return dataclasses.replace(
        batch,
        tokens_T=tokens_T,
        targets_T=torch.full_like(tokens_T, -100),
        positions_T=torch.cat([torch.arange(length) for length in lengths]),
        documents=SequenceLengths(lengths),
        visual_positions_V=batch.visual_positions_V + owner[batch.visual_positions_V],
    )


@every_kind
def test_a_model_with_it_trains(tiny, config):
    whole = tiny.config(connector=config.plain())
    model: VLM = tiny.model(whole).train()
    batch = tiny.batch(whole, [[(config.multiple, config.multiple)], []])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        out = model(batch, output="loss")
        (out.loss_sum / out.supervised_tokens).backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimiser.step()
        optimiser.zero_grad()
        losses.append(float(out.loss_sum.detach() / out.supervised_tokens))
    assert losses[-1] < 0.8 * losses[0]
