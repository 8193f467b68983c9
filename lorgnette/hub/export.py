"""`save`, `export`, `push`: a model and its processor to a folder that transformers opens too, and to the hub."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.files import HUB_ID, new_folder, strangers, write_json, write_text
from lorgnette.hub.card import CardFacts, is_own_card, model_card
from lorgnette.hub.checkpoint import SHARD_BYTES, some, write_tensors
from lorgnette.hub.decoders.setting_rows import Json
from lorgnette.hub.formats.compressed_tensors import (
    QUANTIZATION_KEY,
    group_of,
    in_integers,
    rounded_rules,
    rounded_tensors,
    rounding_error,
)
from lorgnette.hub.formats.format import IDEFICS2, Format, format_named
from lorgnette.hub.load import OURS, check_processor, load
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import read_json
from lorgnette.model.adapted_layers import AdaptedLinear
from lorgnette.model.inference.quantised import check_quantization_name
from lorgnette.model.vlm import VLM
from lorgnette.untrusted import quoted

WRITTEN_FILES = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "lorgnette.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "README.md",
    "parity.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
)
"""Names of the files that writing a checkpoint makes; it replaces them and nothing else."""


def export(
    model: VLM,
    processor: Processor,
    folder: str | Path,
    *,
    format: str = "idefics2",
    verify: bool = False,
    quantize: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    facts: CardFacts | None = None,
) -> Path:
    """Write a folder that `AutoModelForImageTextToText` and `AutoProcessor` open, with a model card.

    It is written beside and renamed, so a kill leaves no half of it; an earlier export that was there is replaced.
    format: the model of transformers to write: `idefics2`, `idefics1`, `idefics3`, `smolvlm` or `llava`.
    verify: compare with transformers' own classes on the written files, and keep the differences as parity.json.
    quantize: `int8` stores the weights of the decoder's layers as 8-bit integers, in the form of compressed-tensors.
    shard_bytes: weights above this size are written in several files.
    facts: of training, for the card.
    Raises: CheckpointError if transformers cannot represent a setting, if the folder holds anything that no export
    wrote, or if verification finds a difference; DiskError if it cannot be written.
    """
    form = format_named(format)
    check_quantization_name(quantize)
    if quantize is not None and verify:
        raise SettingsError("export: --verify compares float weights with transformers; leave out it, or --quantize")
    form.write(model.config)  # refuse first
    form.check_inputs(model.config, processor)
    with checkpoint_folder(folder) as beside:
        error = _write(model, processor, beside, shard_bytes, form, quantize, facts)
        write_text(beside / "README.md", model_card(model, Path(folder).resolve().name, facts, form.name, error))
        if verify:
            from lorgnette.hub.parity import check_parity

            _check_written(model, beside)
            write_json(beside / "parity.json", check_parity(beside).checked().plain())
    return Path(folder)


def save(
    model: VLM,
    processor: Processor,
    folder: str | Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    card: str | None = None,
    form: Format = IDEFICS2,
) -> Path:
    """Write any model as a folder that `load` opens: as `export`, but settings unknown to transformers are kept too.

    form: names of the tensors, and of the settings where it can hold them.
    card: content of README.md, as `model_card` makes it; None for no such file.
    """
    with checkpoint_folder(folder) as beside:
        _write(model, processor, beside, shard_bytes, form)
        if card is not None:
            write_text(beside / "README.md", card)
    return Path(folder)


@contextlib.contextmanager
def checkpoint_folder(folder: str | Path, *, marked: bool = True) -> Iterator[Path]:
    """Give an empty folder to fill, which takes the place of `folder` in one step: the old files or the new ones.

    What an earlier export wrote is replaced as a whole, so that no shard of it stays behind. Nothing else ever is.
    marked: an earlier config.json holds the group `lorgnette`; those of single backbones do not.
    Raises: CheckpointError, before anything is written and again before the exchange, naming what we did not write.
    """
    folder = Path(folder)
    check_checkpoint_folder(folder, marked)
    with new_folder(folder.resolve(), WRITTEN_FILES) as beside:
        yield beside
        check_checkpoint_folder(folder, marked)


def check_checkpoint_folder(folder: Path, marked: bool = True) -> None:
    """Refuse a folder that writing a checkpoint may not replace. Raises: CheckpointError naming what is there."""
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; give a new folder")
    others = strangers(folder, WRITTEN_FILES)
    if others:
        raise CheckpointError(
            f"{folder}: holds {some(others)}, which no export wrote; give a new folder, or move it away"
        )
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    file, card = folder / "config.json", folder / "README.md"
    if not file.is_file():
        raise CheckpointError(f"{folder}: holds something that is not a checkpoint; give a new folder")
    if marked and OURS not in read_json(file):
        raise CheckpointError(f"{folder}: holds a checkpoint that lorgnette did not write; give a new folder")
    if card.is_file() and not is_own_card(card.read_bytes()):
        raise CheckpointError(f"{card}: is not as an export wrote it; give a new folder, or move it away")


def _write(
    model: VLM,
    processor: Processor,
    folder: Path,
    shard_bytes: int,
    form: Format,
    quantize: str | None = None,
    facts: CardFacts | None = None,
) -> float | None:
    """Write all files but the card. Returns the relative rounding error of the weights, where they are rounded."""
    if model.language.quantization is not None:
        raise CheckpointError(
            f"{folder}: the model's weights are rounded to {model.language.quantization}; load it without quantize, and"
            " write that"
        )
    if any(isinstance(module, AdaptedLinear) for module in model.modules()):
        raise CheckpointError(
            f"{folder}: the model's adapters are kept beside its weights; load it with merge=True, and write that"
        )
    _check_pair(model, processor)
    form.save_processor(model.config, processor, folder)
    config, rules = config_json(model, processor, form), [*form.rules(model.config), *form.zeros(model.config)]
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    error = None
    if quantize is not None:
        rounded = rounded_rules(form.rules(model.config), model)
        written = rounded_tensors(tensors, rounded)
        error = rounding_error(tensors, written, rounded)
        config[QUANTIZATION_KEY] = group_of(rounded, form)
        if facts is not None and facts.rounded_from:
            config[OURS] = config.get(OURS, {}) | {"rounded_from": facts.rounded_from}
        tensors, rules = written, in_integers(rules, rounded)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", generation_json(processor))
    write_tensors(folder, rules, tensors, shard_bytes)
    return error


def config_json(model: VLM, processor: Processor, form: Format) -> Json:
    """`config.json` for transformers where it can represent the model in this form, with what it has no key for."""
    config, tokenizer = model.config, processor.tokenizer
    try:
        values = form.write(config)
        if not processor.special.around_image:
            form.check_inputs(config, processor)
    except CheckpointError:
        return {"model_type": OURS, OURS: config.plain()}
    ids = {"bos_token_id": tokenizer.bos, "eos_token_id": tokenizer.eos, "pad_token_id": tokenizer.pad}
    if "text_config" in values:
        values["text_config"] |= ids
    if not form.grows and (ids["pad_token_id"] or 0) >= config.language.vocabulary:
        ids["pad_token_id"] = None  # its class looks for it among the pre-trained rows
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    ours = {"pretrained_rows": config.language.vocabulary, "isolate_documents": config.isolate_documents}
    if getattr(config.vision, "skipped_layers", 0):
        ours["skipped_layers"] = config.vision.skipped_layers
    return values | ids | {"dtype": dtype, OURS: values.get(OURS, {}) | ours}


def generation_json(processor: Processor) -> Json:
    """`generation_config.json`: an answer ends with the utterance or the sequence, and holds no image slots.

    What the checkpoint that was opened said of generation is kept: its rules, and its end tokens besides.
    """
    tokenizer, special, rules = processor.tokenizer, processor.special, processor.generation
    ends = [tokenizer.id(special.end_of_utterance), *([tokenizer.eos] if tokenizer.eos is not None else [])]
    slots = [[tokenizer.id(token)] for token in special.slots]
    kept = {key: value for key, value in rules.stored.items() if value is not None and key not in ORIGIN_KEYS}
    return kept | {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": list(dict.fromkeys([*ends, *rules.end_tokens])),
        "pad_token_id": tokenizer.pad if tokenizer.pad is not None else ends[-1],
        "bad_words_ids": slots + [list(word) for word in rules.bad_words if list(word) not in slots],
    }


ORIGIN_KEYS = ("transformers_version", "_from_model_config", "_commit_hash")
"""Keys of generation_config.json that are not true of the file that is written."""


def _check_written(model: VLM, folder: Path) -> None:
    """Check that the export reads back as the same settings and the same bits. Raises: CheckpointError."""
    again, _ = load(folder)
    if again.config != model.config:
        changed = ", ".join(model.config.diff(again.config))
        raise CheckpointError(f"the model does not come back: its settings {changed} read otherwise")
    read = dict(again.named_parameters())
    changed = some(name for name, tensor in model.named_parameters() if not torch.equal(tensor.cpu(), read[name]))
    if changed:
        raise CheckpointError(f"the model does not come back: {changed} read otherwise")


def _check_pair(model: VLM, processor: Processor) -> None:
    """A model and a processor that do not fit would make a folder that nothing opens."""
    config = model.config
    if processor.tokenizer.vocabulary > config.vocabulary:
        raise CheckpointError(
            f"the tokenizer has {processor.tokenizer.vocabulary} tokens, but the model {config.vocabulary} rows:"
            " they are not a pair"
        )
    check_processor(config, processor, "the model and its processor")


def check_push(name: str) -> None:
    """Check, before weights are read, that a push could begin. Nothing is sent.

    Raises: SettingsError for a name that is no repository's, without a token, or where the hub is switched off.
    """
    import huggingface_hub
    from huggingface_hub import constants

    named = HUB_ID.fullmatch(name)
    if named is None or named["revision"] is not None:
        raise SettingsError(f"--push {quoted(name)}: give the repository as owner/name")
    if constants.HF_HUB_OFFLINE:
        raise SettingsError(f"--push {name}: HF_HUB_OFFLINE is set, so nothing is sent to the hub; unset it")
    if not huggingface_hub.get_token():
        raise SettingsError(f"--push {name}: there is no token of the hub here; run `hf auth login`, or set HF_TOKEN")


def push(folder: str | Path, name: str, *, private: bool = False) -> str:
    """Upload the files of an export to `owner/name` on the hub, which is made if it is not there. Returns its address.

    Nothing else in the folder is sent, and nothing in the repository is deleted: the hub keeps what was there before in
    its history. private: of a repository that is made now; one that is there stays as it is.
    Raises: SettingsError as `check_push`; CheckpointError with the hub's reason if it refuses.
    """
    import huggingface_hub

    check_push(name)
    if not os.path.isfile(Path(folder) / "config.json"):
        raise CheckpointError(f"{folder}: holds no config.json, so it is not the folder of a checkpoint")
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(name, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=name,
            folder_path=str(folder),
            allow_patterns=list(WRITTEN_FILES),
            commit_message="Upload a model exported by lorgnette",
        )
    except Exception as error:  # a network fails in more ways than one can list
        said = quoted(next(iter(str(error).splitlines()), type(error).__name__))
        raise CheckpointError(
            f"{name}: the hub did not take {folder} ({said}); the folder is whole, push it again"
        ) from error
    return str(commit.repo_url)
