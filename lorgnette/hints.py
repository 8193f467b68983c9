"""Names of settings: the dotted paths in a tree of groups, and advice for a name that is none."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from functools import cache
from typing import Any

import pydantic

SettingsClass = type[pydantic.BaseModel]
"""A class of settings."""

KNOWN_ELSEWHERE = {
    "batch_size": "pack.samples",
    "epochs": "steps",
    "fp16": "precision",
    "bf16": "precision",
    "gradient_accumulation_steps": "micro_batches",
    "gradient_checkpointing": "checkpointing",
    "learning_rate": "lr",
    "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout",
    "lora_r": "lora.rank",
    "lora_rank": "lora.rank",
    "lora_target": "lora.targets",
    "lr_scheduler_type": "schedule",
    "max_length": "pack.tokens",
    "max_seq_length": "pack.tokens",
    "max_steps": "steps",
    "neftune_noise_alpha": "neftune",
    "num_epochs": "steps",
    "num_train_epochs": "steps",
    "num_workers": "loader.workers",
    "optim": "optimiser",
    "optimizer": "optimiser",
    "per_device_train_batch_size": "pack.samples",
    "save_steps": "checkpoints.every",
    "target_modules": "lora.targets",
    "torch_dtype": "precision",
    "warmup_steps": "warmup",
}
"""Names of settings in transformers, TRL, PEFT and LLaMA-Factory -> the end of the path of ours for the same thing."""


def hint(root: SettingsClass, classes: Sequence[SettingsClass], location: Sequence[Any]) -> str:
    """Advice for a name that is no setting: the same name elsewhere, or the nearest one here.

    A name of another trainer's counts as ours for the same thing.
    """
    *parents, name = map(str, location)
    meant, valid = KNOWN_ELSEWHERE.get(name, name), sorted({name for cls in classes for name in cls.model_fields})
    group, _, last = meant.rpartition(".")
    if group and parents[-1:] == [group]:
        meant = last
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.75)
    here = [path for cls in classes for path in paths(cls) if _ends(path, meant)]
    anywhere = [path for path in paths(root) if _ends(path, meant)]
    begun = [str(part) for part in location[:2]]
    for said in (here[:1] if meant != name else [], near, here[:1], anywhere[:1]):
        if said:
            path = said[0]
            if said == anywhere[:1] and begun[0] == "stages" and path.startswith("stages.0."):
                path = ".".join([*begun, path.removeprefix("stages.0.")])
            return f"did you mean {path!r}?"
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"valid names: {', '.join(valid)}"


def _ends(path: str, name: str) -> bool:
    """Return whether a dotted path is a name, or ends with it."""
    return f".{path}".endswith(f".{name}")


@cache
def paths(root: SettingsClass) -> tuple[str, ...]:
    """Dotted paths of all settings in a tree, a level before those within it; of a list, its first item's."""
    found: list[str] = []
    level: list[tuple[str, SettingsClass]] = [("", root)]
    while level:
        found += [prefix + name for prefix, cls in level for name in cls.model_fields]
        level = [
            (f"{prefix}{name}.{'0.' if _is_list(field.annotation) else ''}", inner)
            for prefix, cls in level
            for name, field in cls.model_fields.items()
            for inner in classes_in(field.annotation)
        ]
    return tuple(dict.fromkeys(found))


def _is_list(annotation: Any) -> bool:
    """Return whether the value of a setting is a list."""
    return typing.get_origin(annotation) is tuple


def classes_in(annotation: Any) -> list[SettingsClass]:
    """Every class of settings mentioned in a type annotation."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, pydantic.BaseModel) else []
    return [found for argument in typing.get_args(annotation) for found in classes_in(argument)]
