"""`lorgnette presets`: the presets of models and backbones, with their parameters."""

from __future__ import annotations

from collections.abc import Iterator

from lorgnette.model.config import VLMConfig
from lorgnette.model.configs import presets
from lorgnette.model.flops import ModelCost


def lines() -> Iterator[str]:
    """Lines of the tables."""
    for name in presets.MODEL:
        config = VLMConfig.parse({"preset": name})
        yield f"model: {{preset: {name}}}  {_millions(sum(ModelCost(config).parameters.values()))}"
        yield from (f"  {about}" for about in (config.vision.about, config.connector.about, config.language.about))
    for part, table in (("vision", presets.VISION_PRESETS), ("language", presets.LANGUAGE)):
        yield f"model: {{{part}: {{preset: NAME}}}}"
        for name in table:
            config = VLMConfig.parse({part: {"preset": name}})
            about = getattr(config, part).about
            yield f"  {name:<20}{_millions(ModelCost(config).parameters[part]):>8}  {about}"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f} M"
