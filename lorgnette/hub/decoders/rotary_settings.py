"""Settings of rotary positions, from the forms in which the files of decoders give them."""

from __future__ import annotations

from typing import Any

from lorgnette.errors import CheckpointError
from lorgnette.hub.decoders.setting_rows import Json, whole_number
from lorgnette.untrusted import quoted


def read_rope(values: Json, where: str) -> tuple[Any, Json | None]:
    """Base and scaling of the rotary embedding, from the new form (`rope_parameters`) or the old (`rope_scaling`).

    Raises: CheckpointError if lorgnette has no such embedding.
    """
    given = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(given, dict):
        raise CheckpointError(f"{where}: rope_parameters is a {type(given).__name__}; expected a group of settings")
    rope = {key: value for key, value in _one_rope(given, where).items() if value is not None and key not in UNREAD}
    theta = rope.pop("rope_theta", values.get("rope_theta") or 10000.0)
    old_name = rope.pop("type", "default")
    kind = rope.setdefault("rope_type", old_name)
    if (rope.pop("partial_rotary_factor", None) or values.get("partial_rotary_factor") or 1) != 1:
        raise CheckpointError(
            f"{where}: partial_rotary_factor is not 1; lorgnette's rotary embedding turns whole heads"
        )
    if kind == "default":
        if len(rope) > 1:
            extra = quoted(", ".join(sorted(rope.keys() - {"rope_type"})), 80)
            raise CheckpointError(
                f"{where}: rope_parameters has {extra}, but no rope_type that obeys it; add or remove it"
            )
        return theta, None
    if values["model_type"] == "phi3" and kind in ("su", "yarn"):
        kind = rope["rope_type"] = "longrope"  # as transformers, which knows no other scaling of this family
    if kind in ("llama3", "yarn", "longrope"):
        outside = values.get("original_max_position_embeddings")
        original = rope.get("original_max_position_embeddings", values["max_position_embeddings"])
        rope["original_max_position_embeddings"] = original if outside is None else outside
    if kind == "yarn" and "factor" not in rope:
        rope["factor"] = values["max_position_embeddings"] / whole_number(
            rope, "original_max_position_embeddings", where
        )
    return theta, rope


UNREAD = frozenset({"attn_factor", "finetuned"})
"""Keys of rope_scaling that published files have and no class of transformers reads."""


def _one_rope(given: Json, where: str) -> Json:
    """The group that all layers share, where newer files give one for each kind of layer."""
    groups = [value for value in given.values() if isinstance(value, dict)]
    if not groups:
        return given
    if len(groups) < len(given) or any(group != groups[0] for group in groups):
        raise CheckpointError(f"{where}: rope_parameters differ between kinds of layers; lorgnette has one for all")
    return groups[0]
