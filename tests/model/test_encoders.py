"""Every published vision encoder is settings of one ViT: states and gradients of its own class, and exact sizes.

timm's Eva is written out in plain torch (`eva`); it was compared once with timm 1.0.31's own (docs/decisions/0026).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from lorgnette.errors import SettingsError
from lorgnette.hub.encoders.encoder_names import dinov2_rules, naflex_rules, siglip_rules, timm_rules
from lorgnette.hub.weight_map import Rule
from lorgnette.model.batch import Batch
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs import presets
from lorgnette.model.ops.position_tables import interpolated_positions, resized_slowly
from lorgnette.model.vision import build_encoder
from lorgnette.model.vlm import VLM
from tests.model.test_parity import as_image, build, error
from tests.model.test_vlm import separate

Weights = dict[str, Tensor]
SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 36, "patch_size": 4}
CLIP = {"class_token": "kept", "norm_before": True, "norm_after": False, "patch_bias": False, "norm_eps": 1e-5}
EVA = {"class_token": "kept", "block_norm": "after", "key_bias": False, "activation": "gelu"}
SQUARE, ANY = [[(8, 8)], [], [(8, 8), (8, 8)]], [[(3, 5), (8, 8)], [], [(1, 7)], [(11, 2), (3, 5)]]


def images_of(model: VLM, batch: Batch) -> list[Tensor]:
    """Normalised pixels of each image: 1, channels, height, width."""
    pixels_PC = model.vision.normalise(batch.patches_PC, torch.empty(0))
    pieces = pixels_PC.split(list(batch.images.lengths))
    return [as_image(one, grid, model.config) for one, grid in zip(pieces, batch.grids, strict=True)]


def vision_class(kind: type, **settings: object) -> Callable[..., tuple[Tensor, Weights]]:
    """Run a class of transformers image by image. Returns its states, end to end, and its parameters."""

    def run(model: VLM, batch: Batch, rules: list[Rule]) -> tuple[Tensor, Weights]:
        given = {"layer_norm_eps": model.config.vision.norm_eps} | settings
        oracle = build(kind, SIZES | {"image_size": 32} | given, model, rules, strict=False)
        call = {} if kind is transformers.Dinov2Model else {"interpolate_pos_encoding": True}
        outs = [oracle(pixels, output_hidden_states=True, **call) for pixels in images_of(model, batch)]
        skipped = given.get("num_hidden_layers", 2) - model.config.vision.layer_count
        states = [out.hidden_states[-1 - skipped] if skipped else out.last_hidden_state for out in outs]
        return torch.cat([one[0] for one in states]), dict(oracle.named_parameters())

    return run


def naflex(model: VLM, batch: Batch, rules: list[Rule]) -> tuple[Tensor, Weights]:
    """Siglip2VisionModel on padded rows of patches, flattened as row, column, channel."""
    oracle = build(
        transformers.Siglip2VisionModel,
        SIZES | {"num_patches": 64, "vision_use_head": False, "layer_norm_eps": model.config.vision.norm_eps},
        model,
        rules,
    )
    flat = [
        F.unfold(pixels, 4, stride=4)[0].T.unflatten(1, (3, 16)).transpose(1, 2).flatten(1)
        for pixels in images_of(model, batch)
    ]
    mask = torch.zeros(len(flat), 64, dtype=torch.int64)
    for row, one in zip(mask, flat, strict=True):
        row[: len(one)] = 1
    padded = torch.stack([F.pad(one, (0, 0, 0, 64 - len(one))) for one in flat])
    out = oracle(padded, pixel_attention_mask=mask, spatial_shapes=torch.tensor(batch.grids)).last_hidden_state
    return out[mask.bool()], dict(oracle.named_parameters())


def eva(model: VLM, batch: Batch, rules: list[Rule]) -> tuple[Tensor, Weights]:
    """timm's Eva with `use_post_norm`, in plain torch on timm's own names and shapes."""
    ours = dict(model.named_parameters())
    weights = {rule.theirs: rule.to_theirs(ours).clone().requires_grad_() for rule in rules}
    return torch.cat([eva_image(weights, pixels, model.config.vision) for pixels in images_of(model, batch)]), weights


def eva_image(weights: Weights, pixels: Tensor, config: VisionConfig) -> Tensor:
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], *both(name), config.norm_eps)  # noqa: E731
    both = lambda name: (weights[f"{name}.weight"], weights[f"{name}.bias"])  # noqa: E731
    x = F.conv2d(pixels, *both("patch_embed.proj"), stride=config.patch)
    rows, columns = x.shape[-2:]
    table = weights["pos_embed"][:, 1:].unflatten(1, (config.grid, config.grid)).permute(0, 3, 1, 2)
    if (rows, columns) != (config.grid, config.grid):
        table = F.interpolate(table, size=(rows, columns), mode="bicubic", antialias=True)
    positions = torch.cat([weights["pos_embed"][:, :1], table.flatten(2).transpose(1, 2)], 1)
    x = torch.cat([weights["cls_token"], x.flatten(2).transpose(1, 2)], 1) + positions
    for layer in range(config.layers):
        at = f"blocks.{layer}"
        q_bias, v_bias = weights[f"{at}.attn.q_bias"], weights[f"{at}.attn.v_bias"]
        qkv_bias = torch.cat([q_bias, torch.zeros_like(q_bias), v_bias])
        qkv = F.linear(x, weights[f"{at}.attn.qkv.weight"], qkv_bias).unflatten(-1, (3, config.heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + norm(F.linear(mixed, *both(f"{at}.attn.proj")), f"{at}.norm1")
        hidden = F.gelu(F.linear(x, *both(f"{at}.mlp.fc1")))
        x = x + norm(F.linear(hidden, *both(f"{at}.mlp.fc2")), f"{at}.norm2")
    return norm(x, "norm")[0]


def dinov2_class_rules(vision: VisionConfig, prefix: str) -> list[Rule]:
    """Names of the class in transformers 5, which renames those of files as it opens them."""
    renamed = {f"attention.attention.{kind}": f"attention.{kind[0]}_proj" for kind in ("query", "key", "value")}
    renamed["attention.output.dense"] = "attention.o_proj"
    rules = dinov2_rules(vision, prefix)
    for theirs, ours in renamed.items():
        rules = [replace(rule, theirs=rule.theirs.replace(theirs, ours)) for rule in rules]
    return rules


@dataclass(frozen=True)
class Kind:
    """A published encoder at a tiny size."""

    settings: dict
    oracle: Callable[..., tuple[Tensor, Weights]]
    rules: Callable[[VisionConfig, str], list[Rule]] = siglip_rules
    documents: list = field(default_factory=lambda: SQUARE)


KINDS = {
    "CLIP H/14": Kind(CLIP | {"activation": "gelu"}, vision_class(transformers.CLIPVisionModel, hidden_act="gelu")),
    "CLIP L/14, any shape": Kind(
        CLIP | {"activation": "quick_gelu", "position_rule": "bicubic"},
        vision_class(transformers.CLIPVisionModel, hidden_act="quick_gelu"),
        documents=ANY,
    ),
    "CLIP in LLaVA": Kind(
        CLIP | {"activation": "quick_gelu", "layers": 3, "skipped_layers": 1},
        vision_class(transformers.CLIPVisionModel, hidden_act="quick_gelu", num_hidden_layers=3),
    ),
    "SigLIP in LLaVA": Kind(
        {"norm_after": False, "layers": 2, "skipped_layers": 1},
        vision_class(transformers.SiglipVisionModel, vision_use_head=False),
    ),
    "SigLIP, any shape": Kind(
        {"position_rule": "bicubic"},
        vision_class(transformers.SiglipVisionModel, vision_use_head=False),
        documents=ANY,
    ),
    "SigLIP 2 NaFlex": Kind({"position_rule": "bilinear_antialias"}, naflex, naflex_rules, ANY),
    "DINOv2": Kind(
        {"class_token": "kept", "layer_scale": True, "activation": "gelu", "position_rule": "bicubic", "mlp_width": 48},
        vision_class(transformers.Dinov2Model, mlp_ratio=2),
        dinov2_class_rules,
        ANY,
    ),
    "EVA-02-CLIP-E": Kind(EVA, eva, timm_rules),
    "EVA-02-CLIP-E, any shape": Kind(EVA | {"position_rule": "bicubic_antialias"}, eva, timm_rules, ANY),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
one_of_each = pytest.mark.parametrize("name", ["CLIP L/14, any shape", "SigLIP 2 NaFlex", "DINOv2", "EVA-02-CLIP-E"])


def states_of(model: VLM, batch: Batch) -> Tensor:
    states: Tensor = model.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
    return states


@every_kind
def test_states_and_gradients_are_the_published_classs(tiny, kind: Kind) -> None:
    config = tiny.config(vision=kind.settings)
    model, batch = tiny.model(config), tiny.batch(config, kind.documents)
    rules = kind.rules(config.vision, "")
    ours, (theirs, weights) = states_of(model, batch), kind.oracle(model, batch, rules)
    assert ours.shape == theirs.shape == (model.vision.states(batch.grids).total, 24)
    assert error(ours, theirs) <= 1e-5
    draw = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1))
    (ours * draw).sum().backward()
    (theirs * draw).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name for rule in rules for name in rule.ours} == found.keys(), "every parameter of the encoder is trained"
    for rule in rules:
        expected = weights[rule.theirs].grad
        # a key bias moves all scores of a query alike, so its true gradient is zero: compare it to its weight's
        scale = weights[rule.theirs.replace("k_proj.bias", "k_proj.weight")].grad
        difference = (rule.to_theirs(found) - expected).abs().max()
        assert difference <= 1e-4 * scale.abs().max(), (rule.theirs, difference)


@pytest.mark.parametrize("name", ["CLIP L/14, any shape", "DINOv2", "EVA-02-CLIP-E"])
def test_a_dropped_class_token_leaves_the_states_of_the_patches(tiny, name: str) -> None:
    kind = KINDS[name]
    batches, states = [], []
    for choice in ("kept", "dropped"):
        config = tiny.config(vision=kind.settings | {"class_token": choice})
        model, batch = tiny.model(config), tiny.batch(config, kind.documents)
        batches.append(batch)
        states.append(states_of(model, batch))
    starts = {place + start for place, start in enumerate(batches[0].images.starts[:-1])}
    assert torch.equal(states[1], states[0][[row for row in range(len(states[0])) if row not in starts]])
    assert len(states[1]) == batches[1].images.total


@one_of_each
def test_packed_equals_separate(tiny, name: str) -> None:
    """States, logits and gradients of a pack are those of its documents one by one."""
    kind = KINDS[name]
    config = tiny.config(vision=kind.settings)
    packed, apart = tiny.model(config), tiny.model(config)
    batch = tiny.batch(config, kind.documents)
    singles = separate(batch, kind.documents)
    assert error(states_of(packed, batch), torch.cat([states_of(apart, one) for one in singles])) <= 1e-5
    assert error(packed(batch).logits, torch.cat([apart(one).logits for one in singles])) <= 1e-5
    packed(batch, output="loss").loss_sum.backward()
    torch.stack([apart(one, output="loss").loss_sum for one in singles]).sum().backward()
    for (name, ours), theirs in zip(packed.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-5, rtol=1e-4, msg=f"{name}: another gradient")


@one_of_each
def test_checkpointing_and_a_batch_without_images_keep_every_gradient(tiny, name: str) -> None:
    config = tiny.config(vision=KINDS[name].settings)
    model, batch = tiny.model(config), tiny.batch(config, KINDS[name].documents)
    model(batch, output="loss").loss_sum.backward()
    expected = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    model.zero_grad()
    model.vision.checkpointed = True
    model(batch, output="loss").loss_sum.backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key])
    model.zero_grad()
    model(tiny.batch(config, [[], []]), output="loss").loss_sum.backward()
    assert all(parameter.grad is not None for parameter in model.vision.parameters()), "ranks touch the same weights"


@pytest.mark.parametrize("rule", ["bicubic", "bicubic_antialias", "bilinear_antialias"])
def test_a_table_is_resized_as_a_picture_is(rule: str) -> None:
    """At smaller and larger sides, values and gradients, one grid asked for twice."""
    draw = torch.Generator().manual_seed(0)
    fast, slow = (torch.randn(9 * 9, 5, generator=draw).requires_grad_() for _ in range(2))
    slow.data.copy_(fast.data)
    grids = ((9, 9), (3, 14), (1, 1), (27, 4), (3, 14))
    ours = interpolated_positions(fast, grids, rule)
    theirs = torch.cat([resized_slowly(slow, grid, rule) for grid in grids])
    weights = torch.randn(ours.shape, generator=draw)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(fast.grad, slow.grad, atol=1e-5, rtol=1e-5)


PUBLISHED_SIZES = {
    "siglip-so400m": (417_792_240, 0),
    "siglip-base-16-224": (85_797_120, 0),
    "siglip-large-16-384": (303_688_704, 0),
    "siglip2-so400m-16-naflex": (412_649_712, 0),
    "siglip2-giant-opt-16-384": (1_135_329_792, 0),
    "clip-vit-h-14": (630_766_080, 2 * 1280),
    "clip-vit-l-14-336": (303_507_456, 2 * 1024),
    "eva02-clip-e-14-plus": (4_348_720_896, 0),
    "dinov2-large": (304_368_640, 1024),
}
"""By preset: parameters of the published class without its pooling head, and those of them that no state is made with:
CLIP's norm of its pooled state, and the token that masks patches in DINOv2's training."""


@pytest.mark.parametrize("name", presets.VISION_PRESETS)
def test_the_published_sizes_are_exact(name: str) -> None:
    published, unread = PUBLISHED_SIZES[name]
    with torch.device("meta"):
        encoder = build_encoder(VisionConfig.parse({"preset": name}))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == published - unread


def test_siglip_at_its_own_grid_has_its_published_size() -> None:
    with torch.device("meta"):
        encoder = build_encoder(VisionConfig(grid=27))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 412_987_248


def test_a_class_token_goes_to_connectors_that_take_one(tiny) -> None:
    linear = {"kind": "linear"}
    with pytest.raises(SettingsError, match=r"set vision\.class_token to dropped"):
        VLMConfig.parse({"vision": {"class_token": "kept"}, "connector": linear})
    assert VLMConfig.parse({"vision": {"class_token": "dropped"}, "connector": linear}).connector.kind == "linear"
    config = tiny.config(vision=CLIP)
    model, batch = tiny.model(config), tiny.batch(config, ANY)
    before = model(batch).logits
    with torch.no_grad():
        model.vision.class_position.add_(1.0)
    assert not torch.allclose(model(batch).logits, before), "the perceiver reads its state"


def test_settings_that_leave_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="skipped_layers 2 leaves none of 2 layers"):
        VisionConfig.parse({"layers": 2, "skipped_layers": 2})
