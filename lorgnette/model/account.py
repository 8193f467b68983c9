"""Cost of a model, from its settings alone: parameters, floating-point operations and bytes.

An operation count is of matrix products, two per multiply-add, as in the usual model FLOPs utilisation: what the
mathematics needs, without recomputation. Nothing is allocated: shapes come from the meta device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lorgnette.model.batch import Spans
from lorgnette.model.config import ConnectorConfig, VisionConfig, VLMConfig
from lorgnette.model.connectors import build_connector
from lorgnette.model.vision import VisionEncoder
from lorgnette.model.vlm import VLM

Mode = Literal["frozen", "lora", "dora", "full"]
"""How a part is trained."""

FULL: Mapping[str, Mode] = {"vision": "full", "connector": "full", "language": "full"}


@dataclass(frozen=True)
class Account:
    """The costs of one model. FLOPs are of a forward pass unless the name says otherwise."""

    config: VLMConfig

    @cached_property
    def model(self) -> VLM:
        """The model on the meta device: shapes without weights."""
        with torch.device("meta"):
            return VLM(self.config)

    @cached_property
    def parameters(self) -> dict[str, int]:
        """Parameters by part: vision, connector, language, extra_vocabulary."""
        return {part: sum(p.numel() for p in parameters) for part, parameters in self.model.parts().items()}

    def lora_parameters(self, part: str, rank: int, dora: bool = False) -> int:
        """Parameters of low-rank adapters on every linear layer within the layers of `part`."""
        layers = self.model.get_submodule(f"{part}.layers")
        linears = [m for m in layers.modules() if isinstance(m, nn.Linear)]
        return sum(rank * (m.in_features + m.out_features) + dora * m.out_features for m in linears)

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
        widths = self.config.vision.width, self.config.language.width
        return along(_connector_measured(self.config.connector, *widths), patches // self.config.connector.multiple**2)

    def image_flops(self, patches: int) -> int:
        """One image of so many patches to visual tokens."""
        return self.vision_flops(patches) + self.connector_flops(patches)

    def token_flops(self, keys: int = 0) -> int:
        """One token through the decoder that sees `keys` tokens, itself among them (its window permitting)."""
        c = self.config.language
        inner, kv_inner = c.heads * c.head_width, c.kv_heads * c.head_width
        seen = min(keys, c.sliding_window or keys)
        return c.layers * (4 * c.width * (inner + kv_inner) + self.mlp_flops() + 4 * seen * inner)

    def mlp_flops(self) -> int:
        """One token through the MLP of one layer of the decoder."""
        return 6 * self.config.language.width * self.config.language.mlp_width

    def unread_flops(self) -> int:
        """FLOPs that the last layer saves for a token that is not read: query, output and MLP (not attention)."""
        c = self.config.language
        return 4 * c.width * c.heads * c.head_width + self.mlp_flops()

    def head_flops(self) -> int:
        """The scores of all vocabulary rows for one token."""
        return 2 * self.config.language.width * self.config.vocabulary

    def document_flops(self, length: int) -> int:
        """A document of so many tokens, visual ones among them, through the decoder: causal, each pair once."""
        c = self.config.language
        window = min(length, c.sliding_window or length)
        pairs = window * (window + 1) // 2 + (length - window) * window
        return length * self.token_flops() + c.layers * 4 * pairs * c.heads * c.head_width

    def step_flops(
        self, images: Spans, documents: Spans, learned: int, modes: Mapping[str, Mode] = FULL, rank: int = 64
    ) -> int:
        """A training step on such a batch: forward, and backward as far as something trained lies there.

        A gradient through a part costs its forward once more, and the gradient of all its weights once more.
        """
        forward = {
            "vision": sum(map(self.vision_flops, images.lengths)),
            "connector": sum(map(self.connector_flops, images.lengths)),
            "language": sum(map(self.document_flops, documents.lengths))
            - (documents.total - learned) * self.unread_flops()
            + learned * self.head_flops(),
        }
        tokens = {"vision": images.total, "language": documents.total}
        total, reached = 0, False
        for part, flops in forward.items():
            mode = modes[part]
            reached = reached or mode != "frozen" or part == "language"  # the extra vocabulary is always trained
            total += flops * (1 + reached + (mode == "full"))
            if mode in ("lora", "dora"):
                total += 6 * tokens[part] * self.lora_parameters(part, rank)
        return total

    def weight_bytes(self, bytes_each: int = 2) -> int:
        return sum(self.parameters.values()) * bytes_each

    def cache_bytes(self, tokens: int = 1, bytes_each: int = 2) -> int:
        """Keys and values of so many tokens."""
        c = self.config.language
        return tokens * c.layers * 2 * c.kv_heads * c.head_width * bytes_each

    def training_bytes(self, modes: Mapping[str, Mode] = FULL, rank: int = 64, bytes_each: int = 2) -> int:
        """Weights as stored, and for each trained parameter its float32 copy, gradient and two Adam moments."""
        return self.weight_bytes(bytes_each) + 16 * self.trained_parameters(modes, rank)


Curve = tuple[int, int, int]
"""FLOPs at 1, 2 and 3 units: what is at most quadratic in the units follows exactly."""


def along(curve: Curve, units: int) -> int:
    """The quadratic through three measured points, at `units`."""
    one, two, three = curve
    first, second = two - one, three - 2 * two + one
    return one + first * (units - 1) + second * ((units - 1) * (units - 2) // 2)


@lru_cache(maxsize=16)
def _vision_measured(config: VisionConfig) -> Curve:
    """FLOPs of the encoder on an image of 1, 2 and 3 patches: measured with one layer and with two."""

    def flops(layers: int, patches: int) -> int:
        with torch.device("meta"):
            encoder = VisionEncoder(VisionConfig.parse(config.plain() | {"layers": layers}))
            pixels = torch.empty(patches, config.patch_width, dtype=torch.uint8)
            positions = torch.empty(patches, dtype=torch.int64)
            return _measured(lambda: encoder(pixels, positions, Spans((patches,))))

    one, two, three = (
        (base := flops(1, patches)) + (config.layers - 1) * (flops(2, patches) - base) for patches in (1, 2, 3)
    )
    return one, two, three


@lru_cache(maxsize=16)
def _connector_measured(config: ConnectorConfig, vision_width: int, width: int) -> Curve:
    """FLOPs of the connector on an image of 1, 2 and 3 squares of patches as small as it takes them."""
    with torch.device("meta"):
        connector, side = build_connector(config, vision_width, width), config.multiple

        def flops(squares: int) -> int:
            patches_PD = torch.empty(side * side * squares, vision_width)
            return _measured(lambda: connector(patches_PD, ((side, side * squares),)))

        return flops(1), flops(2), flops(3)


def _measured(run: Callable[[], object]) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()
