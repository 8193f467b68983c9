"""Connectors: hidden states of an image's patches to the visual tokens that the decoder reads.

To add one, write a `Connector` in a module here, its settings in `configs/connector_config.py`, and its row in
`CONNECTORS`. One of another package is a plug-in (docs/plugins.md).
"""

from __future__ import annotations

from lorgnette.errors import SettingsError
from lorgnette.model.configs.connector_config import (
    AverageConfig,
    ConnectorConfig,
    FlatLinearConfig,
    IdentityConfig,
    LinearConfig,
    MappingNetworkConfig,
    MLPConfig,
    PerceiverConfig,
    PixelShuffleConfig,
)
from lorgnette.model.configs.connector_settings import ConnectorPlugin, ConnectorSettings
from lorgnette.model.connectors.connector import Connector as Connector
from lorgnette.model.connectors.mapping_network import MappingNetwork
from lorgnette.model.connectors.perceiver import Perceiver
from lorgnette.model.connectors.projections import Average, FlatLinear, Identity, Linear, PixelShuffle, TwoLayers

CONNECTORS: dict[type[ConnectorSettings], type[Connector]] = {
    PerceiverConfig: Perceiver,
    LinearConfig: Linear,
    MLPConfig: TwoLayers,
    PixelShuffleConfig: PixelShuffle,
    AverageConfig: Average,
    FlatLinearConfig: FlatLinear,
    MappingNetworkConfig: MappingNetwork,
    IdentityConfig: Identity,
}
"""The class of each kind of settings."""


def build_connector(config: ConnectorConfig, vision_width: int, width: int, class_tokens: int = 0) -> Connector:
    """The connector of these settings, from the vision encoder's width to the decoder's.

    class_tokens: rows of each image that the vision encoder gives beside those of its patches.
    Raises: SettingsError for a plug-in that builds something else.
    """
    if isinstance(config, ConnectorPlugin):
        made = config.build(vision_width, width)
        if not isinstance(made, Connector):
            raise SettingsError(f"connector {config.kind}: builds a {type(made).__name__}, which is no Connector")
    else:
        made = CONNECTORS[type(config)](config, vision_width, width)  # type: ignore[call-arg]
    made.class_tokens = class_tokens
    return made
