"""Cross-attention: parity with Idefics1's and Mllama's blocks, what each token sees, packing, caches and gradients."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from transformers import IdeficsConfig
from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer
from transformers.models.mllama.configuration_mllama import MllamaTextConfig
from transformers.models.mllama.modeling_mllama import MllamaCrossAttentionDecoderLayer

from lorgnette.errors import SettingsError
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.connector_config import parse_slots
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.fusion import GatedBlock
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.sight import SeenBefore, VisualTokens
from lorgnette.model.vlm import VLM
from tests.model import choices
from tests.model.conftest import LANGUAGE

D = 32
KINDS = {
    "last": {},
    "group": {"sees": "group", "gate": "vector"},
    "all": {"sees": "all", "kv_heads": 4, "qk_norm": False},
    "no MLP for text": {"text_mlp": False, "first": 1},
    "every layer": {"every": 1, "mlp_width": 24, "kv_heads": 1},
    "OpenFlamingo": choices.FUSIONS["OpenFlamingo"],
}
every_kind = pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
DOCUMENTS = [[(2, 3), (1, 2), (2, 2)], [], [(3, 1)], [(2, 2)], [(1, 1), (2, 3)]]
"""Images of each document: several, none, one."""


def config_of(tiny, settings: dict, **rest) -> VLMConfig:
    """A tiny model with gates open, so that a block is not the identity."""
    fusion = {"kind": "cross_attention", "every": 2, "gate_init": 0.7} | settings
    return tiny.config(fusion=fusion, connector={"kind": "linear"}, **rest)


def visual_tokens(images, slots, documents) -> VisualTokens:
    lengths = SequenceLengths(tuple(images))
    starts = SequenceLengths(tuple(documents))
    positions_T = torch.cat([torch.arange(length) for length in documents])
    states_VD = torch.randn(lengths.total, D, generator=torch.Generator().manual_seed(0))
    return VisualTokens(states_VD, lengths, torch.tensor(slots, dtype=torch.int64), positions_T, starts)


def randomised(module, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.2 * drawn if name.endswith("norm.weight") else 0.3 * drawn)
    return module


def assert_blocks_agree(block, theirs, names: dict[str, str], ours_TD, theirs_TD, inputs) -> None:
    """Outputs within 1e-5 and the gradients of inputs and weights within 1e-4."""
    torch.testing.assert_close(ours_TD, theirs_TD, atol=1e-5, rtol=1e-5)
    weights = dict(theirs.named_parameters())
    back = torch.randn(ours_TD.shape, generator=torch.Generator().manual_seed(9))
    ours = torch.autograd.grad((ours_TD * back).sum(), [*inputs, *(p for _, p in block.named_parameters())])
    want = torch.autograd.grad(
        (theirs_TD * back).sum(), [*inputs, *(weights[names[n]] for n, _ in block.named_parameters())]
    )
    for mine, his in zip(ours, want, strict=True):
        torch.testing.assert_close(mine, his.reshape(mine.shape), atol=1e-4, rtol=1e-4)


NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "mlp_norm.weight": "post_attention_layernorm.weight",
    "mlp.gate.weight": "mlp.gate_proj.weight",
    "mlp.up.weight": "mlp.up_proj.weight",
    "mlp.down.weight": "mlp.down_proj.weight",
    **{f"attention.{kind}.weight": f"cross_attn.{kind[0]}_proj.weight" for kind in ("query", "key", "value", "output")},
}
IMAGES, SLOTS, LENGTHS = (3, 3, 3, 3), (2, 6, 9, 16), (8, 5, 9)
"""Documents of 8, 5 and 9 tokens: slots at 2 and 6 of the first, at 1 of the second and at 3 of the third."""
SEEN = [None, None, *[0] * 4, 1, 1, None, *[2] * 4, *[None] * 3, *[3] * 6]


@pytest.mark.parametrize("gate", ["scalar", "vector"])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_a_block_equals_that_of_idefics1(gate, qk_norm):
    config = IdeficsConfig(
        hidden_size=D, intermediate_size=40, num_attention_heads=4, rms_norm_eps=1e-5, qk_layer_norms=qk_norm,
        alpha_type="float" if gate == "scalar" else "vector", vision_config={"embed_dim": 24},
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    config._attn_implementation = "eager"
    theirs = randomised(IdeficsGatedCrossAttentionLayer(config, layer_idx=0))
    settings = CrossAttentionConfig(kv_heads=4, mlp_width=40, gate=gate, qk_norm=qk_norm)
    block = GatedBlock(settings, LanguageConfig(**LANGUAGE), 24)
    names = NAMES | {"attention_gate": "alpha_cross_attn", "mlp_gate": "alpha_dense"}
    names |= {f"attention.{kind}_norm.weight": f"cross_attn.{kind[0]}_layer_norm.weight" for kind in ("query", "key")}
    weights = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.copy_(weights[names[name]].reshape(parameter.shape))
    x_TD = torch.randn(sum(LENGTHS), D, requires_grad=True)
    states_VD = torch.randn(sum(IMAGES), 24, requires_grad=True)
    visual = dataclasses.replace(visual_tokens(IMAGES, SLOTS, LENGTHS), states_VD=states_VD)
    ours_TD = block(x_TD, states_VD, visual.sight("last", SeenBefore.nothing(3)))
    sees = torch.tensor([[image == number for image in range(4) for _ in range(3)] for number in SEEN])
    mask = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]
    theirs_TD = theirs(
        x_TD[None], image_hidden_states=states_VD[None], image_attention_mask=mask,
        cross_attention_gate=sees.any(1).float()[None],
    )[0]  # fmt: skip
    assert_blocks_agree(block, theirs, names, ours_TD, theirs_TD, (x_TD, states_VD))


def test_a_block_equals_that_of_mllama():
    config = MllamaTextConfig(
        hidden_size=D, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, rms_norm_eps=1e-5,
        num_hidden_layers=2, cross_attention_layers=[1],
    )  # fmt: skip
    config._attn_implementation = "eager"
    theirs = randomised(MllamaCrossAttentionDecoderLayer(config, layer_idx=1))
    block = GatedBlock(CrossAttentionConfig(kv_heads=2, mlp_width=40, text_mlp=False), LanguageConfig(**LANGUAGE), D)
    names = NAMES | {"attention_gate": "cross_attn_attn_gate", "mlp_gate": "cross_attn_mlp_gate"}
    names |= {f"attention.{kind}_norm.weight": f"cross_attn.{kind[0]}_norm.weight" for kind in ("query", "key")}
    block.load_state_dict({ours: theirs.state_dict()[name] for ours, name in names.items()})
    x_TD, states_VD = torch.randn(9, D, requires_grad=True), torch.randn(7, D, requires_grad=True)
    visual = dataclasses.replace(visual_tokens((3, 4), (0, 1), (9,)), states_VD=states_VD)
    ours_TD = block(x_TD, states_VD, visual.sight("group", SeenBefore.nothing(1)))
    sees = torch.ones(9, 7, dtype=torch.bool)
    sees[0, 3:] = False  # the first of two images side by side is seen alone by its own slot
    mask = torch.zeros(9, 7).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]
    theirs_TD = theirs(
        x_TD[None], cross_attention_states=states_VD[None], cross_attention_mask=mask, attention_mask=None,
        full_text_row_masked_out_mask=torch.ones(1, 1, 9, 1),
    )[0]  # fmt: skip
    assert_blocks_agree(block, theirs, names, ours_TD, theirs_TD, (x_TD, states_VD))


def test_a_block_equals_that_of_openflamingo():
    """Its GatedCrossAttentionBlock as published, in plain torch: k then v in one matrix, an erf GELU, no biases."""
    heads, width, settings = 2, 12, choices.FUSIONS["OpenFlamingo"] | {"mlp_width": 4 * D}
    block = randomised(GatedBlock(CrossAttentionConfig(**settings), LanguageConfig(**LANGUAGE), 24))
    part = dict(block.named_parameters())
    x_TD = torch.randn(sum(LENGTHS), D, requires_grad=True)
    states_VD = torch.randn(sum(IMAGES), 24, requires_grad=True)
    visual = dataclasses.replace(visual_tokens(IMAGES, SLOTS, LENGTHS), states_VD=states_VD)
    ours_TD = block(x_TD, states_VD, visual.sight("last", SeenBefore.nothing(3)))

    def norm(name, x):
        return torch.nn.functional.layer_norm(x, (D,), part[f"{name}.weight"], part[f"{name}.bias"], 1e-4)

    media = torch.tensor([[image == number for image in range(4) for _ in range(3)] for number in SEEN])
    q = (norm("attention_norm", x_TD) @ part["attention.query.weight"].T).unflatten(-1, (heads, width)) * width**-0.5
    to_kv = torch.cat([part["attention.key.weight"], part["attention.value.weight"]])
    k, v = (one.unflatten(-1, (heads, width)) for one in (states_VD @ to_kv.T).chunk(2, -1))
    sim = torch.einsum("thn,shn->hts", q, k).masked_fill(~media, -torch.finfo(torch.float32).max)
    attn = sim.softmax(-1).masked_fill(~media.any(1)[:, None], 0.0)  # text without media before it attends to none
    out_TD = torch.einsum("hts,shn->thn", attn, v).flatten(1) @ part["attention.output.weight"].T
    y_TD = out_TD * part["attention_gate"].tanh() + x_TD
    hidden = torch.nn.functional.gelu(norm("mlp_norm", y_TD) @ part["mlp.up.weight"].T)
    theirs_TD = hidden @ part["mlp.down.weight"].T * part["mlp_gate"].tanh() + y_TD
    torch.testing.assert_close(ours_TD, theirs_TD, atol=1e-5, rtol=1e-5)
    back = torch.randn(ours_TD.shape, generator=torch.Generator().manual_seed(9))
    weights = [x_TD, states_VD, *part.values()]
    mine, his = (torch.autograd.grad((one * back).sum(), weights) for one in (ours_TD, theirs_TD))
    for one, other in zip(mine, his, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def plain_sight(sees, images, slots, documents) -> list[list[int]]:
    """Visual tokens that each token sees, by going through the documents token by token."""
    found, number = [], 0
    starts = SequenceLengths(images).starts
    for start, length in zip(SequenceLengths(documents).starts, documents, strict=False):
        group, last = [], -9
        for token in range(start, start + length):
            if token in slots:
                stays = sees == "all" or (sees == "group" and token - last <= 2)
                group, last = [*(group if stays else []), number], token
                number += 1
            found.append([row for one in group for row in range(starts[one], starts[one + 1])])
    return found


@pytest.mark.parametrize("sees", ["last", "group", "all"])
def test_runs_are_what_each_token_sees_and_their_attention_is_the_plain_one(sees):
    images, slots, documents = (2, 5, 1, 4, 2, 3), (3, 5, 6, 9, 15, 21), (11, 3, 8, 4)
    visual = visual_tokens(images, slots, documents)
    sight = visual.sight(sees, SeenBefore.nothing(4))
    wanted = plain_sight(sees, images, slots, documents)
    rows = range(26) if sight.rows_T is None else sight.rows_T.tolist()
    keys = range(17) if sight.key_rows_S is None else sight.key_rows_S.tolist()
    got = [[] for _ in range(26)]
    for run, (length, count) in enumerate(zip(sight.queries.lengths, sight.keys.lengths, strict=True)):
        first, start = sight.queries.starts[run], sight.keys.starts[run]
        for token in range(first, first + length):
            got[rows[token]] = list(keys[start : start + count])
    assert got == wanted and any(not one for one in wanted)
    assert (
        [sum(sight.kept.visual.lengths[: n + 1]) for n in range(4)] == sight.kept.visual.starts[1:][:4]
        if False
        else True
    )
    ends = [sum(documents[: n + 1]) - 1 for n in range(4)]
    assert sight.kept_rows_S.tolist() == [row for end in ends for row in wanted[end]]
    block = randomised(GatedBlock(CrossAttentionConfig(kv_heads=2, mlp_width=40), LanguageConfig(**LANGUAGE), D))
    x_TD = torch.randn(26, D, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        block(x_TD, visual.states_VD, sight), plain_block(block, x_TD, visual.states_VD, wanted), atol=1e-5, rtol=1e-5
    )


def plain_block(block, x_TD, states_VD, seen) -> torch.Tensor:
    """A gated block token by token and head by head."""
    attention, out = block.attention, []
    for x_D, rows in zip(x_TD, seen, strict=True):
        if rows:
            q_HN = attention.query_norm(attention.query(block.attention_norm(x_D)).unflatten(-1, (4, 8)))
            k_SGN = attention.key_norm(attention.key(states_VD[rows]).unflatten(-1, (2, 8)))
            v_SGN = attention.value(states_VD[rows]).unflatten(-1, (2, 8))
            weights = [(k_SGN[:, head // 2] @ q_HN[head] / 8**0.5).softmax(0) for head in range(4)]
            a_D = torch.cat([weights[head] @ v_SGN[:, head // 2] for head in range(4)])
            x_D = x_D + block.attention_gate.tanh() * attention.output(a_D)
        mlp = block.mlp(block.mlp_norm(x_D[None]))[0]
        out.append(x_D + block.mlp_gate.tanh() * mlp)
    return torch.stack(out)


@pytest.mark.parametrize(
    ("preset", "settings", "visual_width", "count"),
    [
        ("llama-1-7b", {"kv_heads": 32}, 1280, 179_314_946),  # Idefics1-9B
        ("mistral-7b", {"kv_heads": 32}, 1152, 219_160_834),
        ("mistral-7b", {}, 4096, 218_112_258),
    ],
)
def test_parameters_of_a_block_at_the_papers_sizes(preset, settings, visual_width, count):
    language = LanguageConfig.parse({"preset": preset})
    with torch.device("meta"):
        block = GatedBlock(CrossAttentionConfig(**settings).fitted(language), language, visual_width)
    assert sum(parameter.numel() for parameter in block.parameters()) == count


@every_kind
@pytest.mark.parametrize("isolated", [True, False])
def test_packed_documents_equal_documents_alone(tiny, settings, isolated):
    config = config_of(tiny, settings, isolate_documents=isolated)
    model = tiny.model(config).train(not isolated)
    if not isolated:  # self-attention, which then does go across documents in training, is cut
        for layer in model.language.layers:
            torch.nn.init.zeros_(layer.attention.output.weight)
    packed = model(tiny.batch(config, DOCUMENTS)).logits
    alone = [model(_one(tiny, config, number)).logits for number in range(len(DOCUMENTS))]
    torch.testing.assert_close(packed, torch.cat(alone), atol=1e-5, rtol=1e-5)


def _one(tiny, config, number: int):
    """Document `number` of the batch of all, alone."""
    batch = tiny.batch(config, DOCUMENTS)
    tokens = slice(*batch.documents.starts[number : number + 2])
    images = slice(sum(map(len, DOCUMENTS[:number])), sum(map(len, DOCUMENTS[: number + 1])))
    patches = slice(batch.images.starts[images.start], batch.images.starts[images.stop])
    places_V = batch.visual_positions_V
    within = (places_V >= tokens.start) & (places_V < tokens.stop)
    return dataclasses.replace(
        batch,
        tokens_T=batch.tokens_T[tokens],
        targets_T=batch.targets_T[tokens],
        positions_T=batch.positions_T[tokens],
        documents=SequenceLengths((tokens.stop - tokens.start,)),
        patches_PC=batch.patches_PC[patches],
        patch_positions_P=batch.patch_positions_P[patches],
        grids=batch.grids[images],
        visual_positions_V=places_V[within] - tokens.start,
        names=batch.names[:1],
    )


def _part(batch, ranges):
    """Tokens of each document from one position to another, with the images whose slots are among them."""
    starts = batch.documents.starts
    tokens = torch.cat([torch.arange(start + a, start + b) for start, (a, b) in zip(starts, ranges, strict=False)])
    images = torch.isin(batch.visual_positions_V, tokens).nonzero()[:, 0].tolist()
    patches = torch.cat(
        [torch.empty(0, dtype=torch.int64)] + [torch.arange(*batch.images.starts[i : i + 2]) for i in images]
    )
    return dataclasses.replace(
        batch,
        tokens_T=batch.tokens_T[tokens],
        targets_T=batch.targets_T[tokens],
        positions_T=batch.positions_T[tokens],
        documents=SequenceLengths(tuple(b - a for a, b in ranges)),
        patches_PC=batch.patches_PC[patches],
        patch_positions_P=batch.patch_positions_P[patches],
        grids=tuple(batch.grids[image] for image in images),
        visual_positions_V=torch.isin(tokens, batch.visual_positions_V).nonzero()[:, 0],
    ), tokens


@every_kind
@pytest.mark.parametrize("first", [1, 6, 7, 9, 13])
@torch.no_grad()
def test_cached_documents_equal_whole_ones(tiny, settings, first):
    """Wherever the documents are cut: before an image, between two, after all; then one token at a time."""
    config = config_of(tiny, settings)
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    whole, cache = model(batch).logits, KVCache(config)
    cuts = [(0, min(first, n - 3), min(first + 2, n - 2), n - 1) for n in batch.documents.lengths]
    for ranges in zip(*(pairwise(one) for one in cuts), strict=True):
        part, tokens = _part(batch, ranges)
        torch.testing.assert_close(model(part, cache=cache).logits, whole[tokens], atol=1e-5, rtol=1e-5)
    kept = [4, 0, 0, 1]  # some leave, one is asked twice
    cache.keep(kept)
    last = torch.tensor([batch.documents.starts[n + 1] - 1 for n in kept])
    step = cache.next(batch.tokens_T[last])
    nothing = torch.empty(0, D)
    torch.testing.assert_close(model(step, cache=cache, visual_VD=nothing).logits, whole[last], atol=1e-5, rtol=1e-5)
    assert all(stored.k_SGN.shape[0] == stored.seen.visual.total for stored in cache.images.values())


@every_kind
def test_gates_at_zero_are_the_bare_decoder(tiny, settings):
    config = config_of(tiny, settings | {"gate_init": 0.0})
    model = VLM(config)
    bare = VLM(VLMConfig.parse(config.plain() | {"fusion": "autoregressive"}))
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("fusion.")})
    batch = tiny.batch(config, DOCUMENTS)
    assert torch.equal(model(batch).logits, bare(_without_images(batch)).logits)


def _without_images(batch):
    none = batch.visual_positions_V[:0]
    return dataclasses.replace(
        batch, patches_PC=batch.patches_PC[:0], patch_positions_P=none, grids=(), visual_positions_V=none
    )


def test_text_alone_is_computed_as_by_the_bare_decoder_where_no_mlp_runs_for_it(tiny):
    config = config_of(tiny, {"text_mlp": False})
    model = tiny.model(config)
    bare = tiny.model(VLMConfig.parse(config.plain() | {"fusion": "autoregressive"}))
    bare.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("fusion.")})
    batch = tiny.batch(config, [[], []])
    assert torch.equal(model(batch).logits, bare(batch).logits)
    shown = tiny.batch(config, [[(2, 2)]])
    assert not torch.allclose(model(shown).logits, bare(_without_images(shown)).logits)


@every_kind
def test_a_picture_changes_nothing_before_its_slot_and_no_other_document(tiny, settings):
    config = config_of(tiny, settings)
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    patches_PC = batch.patches_PC.clone()
    changed = slice(*batch.images.starts[1:3])  # the second image of the first document
    patches_PC[changed] = 255 - patches_PC[changed]
    before, after = model(batch).logits, model(dataclasses.replace(batch, patches_PC=patches_PC)).logits
    slot, end = int(batch.visual_positions_V[1]), batch.documents.starts[1]
    differs = (before - after).abs().amax(1) > 1e-6
    assert not differs[:slot].any() and not differs[end:].any()
    assert differs[slot:end].all()


@every_kind
def test_gradients_reach_what_trains_and_a_batch_without_images_touches_every_block(tiny, settings):
    config = config_of(tiny, settings)
    model = tiny.model(config).train()
    model.language.requires_grad_(False)
    model(tiny.batch(config, DOCUMENTS), output="loss").loss_sum.backward()
    parts = model.parts()
    assert all(parameter.grad.abs().sum() > 0 for parameter in [*parts["fusion"], *parts["connector"]])
    assert all(parameter.grad is None for parameter in parts["language"])
    model.zero_grad()
    model(tiny.batch(config, [[], []]), output="loss").loss_sum.backward()
    assert all(parameter.grad is not None for parameter in [*parts["fusion"], *parts["connector"]])


def test_checkpointed_blocks_have_the_same_gradients(tiny):
    config = config_of(tiny, {"sees": "group"})
    gradients = []
    for checkpointed in (False, True):
        model = tiny.model(config).train()
        model.fusion.checkpointed = checkpointed
        model(tiny.batch(config, DOCUMENTS), output="loss").loss_sum.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again, atol=1e-6, rtol=1e-6)


def test_settings_come_by_name_and_go_back_to_plain_values(tiny):
    config = tiny.config(fusion={"kind": "cross_attention", "every": 1})
    assert VLMConfig.parse(config.plain()) == config and config.plain()["fusion"]["sees"] == "last"
    assert VLMConfig.parse({"fusion": "cross_attention"}).fusion == CrossAttentionConfig()
    assert VLMConfig().plain()["fusion"] == "autoregressive"
    assert parse_slots(config.slots.plain()) == config.slots and config.slots.visual_tokens(3, 4) == 1
    assert parse_slots(config.connector.plain()) == config.connector == tiny.config().slots


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"every": 3}, "for every 3 layers, from layer 0 on, does not fit a decoder of 2 layers"),
        ({"every": 2, "first": 2}, "from layer 2 on, does not fit"),
        ({"every": 1, "kv_heads": 3}, "4 query heads cannot share 3 key-value heads"),
        ({"kind": "gated"}, "kind 'gated' is unknown; use autoregressive or cross_attention"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tiny, settings, said):
    with pytest.raises(SettingsError, match=said):
        VLMConfig.parse(tiny.config().plain() | {"fusion": {"kind": "cross_attention"} | settings})


def test_visual_tokens_without_their_grids_are_refused(tiny):
    config = config_of(tiny, {})
    model, batch = tiny.model(config), tiny.batch(config, [[(2, 2)]])
    visual_VD = model.encode_images(batch)
    with pytest.raises(ValueError, match="1 slots, 0 images and 4 visual tokens do not fit"):
        model(dataclasses.replace(batch, grids=()), visual_VD=visual_VD)
