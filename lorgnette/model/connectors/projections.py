"""Connectors that project: linear layers on patches, or on squares, means or mixtures of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorgnette.model.batch import Grid
from lorgnette.model.configs.connector_config import (
    AverageConfig,
    FlatLinearConfig,
    IdentityConfig,
    LinearConfig,
    MLPConfig,
    PixelShuffleConfig,
)
from lorgnette.model.connectors.connector import Connector
from lorgnette.model.layers import MLP


class Identity(Connector):
    """The vision encoder's states as they are, the class token's among them: visual tokens without weights."""

    def __init__(self, config: IdentityConfig, vision_width: int, width: int):
        super().__init__(config, vision_width)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        return patches_PD


class Linear(Connector):
    """One linear layer: every patch becomes a visual token (paper, Table 3, first row)."""

    def __init__(self, config: LinearConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.projection = nn.Linear(vision_width, width, bias=False)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        visual_VD: Tensor = self.run(self.projection, patches_PD)
        return visual_VD


class TwoLayers(Connector):
    """An MLP on each patch, which becomes a visual token (LLaVA-1.5)."""

    def __init__(self, config: MLPConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.projection = MLP(vision_width, config.hidden or width, width, activation=F.gelu)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        visual_VD: Tensor = self.run(self.projection, patches_PD)
        return visual_VD


class PixelShuffle(Connector):
    """Squares of patches joined, then one linear layer (Idefics3, SmolVLM)."""

    def __init__(self, config: PixelShuffleConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.side = config.side
        self.projection = nn.Linear(config.side**2 * vision_width, width, bias=False)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        order_P = torch.cat([torch.empty(0, dtype=torch.int64), *self._orders(grids)]).to(patches_PD.device)
        squares_VD = patches_PD.index_select(0, order_P).reshape(-1, self.side**2 * patches_PD.shape[-1])
        visual_VD: Tensor = self.run(self.projection, squares_VD)
        return visual_VD

    def _orders(self, grids: tuple[Grid, ...]) -> Iterable[Tensor]:
        """Patches of each image in the order of its squares: within one, row by row."""
        start = 0
        for rows, columns in grids:
            self.config.visual_tokens(rows, columns)  # refuses sides that do not divide
            places = torch.arange(start, start + rows * columns).view(-1, self.side, columns // self.side, self.side)
            yield places.transpose(1, 2).flatten()
            start += rows * columns


class Average(Connector):
    """Means of patches over a square grid, then one linear layer: as many visual tokens for every image."""

    def __init__(self, config: AverageConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.side = config.side
        self.projection = nn.Linear(vision_width, width, bias=False)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        images = patches_PD.split([rows * columns for rows, columns in grids])
        means = [self._means(image, grid) for image, grid in zip(images, grids, strict=True)]
        visual_VD: Tensor = self.run(self.projection, torch.cat(means) if means else patches_PD)
        return visual_VD

    def _means(self, patches_PD: Tensor, grid: Grid) -> Tensor:
        """Means of the patches of one image, row by row. Mean i of n along r patches begins at floor(i r / n) and ends
        before ceil((i + 1) r / n): where n does not divide r they overlap, and where n exceeds r they repeat.
        """
        pooled = F.adaptive_avg_pool2d(patches_PD.unflatten(0, grid).permute(2, 0, 1), self.side)
        return pooled.flatten(1).T


class FlatLinear(Connector):
    """Patches of an image mixed to fewer by one matrix, the same for all channels, then a linear layer (Table 11)."""

    def __init__(self, config: FlatLinearConfig, vision_width: int, width: int):
        super().__init__(config, width)
        self.patches = config.side**2
        self.mixing = nn.Linear(self.patches, config.tokens, bias=False)
        self.projection = nn.Linear(vision_width, width, bias=False)

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        self.visual_tokens(grids)  # refuses images of another shape
        images_IDP = patches_PD.view(len(grids), self.patches, patches_PD.shape[-1]).transpose(1, 2)
        mixed_VD = self.run(self.mixing, images_IDP).transpose(1, 2).flatten(0, 1)
        visual_VD: Tensor = self.run(self.projection, mixed_VD)
        return visual_VD
