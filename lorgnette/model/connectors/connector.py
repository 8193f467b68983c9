"""Base class of connectors, and the joining of sequences that several of them need."""

from __future__ import annotations

import torch
from torch import Tensor

from lorgnette.model.batch import Grid, SequenceLengths
from lorgnette.model.configs.connector_settings import ConnectorSettings
from lorgnette.model.layers import Stack


class Connector(Stack):
    """Base class of connectors. A subclass maps an encoder's states to visual tokens, as many as its settings say."""

    class_tokens = 0
    """Rows before the patches of each image that are no patch's: 1 if the vision encoder keeps its class token."""

    def __init__(self, config: ConnectorSettings, width: int):
        """width: of a visual token: the decoder's, unless the settings' `token_width` says otherwise."""
        super().__init__()
        self.config, self.width = config, width

    def forward(self, patches_PD: Tensor, grids: tuple[Grid, ...]) -> Tensor:
        """Visual tokens of all images end to end: V,D.

        patches_PD: hidden states of the patches of all images end to end, with the encoder's class token before those
        of each image if it is kept. grids: rows and columns of each image.
        Without images the result is empty but depends on the weights: in training every rank touches the same ones.
        """
        raise TypeError(f"{type(self).__name__} has no forward")

    def states(self, grids: tuple[Grid, ...]) -> SequenceLengths:
        """Rows of `patches_PD` of each image."""
        return SequenceLengths(tuple(self.class_tokens + rows * columns for rows, columns in grids))

    def visual_tokens(self, grids: tuple[Grid, ...]) -> SequenceLengths:
        """Visual tokens of each image."""
        return SequenceLengths(tuple(self.config.visual_tokens(rows, columns) for rows, columns in grids))


def interleave(first: Tensor, first_spans: SequenceLengths, second: Tensor, second_spans: SequenceLengths) -> Tensor:
    """Span i of `first` followed by span i of `second`, for each i, end to end."""
    firsts, seconds = first.split(list(first_spans.lengths)), second.split(list(second_spans.lengths))
    pieces = [piece for pair in zip(firsts, seconds, strict=True) for piece in pair]
    return torch.cat(pieces or [first, second])  # of nothing too, so that its weights take part
