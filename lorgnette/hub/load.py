"""`load`: a checkpoint folder, or one on the hub, to a model and its processor."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lorgnette import plugins
from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.hub.adapter import MergedWeights, keep_adapters, open_adapter, put_adapters_beside
from lorgnette.hub.checkpoint import Weights, check_tensors, import_tensors
from lorgnette.hub.decoders.setting_rows import Json
from lorgnette.hub.formats.compressed_tensors import (
    QUANTIZATION_KEY,
    in_8_bits,
    in_integers,
    rounded_rules,
)
from lorgnette.hub.formats.format import IDEFICS2, MODEL_FORMATS, Format
from lorgnette.hub.keys import check_keys, check_tokenizer
from lorgnette.hub.source import find_folder
from lorgnette.hub.weight_map import Rule
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import Tokenizer, read_json
from lorgnette.model.adapted_layers import round_layers
from lorgnette.model.config import VLMConfig
from lorgnette.model.inference.compiled import compile_decoder, float32_compiled
from lorgnette.model.inference.quantised import check_quantization, quantise
from lorgnette.model.ops.device import DTYPES, device_named, dtype_named
from lorgnette.model.vlm import VLM

log = logging.getLogger("lorgnette")

OURS = "lorgnette"
"""The key of config.json with what transformers has no key for; also our own `model_type`."""
MOST_EXTRA_ROWS = 1024
"""A special token this far or further from the end of the vocabulary is one of the pre-trained table's own."""


def load(
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    adapter: str | Path | None = None,
    merge: bool = True,
    quantize: str | None = None,
    compile: bool = False,
) -> tuple[VLM, Processor]:
    """Open an Idefics2, Idefics3, SmolVLM or LLaVA of transformers, or a checkpoint of lorgnette.

    Returns a model that is ready to answer, and its processor.

    source: a folder, or `owner/name` of a repository on the hub (fetched once, then from its cache); a folder of PEFT's
    adapters is merged into the model that it names.
    dtype: of the weights, as torch's or by name (`bfloat16`); None keeps what is stored, and makes one type of several.
    revision: branch, tag or commit on the hub; `owner/name@revision` says the same.
    adapter: a folder of PEFT's adapters, or one on the hub, to merge into `source`, whichever model it names.
    merge: False keeps the adapters of linear layers beside their weights, which stay as stored; those of tables are
    merged. With `quantize` the weights alone are rounded, and the adapters stay in float32.
    quantize: `int8` rounds the weights of the decoder's layers to 8-bit integers, for answering on a CPU; a checkpoint
    that stores them so is opened so.
    compile: faster decode steps on a CPU, in float32 whatever is stored, or in int8, by this computer's C compiler (cc,
    gcc or clang, or what CC names); the library is kept in the user's cache.
    Raises: CheckpointError naming the file and the tensors or settings that are missing, unknown or contradictory;
    SettingsError for `quantize` or `compile` with another device or dtype, on a processor that cannot, or without a
    compiler.
    """
    place, wanted = device_named(device), dtype_named(dtype)
    if quantize is not None:
        wanted = float32_for(quantize, place, wanted)
    if compile:
        wanted = float32_compiled(place, wanted)
    opened = open_checkpoint(source, revision, adapter, merge)
    if opened.quantization is not None:
        quantize = opened.quantization
        wanted = float32_for(quantize, place, wanted)
    if opened.config.vocabulary > opened.stored_rows:
        log.warning(
            "%s: the tokenizer has %d tokens but the embedding only %d rows; the others were added as their mean, and"
            " want training",
            opened.weights.folder,
            opened.processor.tokenizer.vocabulary,
            opened.stored_rows,
        )
    model, weights = opened.model, opened.weights
    kept = [] if merge else kept_adapters(weights, opened.form.rules(model.config), model)
    tensors = import_tensors(weights, opened.rules, opened.shapes, opened.stored_rows)
    assign(model, tensors, place, wanted or one_dtype(weights))
    if isinstance(weights, MergedWeights):
        put_adapters_beside(weights, kept, model)
    if quantize is not None:
        quantise(model.language, quantize)
    if compile:
        compile_decoder(model.language)
    return model.eval(), opened.processor


def kept_adapters(weights: Weights, rules: Sequence[Rule], model: VLM) -> list[Rule]:
    """The rules of the weights whose adapters are kept beside them. Raises: SettingsError where there is none."""
    if not isinstance(weights, MergedWeights):
        raise SettingsError(
            f"{weights.folder}: there is no adapter to keep beside the weights; give one (--adapter, adapter=), or"
            " leave out --keep-adapter (merge=False)"
        )
    kept = keep_adapters(weights, rules, model)
    if not kept:
        raise SettingsError(
            f"{weights.adapter.folder}: adapts no linear layer, so nothing can be kept beside the weights; leave it"
            " merged"
        )
    return kept


def float32_for(quantize: str, device: torch.device, dtype: torch.dtype | None) -> torch.dtype:
    """The type in which a quantised model computes beside its integers.

    Raises: SettingsError for an unknown name, a processor that cannot, or another device or type than it takes.
    """
    check_quantization(quantize)
    if device.type != "cpu" or dtype not in (None, torch.float32):
        given = f"device {device}" if device.type != "cpu" else f"dtype {dtype}"
        raise SettingsError(
            f"quantize {quantize}: computes on the CPU, in float32 beside its integers; not {given}: leave one of the"
            " two out"
        )
    return torch.float32


@dataclass(frozen=True)
class Checkpoint:
    """A folder of which settings and headers are read, and agree; no weight is."""

    processor: Processor
    weights: Weights
    model: VLM
    """Without memory, on the meta device."""
    stored_rows: int
    """Rows of the stored vocabulary tables."""
    tokenizer_folder: Path
    form: Format
    """The form whose names the tensors have."""
    quantization: str | None = None
    """Name of what the decoder's weights are stored as, such as `int8`; None for float ones."""

    @property
    def config(self) -> VLMConfig:
        return self.model.config

    @property
    def rules(self) -> list[Rule]:
        """The rules of its tensors, integers and their steps included."""
        rules = self.form.rules(self.config)
        return rules if self.quantization is None else in_integers(rules, rounded_rules(rules, self.model))

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each parameter of the model."""
        return {name: parameter.shape for name, parameter in self.model.named_parameters()}


def open_checkpoint(
    source: str | Path,
    revision: str | None = None,
    adapter_source: str | Path | None = None,
    merge: bool = True,
) -> Checkpoint:
    """Read a checkpoint's settings and the headers of its weights. Arguments and errors: see `load`."""
    folder = words = find_folder(source, revision)
    adapter = open_adapter(folder)
    if adapter_source is not None:
        if adapter is not None:
            raise CheckpointError(f"{folder}: is an adapter itself, and {adapter_source} cannot be merged into it")
        adapter = open_adapter(words := find_folder(adapter_source))
        if adapter is None:
            raise CheckpointError(f"{words}: holds no adapter_config.json, so it is no adapter")
    elif adapter is not None:
        folder = adapter.base_folder()
    if adapter is None:
        processor = Processor.load(folder)
    else:
        processor = Processor.load(adapter.folder, folder)
        words = words if (words / "tokenizer.json").is_file() else folder
    check_tokenizer(words)
    config, stored_rows = read_config(folder, processor)
    form = MODEL_FORMATS.get(str(read_json(folder / "config.json").get("model_type")), IDEFICS2)
    weights, quantization = Weights(folder), stored_quantization(folder)
    check_layers(weights, config.layer_count)
    stored = weights.names
    form.settle(weights, config)
    unused = {form.settled(name) for name in stored} - weights.names
    untied = VLMConfig.parse(config.plain() | {"language": config.language.plain() | {"tied_embeddings": False}})
    weights.strip_prefix(rule.theirs for rule in form.rules(untied))
    if adapter is not None and quantization is not None and merge:
        raise CheckpointError(
            f"{adapter.folder}: cannot be merged into {folder}, whose weights are 8-bit integers; keep it beside them"
            " (--keep-adapter, merge=False), or give the model that they were rounded from"
        )
    if adapter is not None:
        weights = adapter.merged(weights, (form.table, form.head), form.settled, unused)
    if config.language.tied_embeddings and not untie_if_different(weights, form.table, form.head):
        config = config.override("language.tied_embeddings=false")
    opened = Checkpoint(processor, weights, empty_model(config, weights), stored_rows, words, form, quantization)
    if quantization is not None:
        opened.weights.integers = frozenset(rule.theirs for rule in rounded_rules(form.rules(config), opened.model))
        round_layers(opened.model.language)
    check_tensors(weights, {rule.theirs: rule for rule in opened.rules}, opened.shapes, stored_rows)
    return opened


def stored_quantization(folder: Path) -> str | None:
    """Name of what the weights of a checkpoint are rounded to, as config.json says; None for float ones."""
    return "int8" if in_8_bits(read_json(folder / "config.json"), str(folder / "config.json")) else None


def read_config(folder: Path, processor: Processor) -> tuple[VLMConfig, int]:
    """The model's settings from config.json, and how many rows its stored vocabulary tables have.

    The rows of the special tokens, and all after them, are set apart from the pre-trained table. Rows that the
    tokenizer needs and the checkpoint lacks are counted in.
    Raises: CheckpointError or SettingsError naming config.json and the setting.
    """
    file = folder / "config.json"
    values = read_json(file)
    kind = values.get("model_type")
    besides = (QUANTIZATION_KEY,) if in_8_bits(values, str(file)) else ()
    check_keys(folder, form=MODEL_FORMATS.get(str(kind), IDEFICS2).sections, besides=besides)
    if kind == OURS:
        with plugins.reading(str(file)):
            config = VLMConfig.parse(_group(values, file), str(file))
        stored_rows = config.vocabulary
    elif isinstance(kind, str) and kind in MODEL_FORMATS:
        config, stored_rows = _read_upstream(MODEL_FORMATS[kind], values, processor, file)
    else:
        raise CheckpointError(
            f"{file}: model_type is {kind!r:.60}; lorgnette opens {', '.join(MODEL_FORMATS)} and its own"
        )
    rows = max(stored_rows, processor.tokenizer.vocabulary)
    if rows > stored_rows and not MODEL_FORMATS.get(str(kind), IDEFICS2).grows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {rows:,} tokens, but vocab_size and additional_vocab_size give"
            f" {stored_rows:,} rows; they are not a pair"
        )
    if rows > 2 * stored_rows + MOST_EXTRA_ROWS:
        raise CheckpointError(
            f"{folder}: the tokenizer has ids up to {rows - 1:,}, but the embedding only {stored_rows:,} rows; they are"
            " not a pair"
        )
    config = VLMConfig.parse(config.plain() | {"extra_vocabulary": rows - config.language.vocabulary}, str(file))
    check_processor(config, processor, str(folder))
    return config, stored_rows


def _read_upstream(form: Format, values: Json, processor: Processor, file: Path) -> tuple[VLMConfig, int]:
    """As `read_config`, of transformers' form: what it has no key for stands with the processor, or under our key."""
    config, ours = form.read(values, str(file)), _group(values, file)
    stored_rows = config.vocabulary
    plain = config.plain() | {"isolate_documents": ours.get("isolate_documents", True)}
    if form.grows:
        plain["language"]["vocabulary"] = ours.get("pretrained_rows") or first_extra_row(
            stored_rows, processor.tokenizer
        )
    else:
        plain["image_token"] = processor.image_token  # which no key of such a form names
    plain["vision"] |= {"mean": processor.mean, "std": processor.std}
    return VLMConfig.parse(plain, str(file)), stored_rows


def first_extra_row(vocabulary: int, tokenizer: Tokenizer) -> int:
    """First row of the special tokens in a vocabulary of so many rows; its end if they lie within the table."""
    ids = {tokenizer.id(token) for token in tokenizer.special.protocol}
    first = min(ids - {tokenizer.eos}, default=vocabulary)  # an end of sequence was there before
    return first if 0 < vocabulary - first <= MOST_EXTRA_ROWS else vocabulary


def empty_model(config: VLMConfig, *stored: Weights) -> VLM:
    """The model without memory (on the meta device). Settings that the stored weights cannot have are refused first."""
    try:
        with torch.device("meta"):
            return VLM(config)
    except (RuntimeError, OverflowError, TypeError) as error:  # more elements than a tensor can count
        raise CheckpointError(
            f"{stored[0].folder}: config.json says sizes that no tensor can have ({_line(error)})"
        ) from None


def check_layers(weights: Weights, layers: int) -> None:
    """Raises: CheckpointError if there are more layers than tensors: nothing is made for each layer before this."""
    if layers > len(weights.names):
        raise CheckpointError(
            f"{weights.folder}: config.json says {layers} layers, but there are {len(weights.names)} tensors"
        )


def untie_if_different(weights: Weights, table: str, head: str = "lm_head.weight") -> bool:
    """Return whether the output table is the embedding. One that is stored beside it, and equal, counts as not there.

    Of tensors that share memory safetensors keeps one, which may be the output table: it is the embedding then.
    """
    if head in weights.names and table not in weights.names:
        weights.rename(head, table)
    if head not in weights.names:
        return True
    if weights.shape(head) != weights.shape(table) or not torch.equal(weights.tensor(head), weights.tensor(table)):
        return False
    weights.forget(head)
    return True


def assign(
    model: VLM, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> None:
    """Replace parameters by name. Nothing is copied unless it changes device or type."""
    for name, tensor in tensors.items():
        module, _, leaf = name.rpartition(".")
        if tensor.is_floating_point():
            made = nn.Parameter(tensor.to(device, dtype))
        else:
            made = nn.Parameter(tensor.to(device), requires_grad=False)
        setattr(model.get_submodule(module), leaf, made)


def one_dtype(weights: Weights) -> torch.dtype | None:
    """The type for all weights where several are stored: what config.json says, else the widest. None for one type."""
    stored = weights.dtypes
    if len(stored) < 2:
        return None
    values = read_json(weights.folder / "config.json")
    said = values.get("dtype") or values.get("torch_dtype")
    named = DTYPES.get(said.removeprefix("torch.")) if isinstance(said, str) else None
    widest = torch.bfloat16 if stored == {torch.bfloat16} else torch.float32  # no half type holds the other's numbers
    chosen = named or widest
    log.info("%s: weights are stored in several types; all are read as %s", weights.folder, chosen)
    return chosen


def _line(error: Exception) -> str:
    """The first line of another library's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def _group(values: Json, file: Path) -> Json:
    """Our own group of settings in config.json."""
    group = values.get(OURS, {})
    if not isinstance(group, dict):
        raise CheckpointError(f"{file}: {OURS} is a {type(group).__name__}; expected a group of settings")
    return group


def check_processor(config: VLMConfig, processor: Processor, where: str) -> None:
    """Check that the settings of model and processor agree. Raises: CheckpointError naming `where`."""
    shapes = [one.only_grid for one in (config.slots, processor.connector)]
    grid = shapes[0] or (12 * config.connector.multiple,) * 2
    slots = [one.visual_tokens(*(one.only_grid or grid)) for one in (config.slots, processor.connector)]
    for what, ours, theirs in (
        ("rows and columns of patches that images must have", *shapes),
        ("slots of an image in the text", *slots),
        ("the id of the image token", config.image_token, processor.image_token),
        ("pixels along a patch", config.vision.patch, processor.images.patch),
        ("positions along a side", config.vision.grid, processor.images.grid),
        ("interpolated positions", config.vision.interpolates, processor.images.positions == "interpolated"),
    ):
        if ours != theirs:
            raise CheckpointError(f"{where}: model and processor disagree on {what}: {ours} against {theirs}")
