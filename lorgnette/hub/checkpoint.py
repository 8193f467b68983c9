"""Weights on disk: safetensors in one file or in shards with an index, read tensor by tensor without a second copy."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lorgnette.errors import CheckpointError
from lorgnette.files import share, write_json
from lorgnette.hub.rules import Rule
from lorgnette.inputs.tokenizer import read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
BUFFERS = re.compile(r"\.position_ids$|\.rotary_emb\.inv_freq$")
"""Tensors of old checkpoints that follow from the settings."""
SHARD_BYTES = 5_000_000_000
"""Weights above this size are written in several files."""


class Weights:
    """The tensors of a checkpoint folder, by name. Opening reads headers only; tensors are views of mapped files."""

    def __init__(self, folder: Path, ignored: re.Pattern[str] = BUFFERS) -> None:
        """ignored: names of tensors that count as not there.

        Raises: CheckpointError if weights are missing or truncated, or the index and the shards disagree.
        """
        self.folder = folder
        self.files: dict[str, Any] = {}
        self.home: dict[str, str] = {}
        index = folder / INDEX
        shards = _shards(index) if index.is_file() and not (folder / WEIGHTS).is_file() else {WEIGHTS: None}
        for shard, promised in shards.items():
            self.files[shard] = _open(folder / shard)
            names = set(self.files[shard].keys())
            if promised is not None and promised - names:
                raise CheckpointError(f"{folder / shard}: lacks {some(promised - names)}, which {INDEX} says it holds")
            self.home |= {name: shard for name in names if not ignored.search(name)}

    @property
    def names(self) -> set[str]:
        return set(self.home)

    def forget(self, name: str) -> None:
        """Count a tensor as not there."""
        del self.home[name]

    @property
    def bytes(self) -> int:
        """Size of the weights on disk."""
        return sum((self.folder / shard).stat().st_size for shard in self.files)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.files[self.home[name]].get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The stored type, as safetensors names it: F32, BF16, F16."""
        return str(self.files[self.home[name]].get_slice(name).get_dtype())

    def tensor(self, name: str) -> Tensor:
        """Raises: CheckpointError for anything but floating-point numbers: a quantised checkpoint, for one."""
        tensor: Tensor = self.files[self.home[name]].get_tensor(name)
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            file = self.folder / self.home[name]
            raise CheckpointError(f"{file}: {name} is {tensor.dtype}; lorgnette reads float32, bfloat16 and float16")
        return tensor


def _open(file: Path) -> Any:
    if not file.is_file():
        pickles = sorted(path.name for path in file.parent.glob("*.bin"))
        hint = f"; {pickles[0]} is a pickle, save it as safetensors with transformers first" if pickles else ""
        raise CheckpointError(f"{file}: no such file; a checkpoint needs its weights as safetensors{hint}")
    try:
        return safetensors.safe_open(file, "pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{file}: truncated, or not a safetensors file ({error}); fetch it again") from None


def _shards(index: Path) -> dict[str, set[str]]:
    """The files of a sharded checkpoint and the names that the index promises in each."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: has no weight_map from tensors to files")
    shards: dict[str, set[str]] = {}
    for name, shard in places.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise CheckpointError(f"{index}: places {name} in {shard!r}, which is not a file of this folder")
        shards.setdefault(shard, set()).add(name)
    return shards


def import_tensors(
    weights: Weights, rules: Iterable[Rule], shapes: Mapping[str, torch.Size], vocabulary: int = 0
) -> dict[str, Tensor]:
    """Our tensors from transformers', by the rules. Rows that our vocabulary has beyond the stored ones are their mean.

    shapes: those of our model; vocabulary: rows that the stored tables should have.
    Raises: CheckpointError naming every tensor that is missing, unknown, or of another shape.
    """
    wanted = {rule.theirs: rule for rule in rules}
    stored = {name: _stored_shape(rule, shapes, vocabulary) for name, rule in wanted.items()}
    missing, unknown = wanted.keys() - weights.names, weights.names - wanted.keys()
    misshaped = [
        f"{name} is {list(weights.shape(name))} instead of {list(stored[name])}"
        for name in wanted.keys() - missing
        if weights.shape(name) != stored[name]
    ]
    problems = [
        *([f"lacks {some(missing)}"] if missing else ()),
        *([f"holds {some(unknown)}, which config.json does not account for"] if unknown else ()),
        *([f"has shapes that config.json does not give: {some(misshaped)}"] if misshaped else ()),
    ]
    if problems:
        raise CheckpointError(f"{weights.folder}: the checkpoint {'; '.join(problems)}")
    ours: dict[str, Tensor] = {}
    for name, rule in wanted.items():
        ours |= rule.to_ours(_grown(weights.tensor(name), rule.their_shape(shapes)[0]), shapes)
    return ours


def _stored_shape(rule: Rule, shapes: Mapping[str, torch.Size], vocabulary: int) -> tuple[int, ...]:
    shape = rule.their_shape(shapes)
    return (vocabulary, *shape[1:]) if rule.is_vocabulary else shape


def _grown(table: Tensor, rows: int) -> Tensor:
    """The table with rows added up to `rows`, each the mean of all: tokens no likelier than others."""
    if len(table) == rows:
        return table
    mean = table.float().mean(0, keepdim=True).to(table.dtype)
    return torch.cat([table, mean.expand(rows - len(table), -1)])


def write_tensors(
    folder: Path, rules: Iterable[Rule], ours: Mapping[str, Tensor], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write our tensors under transformers' names, in shards of at most `shard_bytes` if they exceed it together.

    No more than one shard is held beside the model. Raises: OSError (a full disk, for one).
    """
    shapes = {name: tensor.shape for name, tensor in ours.items()}
    shards: list[list[Rule]] = [[]]
    filled = total = 0
    for rule in sorted(rules, key=lambda rule: rule.theirs):
        size = torch.Size(rule.their_shape(shapes)).numel() * ours[rule.ours[0]].element_size()
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(rule)
        filled, total = filled + size, total + size
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    names = names if len(shards) > 1 else [WEIGHTS]
    for name, shard in zip(names, shards, strict=True):
        tensors = {rule.theirs: rule.to_theirs(ours).cpu() for rule in shard}
        save_tensors(tensors, folder / name, {"format": "pt"})
    if len(shards) > 1:
        places = {rule.theirs: name for name, shard in zip(names, shards, strict=True) for rule in shard}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """One safetensors file that others may read, as far as the user's umask lets them. Raises: OSError."""
    try:
        safetensors.torch.save_file(tensors, path, metadata=metadata)
    except safetensors.SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    share(path)


def some(names: Iterable[str], shown: int = 5) -> str:
    """A few of many names, in order, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(ordered[:shown]) + more
