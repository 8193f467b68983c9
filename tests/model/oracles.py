"""What each connector is held to: classes of transformers and torch with our tensors, or the formula written out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from torch.func import functional_call
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler
from transformers.models.idefics2.modeling_idefics2 import Idefics2Connector, Idefics2PerceiverResampler
from transformers.models.idefics3.modeling_idefics3 import Idefics3Connector
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from lorgnette.model.configs.connector_config import (
    AverageConfig,
    FlatLinearConfig,
    IdentityConfig,
    LinearConfig,
    MappingNetworkConfig,
    MLPConfig,
    PerceiverConfig,
    PixelShuffleConfig,
)

V, D = 24, 32
"""Width of a patch and of a visual token."""
Weights = dict[str, Tensor]
"""Our tensors under their names in files."""


class Pictured(nn.Module):
    """A module of transformers that takes a batch of images, called with the patches of one."""

    def __init__(self, inner: nn.Module, *rest: Tensor):
        super().__init__()
        self.inner, self.rest = inner, rest

    def forward(self, x_PV: Tensor) -> Tensor:
        out: Tensor = self.inner(x_PV[None], *self.rest)
        return out[0]


def called(inner: nn.Module, weights: Weights, x_PV: Tensor, *rest: Tensor) -> Tensor:
    """Output of such a module with our tensors in the place of its own, so that gradients reach ours."""
    assert {name for name, _ in inner.named_parameters()} == weights.keys()
    return functional_call(Pictured(inner.eval(), *rest), {f"inner.{name}": one for name, one in weights.items()}, x_PV)


def below(weights: Weights, prefix: str) -> Weights:
    """The tensors whose names begin so, without that beginning."""
    return {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}


def idefics2_config(config: PerceiverConfig) -> transformers.Idefics2Config:
    found = transformers.Idefics2Config(
        vision_config={"hidden_size": V},
        text_config={"model_type": "mistral", "hidden_size": D, "intermediate_size": 40},
        perceiver_config={
            "hidden_size": D, "resampler_n_latents": config.latents, "resampler_depth": config.depth,
            "resampler_n_heads": config.heads, "resampler_head_dim": config.head_width,
            "num_key_value_heads": config.kv_heads,
        },
    )  # fmt: skip
    found.perceiver_config._attn_implementation = found._attn_implementation = "eager"
    return found


def idefics2_connector(config: PerceiverConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    return called(Idefics2Connector(idefics2_config(config)), weights, x_PV, torch.ones(1, len(x_PV)))


def idefics2_perceiver(config: PerceiverConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    """The perceiver alone, after one linear layer."""
    context_PD = F.linear(x_PV, weights["modality_projection.proj.weight"])
    inner = Idefics2PerceiverResampler(idefics2_config(config).perceiver_config)
    return called(inner, below(weights, "perceiver_resampler."), context_PD, torch.ones(1, len(x_PV)))


def m4_perceiver(config: PerceiverConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    """Idefics2's with an RMS norm of each head's queries and keys, written out: no class of transformers has it."""
    part = {name.removesuffix(".weight"): one for name, one in weights.items()}
    gate, up, down = (part[f"modality_projection.{kind}_proj"] for kind in ("gate", "up", "down"))
    context_PD = (F.silu(x_PV @ gate.T) * (x_PV @ up.T)) @ down.T
    width, group = config.head_width, config.heads // config.kv_heads
    z_LD = part["perceiver_resampler.latents"]
    for layer in range(config.depth):
        own = below(part, f"perceiver_resampler.layers.{layer}.")
        z = rms(z_LD, own["input_latents_norm"])
        seen = torch.cat([rms(context_PD, own["input_context_norm"]), z])
        heads = []
        for head in range(config.heads):
            rows, shared = (slice(number * width, (number + 1) * width) for number in (head, head // group))
            q = rms(z @ own["self_attn.q_proj"][rows].T, own["self_attn.q_norm"])
            k = rms(seen @ own["self_attn.k_proj"][shared].T, own["self_attn.k_norm"])
            heads.append((q @ k.T / width**0.5).softmax(-1) @ (seen @ own["self_attn.v_proj"][shared].T))
        z_LD = z_LD + torch.cat(heads, -1) @ own["self_attn.o_proj"].T
        z = rms(z_LD, own["post_attention_layernorm"])
        z_LD = z_LD + (F.silu(z @ own["mlp.gate_proj"].T) * (z @ own["mlp.up_proj"].T)) @ own["mlp.down_proj"].T
    return rms(z_LD, part["perceiver_resampler.norm"])


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def idefics1_perceiver(config: PerceiverConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    whole = transformers.IdeficsConfig(
        vision_config={"embed_dim": V}, perceiver_config={"qk_layer_norms_perceiver": True},
        rope_parameters={"rope_type": "default", "rope_theta": 1e4},
    )  # fmt: skip
    inner = IdeficsPerceiverResampler(whole, V, config.depth, config.heads, config.head_width, config.latents)
    return called(inner, below(weights, "perceiver_resampler."), x_PV)


def openflamingo_perceiver(config: PerceiverConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    """OpenFlamingo's PerceiverResampler as it is published: latents attend to patches and latents, then an MLP each."""
    part = below(weights, "perceiver_resampler.")

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], part[f"{name}.weight"], part[f"{name}.bias"])

    x_SV = part["latents"]
    for layer in range(config.depth):
        attn, ff = f"blocks.{layer}.0.", f"blocks.{layer}.1."
        media_PV, latents_SV = norm(f"{attn}context_layer_norm", x_PV), norm(f"{attn}latents_layer_norm", x_SV)
        to_kv = torch.cat([part[f"{attn}k_proj.weight"], part[f"{attn}v_proj.weight"]])  # k then v in one matrix
        k, v = F.linear(torch.cat([media_PV, latents_SV]), to_kv).chunk(2, -1)
        q, k, v = (
            one.unflatten(-1, (config.heads, config.head_width)).transpose(0, 1)
            for one in (F.linear(latents_SV, part[f"{attn}q_proj.weight"]), k, v)
        )
        sim = (q * config.head_width**-0.5) @ k.transpose(-2, -1)
        out = (sim - sim.amax(-1, keepdim=True).detach()).softmax(-1) @ v
        x_SV = x_SV + F.linear(out.transpose(0, 1).flatten(1), part[f"{attn}output_proj.weight"])
        hidden = F.gelu(F.linear(norm(f"{ff}ln", x_SV), part[f"{ff}fc.weight"]))
        x_SV = x_SV + F.linear(hidden, part[f"{ff}c_proj.weight"])
    return norm("layer_norm", x_SV)


def as_it_is(config: IdentityConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    return x_PV * 1


def one_linear(config: LinearConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    return x_PV @ weights["modality_projection.proj.weight"].T


def llava_projector(config: MLPConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    whole = transformers.LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "hidden_size": V},
        text_config={"model_type": "llama", "hidden_size": D},
    )
    return called(LlavaMultiModalProjector(whole), weights, x_PV)


def idefics3_connector(config: PixelShuffleConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    whole = transformers.Idefics3Config(
        vision_config={"hidden_size": V},
        text_config={"model_type": "llama", "hidden_size": D},
        scale_factor=config.side,
    )
    return called(Idefics3Connector(whole), weights, x_PV)


def mapl_network(config: MappingNetworkConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    """torch's own encoder layers between two linear ones, as in MAPL's code."""
    part = below(weights, "mapping_network.")
    x = torch.cat([F.linear(x_PV, part["input.weight"], part["input.bias"]), part["constants"]])[None]
    names = {"norm1": "layer_norm1", "norm2": "layer_norm2", "linear1": "mlp.fc1", "linear2": "mlp.fc2"}
    for layer in range(config.depth):
        own, theirs = below(part, f"layers.{layer}."), {}
        for kind in ("weight", "bias"):
            theirs |= {f"{name}.{kind}": own[f"{ours}.{kind}"] for name, ours in names.items()}
            theirs[f"self_attn.in_proj_{kind}"] = torch.cat([own[f"self_attn.{one}_proj.{kind}"] for one in "qkv"])
            theirs[f"self_attn.out_proj.{kind}"] = own[f"self_attn.out_proj.{kind}"]
        inner = nn.TransformerEncoderLayer(
            config.width, config.heads, config.mlp_width, dropout=0, activation="relu", batch_first=True,
            norm_first=True,
        )  # fmt: skip
        x = functional_call(inner, theirs, x)
    return F.linear(x[0, -config.constants :], part["output.weight"], part["output.bias"])


def pooled_patches(config: AverageConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    """Means by a walk: mean i of n along r patches has those from floor(i r / n) to before ceil((i + 1) r / n)."""
    side, count = int(len(x_PV) ** 0.5), config.side
    runs = [slice(i * side // count, -(-(i + 1) * side // count)) for i in range(count)]
    x_RCV = x_PV.unflatten(0, (side, side))
    means = torch.stack([x_RCV[rows, columns].flatten(0, 1).mean(0) for rows in runs for columns in runs])
    return F.linear(means, weights["modality_projection.proj.weight"])


def mixed_patches(config: FlatLinearConfig, weights: Weights, x_PV: Tensor) -> Tensor:
    """The linear layer on flattened states that the two matrices stand for, as one matrix from P V to S D values."""
    mixing, projection = (weights[f"modality_projection.{name}.weight"] for name in ("mixing", "proj"))
    dense = torch.einsum("sp,dv->sdpv", mixing, projection).flatten(2).flatten(0, 1)
    return (dense @ x_PV.flatten()).unflatten(0, (config.tokens, D))


ORACLES = {
    "perceiver": idefics2_connector,
    "perceiver without MLP": idefics2_perceiver,
    "perceiver of m4": m4_perceiver,
    "perceiver of Idefics1": idefics1_perceiver,
    "perceiver of OpenFlamingo": openflamingo_perceiver,
    "none": as_it_is,
    "linear": one_linear,
    "mlp": llava_projector,
    "pixel shuffle": idefics3_connector,
    "pixel shuffle by 3": idefics3_connector,
    "average": pooled_patches,
    "flat linear": mixed_patches,
    "mapping network": mapl_network,
}
"""By row of `choices.CONNECTORS`: from settings, tensors and the patches of a square image to its visual tokens."""
