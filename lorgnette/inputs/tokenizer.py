"""Text to ids and back, for any `tokenizer.json`, where what a user types never becomes a special token."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from lorgnette.errors import CheckpointError, DataError
from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.tokenizer_files import (
    add_tokens,
    check_ids,
    exported_settings,
    failure_of_tokenizers,
    named_tokens,
    read_backend,
    read_json,
    read_settings,
    tokenizer_class,
    with_class_tokens,
)

__all__ = ["Encoded", "Tokenizer", "read_json", "train_tokenizer"]

BASE_SPECIALS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
"""The first rows of a tokenizer that we train, by their names in `tokenizer_config.json`."""


class Encoded(NamedTuple):
    """Ids of a text and, for each, the characters it stands for."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]


class Tokenizer:
    """A `tokenizers.Tokenizer` with the special tokens of Idefics2's protocol.

    Special tokens are placed by id (`tokenizer.id(...)`); text that spells one stays text. Tokens of `special` that the
    tokenizer lacks are added as its last rows, as upstream's processor does.
    """

    def __init__(self, backend: tokenizers.Tokenizer, settings: Mapping[str, Any], special: SpecialTokens) -> None:
        """settings: the contents of `tokenizer_config.json`. The backend is changed: it gets the tokens it lacks."""
        self.special = special
        self._file = _undisturbed(backend)
        self.settings = with_class_tokens(settings, backend)
        add_tokens(backend, self.settings, [*special.protocol])
        added = backend.get_added_tokens_decoder()
        self._ids = {token.content: number for number, token in added.items() if token.special}
        self._added = {token.content: number for number, token in added.items()}
        self.bos, self.eos, self.pad = (self._named(key) for key in ("bos_token", "eos_token", "pad_token"))
        self.vocabulary = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        """Rows that an embedding needs for every id of this tokenizer."""
        self.prefix, self.suffix = self._surroundings()
        """Ids that the tokenizer itself puts before and after a whole text, such as the beginning of sequence."""
        self._first = _as_upstream(backend, self.settings)
        self._later = _continuing(self._first)
        for encoder in (self._first, self._later):
            encoder.encode_special_tokens = True  # which means: encode them as the text they are
        self._encode_cached = lru_cache(maxsize=8192)(self._encode)

    @classmethod
    def load(cls, path: str | Path, special: SpecialTokens | None = None) -> Tokenizer:
        """Read a folder with `tokenizer.json` (and the files beside it that name tokens), or the file itself.

        Raises: CheckpointError if the file is missing or is not a tokenizer.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file; a checkpoint needs its tokenizer.json{_older_files(file)}")
        try:
            settings = read_settings(file.parent)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{file.parent}: its special tokens cannot be understood ({error!r:.200})") from None
        backend = read_backend(file)
        check_ids(backend, file)
        try:
            return cls(backend, settings, special or SpecialTokens())
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{file.parent}: its special tokens cannot be understood ({error!r:.200})") from None
        except BaseException as error:  # of a copy made through the Rust side
            raise failure_of_tokenizers(error, f"{file}: cannot be used as a tokenizer") from None

    def save(self, folder: str | Path, *, as_file: bool = False) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, with which transformers gives the same ids.

        transformers 5 rebuilds most classes by their name and passes over the pipeline in tokenizer.json; so the class
        is written as the one that keeps to the file, but for LlamaTokenizer, which is rebuilt here in the same way.
        as_file: for a model whose class of tokenizer transformers passes over (`BY_FILE`): the rebuilt one is written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        backend = self._first if as_file else self._file
        (folder / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
        settings = exported_settings(self.settings)
        rebuilt = not as_file and _is_rebuilt(self._file, self.settings)
        kept = self.settings.get("tokenizer_class") if rebuilt else None
        settings = {"tokenizer_class": "PreTrainedTokenizerFast"} | settings
        settings["tokenizer_class"] = kept or "PreTrainedTokenizerFast"
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of a run of text, in which special tokens are ordinary text; nothing is put before or after it.

        first: whether the text begins its document. Some tokenizers put a space before the first run only.
        """
        return list(self.encode_with_offsets(text, first).ids)

    def encode_with_offsets(self, text: str, first: bool = True) -> Encoded:
        """As `encode`, with the span of characters behind each id. Short runs (template literals) are cached."""
        return self._encode_cached(text, first) if len(text) <= 64 else self._encode(text, first)

    def structure(self, text: str) -> tuple[int, ...]:
        """Ids of what a processor writes between special tokens, such as the tag of a tile.

        One id where the tokenizer holds it as an added token (SmolVLM), else those of its text (Idefics3-8B).
        """
        if text in self._added:
            return (self._added[text],)
        return self.encode_with_offsets(text, False).ids if text else ()

    def _encode(self, text: str, first: bool) -> Encoded:
        try:
            encoding = (self._first if first else self._later).encode(text, add_special_tokens=False)
        except TypeError:
            raise DataError(f"text {text!r:.60} holds half of a surrogate pair, which is no character") from None
        except BaseException as error:
            raise failure_of_tokenizers(error, f"tokenizer.json fails on the text {text!r:.60}") from None
        return Encoded(tuple(encoding.ids), tuple(encoding.offsets))

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text behind ids, without special tokens unless `keep_special`."""
        try:
            return self._first.decode(list(ids), skip_special_tokens=not keep_special)
        except BaseException as error:
            raise failure_of_tokenizers(error, f"tokenizer.json cannot decode the ids {list(ids)!r:.60}") from None

    def id(self, token: str) -> int:
        """The id of a special token. Raises: DataError if the tokenizer has no such special token."""
        if token not in self._ids:
            raise DataError(f"the tokenizer has no special token {token!r}; it has {', '.join(sorted(self._ids))}")
        return self._ids[token]

    def piece(self, token: int) -> str:
        """The entry of the vocabulary behind an id, as `tokenizer.json` writes it; empty for an id without one."""
        return self._first.id_to_token(token) or ""

    def to_json(self) -> str:
        """The tokenizer as the text of a `tokenizer.json`."""
        return self._first.to_str()

    @property
    def is_byte_level(self) -> bool:
        """Return whether characters of the vocabulary's entries stand for bytes, as in GPT-2."""
        return "ByteLevel" in repr(self._first.decoder)

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Every special token, longest first (so that a search finds the longest match)."""
        return tuple(sorted(self._ids, key=lambda token: (-len(token), token)))

    @property
    def named_tokens(self) -> dict[str, str]:
        """The tokens that the settings call `bos_token`, `eos_token` and so on, as chat templates may use them."""
        return named_tokens(self.settings)

    def _named(self, key: str) -> int | None:
        token = self.named_tokens.get(key)
        return None if token is None else self._file.token_to_id(token)

    def _surroundings(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids that the file's post-processor puts before and after a text (upstream, too, ignores `add_bos_token`)."""
        encoding = self._file.encode("a", add_special_tokens=True)
        text = [at for at, is_special in enumerate(encoding.special_tokens_mask) if not is_special] or [0]
        return tuple(encoding.ids[: text[0]]), tuple(encoding.ids[text[-1] + 1 :])

    @cached_property
    def fingerprint(self) -> str:
        """Names what this tokenizer does, in hex digits: what was counted with one is not used with another."""
        parts = [self._file.to_str(), json.dumps(self.settings, sort_keys=True), json.dumps(self.special.plain())]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self._file, self.settings, self.special)


def _older_files(missing: Path) -> str:
    """Advice for a folder that holds its tokenizer in an older form."""
    found = [name for name in ("tokenizer.model", "spiece.model", "vocab.json") if (missing.parent / name).is_file()]
    advice = "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) makes it"
    return f", and there is {found[0]} only; in transformers {advice}" if found else ""


def _undisturbed(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Itself without what a file may store of one use: truncation, padding, and BPE's random dropout."""
    backend.no_truncation()
    backend.no_padding()
    if isinstance(backend.model, models.BPE):
        backend.model.dropout = None
    return backend


def _is_rebuilt(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer is upstream's LlamaTokenizer, which follows its class and not its file."""
    if tokenizer_class(settings) != "LlamaTokenizer" or not isinstance(backend.model, models.BPE):
        return False
    return "ByteLevel" not in repr(backend.pre_tokenizer)


def _as_upstream(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer that upstream builds from these files.

    Its LlamaTokenizer, the class of Mistral's and Idefics2's checkpoints, puts the space before a text by rules of its
    own and not by the normaliser in the file: a text that begins with a space gets no second one.
    """
    if not _is_rebuilt(backend, settings):
        return backend
    spaced = settings.get("add_prefix_space") is not False
    scheme = "never" if not spaced else "always" if settings.get("legacy") else "first"
    rebuilt = copy.deepcopy(backend)
    rebuilt.model.unk_token, rebuilt.model.ignore_merges = None, False
    rebuilt.model.fuse_unk = rebuilt.model.byte_fallback = True
    rebuilt.normalizer = None
    rebuilt.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    rebuilt.decoder = decoders.Sequence([*steps, decoders.Strip(content=" ", left=1)] if spaced else steps)
    return rebuilt


def _continuing(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer for text after a special token: `prepend_scheme: first` puts its space before other text only."""
    text = backend.to_str()
    if '"prepend_scheme":"first"' not in text:
        return backend
    return tokenizers.Tokenizer.from_str(text.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"'))


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, special: SpecialTokens | None = None) -> Tokenizer:
    """Train a byte-level BPE tokenizer of at most `vocabulary` rows; the last three are `special`, in upstream's order.

    The first rows are `<unk>`, `<s>`, `</s>` and `<pad>`. Equal texts give an equal tokenizer.
    Tokens of `special` that are among the first have no row at the end.
    Raises: DataError if `vocabulary` has no room for the 256 bytes and the special tokens.
    """
    special = special or SpecialTokens()
    added = len({*special.protocol} - {*BASE_SPECIALS.values()})
    least = 256 + len(BASE_SPECIALS) + added
    if vocabulary < least:
        raise DataError(f"a vocabulary of {vocabulary} is too small: bytes and special tokens alone need {least}")
    backend = tokenizers.Tokenizer(models.BPE(unk_token=BASE_SPECIALS["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - added,
        special_tokens=list(BASE_SPECIALS.values()),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    bos = BASE_SPECIALS["bos_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    settings = {**BASE_SPECIALS, "clean_up_tokenization_spaces": False, "model_max_length": 10**9}
    return Tokenizer(backend, settings, special)
