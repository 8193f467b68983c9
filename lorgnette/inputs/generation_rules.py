"""Rules of generation that a checkpoint states in `generation_config.json`, as transformers' `generate` obeys them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.inputs.tokenizer import read_json
from lorgnette.settings import Settings
from lorgnette.untrusted import quoted

_FILE = "generation_config.json"
Id = pydantic.NonNegativeInt
Ids = tuple[Id, ...]
TOP_K = 50
"""Default top-k of transformers, where a file asks for sampling without giving one."""
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), (1,)),
    **dict.fromkeys(("diversity_penalty", "epsilon_cutoff", "eta_cutoff", "encoder_no_repeat_ngram_size"), (0,)),
    **dict.fromkeys(("typical_p", "guidance_scale", "encoder_repetition_penalty"), (1,)),
    **dict.fromkeys(("remove_invalid_values", "token_healing"), (False,)),
    **dict.fromkeys(("constraints", "force_words_ids", "dola_layers", "top_h", "sequence_bias", "max_time"), (None,)),
    **dict.fromkeys(("exponential_decay_length_penalty", "watermarking_config", "forced_decoder_ids"), (None,)),
    "penalty_alpha": (0,),
}
"""Keys of ways to choose tokens that are not ours, and the values of each, besides null, that change no answer."""


class GenerationRules(Settings):
    """Rules of a checkpoint on every answer, and its defaults for settings that a caller does not give."""

    end_tokens: Ids = ()
    """Ids that end an answer, besides the tokenizer's end of sequence and the end of the utterance."""
    bad_words: tuple[tuple[Id, ...], ...] = ()
    """Sequences of ids that no answer holds."""
    suppressed: Ids = ()
    suppressed_first: Ids = ()
    """Ids that do not begin an answer."""
    forced_first: Id | None = None
    """The token after a prompt of one token."""
    forced_last: Ids = ()
    """Token ids forced as the last token of an answer that reaches the length limit."""
    repetition_penalty: float = pydantic.Field(default=1.0, gt=0)
    no_repeat_ngram: pydantic.NonNegativeInt = 0
    """Sequences of so many tokens occur once only; 0 for no such rule."""
    min_length: pydantic.NonNegativeInt = 0
    """Tokens of prompt and answer before which no answer ends."""
    min_new_tokens: pydantic.NonNegativeInt = 0
    stop: tuple[str, ...] = ()
    temperature: float = pydantic.Field(default=0.0, ge=0)
    """0 unless the file asks for sampling."""
    top_k: int | None = pydantic.Field(default=None, ge=1)
    top_p: float = pydantic.Field(default=1.0, gt=0, le=1)
    min_p: float = pydantic.Field(default=0.0, ge=0, lt=1)
    max_new_tokens: int | None = pydantic.Field(default=None, ge=1)
    max_length: int | None = pydantic.Field(default=None, ge=1)
    """Tokens of prompt and answer together."""
    stored: dict[str, Any] = {}
    """The file as it was read, so that it can be written again."""

    @property
    def change_logits(self) -> bool:
        """Return whether any rule depends on the tokens before, or bans some."""
        return self.model_copy(update=FREE) != self

    @property
    def sampling(self) -> dict[str, Any]:
        """Settings of `GenerationConfig` that the checkpoint gives."""
        given = {"max_tokens": self.max_new_tokens}
        drawn = {key: getattr(self, key) for key in ("temperature", "top_k", "top_p", "min_p") if self.temperature}
        return {key: value for key, value in {**given, **drawn}.items() if value is not None}

    @property
    def unsupported(self) -> str:
        """The keys of the file, with their values, that ask for what `UNSUPPORTED` lists; empty if there is none."""
        asked = {key: value for key, value in self.stored.items() if key in UNSUPPORTED and value is not None}
        return ", ".join(f"{key} {quoted(value, 60)}" for key, value in asked.items() if value not in UNSUPPORTED[key])


FREE: dict[str, Any] = {
    "bad_words": (),
    "suppressed": (),
    "suppressed_first": (),
    "forced_first": None,
    "forced_last": (),
    "repetition_penalty": 1.0,
    "no_repeat_ngram": 0,
    "min_length": 0,
    "min_new_tokens": 0,
}
"""The rules that change logits, as they are where a file states none."""


def read_generation_rules(folder: Path) -> GenerationRules:
    """The rules of a folder: of generation_config.json, and the end tokens of config.json too.

    Raises: CheckpointError naming the file and the key.
    """
    file, model = folder / _FILE, folder / "config.json"
    values = read_json(file) if file.is_file() else {}
    config = read_json(model) if model.is_file() else {}
    try:
        json.dumps(values, allow_nan=False)
        return _rules(values, _ends(values, file) + _ends(_end_group(config), model), file)
    except SettingsError as error:
        raise CheckpointError(str(error)) from None
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be understood ({quoted(str(error))})") from None


def _rules(values: Mapping[str, Any], ends: Ids, file: Path) -> GenerationRules:
    given = {ours: values[theirs] for theirs, ours in RENAMED.items() if values.get(theirs) is not None}
    if "bad_words" in given:  # as upstream, a sequence that is an end alone is not banned
        given["bad_words"] = [one for one in given["bad_words"] if one not in [[end] for end in _ends(values, file)]]
        if [] in given["bad_words"]:
            raise ValueError("bad_words_ids holds an empty sequence")
    if values.get("forced_eos_token_id") is not None:
        given["forced_last"] = _ids(values["forced_eos_token_id"])
    if values.get("stop_strings") is not None:
        strings = values["stop_strings"]
        given["stop"] = [string for string in ([strings] if isinstance(strings, str) else strings) if string]
    sampled = values.get("do_sample")
    if sampled is not None and not isinstance(sampled, bool):
        raise ValueError(f"do_sample is {quoted(sampled, 60)}; expected true or false")
    if sampled:
        temperature = values.get("temperature")
        top_k = TOP_K if values.get("top_k") is None else values["top_k"]
        given |= {"temperature": 1.0 if temperature is None else temperature, "top_k": top_k or None}
        given |= {key: values[key] for key in ("top_p", "min_p") if values.get(key) is not None}
    return GenerationRules.parse({**given, "end_tokens": tuple(dict.fromkeys(ends)), "stored": dict(values)}, str(file))


RENAMED = {
    "bad_words_ids": "bad_words",
    "suppress_tokens": "suppressed",
    "begin_suppress_tokens": "suppressed_first",
    "forced_bos_token_id": "forced_first",
    "repetition_penalty": "repetition_penalty",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "min_length": "min_length",
    "min_new_tokens": "min_new_tokens",
    "max_new_tokens": "max_new_tokens",
    "max_length": "max_length",
}
"""Keys of the file whose values are taken as they are."""


def _ends(values: Mapping[str, Any], file: Path) -> Ids:
    """The end tokens under `eos_token_id`, one or a list."""
    given = values.get("eos_token_id")
    if given is None:
        return ()
    try:
        return tuple(token for token in _ids(given) if token >= 0)
    except TypeError:
        raise CheckpointError(
            f"{file}: eos_token_id is {quoted(given, 60)}; expected an id, or a list of ids"
        ) from None


def _ids(value: Any) -> tuple[int, ...]:
    """One id or a list of ids. Raises: TypeError."""
    ids = value if isinstance(value, list) else [value]
    if any(isinstance(token, bool) or not isinstance(token, int) for token in ids):
        raise TypeError(f"{value} is no token id")
    return tuple(ids)


def _end_group(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The group of config.json whose end tokens count: the whole's own, else the decoder's."""
    text = config.get("text_config")
    return text if config.get("eos_token_id") is None and isinstance(text, dict) else config
