"""Adapters of PEFT (LoRA, DoRA and their kin), merged into the weights that they were trained on as PEFT merges them.

Nothing of PEFT is needed for it: a merged weight is a product of small matrices added to the stored one. Adapters of
linear layers can be kept beside the weights instead.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorgnette.errors import CheckpointError
from lorgnette.files import HUB_ID, expand_user
from lorgnette.hub.checkpoint import TYPES, Weights, open_weights, some
from lorgnette.hub.keys import Section, check_section, keys, unless
from lorgnette.hub.source import ADAPTER, ADAPTER_WEIGHTS, find_folder
from lorgnette.hub.weight_map import Rule
from lorgnette.inputs.tokenizer import read_json
from lorgnette.model.adapted_layers import AdaptedLinear
from lorgnette.untrusted import quoted

HERE = "hub/adapter.py"
OTHER_MERGE = "merge it with PEFT's merge_and_unload, and load the result"
SETTINGS = Section(
    obeyed=keys("peft_type base_model_name_or_path revision r lora_alpha use_rslora rank_pattern alpha_pattern", HERE)
    | keys("use_dora fan_in_fan_out init_lora_weights trainable_token_indices lora_bias", HERE)
    | keys("ensure_weight_tying", HERE),
    irrelevant=keys("target_modules exclude_modules modules_to_save bias layers_to_transform layers_pattern", "the"
                     " tensors of the file say what was trained")
    | keys("lora_dropout inference_mode task_type auto_mapping peft_version megatron_core", "of training")
    | keys("megatron_config eva_config lora_ga_config velora_config", "of training")
    | keys("runtime_config qalora_group_size", "of training"),
    refused=unless(
        OTHER_MERGE, alora_invocation_tokens=None, use_qalora=False, layer_replication=None, target_parameters=([],),
        use_bdlora=(None, False), arrow_config=None, kasa_config=None, monteclora_config=None, loftq_config=({},),
        corda_config=None,
    ),
)  # fmt: skip
"""Keys of adapter_config.json."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
"""Ways to begin an adapter that change the weights it stands on, so that it does not fit the published ones."""
_PREFIX = "base_model.model."
DELTA = re.compile(
    r"^(?P<module>.+)\.(?P<kind>lora_(?:A|B|embedding_A|embedding_B|magnitude_vector))(?P<leaf>\.weight|\.bias)?$"
)
TOKENS = re.compile(r"^(?P<module>.+?)(?:\.token_adapter)?\.trainable_tokens_delta$")


@dataclass(frozen=True)
class Adapter:
    """A folder of PEFT: its settings, and the tensors that it has for each module of the model below."""

    folder: Path
    settings: Mapping[str, Any]

    def base_folder(self) -> Path:
        """The folder of the model that the adapter was trained on: beside it, a path, or on the hub.

        Raises: CheckpointError saying which model is wanted, and what to do.
        """
        name = self.settings.get("base_model_name_or_path")
        if not isinstance(name, str) or not name:
            raise CheckpointError(
                f"{self.folder}: is an adapter that names no base model; merge it with PEFT, or name it"
            )
        places = [expand_user(name), self.folder / name]
        if Path(name).name == "base":  # as training writes it: found again where the run was moved
            places.append(self.folder.parent / "base")
        revision = self.settings.get("revision")
        try:
            for place in places:
                if place.is_dir() and place.resolve() != self.folder.resolve():
                    return _whole_model(find_folder(place))
            if HUB_ID.fullmatch(name):
                return _whole_model(find_folder(name, revision if isinstance(revision, str) else None))
            said = "there is no such folder here"
        except CheckpointError as error:
            said = str(error)
        raise CheckpointError(
            f"{self.folder}: is an adapter of {quoted(name)}, which it needs to be merged into ({quoted(said)}); fetch"
            f" that model, and set base_model_name_or_path in {ADAPTER} to its folder"
        )

    def merged(
        self, base: Weights, tables: tuple[str, str], settled: Callable[[str], str], unused: Set[str]
    ) -> MergedWeights:
        """The base's weights with the adapter merged into them.

        tables: the base's names of the embedding and of the output table. settled: from a name that the base's class
        gives a tensor to that of the base. unused: tensors of its file that are not run, and count as not there.
        """
        return MergedWeights(base, self, tables, settled, unused)

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors, by name in the model below and kind. Raises: CheckpointError for one that is no number."""
        file = self.folder / ADAPTER_WEIGHTS
        stored = open_weights(file)
        tensors = {}
        for name in stored.keys():  # noqa: SIM118 - it is no mapping
            if str(stored.get_slice(name).get_dtype()) not in TYPES:
                raise CheckpointError(f"{file}: {quoted(name, 80)} holds no floating-point numbers")
            plain = re.sub(
                r"\b(base_layer|_orig_mod|modules_to_save|original_module)\.", "", name.removeprefix(_PREFIX)
            )
            tensors[plain.replace(".default", "")] = stored.get_tensor(name)
        return tensors

    def scale(self, module: str, rank: int) -> float:
        """Scale of the product of a module's two matrices."""
        alpha = self._by_pattern("alpha_pattern", module, self.settings.get("lora_alpha", 8))
        wanted = self._by_pattern("rank_pattern", module, self.settings.get("r", 8))
        if wanted != rank:
            raise CheckpointError(f"{self.folder}: {module} is of rank {rank}, but {ADAPTER} says {quoted(wanted, 60)}")
        if isinstance(alpha, bool) or not isinstance(alpha, int | float):
            raise CheckpointError(f"{self.folder / ADAPTER}: lora_alpha is {quoted(alpha, 60)}; expected a number")
        return alpha / math.sqrt(rank) if self.settings.get("use_rslora") else alpha / rank

    def _by_pattern(self, key: str, module: str, default: Any) -> Any:
        """The value of the first pattern that a module's name ends with, as PEFT matches them."""
        patterns = self.settings.get(key) or {}
        if not isinstance(patterns, dict):
            raise CheckpointError(f"{self.folder / ADAPTER}: {key} is a {type(patterns).__name__}; expected a group")
        try:
            found = (value for name, value in patterns.items() if re.match(rf"(.*\.)?({name})$", module))
            return next(found, default)
        except re.error as error:
            raise CheckpointError(f"{self.folder / ADAPTER}: {key} holds no pattern ({error})") from None


def _whole_model(folder: Path) -> Path:
    """The folder of a base. Raises: CheckpointError if it holds an adapter itself."""
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} is an adapter too: merge that one first, with PEFT's merge_and_unload")
    return folder


class MergedWeights(Weights):
    """The tensors of a checkpoint, each with what an adapter changes in it."""

    def __init__(
        self,
        base: Weights,
        adapter: Adapter,
        tables: tuple[str, str],
        settled: Callable[[str], str],
        unused: Set[str],
    ) -> None:
        """tables, settled, unused: see `Adapter.merged`."""
        self.__dict__.update(base.__dict__)
        self.home, self.adapter = dict(base.home), adapter
        self.table, self.head = tables
        self.whole: dict[str, Tensor] = {}
        self.kept: set[str] = set()
        """Modules whose adapters stay beside their weights; see `keep_adapters`."""
        self.parts: dict[str, dict[str, Tensor]] = {}
        self.said: dict[str, str] = {}
        """By module: its name in the adapter, which patterns of settings are for."""
        for name, tensor in adapter.tensors().items():
            delta, tokens = DELTA.match(name), TOKENS.match(name)
            found = delta or tokens
            target = settled(name if found is None else f"{found['module']}.weight")
            if target in unused:
                continue
            if found is None:
                self.whole[target] = tensor
                continue
            module = target.removesuffix(".weight")
            self.said[module] = found["module"]
            parts = self.parts.setdefault(module, {})
            if delta is None:
                parts["tokens"] = tensor
                continue
            kind = delta["kind"].replace("embedding_", "")
            parts[f"{kind}.bias" if delta["leaf"] == ".bias" else kind] = tensor
            parts |= {"embedding": tensor} if "embedding" in delta["kind"] else {}
        self._check_names()

    def _check_names(self) -> None:
        """Hold the names of the adapter to those of the base, and untie its head where it is changed alone."""
        adapter, base = self.adapter, self.folder
        modules = {f"{module}.weight" for module in self.parts}
        unknown = [name for name in (modules | self.whole.keys()) - self.names if name != self.head]
        if unknown:
            raise CheckpointError(
                f"{adapter.folder}: is for {some(unknown)}, which the model {base} has not; it is an adapter of"
                " another model"
            )
        without_bias = [f"{module}.bias" for module, parts in self.parts.items() if "lora_B.bias" in parts]
        if not self.names.issuperset(without_bias):
            raise CheckpointError(
                f"{adapter.folder}: trained a bias (lora_bias) for {some(set(without_bias) - self.names)}, where the"
                " model has none; train it without lora_bias"
            )
        changed = modules | self.whole.keys()
        if self.head not in self.names and self.table in self.home and self._unties(changed):
            self.home[self.head] = self.home[self.table]

    def _unties(self, changed: Set[str]) -> bool:
        """Return whether a head that was tied is another than the embedding from now on.

        PEFT trains one of the two alone unless it is asked for `ensure_weight_tying`; trained tokens are of both.
        """
        if self.head in changed:
            return True
        module = self.table.removesuffix(".weight")
        tokens_only = self.table not in self.whole and self.parts.get(module, {}).keys() == {"tokens"}
        return self.table in changed and not tokens_only and not self.adapter.settings.get("ensure_weight_tying")

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.whole[name].shape) if name in self.whole else super().shape(name)

    def tensor(self, name: str) -> Tensor:
        module, _, leaf = name.rpartition(".")
        stored = super().tensor(name)
        if name in self.whole:
            stored = self.whole[name].to(stored.dtype)
        parts = self.parts.get(module, {})
        if leaf == "bias" and "lora_B.bias" in parts:
            scale = self.adapter.scale(self.said[module], len(parts["lora_A"]))
            return (stored.float() + parts["lora_B.bias"].float() * scale).to(stored.dtype)
        return self._merge(stored, module, parts) if leaf == "weight" and parts else stored

    def _merge(self, stored: Tensor, module: str, parts: Mapping[str, Tensor]) -> Tensor:
        """W + s B A, its rows at their trained magnitudes for DoRA; and rows of trained tokens."""
        weight = stored.float().clone()
        if module not in self.kept and ("lora_A" in parts or "lora_B" in parts):
            weight = self._with_delta(weight, module, parts)
        if "tokens" in parts:
            weight[self._token_rows(module, len(parts["tokens"]), len(weight))] = parts["tokens"].float()
        return weight.to(stored.dtype)

    def pair(self, module: str, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The two matrices of a module, in float32. Raises: CheckpointError if they are no pair."""
        where = f"{self.adapter.folder / ADAPTER_WEIGHTS}: {quoted(module, 80)}"
        if "lora_A" not in parts or "lora_B" not in parts:
            raise CheckpointError(f"{where} has one of its two matrices only; save the adapter again")
        a, b = parts["lora_A"].float().flatten(1), parts["lora_B"].float().flatten(1)
        if b.shape[1] != len(a):
            raise CheckpointError(f"{where} has matrices that do not fit, {list(b.shape)} by {list(a.shape)}")
        return a, b

    def _with_delta(self, weight: Tensor, module: str, parts: Mapping[str, Tensor]) -> Tensor:
        where = f"{self.adapter.folder / ADAPTER_WEIGHTS}: {quoted(module, 80)}"
        a, b = self.pair(module, parts)
        delta = (b @ a) * self.adapter.scale(self.said[module], len(a))
        is_table = "embedding" in parts
        if is_table or (self.adapter.settings.get("fan_in_fan_out") and delta.shape != weight.shape):
            delta = delta.T
        if delta.numel() != weight.numel() or len(delta) != len(weight):
            raise CheckpointError(f"{where} changes a weight of {list(delta.shape)}, but it is {list(weight.shape)}")
        whole = weight + delta.reshape(weight.shape)
        if "lora_magnitude_vector" not in parts:
            return whole
        dimension = 0 if is_table else 1  # of an embedding PEFT measures the columns
        norm = torch.linalg.vector_norm(whole.flatten(1), dim=dimension)
        magnitude = parts["lora_magnitude_vector"].float().flatten()
        if magnitude.shape != norm.shape:
            raise CheckpointError(f"{where} has {len(magnitude)} magnitudes for {len(norm)} rows")
        share = magnitude / norm
        return whole * (share[None] if is_table else share.view(-1, *[1] * (whole.ndim - 1)))

    def _token_rows(self, module: str, count: int, rows: int) -> Tensor:
        """The rows that were trained, as adapter_config.json lists them."""
        given = self.adapter.settings.get("trainable_token_indices")
        if isinstance(given, dict):
            given = next((ids for name, ids in given.items() if self.said[module].endswith(name)), None)
        good = isinstance(given, list) and all(type(token) is int and 0 <= token < rows for token in given)
        if not good or len(given) != count:  # type: ignore[arg-type]
            raise CheckpointError(
                f"{self.adapter.folder / ADAPTER}: trainable_token_indices do not name the {count} rows that were"
                " trained"
            )
        return torch.tensor(given)


def keep_adapters(weights: MergedWeights, rules: Iterable[Rule], model: nn.Module) -> list[Rule]:
    """Leave the adapters of a model's linear layers out of their weights. Returns the rules of these weights.

    What is no linear layer, or is stored as another shape, keeps its adapter merged: tables, and a convolution.
    """
    found = []
    for rule in rules:
        module = rule.theirs.removesuffix(".weight")
        kind = weights.parts.get(module, {})
        layers = [model.get_submodule(name.rpartition(".")[0]) for name in rule.ours]
        plain = not (rule.tail or rule.leading or rule.channels) and all(isinstance(one, nn.Linear) for one in layers)
        if not plain or not rule.theirs.endswith(".weight") or not {"lora_A", "lora_B"} <= kind.keys():
            continue
        if tuple(weights.shape(rule.theirs)) == (len(kind["lora_B"]), kind["lora_A"].shape[1]):
            weights.kept.add(module)
            found.append(rule)
    return found


def put_adapters_beside(weights: MergedWeights, rules: Iterable[Rule], model: nn.Module) -> None:
    """Put the kept adapters beside the layers that they adapt, in place; the model has its weights already.

    rules: what `keep_adapters` returned. Layers whose rows are one tensor in a file share the first of the matrices.
    """
    for rule in rules:
        module = rule.theirs.removesuffix(".weight")
        a, b = weights.pair(module, weights.parts[module])
        scale = weights.adapter.scale(weights.said[module], len(a))
        magnitude = weights.parts[module].get("lora_magnitude_vector")
        names = [name.removesuffix(".weight") for name in rule.ours]
        bases: list[Any] = [model.get_submodule(name) for name in names]
        rows = [one.out_features for one in bases]
        lengths = [None] * len(rows) if magnitude is None else magnitude.flatten().split(rows)
        for name, base, up, length in zip(names, bases, b.split(rows), lengths, strict=True):
            like = base.weight
            length = None if length is None else length.to(like)
            adapted = AdaptedLinear(base, a.to(like), up.to(like), scale, length)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, adapted)


def open_adapter(folder: Path) -> Adapter | None:
    """The adapter that a folder holds; None for the folder of a model.

    Raises: CheckpointError for a kind that is not merged here, or an adapter beside weights.
    """
    file = folder / ADAPTER
    if not file.is_file():
        if (folder / ADAPTER_WEIGHTS).is_file():
            raise CheckpointError(
                f"{folder}: holds {ADAPTER_WEIGHTS} but no {ADAPTER}, so it is not known what it is for"
            )
        return None
    if (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: holds {ADAPTER} beside a model, and it is not known whether the adapter is in its weights; move"
            " the adapter's files to a folder of their own, and load that to have it merged"
        )
    settings = read_json(file)
    if settings.get("peft_type") != "LORA":
        raise CheckpointError(f"{file}: peft_type is {quoted(settings.get('peft_type'), 60)}; {OTHER_MERGE}")
    check_section(SETTINGS, settings, str(file))
    begun = settings.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(CHANGES_BASE):
        raise CheckpointError(
            f"{file}: init_lora_weights is {quoted(begun, 60)}, which changed the base; {OTHER_MERGE}"
        )
    return Adapter(folder, settings)
