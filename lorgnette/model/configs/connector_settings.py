"""Settings that all kinds of connectors have: how many visual tokens an image becomes, and which images they take."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from lorgnette.settings import Settings

Count = TypeVar("Count", int, np.ndarray)
"""Patches of one image, or an array of them for many."""


class ConnectorSettings(Settings):
    """Settings common to all kinds of connectors."""

    def visual_tokens(self, rows: Count, columns: Count) -> Count:
        """Visual tokens that an image of rows x columns patches becomes; of arrays, an array.

        Rendering, packing and the plan of data count with it. Raises: ValueError for a shape that the kind cannot take.
        """
        raise TypeError(f"{type(self).__name__} does not say how many visual tokens an image becomes")

    @property
    def multiple(self) -> int:
        """Both sides of an image must be multiples of so many patches."""
        return 1

    @property
    def takes_class_token(self) -> bool:
        """Return whether an image may have rows that belong to no place in it: a class token that is kept."""
        return False

    @property
    def only_grid(self) -> tuple[int, int] | None:
        """Rows and columns of patches that every image must have; None where images may have any."""
        return None

    @property
    def smallest_grid(self) -> tuple[int, int]:
        """Rows and columns of the smallest image that the kind takes."""
        return self.only_grid or (self.multiple, self.multiple)

    def token_width(self, vision_width: int, width: int) -> int:
        """Width of a visual token: the decoder's `width`, which only cross-attention can do without."""
        return width

    @property
    def layer_count(self) -> int:
        """Layers: a checkpoint is refused whose settings ask for more of them than it has tensors."""
        return 0

    @property
    def about(self) -> str:
        """The kind and its sizes, for people."""
        return str(getattr(self, "kind", "connector")).replace("_", " ")


class ConnectorPlugin(ConnectorSettings):
    """Base class of settings of connectors from other packages (docs/plugins.md). `kind` is the name that was given."""

    kind: str

    def build(self, vision_width: int, width: int) -> Any:
        """The connector: a `lorgnette.model.connectors.Connector` from the vision encoder's width to the decoder's."""
        raise TypeError(f"{type(self).__name__} does not build a connector")
