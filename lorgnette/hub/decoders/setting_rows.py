"""Rows of settings: one under our name and under transformers', read from a `config.json` and written to one."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.settings import Settings
from lorgnette.untrusted import quoted

Json = dict[str, Any]


@dataclass(frozen=True)
class MappedSetting:
    """One setting: our name, transformers' name, and transformers' default (None: the key must be there)."""

    ours: str
    theirs: str
    default: Any = None


@dataclass(frozen=True)
class Fixed:
    """A setting of transformers for which we know one value only."""

    theirs: str
    value: Any
    default: Any


SILU = Fixed("hidden_act", "silu", "silu")


def read_rows(rows: tuple[MappedSetting, ...], values: Mapping[str, Any], where: str) -> Json:
    """The settings of these rows under our names, of what a file has under transformers'. Raises: CheckpointError."""
    return {
        row.ours: decimal(values.get(row.theirs, row.default))
        if row.theirs.endswith("_eps")
        else whole_number(values, row.theirs, where, row.default)
        for row in rows
    }


def decimal(value: Any) -> Any:
    """A number as its author wrote it, where a file holds what float32 made of it: 1e-05 for 9.999999747378752e-06."""
    if not isinstance(value, float):
        return value
    short = float(f"{value:.7g}")
    packed = (struct.unpack("f", struct.pack("f", one))[0] for one in (short, value) if abs(one) < MOST_FLOAT32)
    return short if len({*packed}) == 1 and struct.unpack("f", struct.pack("f", value))[0] == value else value


MOST_FLOAT32 = 3e38


def write_rows(rows: tuple[MappedSetting, ...], config: Settings) -> Json:
    """The settings of these rows under transformers' names."""
    return {row.theirs: getattr(config, row.ours) for row in rows}


def whole_number(values: Mapping[str, Any], key: str, where: str, default: int | None = None, least: int = 1) -> int:
    """A whole number of at least `least` under `key`."""
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CheckpointError(f"{where}: {key} is {value!r:.60}; expected a whole number of at least {least}")
    return value


def check_layer_types(kinds: Any, known: tuple[str, ...], family: str, layers: int, where: str) -> None:
    """Raises: CheckpointError for kinds of layers that a family does not have here, or not one for each layer."""
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise CheckpointError(
            f"{where}: layer_types is {quoted(kinds, 80)}; expected a kind for each of {layers} layers"
        )
    if any(kind not in known for kind in kinds):
        raise CheckpointError(
            f"{where}: layer_types holds {quoted(next(kind for kind in kinds if kind not in known), 60)};"
            f" {family}'s layers are {' or '.join(known)} here"
        )


def group_of(values: Json, key: str, where: str) -> Json:
    """A group of settings within others; empty where there is none. Raises: CheckpointError if it is no group."""
    group = values.get(key)
    if group is None:
        return {}
    if not isinstance(group, dict):
        raise CheckpointError(f"{where}: {key} is a {type(group).__name__}; expected a group of settings")
    return group


def refuse_others(fixed: tuple[Fixed, ...], values: Mapping[str, Any], where: str) -> None:
    """Raises: CheckpointError for a setting with another value than the one that we know."""
    for row in fixed:
        value = values.get(row.theirs)
        value = row.default if value is None else value
        if value != row.value:
            raise CheckpointError(f"{where}: {row.theirs} is {value!r:.60}; lorgnette knows {row.value!r} only")


def need(name: str, value: Any, needed: Any, why: str) -> None:
    """Raises: CheckpointError if a setting of ours is not what transformers' class has there, with the reason."""
    if value != needed:
        raise CheckpointError(f"{name} is {value!r}, but for transformers it must be {needed!r}: {why}")
