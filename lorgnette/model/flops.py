"""Cost of a model, from its settings alone: parameters, floating-point operations (FLOPs) and bytes.

FLOPs are of matrix products, two per multiply-add, as in the usual model FLOPs utilisation: what the mathematics needs,
without recomputation. They are measured by running parts on tensors without memory, and not derived a second time.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from lorgnette.model.batch import Batch, SequenceLengths
from lorgnette.model.config import EncoderSettings, Mode, VLMConfig
from lorgnette.model.configs.connector_config import ConnectorConfig
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.connectors import build_connector
from lorgnette.model.context import Context
from lorgnette.model.language import Decoder
from lorgnette.model.layers import Stack
from lorgnette.model.sight import SeenBefore, VisualTokens
from lorgnette.model.vision import build_encoder
from lorgnette.model.vlm import VLM

FULL: Mapping[str, Mode] = {"vision": "full", "connector": "full", "fusion": "full", "language": "full"}


@dataclass(frozen=True)
class ModelCost:
    """Costs of one model. FLOPs are of a forward pass unless the name says otherwise."""

    config: VLMConfig

    @cached_property
    def model(self) -> VLM:
        """The model on the meta device: shapes without weights."""
        with torch.device("meta"):
            return VLM(self.config)

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Parameters by part: vision, connector, fusion where it has any, language, extra_vocabulary."""
        return {part: sum(p.numel() for p in parameters) for part, parameters in self.model.parts().items()}

    @cached_property
    def _linear_widths(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of all linear layers within the blocks of each part, summed. Each step counts by them."""
        linears = {
            part: [module for block in stack.blocks() for module in block.modules() if isinstance(module, nn.Linear)]
            for part, stack in self.model.stacks().items()
        }
        return {part: (sum(m.in_features for m in of), sum(m.out_features for m in of)) for part, of in linears.items()}

    def lora_parameters(self, part: str, rank: int, dora: bool = False) -> int:
        """Parameters of low-rank adapters on every linear layer within the blocks of `part`."""
        inputs, outputs = self._linear_widths[part]
        return rank * (inputs + outputs) + dora * outputs

    def trained_parameters(self, modes: Mapping[str, Mode], rank: int = 64) -> int:
        """Parameters that an optimiser holds, the extra vocabulary among them."""
        total = self.parameters["extra_vocabulary"]
        for part, mode in modes.items():
            if mode == "full":
                total += self.parameters[part]
            elif mode != "frozen":
                total += self.lora_parameters(part, rank, dora=mode == "dora")
        return total

    def vision_flops(self, patches: int) -> int:
        """One image of so many patches through the vision encoder."""
        return along(_vision_measured(self.config.vision), patches)

    def connector_flops(self, patches: int) -> int:
        """One image of so many patches through the connector."""
        vision, connector = self.config.vision, self.config.connector
        curve = _connector_measured(connector, vision.width, self.config.language.width, vision.class_tokens)
        return along(curve, patches // connector.multiple**2)

    def image_flops(self, patches: int) -> int:
        """One image of so many patches to visual tokens."""
        return self.vision_flops(patches) + self.connector_flops(patches)

    @cached_property
    def _decoder(self) -> DecoderFlops:
        rotation_costs_nothing: dict[str, Any] = {"rope_scaling": None}  # and a dict cannot be a key of a cache
        return _decoder_measured(self.config.language.model_copy(update=rotation_costs_nothing))

    @cached_property
    def _windows(self) -> Counter[int | None]:
        """Layers of the decoder, by their window."""
        return Counter(self.config.language.windows)

    def token_flops(self, keys: int = 0) -> int:
        """One token through the decoder that sees `keys` tokens, itself among them (windows permitting)."""
        seen = sum(count * min(keys, window or keys) for window, count in self._windows.items())
        return self._decoder.token + self._decoder.pair * seen

    def unread_flops(self) -> int:
        """FLOPs that the last layer leaves out for a token whose hidden state is not read (attention is counted)."""
        return self._decoder.unread

    @cached_property
    def _blocks(self) -> BlockFlops:
        """FLOPs of all blocks of cross-attention together; 0 where there are none."""
        blocks = list(self.model.fusion.blocks())
        measured = _block_measured(blocks[0], self.config) if blocks else (0, 0, 0, 0)
        return BlockFlops(*(len(blocks) * flops for flops in measured))

    def seeing_flops(self, visual: int) -> int:
        """One token through the blocks of cross-attention, which sees so many visual tokens."""
        return self._blocks.token + self._blocks.seeing + visual * self._blocks.pair

    def seen_flops(self, visual: int) -> int:
        """Keys and values of so many visual tokens in the blocks of cross-attention."""
        return visual * self._blocks.visual

    def fusion_flops(self, batch: Batch) -> int:
        """All tokens of a batch through the blocks of cross-attention, and the keys and values of its images."""
        if not isinstance(self.config.fusion, CrossAttentionConfig):
            return 0
        images = self.model.connector.visual_tokens(batch.grids)
        states_VD = torch.empty(images.total, 0)
        visual = VisualTokens(states_VD, images, batch.visual_positions_V, batch.positions_T, batch.documents)
        sight = visual.sight(self.config.fusion.sees, SeenBefore.nothing(len(batch.documents)))
        pairs = sum(run * seen for run, seen in zip(sight.queries.lengths, sight.keys.lengths, strict=True))
        counts = (batch.documents.total, sight.queries.total, pairs, images.total)
        return sum(count * flops for count, flops in zip(counts, self._blocks, strict=True))

    @cached_property
    def _head_flops(self) -> int:
        hidden_TD = torch.empty(1, self.config.language.width, device="meta")
        return _measured(lambda: self.model.language.head.logits(hidden_TD))

    def head_flops(self) -> int:
        """The scores of all vocabulary rows for one token."""
        return self._head_flops

    def document_flops(self, length: int) -> int:
        """A document of so many tokens, visual ones among them, through the decoder: causal, each pair once."""
        pairs = 0
        for window, layers in self._windows.items():
            reach = min(length, window or length)
            pairs += layers * (reach * (reach + 1) // 2 + (length - reach) * reach)
        return length * self._decoder.token + pairs * self._decoder.pair

    def step_flops(
        self,
        images: SequenceLengths,
        documents: SequenceLengths,
        supervised_tokens: int,
        modes: Mapping[str, Mode] = FULL,
        rank: int = 64,
        *,
        fusion: int = 0,
    ) -> int:
        """A training step on such a batch: forward, and backward as far as something trained lies there.

        fusion: FLOPs forward of blocks of cross-attention, which depend on where images stand: see `fusion_flops`.
        A gradient through a part costs its forward once more, and the gradient of all its weights once more.
        """
        forward = {
            "vision": sum(map(self.vision_flops, images.lengths)),
            "connector": sum(map(self.connector_flops, images.lengths)),
            "fusion": fusion,
            "language": sum(map(self.document_flops, documents.lengths))
            - (documents.total - supervised_tokens) * self.unread_flops()
            + supervised_tokens * self.head_flops(),
        }
        tokens = {"vision": images.total, "fusion": documents.total, "language": documents.total}
        total, reached = 0, False
        for part, flops in forward.items():
            mode = modes[part] if part in self.model.stacks() else "frozen"
            above = part in ("fusion", "language")  # of the extra vocabulary, which always trains
            reached = reached or above or mode != "frozen"
            total += flops * (1 + reached + (mode == "full"))
            if mode in ("lora", "dora"):
                total += 6 * tokens[part] * self.lora_parameters(part, rank)
        return total

    def cache_bytes(self, tokens: int = 1, bytes_each: int = 2) -> int:
        """Keys and values of so many tokens."""
        c = self.config.language
        return tokens * c.layers * 2 * c.kv_heads * c.head_width * bytes_each


Shape = tuple[int, ...]
Curve = tuple[int, int, int]
"""FLOPs at 1, 2 and 3 units: what is at most quadratic in the units follows exactly."""


def along(curve: Curve, units: int) -> int:
    """The quadratic through three measured points, at `units`."""
    one, two, three = curve
    first, second = two - one, three - 2 * two + one
    return one + first * (units - 1) + second * ((units - 1) * (units - 2) // 2)


@dataclass(frozen=True)
class DecoderFlops:
    """FLOPs of a decoder: of a token, of a query and a key that it sees in one layer, and of a token's unread hidden
    state.
    """

    token: int
    pair: int
    unread: int


@lru_cache(maxsize=16)
def _decoder_measured(config: LanguageConfig) -> DecoderFlops:
    """FLOPs of one layer measured on documents of one and two tokens, times the layers."""
    alone = {"layers": 1, "vocabulary": 1, "sliding_window": None, "global_every": None, "local_rope_theta": None}
    single = LanguageConfig.parse(config.plain() | alone)

    def flops(tokens: int, rows_T: Tensor | None = None) -> int:
        context = Context(torch.arange(tokens), SequenceLengths((tokens,)), rows_T=rows_T)
        with FakeTensorMode(allow_non_fake_inputs=True):
            decoder, x_TD = Decoder(single, 0), torch.empty(tokens, config.width)
        return _measured(lambda: decoder(x_TD, context))

    one, two, unread = flops(1), flops(2), flops(1, torch.empty(0, dtype=torch.int64))
    pair = (two - 2 * one) // 2  # two tokens make four pairs
    return DecoderFlops(config.layers * (one - pair), pair, one - pair - unread)


class BlockFlops(NamedTuple):
    """FLOPs of a block of cross-attention: of a token, of one that sees an image besides, of a pair of such a token and
    a visual token that it sees, and of a visual token.
    """

    token: int
    seeing: int
    pair: int
    visual: int


def _block_measured(block: nn.Module, config: VLMConfig) -> BlockFlops:
    """FLOPs of a block (on the meta device), from documents of one and two tokens and images of none to two."""

    def flops(tokens: int, visual: int) -> int:
        slots, images = torch.zeros(min(visual, 1), dtype=torch.int64), SequenceLengths((visual,) if visual else ())
        states_VD = torch.empty(visual, config.visual_width, device="meta")
        shown = VisualTokens(states_VD, images, slots, torch.arange(tokens), SequenceLengths((tokens,)))
        sight = shown.sight("last", SeenBefore.nothing(1))
        if sight.rows_T is not None:
            sight = dataclasses.replace(sight, rows_T=sight.rows_T.to("meta"))
        x_TD = torch.empty(tokens, config.language.width, device="meta")
        return _measured(lambda: block(x_TD, states_VD, sight))

    token, one, two_visual, two_tokens = flops(1, 0), flops(1, 1), flops(1, 2), flops(2, 1)
    visual = 2 * one - two_tokens
    pair = two_visual - one - visual
    return BlockFlops(token, one - token - pair - visual, pair, visual)


@lru_cache(maxsize=16)
def _vision_measured(config: EncoderSettings) -> Curve:
    """FLOPs of the encoder on an image of 1, 2 and 3 patches, but for the resizing of a table of positions."""
    if config.interpolates:  # a few thousandths, and no quadratic of the patches
        config = config.model_copy(update={"position_rule": "bucket"})
    with torch.device("meta"):
        encoder = build_encoder(config)

        def flops(patches: int) -> int:
            pixels_PC = torch.empty(patches, config.patch_width, dtype=torch.uint8)
            positions_P = torch.empty(patches, dtype=torch.int64)
            return _of_all_layers(encoder, lambda: encoder(pixels_PC, positions_P, ((1, patches),)))

        return flops(1), flops(2), flops(3)


@lru_cache(maxsize=16)
def _connector_measured(config: ConnectorConfig, vision_width: int, width: int, class_tokens: int) -> Curve:
    """FLOPs of the connector on an image of 1, 2 and 3 squares of patches as small as it takes them.

    Those of the only image that it takes stand for all three.
    """
    with torch.device("meta"):
        connector, (rows, columns) = build_connector(config, vision_width, width, class_tokens), config.smallest_grid

        def flops(squares: int) -> int:
            grid = rows, columns * (1 if config.only_grid else squares)
            patches_PD = torch.empty(class_tokens + grid[0] * grid[1], vision_width)
            return _of_all_layers(connector, lambda: connector(patches_PD, (grid,)))

        return flops(1), flops(2), flops(3)


def _of_all_layers(part: Stack, run: Callable[[], object]) -> int:
    """FLOPs of a part whose layers are alike, from those with one layer and with two."""
    layers = getattr(part, "layers", None)
    if layers is None or len(layers) < 3:
        return _measured(run)
    counts = []
    for depth in (1, 2):
        part.layers = layers[:depth]
        counts.append(_measured(run))
    part.layers = layers
    return counts[0] + (len(layers) - 1) * (counts[1] - counts[0])


def _attention_flops(q: Shape, k: Shape, *_: object, **__: object) -> int:
    """Of the CPU's fused kernel, which `FlopCounterMode` does not know."""
    batch, heads, queries, width = q
    return 4 * batch * heads * queries * k[2] * width


def _measured(run: Callable[[], object]) -> int:
    kernels = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        run()
    return counter.get_total_flops()
