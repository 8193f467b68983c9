"""Weights on disk: safetensors in one file or in shards with an index, read tensor by tensor without a second copy."""

from __future__ import annotations

import itertools
import math
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from lorgnette.errors import CheckpointError
from lorgnette.files import share, write_json
from lorgnette.hub.source import INDEX, OPEN_CLIP_WEIGHTS, WEIGHTS, shard_names
from lorgnette.hub.weight_map import Rule
from lorgnette.inputs.tokenizer import read_json
from lorgnette.untrusted import quoted

BUFFERS = re.compile(r"\.position_ids$|\.rotary_emb\.inv_freq$")
"""Tensors of old checkpoints that follow from the settings."""
SHARD_BYTES = 5_000_000_000
"""Weights above this size are written in several files."""


WRAPPERS = re.compile(r"^base_model\.model\.|(?:^|(?<=\.))(?:_orig_mod|module)\.")
"""Prefixes that torch.compile, data parallelism and PEFT insert into the names of a model's tensors."""
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types that are read, as safetensors names them."""


class Weights:
    """The tensors of a checkpoint folder, by name. Opening reads headers only; tensors are views of mapped files."""

    def __init__(self, folder: Path, ignored: re.Pattern[str] = BUFFERS) -> None:
        """ignored: names of tensors that count as not there.

        Raises: CheckpointError if weights are missing or truncated, or the index and the shards disagree.
        """
        self.folder, self.ignored = folder, ignored
        self.files: dict[str, Any] = {}
        self.integers: frozenset[str] = frozenset()
        """Names of the tensors that are to be 8-bit integers."""
        self.home: dict[str, tuple[str, str]] = {}
        """By name: the file that holds a tensor, and its name there."""
        index = folder / INDEX
        shards = _shards(index) if index.is_file() and not (folder / WEIGHTS).is_file() else {WEIGHTS: None}
        if not (folder / "config.json").is_file() and (folder / OPEN_CLIP_WEIGHTS).is_file():
            shards = {OPEN_CLIP_WEIGHTS: None}
        stored: dict[str, tuple[str, str]] = {}
        for shard, promised in shards.items():
            self.files[shard] = open_weights(folder / shard)
            names = set(self.files[shard].keys())
            if promised is not None and promised - names:
                raise CheckpointError(f"{folder / shard}: lacks {some(promised - names)}, which {INDEX} says it holds")
            stored |= {name: (shard, name) for name in names}
        self._place({WRAPPERS.sub("", name): home for name, home in stored.items()}, len(stored))

    def _place(self, home: dict[str, tuple[str, str]], count: int) -> None:
        """Take over names. Raises: CheckpointError if two tensors would share one."""
        if len(home) < count:
            raise CheckpointError(
                f"{self.folder}: holds some tensors twice, once as a wrapped model's (_orig_mod., module.); keep one of"
                " each"
            )
        self.home = {name: place for name, place in home.items() if not self.ignored.search(name)}

    def strip_prefix(self, wanted: Iterable[str]) -> None:
        """Leave out a prefix that all names share, as of a model within another, where more of `wanted` are met so."""
        wanted, best = set(wanted), ""
        met, prefix = len(wanted & self.names), _shared_prefix(self.names)
        while prefix:
            found = len(wanted & {name.removeprefix(prefix) for name in self.names})
            met, best = (found, prefix) if found > met else (met, best)
            prefix = prefix[: prefix.rfind(".", 0, -1) + 1]
        if best:
            self._place({name.removeprefix(best): place for name, place in self.home.items()}, len(self.home))

    @property
    def names(self) -> set[str]:
        return set(self.home)

    def forget(self, name: str) -> None:
        """Count a tensor as not there."""
        del self.home[name]

    def rename(self, name: str, to: str) -> None:
        """Count a tensor as another."""
        self.home[to] = self.home.pop(name)

    @property
    def bytes(self) -> int:
        """Size of the weights on disk."""
        return sum((self.folder / shard).stat().st_size for shard in self.files)

    def _slice(self, name: str) -> Any:
        shard, stored = self.home[name]
        return self.files[shard].get_slice(stored)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The stored type, as safetensors names it: F32, BF16, F16."""
        return str(self._slice(name).get_dtype())

    @property
    def dtypes(self) -> set[torch.dtype]:
        """Types of the tensors that are no integers. Raises: CheckpointError naming one of a type that is not read."""
        return {self.checked_dtype(name) for name in self.home if name not in self.integers}

    def checked_dtype(self, name: str) -> torch.dtype:
        """The type of a tensor. Raises: CheckpointError if it is none of those that are read."""
        stored = self.dtype(name)
        if name in self.integers and stored == "I8":
            return torch.int8
        if stored not in TYPES:
            raise CheckpointError(
                f"{self.folder / self.home[name][0]}: {quoted(name, 80)} is of type {stored}, as in quantised"
                " checkpoints; lorgnette reads float64, float32, bfloat16 and float16: load the checkpoint that this"
                " one was made from"
            )
        return TYPES[stored]

    def tensor(self, name: str) -> Tensor:
        """A tensor; float64 comes as float32, which is what the model computes in.

        Raises: CheckpointError for anything but floating-point numbers: a quantised checkpoint, for one.
        """
        dtype = self.checked_dtype(name)
        shard, stored = self.home[name]
        tensor: Tensor = self.files[shard].get_tensor(stored)
        return tensor.float() if dtype == torch.float64 else tensor


def _shared_prefix(names: set[str]) -> str:
    """Common prefix of all names, up to a dot."""
    first, last = min(names, default=""), max(names, default="")
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    shared = first[:same]
    return shared[: shared.rfind(".") + 1]


def open_weights(file: Path) -> Any:
    """A safetensors file, of which headers are read. Raises: CheckpointError if it is none, or is not there."""
    if not file.is_file():
        pickles = sorted(path.name for path in file.parent.glob("*.bin"))
        hint = f"; {pickles[0]} is a pickle, save it as safetensors with transformers first" if pickles else ""
        raise CheckpointError(f"{file}: no such file; a checkpoint needs its weights as safetensors{hint}")
    try:
        return open_safetensors(file)
    except (safetensors.SafetensorError, OSError) as error:
        said = quoted(str(error))
        raise CheckpointError(f"{file}: truncated, or not a safetensors file ({said}); fetch it again") from None


def open_safetensors(file: Path) -> Any:
    """A safetensors file of any name: its library takes UTF-8 alone. Raises: SafetensorError, OSError."""
    stored = _opened(file)
    for name in stored.keys():  # noqa: SIM118 - not a dict
        sizes = stored.get_slice(name).get_shape()
        if math.prod(max(size, 1) for size in sizes) >= 2**63:  # torch computes strides of empty tensors too
            raise safetensors.SafetensorError(f"{quoted(name, 60)} has sizes beyond 64 bits")
    return stored


def _opened(file: Path) -> Any:
    try:
        os.fspath(file).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="lorgnette-") as place:  # opened, it needs its name no more
            link = Path(place) / "model.safetensors"
            link.symlink_to(file.resolve())
            return safetensors.safe_open(link, "pt")
    return safetensors.safe_open(file, "pt")


def _shards(index: Path) -> dict[str, set[str]]:
    """The files of a sharded checkpoint and the names that the index promises in each."""
    shards: dict[str, set[str]] = {shard: set() for shard in shard_names(index)}
    for name, shard in read_json(index)["weight_map"].items():
        shards[shard].add(name)
    return shards


def import_tensors(
    weights: Weights, rules: Iterable[Rule], shapes: Mapping[str, torch.Size], vocabulary: int = 0
) -> dict[str, Tensor]:
    """Our tensors from transformers', by the rules. Rows that our vocabulary has beyond the stored ones are their mean.

    shapes: those of our model; vocabulary: rows that the stored tables should have.
    Raises: CheckpointError naming every tensor that is missing, unknown, or of another shape.
    """
    wanted = {rule.theirs: rule for rule in rules}
    check_tensors(weights, wanted, shapes, vocabulary)
    ours: dict[str, Tensor] = {}
    for name, rule in wanted.items():
        ours |= rule.to_ours(_grown(weights.tensor(name), rule.their_shape(shapes)[0]), shapes)
    return ours


def check_tensors(
    weights: Weights, wanted: Mapping[str, Rule], shapes: Mapping[str, torch.Size], vocabulary: int
) -> None:
    """Hold the headers of the weights to the settings, before anything is allocated. Arguments: see `import_tensors`.

    Raises: CheckpointError naming every tensor that is missing, unknown, of another shape or of no type that is read.
    """
    stored = {name: _stored_shape(rule, shapes, vocabulary) for name, rule in wanted.items()}
    missing, unknown = wanted.keys() - weights.names, weights.names - wanted.keys()
    adapters = sorted(name for name in unknown if ".lora_" in name or ".base_layer." in name)
    if adapters:
        raise CheckpointError(
            f"{weights.folder}: the weights hold adapters beside what they adapt ({quoted(adapters[0], 80)}); merge"
            " them with PEFT's merge_and_unload and save again"
        )
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
    for name in wanted:
        weights.checked_dtype(name)


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
    ordered = [quoted(name, 120) for name in sorted(names)]
    more = f" and {len(ordered) - shown} more" if len(ordered) > shown else ""
    return ", ".join(ordered[:shown]) + more
