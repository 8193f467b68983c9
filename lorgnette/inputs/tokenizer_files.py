"""Settings and added tokens of a tokenizer's folder, merged from its files as transformers merges them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from lorgnette.errors import CheckpointError, is_fault
from lorgnette.untrusted import quoted
from lorgnette.untrusted import read_json as read_untrusted

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

CLASS_TOKENS: dict[str, dict[str, str]] = {
    "LlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "GPT2Tokenizer": dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"),
    "Qwen2Tokenizer": dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>"),
}
"""Special tokens that a class of transformers names where the files say nothing (a null says that there is none)."""

CLASS_OF_MODEL = {
    "idefics2": "LlamaTokenizer",
    "idefics": "LlamaTokenizer",
    "qwen2": "Qwen2Tokenizer",
    "qwen3": "Qwen2Tokenizer",
}
"""By model_type: the class that transformers takes where no file names one."""

BY_FILE = ("llava", "smolvlm")
"""By model_type: models for which transformers keeps to tokenizer.json, whatever class their files name."""

NOT_EXPORTED = ("added_tokens_decoder", "auto_map", "name_or_path", "special_tokens_map_file", "split_special_tokens")
"""Settings that a saved tokenizer does without: tokenizer.json holds every added token, no code of a repository is
needed, and special tokens are never text."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises: CheckpointError naming the file."""
    values = read_untrusted(path, CheckpointError)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}; expected a JSON object")
    return values


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, with special_tokens_map.json and added_tokens.json merged into it.

    The two older files count only where tokenizer_config.json has no `added_tokens_decoder`; special_tokens_map.json
    then comes first. Tokens of added_tokens.json become `added_tokens_decoder`.
    Raises: CheckpointError naming the file that cannot be understood.
    """
    settings = _read_if_there(folder / "tokenizer_config.json")
    model = _read_if_there(folder / "config.json")
    if model.get("model_type") in BY_FILE:
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if settings.get("tokenizer_class") is None:
        settings |= _class_of_model(model)
    if not settings.get("extra_special_tokens") and "additional_special_tokens" in settings:
        settings["extra_special_tokens"] = settings.pop("additional_special_tokens")
    if "added_tokens_decoder" in settings:
        return settings
    for key, value in _read_if_there(folder / "special_tokens_map.json").items():
        before = settings.get("extra_special_tokens")
        if key == "extra_special_tokens" and isinstance(value, list) and isinstance(before, list):
            value = [*before, *(token for token in value if token not in before)]
        if key == "additional_special_tokens":
            settings.setdefault("extra_special_tokens", value)
        else:
            settings[key] = value
    rows = _read_if_there(folder / "added_tokens.json")
    if rows:
        special = {*named_tokens(settings).values(), *extra_tokens(settings)}
        settings["added_tokens_decoder"] = {
            str(row): {"content": token, "special": token in special, "normalized": token not in special}
            for token, row in rows.items()
        }
    return settings


def _class_of_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """The class of a tokenizer whose own file names none, by the config.json beside it."""
    named = model.get("tokenizer_class") or CLASS_OF_MODEL.get(str(model.get("model_type")))
    return {} if named is None else {"tokenizer_class": named}


def _read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}


MOST_ROWS = 2**24
"""Rows of the largest table of embeddings; the largest known has 262,208."""


def read_backend(file: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a `tokenizer.json`. Raises: CheckpointError if it is none."""
    try:
        return tokenizers.Tokenizer.from_buffer(file.read_bytes())  # takes a folder of any name
    except BaseException as error:  # the Rust side raises bare Exceptions, and panics that are none
        raise failure_of_tokenizers(error, f"{file}: cannot be read as a tokenizer") from None


def check_ids(backend: tokenizers.Tokenizer, file: Path) -> None:
    """Refuse a vocabulary in which two tokens share an id (the one that it stands for would be left to chance), or an
    id exceeds every table of embeddings.

    Raises: CheckpointError that names the tokens.
    """
    taken: dict[int, str] = {}
    for token, number in sorted(backend.get_vocab(with_added_tokens=False).items()):
        if number >= MOST_ROWS:
            raise CheckpointError(f"{file}: the token {quoted(token, 40)} has the id {number}; the file is damaged")
        if number in taken:
            both = f"{quoted(taken[number], 40)} and {quoted(token, 40)}"
            raise CheckpointError(f"{file}: the tokens {both} have the same id, {number}; the file is damaged")
        taken[number] = token


def failure_of_tokenizers(error: BaseException, what: str) -> BaseException:
    """The error to raise for one of the tokenizers library, whose panics no `except Exception` sees.

    what: the start of the message. An interruption stays what it is.
    """
    if is_fault(error):
        return CheckpointError(f"{what} ({quoted(' '.join(str(error).split()))})")
    return error


def named_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """The tokens that the settings call `bos_token`, `image_token` and so on, as chat templates may use them."""
    extra = settings.get("extra_special_tokens")
    found = {key: _content(settings[key]) for key in NAMED_TOKENS if settings.get(key) is not None}
    others = {key: token for key, token in settings.items() if key.endswith("_token") and key not in found}
    if isinstance(extra, Mapping):
        others |= extra
    return found | {key: _content(token) for key, token in others.items() if isinstance(token, str | Mapping)}


def extra_tokens(settings: Mapping[str, Any]) -> list[str]:
    """Special tokens that are listed without a name of their own."""
    listed = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    return [] if isinstance(listed, Mapping) else [_content(token) for token in listed]


def with_class_tokens(settings: Mapping[str, Any], backend: tokenizers.Tokenizer) -> dict[str, Any]:
    """The settings with the special tokens of their `tokenizer_class` where the vocabulary holds them."""
    default = CLASS_TOKENS.get(tokenizer_class(settings), {})
    return {key: token for key, token in default.items() if backend.token_to_id(token) is not None} | dict(settings)


def exported_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as they are saved beside a tokenizer.json that holds every token with its flags: tokens as text."""
    found = {key: value for key, value in settings.items() if key not in NOT_EXPORTED} | named_tokens(settings)
    extra = found.get("extra_special_tokens")
    if isinstance(extra, Mapping):
        found["extra_special_tokens"] = {key: _content(token) for key, token in extra.items()}
    elif extra:
        found["extra_special_tokens"] = extra_tokens(settings)
    return found


def tokenizer_class(settings: Mapping[str, Any]) -> str:
    """The class in transformers, by its name without `Fast`."""
    return str(settings.get("tokenizer_class")).removesuffix("Fast")


def _content(token: Any) -> str:
    """The text of a token, which files give as a string or as an object."""
    return str(token["content"] if isinstance(token, Mapping) else token)


def _added_token(values: Mapping[str, Any], **flags: bool) -> AddedToken:
    known = ("single_word", "lstrip", "rstrip", "normalized", "special")
    given = {key: bool(values[key]) for key in known if values.get(key) is not None}
    return AddedToken(_content(values), **(given | flags))


def add_tokens(backend: tokenizers.Tokenizer, settings: Mapping[str, Any], protocol: list[str]) -> None:
    """Give every token that the settings name a row, as new last rows unless they have one, and make special ones so.

    protocol: special tokens that are needed besides, last.
    """
    rows = settings.get("added_tokens_decoder") or {}
    tokens = [_added_token(token) for _, token in sorted(rows.items(), key=lambda row: int(row[0]))]
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_tokens([token for token in tokens if token.content not in known])
    given = {_content(token): token for token in _tokens_as_given(settings) if isinstance(token, Mapping)}
    wanted = dict.fromkeys([*named_tokens(settings).values(), *extra_tokens(settings), *protocol])
    special = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    missing = [
        _added_token(given.get(token, {"content": token, "normalized": False}), special=True)
        for token in wanted
        if token not in special
    ]
    backend.add_special_tokens(missing)


def _tokens_as_given(settings: Mapping[str, Any]) -> list[Any]:
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    named = [token for key, token in settings.items() if key.endswith("_token")]
    return [*named, *(extra.values() if isinstance(extra, Mapping) else extra)]
