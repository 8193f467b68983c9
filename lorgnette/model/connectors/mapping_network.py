"""MAPL's mapping network: learned constants among the patches of an image in a small transformer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.model.batch import Grid, SequenceLengths
from lorgnette.model.configs.connector_config import MappingNetworkConfig
from lorgnette.model.connectors.connector import Connector, interleave
from lorgnette.model.layers import MLP
from lorgnette.model.ops.attention import attention


class MappingNetwork(Connector):
    """MAPL's mapping network (Mañas et al. 2022; Table 11): a transformer on an image's patches and S learned
    constants after them, in which all see all; its states at the constants become the visual tokens.
    """

    def __init__(self, config: MappingNetworkConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.input = nn.Linear(vision_width, config.width)
        self.constants = nn.Parameter(torch.empty(config.constants, config.width))
        self.layers = nn.ModuleList(MappingLayer(config) for _ in range(config.depth))
        self.output = nn.Linear(config.width, width)

    def blocks(self) -> Iterable[nn.Module]:
        return (self.input, *self.layers, self.output)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        images = self.states(grids)
        constants = SequenceLengths((len(self.constants),) * len(grids))
        spans = SequenceLengths(tuple(length + len(self.constants) for length in images.lengths))
        states_PW = self.run(self.input, patches_PD)
        x_SW = interleave(states_PW, images, self.constants.repeat(len(grids), 1), constants)
        for layer in self.layers:
            x_SW = self.run(layer, x_SW, spans)
        at_constants = [
            end - len(self.constants) + place for end in spans.starts[1:] for place in range(len(self.constants))
        ]
        kept_VW = x_SW.index_select(0, torch.tensor(at_constants, dtype=torch.int64).to(x_SW.device))
        visual_VD: Tensor = self.run(self.output, kept_VW)
        return visual_VD


class MappingLayer(nn.Module):
    """Attention and a ReLU MLP, each behind its norm, with biases."""

    def __init__(self, config: MappingNetworkConfig):
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.attention = MappingAttention(config)
        self.mlp_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.mlp = MLP(config.width, config.mlp_width, config.width, activation=F.relu)

    def forward(self, x_SW: Tensor, spans: SequenceLengths) -> Tensor:
        x_SW = x_SW + self.attention(self.attention_norm(x_SW), spans)
        out: Tensor = x_SW + self.mlp(self.mlp_norm(x_SW))
        return out


class MappingAttention(nn.Module):
    def __init__(self, config: MappingNetworkConfig):
        super().__init__()
        self.heads = config.heads
        self.query, self.key, self.value, self.output = (nn.Linear(config.width, config.width) for _ in range(4))

    def forward(self, x_SW: Tensor, spans: SequenceLengths) -> Tensor:
        q_SHN, k_SHN, v_SHN = (
            project(x_SW).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value)
        )
        out: Tensor = self.output(attention(q_SHN, k_SHN, v_SHN, spans, spans).flatten(1))
        return out
