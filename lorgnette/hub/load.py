"""`load`: a checkpoint folder, or one on the hub, to a model and its processor."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lorgnette.errors import CheckpointError
from lorgnette.hub.checkpoint import Weights, import_tensors
from lorgnette.hub.rules import idefics2_rules
from lorgnette.hub.translate import Json, read_idefics2
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import Tokenizer, read_json
from lorgnette.model.config import VLMConfig
from lorgnette.model.vlm import VLM

log = logging.getLogger("lorgnette")

OURS = "lorgnette"
"""The key of config.json with what transformers has no key for; also our own `model_type`."""
MOST_EXTRA_ROWS = 1024
"""A special token this far or further from the end of the vocabulary is one of the pre-trained table's own."""
SHIPPED = Path(__file__).with_name("shipped")
"""The backbones that the package carries (`scripts/build_backbones.py` makes them)."""
BUILT_IN = "builtin:"
"""How the name of one of them starts."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def load(
    source: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[VLM, Processor]:
    """Open an Idefics2 checkpoint of transformers, or one of lorgnette, as a model ready to answer and its processor.

    source: a folder, or `owner/name` of a repository on the hub (fetched once, then from its cache).
    dtype: of the weights; None keeps each as it is stored.
    Raises: CheckpointError naming the file and the tensors or settings that are missing, unknown or contradictory.
    """
    folder = find_folder(source)
    processor, weights = Processor.load(folder), Weights(folder)
    config, stored_rows = read_config(folder, processor)
    if config.language.tied_embeddings and not untie_if_different(weights, "model.text_model.embed_tokens.weight"):
        config = config.override("language.tied_embeddings=false")
    if config.vocabulary > stored_rows:
        log.warning(
            "%s: the tokenizer has %d tokens but the embedding only %d rows; the others were added as their mean, and"
            " want training",
            folder,
            processor.tokenizer.vocabulary,
            stored_rows,
        )
    model = empty_model(config, weights)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    assign(model, import_tensors(weights, idefics2_rules(config), shapes, stored_rows), device, dtype)
    return model.eval(), processor


def find_folder(source: str | Path) -> Path:
    """The folder of a checkpoint, fetched from the hub if `source` is no folder but reads `owner/name`.

    `builtin:vision` and `builtin:language` are the two backbones that the package carries.
    A training run keeps its model in `model/`: the run's own folder will do.
    """
    folder = Path(source).expanduser()
    if str(source).startswith(BUILT_IN):
        folder = SHIPPED / str(source).removeprefix(BUILT_IN)
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{source}: there is no such backbone; there are builtin:vision and builtin:language")
    if (folder / "run.yaml").is_file():
        folder = folder / "model"
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder.parent}: the run has no model yet; the command that began it goes on with it, and"
                " `lorgnette export` writes what it has learned so far"
            )
    if folder.is_dir():
        if (folder / "progress.json").is_file():
            raise CheckpointError(
                f"{folder}: is what a run goes on from; give the run's own folder, or, while it is not finished, what"
                " `lorgnette export` made of it"
            )
        if not (folder / "config.json").is_file():
            raise CheckpointError(f"{folder}: holds no config.json, so it is not the folder of a checkpoint")
        return folder
    if folder.exists():
        raise CheckpointError(f"{folder}: is a file; give the folder of a checkpoint")
    if not HUB_ID.fullmatch(str(source)):
        raise CheckpointError(f"{source}: no such folder; give that of a checkpoint, or owner/name of one on the hub")
    import huggingface_hub

    wanted = ["*.json", "*.safetensors", "*.jinja"]
    try:
        return Path(huggingface_hub.snapshot_download(str(source), allow_patterns=wanted))
    except Exception as error:  # a network fails in more ways than one can list
        raise CheckpointError(f"{source}: no such folder here, and the hub did not give it ({_line(error)})") from error


def read_config(folder: Path, processor: Processor) -> tuple[VLMConfig, int]:
    """The model's settings from config.json, and how many rows its stored vocabulary tables have.

    The rows of the special tokens, and all after them, are set apart from the pre-trained table. Rows that the
    tokenizer needs and the checkpoint lacks are counted in.
    Raises: CheckpointError or SettingsError naming config.json and the setting.
    """
    file = folder / "config.json"
    values = read_json(file)
    kind = values.get("model_type")
    if kind == OURS:
        config = VLMConfig.parse(_group(values, file), str(file))
        stored_rows = config.vocabulary
    elif kind == "idefics2":
        config, stored_rows = _read_upstream(values, processor, file)
    else:
        raise CheckpointError(f"{file}: model_type is {kind!r:.60}; lorgnette opens idefics2 and its own")
    rows = max(stored_rows, processor.tokenizer.vocabulary)
    config = VLMConfig.parse(config.plain() | {"extra_vocabulary": rows - config.language.vocabulary}, str(file))
    check_processor(config, processor, str(folder))
    return config, stored_rows


def _read_upstream(values: Json, processor: Processor, file: Path) -> tuple[VLMConfig, int]:
    """As `read_config`, of transformers' form: what it has no key for stands with the processor, or under our key."""
    if values.get("quantization_config"):
        raise CheckpointError(f"{file}: the weights are quantised; load the checkpoint they were made from")
    config, ours = read_idefics2(values, str(file)), _group(values, file)
    stored_rows = config.language.vocabulary
    plain = config.plain() | {"isolate_documents": ours.get("isolate_documents", True)}
    plain["language"]["vocabulary"] = ours.get("pretrained_rows") or first_extra_row(stored_rows, processor.tokenizer)
    plain["vision"] |= {"mean": processor.mean, "std": processor.std}
    return VLMConfig.parse(plain, str(file)), stored_rows


def first_extra_row(vocabulary: int, tokenizer: Tokenizer) -> int:
    """Where the special tokens' rows begin in a vocabulary of so many rows; its end if they lie within the table."""
    special = tokenizer.special
    first = min(tokenizer.id(token) for token in (special.around_image, special.image, special.end_of_utterance))
    return first if 0 < vocabulary - first <= MOST_EXTRA_ROWS else vocabulary


def empty_model(config: VLMConfig, *stored: Weights) -> VLM:
    """The model without memory (on the meta device). Settings that the stored weights cannot have are refused first."""
    layers = config.vision.layers + config.connector.layer_count + config.language.layers
    tensors = sum(len(weights.names) for weights in stored)
    if layers > tensors:
        raise CheckpointError(f"{stored[0].folder}: config.json says {layers} layers, but there are {tensors} tensors")
    try:
        with torch.device("meta"):
            return VLM(config)
    except (RuntimeError, OverflowError, TypeError) as error:  # more elements than a tensor can count
        raise CheckpointError(
            f"{stored[0].folder}: config.json says sizes that no tensor can have ({_line(error)})"
        ) from None


def untie_if_different(weights: Weights, table: str, head: str = "lm_head.weight") -> bool:
    """Whether the output table is the embedding. One that is stored beside it, and equal, counts as not there."""
    if head not in weights.names or table not in weights.names:
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
        setattr(model.get_submodule(module), leaf, nn.Parameter(tensor.to(device, dtype)))


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
    """What the model's settings and the processor's both say must agree. Raises: CheckpointError naming `where`."""
    side = 12 * config.connector.multiple
    tokens = [one.visual_tokens(side, side) for one in (config.connector, processor.connector)]
    for what, ours, theirs in (
        ("visual tokens of an image", *tokens),
        ("the id of the image token", config.image_token, processor.image_token),
        ("pixels along a patch", config.vision.patch, processor.images.patch),
        ("positions along a side", config.vision.grid, processor.images.grid),
    ):
        if ours != theirs:
            raise CheckpointError(f"{where}: model and processor disagree on {what}: {ours} against {theirs}")
