"""Every connector: parity with its oracle, counts of visual tokens, packing, empty batches and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from transformers.models.gemma3.modeling_gemma3 import Gemma3MultiModalProjector

from lorgnette.errors import SettingsError
from lorgnette.hub.weight_map import connector_rules
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import (
    AverageConfig,
    FlatLinearConfig,
    IdentityConfig,
    LinearConfig,
    MappingNetworkConfig,
    MLPConfig,
    PerceiverConfig,
    PixelShuffleConfig,
    parse_connector,
)
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.connectors import CONNECTORS, build_connector
from lorgnette.model.flops import ModelCost
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.vlm import VLM
from tests.model import choices
from tests.model.oracles import ORACLES, D, V

KINDS = choices.CONNECTORS | {"pixel shuffle by 3": PixelShuffleConfig(side=3)}
every_kind = pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
IN_SEQUENCE = {name: one for name, one in KINDS.items() if one.token_width(V, D) == D}


def grids_of(config) -> tuple[tuple[int, int], ...]:
    """Shapes that the connector takes."""
    shapes = [config.only_grid] * 3 if config.only_grid else [(1, 2), (3, 1), (2, 2)]
    return tuple((rows * config.multiple, columns * config.multiple) for rows, columns in shapes)


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
    assert visual_VD.shape == (sum(counts), config.token_width(V, D))
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
    assert nothing.shape == (0, config.token_width(V, D))
    nothing.sum().backward()
    assert all(not parameter.grad.any() for parameter in connector.parameters())


@pytest.mark.parametrize("name", ORACLES)
def test_outputs_and_gradients_are_the_oracles(name):
    config = KINDS[name]
    connector, side = made(config), 4 if config.multiple == 1 else 2 * config.multiple
    ours = dict(connector.named_parameters())
    names = {rule.theirs: rule.ours[0].removeprefix("connector.") for rule in connector_rules(config, "")}
    assert sorted(names.values()) == sorted(ours)
    x_PV = patches(((side, side),)).requires_grad_()
    wanted = ORACLES[name](config, {theirs: ours[mine] for theirs, mine in names.items()}, x_PV)
    got = connector(x_PV, ((side, side),))
    torch.testing.assert_close(got, wanted, atol=1e-5 * float(wanted.detach().abs().max()), rtol=1e-5)
    back = torch.randn(got.shape, generator=torch.Generator().manual_seed(2))
    parts = ("patches", *ours)
    mine, theirs = (
        dict(zip(parts, torch.autograd.grad((out * back).sum(), [x_PV, *ours.values()]), strict=True))
        for out in (got, wanted)
    )
    for part in parts:
        # a key bias moves all scores of a query alike, so its true gradient is zero: compare it to its weight's
        scale = theirs[part.replace("key.bias", "key.weight").replace("key_norm.bias", "key_norm.weight")].abs().max()
        torch.testing.assert_close(mine[part], theirs[part], atol=1e-4 * float(scale), rtol=0, msg=part)


def test_every_kind_has_an_oracle():
    assert {type(KINDS[name]) for name in ORACLES} == set(CONNECTORS)


def test_means_are_those_of_gemma3_where_squares_fill_the_image():
    vision = {"hidden_size": V, "image_size": 56, "patch_size": 14}
    config = transformers.Gemma3Config(vision_config=vision, text_config={"hidden_size": D}, mm_tokens_per_image=4)
    pool = Gemma3MultiModalProjector(config).avg_pool
    ours, x = made(AverageConfig(side=2)), patches(((4, 4),))
    theirs = pool(x.T.view(1, V, 4, 4)).flatten(2)[0].T
    torch.testing.assert_close(ours(x, ((4, 4),)), ours.projection(theirs), atol=1e-6, rtol=1e-6)
    wide = patches(((2, 5),)).view(2, 5, V)
    means = torch.stack([wide[row, columns].mean(0) for row in (0, 1) for columns in (slice(0, 3), slice(2, 5))])
    torch.testing.assert_close(ours(wide.flatten(0, 1), ((2, 5),)), ours.projection(means), atol=1e-6, rtol=1e-6)


def test_constants_of_a_mapping_network_begin_standard_normal(tiny):
    model = VLM(tiny.config(connector={"kind": "mapping_network", "constants": 40, "width": 64}))
    assert float(model.connector.constants.detach().std()) == pytest.approx(1.0, abs=0.1)


def test_sides_that_squares_do_not_fill_are_refused():
    with pytest.raises(ValueError, match="squares of 2 x 2 patches, which do not fill an image of 4 x 3"):
        PixelShuffleConfig().visual_tokens(4, 3)
    with pytest.raises(ValueError, match="do not fill"):
        made(PixelShuffleConfig())(patches(((4, 3),)), ((4, 3),))
    with pytest.raises(ValueError, match="do not fill"):
        PixelShuffleConfig().visual_tokens(np.array([4, 4]), np.array([4, 3]))


def test_shapes_that_a_mixing_matrix_does_not_fit_are_refused():
    for rows, columns in ((4, 3), (3, 4), (np.array([4, 5]), np.array([4, 4]))):
        with pytest.raises(ValueError, match="flat_linear mixes 4 x 4 patches"):
            FlatLinearConfig(side=4).visual_tokens(rows, columns)


@pytest.mark.parametrize("kind", [config.kind for config in choices.CONNECTORS.values()])
def test_a_kind_is_one_word_and_all_else_is_as_published(kind):
    wide = parse_connector({"kind": kind}).token_width(V, D) == V
    beside = {"preset": "micro", "fusion": "cross_attention" if wide else "autoregressive"}
    worded = VLMConfig.parse(beside | {"connector": kind})
    assert worded == VLMConfig.parse(beside | {"connector": {"kind": kind}})
    assert worded.connector.kind == kind and VLMConfig.parse(worded.plain()) == worded
    assert VLMConfig.parse(beside).override(f"connector={kind}").connector.kind == kind


def test_an_unknown_kind_is_refused_with_those_that_there_are():
    with pytest.raises(SettingsError, match=r"mpl.*'perceiver', 'linear', 'mlp'"):
        VLMConfig.parse({"preset": "micro", "connector": "mpl"})


def test_a_projection_that_no_layer_obeys_is_refused():
    with pytest.raises(SettingsError, match="projection_width 48 has no effect where width_of is vision"):
        PerceiverConfig.parse({"width_of": "vision", "projection_width": 48})
    assert PerceiverConfig.parse({"width_of": "vision"}).projection_width is None
    model = VLMConfig.parse({"preset": "micro", "connector": {"projection_width": None}})
    assert model.connector.projection_width is None and model.connector.latents == 16


def test_a_class_token_that_nothing_counts_is_refused():
    tower = {"class_token": "kept", "grid": 8}
    settings = {"preset": "micro", "fusion": "cross_attention", "vision": tower}
    with pytest.raises(SettingsError, match="class_tokens is 0, but an image has 1 states beside its patches'"):
        VLMConfig.parse(settings | {"connector": "identity"})
    config = VLMConfig.parse(settings | {"connector": {"kind": "identity", "class_tokens": 1}})
    assert config.connector.visual_tokens(4, 4) == 17
    with pytest.raises(SettingsError, match="cannot stand in a sequence of width 128"):
        VLMConfig.parse({"preset": "micro", "connector": "identity"})


IDEFICS1 = PerceiverConfig(
    width_of="vision", norm="layer", norm_eps=1e-5, qk_norm=True, mlp="relu", depth=6, kv_heads=16
)


@pytest.mark.parametrize(
    ("config", "vision_width", "width", "count"),
    [
        (PerceiverConfig(depth=1), 1152, 4096, 309_084_160),
        (PerceiverConfig(), 1152, 4096, 743_219_200),
        (PerceiverConfig(depth=12), 1152, 4096, 2_696_826_880),
        (PerceiverConfig(latents=128), 1152, 4096, 743_481_344),
        (PerceiverConfig(projection_width=None), 1152, 4096, 656_187_392),
        (PerceiverConfig(qk_norm=True), 1152, 4096, 743_219_200 + 3 * 2 * 96),
        (IDEFICS1, 1280, 4096, 125_961_984),
        (IdentityConfig(), 1280, 4096, 0),
        (LinearConfig(), 1152, 4096, 4_718_592),
        (MLPConfig(), 1152, 4096, 21_504_000),
        (MLPConfig(), 1024, 4096, 20_979_712),
        (PixelShuffleConfig(side=2), 1152, 4096, 18_874_368),
        (PixelShuffleConfig(side=3), 1152, 2048, 21_233_664),
        (PixelShuffleConfig(side=4), 768, 576, 7_077_888),
        (AverageConfig(), 1152, 4096, 4_718_592),
        (FlatLinearConfig(), 1152, 4096, 4_765_248),
        (MappingNetworkConfig(), 1152, 4096, 3_472_640),
        (MappingNetworkConfig(constants=32), 1024, 4096, 3_431_680),
    ],
)
def test_parameters_at_the_papers_sizes(config, vision_width, width, count):
    with torch.device("meta"):
        assert sum(one.numel() for one in build_connector(config, vision_width, width).parameters()) == count


P, W, S, N = 784, 256, 64, 784 + 64


@pytest.mark.parametrize(
    ("config", "flops"),
    [
        (LinearConfig(), 2 * P * 1152 * 4096),
        (MLPConfig(), 2 * P * 4096 * (1152 + 4096)),
        (PixelShuffleConfig(side=2), 2 * P * 1152 * 4096),
        (AverageConfig(side=8), 2 * 64 * 1152 * 4096),
        (FlatLinearConfig(side=28), 2 * S * P * 1152 + 2 * S * 1152 * 4096),
        (MappingNetworkConfig(), 2 * P * 1152 * W + 4 * (16 * N * W**2 + 4 * N**2 * W) + 2 * S * W * 4096),
        (IDEFICS1, 6 * (2 * 1152 * (2 * S + 2 * N) * 1536 + 4 * S * N * 1536 + 16 * S * 1152**2)),
    ],
)
def test_flops_of_an_image_are_the_closed_forms(config, flops):
    whole = VLMConfig(connector=config, fusion=CrossAttentionConfig(every=4))
    assert ModelCost(whole).connector_flops(P) == flops


@pytest.mark.parametrize("config", IN_SEQUENCE.values(), ids=IN_SEQUENCE)
def test_a_model_with_it_answers_the_same_packed_and_from_a_cache(tiny, config):
    whole = tiny.config(connector=config.plain())
    model: VLM = tiny.model(whole)
    wide, high, small = grids_of(config)
    documents = [[wide], [], [high, small]]
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
