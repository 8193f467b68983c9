"""Settings of generation, and how a checkpoint's own join them. Nothing here needs torch."""

from __future__ import annotations

from typing import TypeVar, cast

import pydantic

from lorgnette.errors import SettingsError
from lorgnette.inputs.generation_rules import GenerationRules
from lorgnette.settings import Settings


class GenerationConfig(Settings):
    """Settings of generation. Defaults are greedy decoding."""

    max_tokens: int = pydantic.Field(default=256, ge=1)
    """Most tokens per answer."""
    temperature: float = pydantic.Field(default=0.0, ge=0)
    """0 takes the likeliest token; 1 draws from the model's own distribution."""
    top_k: int | None = pydantic.Field(default=None, ge=1)
    """Draw among this many likeliest tokens only; None for all."""
    top_p: float = pydantic.Field(default=1.0, gt=0, le=1)
    """Draw among the likeliest tokens that together reach this probability (nucleus sampling)."""
    min_p: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Draw among tokens of at least this share of the likeliest one's probability."""
    stop: tuple[str, ...] = ()
    """An answer ends before the first of these strings."""
    seed: int = 0
    """Equal seeds, equal draws. What stands beside a prompt in its batch does not matter."""

    @pydantic.field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, stop: object) -> object:
        """A string alone is one stop string, not one for each of its letters."""
        return (stop,) if isinstance(stop, str) else stop

    @pydantic.field_validator("stop")
    @classmethod
    def _stops_say_something(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if "" in stop:
            raise ValueError("a stop string is empty; every answer would end before it began")
        return stop


Config = TypeVar("Config", bound=GenerationConfig)


def with_rules(settings: Config | None, rules: GenerationRules) -> Config:
    """The settings, with the checkpoint's own where the caller gave none; its stop strings are always stop strings.

    The caller gave what he wrote out: `GenerationConfig(max_tokens=5)` says nothing of the temperature.
    Raises: SettingsError where the caller gives no temperature and the checkpoint asks for beams or the like.
    """
    settings = settings or cast(Config, GenerationConfig())
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    if "temperature" not in given and rules.unsupported:
        raise SettingsError(
            f"generation_config.json asks for {rules.unsupported}, which lorgnette does not do: it draws one answer"
            " token by token; give a temperature yourself (0 for the likeliest token), or take the key out of the file"
        )
    drawn = {} if "temperature" in given else rules.sampling  # greedy where the caller says so
    values = {"max_tokens": rules.max_new_tokens} if rules.max_new_tokens is not None else {}
    return type(settings)(**(values | drawn | given | {"stop": (*settings.stop, *rules.stop)}))
