"""Text to ids and back, for any `tokenizer.json`, where what a user types never becomes a special token."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from lorgnette.errors import CheckpointError, DataError
from lorgnette.inputs.config import SpecialTokens

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
        """settings: the contents of `tokenizer_config.json`."""
        self.special = special
        self.settings = dict(settings)
        self._backend = backend
        wanted = [special.around_image, special.image, special.end_of_utterance]
        missing = [token for token in wanted if backend.token_to_id(token) is None]
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in missing])
        self._ids = {token: number for number, token in _special_tokens(backend).items()}
        self._ids |= {token: row for token in wanted if (row := backend.token_to_id(token)) is not None}
        self.bos, self.eos, self.pad = (self._named(key) for key in ("bos_token", "eos_token", "pad_token"))
        self.vocabulary = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        """Rows that an embedding needs for every id of this tokenizer."""
        self.prefix, self.suffix = _surroundings(backend)
        """Ids that the tokenizer itself puts before and after a whole text, such as the beginning of sequence."""
        backend.encode_special_tokens = True  # which means: encode them as the text they are
        self._later = _continuing(backend)
        self._encode_cached = lru_cache(maxsize=8192)(self._encode)

    @classmethod
    def load(cls, path: str | Path, special: SpecialTokens | None = None) -> Tokenizer:
        """Read a folder with `tokenizer.json` (and `tokenizer_config.json` if there), or the file itself.

        Raises: CheckpointError if the file is missing or is not a tokenizer.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise CheckpointError(f"{file}: no such file; a checkpoint needs its tokenizer.json")
        config = file.with_name("tokenizer_config.json")
        settings = read_json(config) if config.is_file() else {}
        try:
            backend = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the Rust side raises bare Exceptions
            raise CheckpointError(f"{file}: cannot be read as a tokenizer ({error})") from None
        return cls(backend, settings, special or SpecialTokens())

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer opens."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **self.settings}
        text = json.dumps(settings, indent=2, ensure_ascii=False)
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")

    def encode(self, text: str, *, first: bool = True) -> list[int]:
        """Ids of a run of text, in which special tokens are ordinary text; nothing is put before or after it.

        first: whether the text begins its document. Some tokenizers put a space before the first run only.
        """
        return list(self.encode_with_offsets(text, first).ids)

    def encode_with_offsets(self, text: str, first: bool = True) -> Encoded:
        """As `encode`, with the span of characters behind each id. Short runs (template literals) are cached."""
        return self._encode_cached(text, first) if len(text) <= 32 else self._encode(text, first)

    def _encode(self, text: str, first: bool) -> Encoded:
        encoding = (self._backend if first else self._later).encode(text, add_special_tokens=False)
        return Encoded(tuple(encoding.ids), tuple(encoding.offsets))

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """The text behind ids, without special tokens unless `keep_special`."""
        return self._backend.decode(list(ids), skip_special_tokens=not keep_special)

    def id(self, token: str) -> int:
        """The id of a special token. Raises: DataError if the tokenizer has no such special token."""
        if token not in self._ids:
            raise DataError(f"the tokenizer has no special token {token!r}; it has {', '.join(sorted(self._ids))}")
        return self._ids[token]

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Every special token, longest first (so that a search finds the longest match)."""
        return tuple(sorted(self._ids, key=lambda token: (-len(token), token)))

    @property
    def named_tokens(self) -> dict[str, str]:
        """The tokens that the settings call `bos_token`, `eos_token` and so on, as chat templates may use them."""
        found = {}
        for key in BASE_SPECIALS:
            token = self.settings.get(key)
            token = token.get("content") if isinstance(token, Mapping) else token
            if isinstance(token, str):
                found[key] = token
        return found

    def _named(self, key: str) -> int | None:
        token = self.named_tokens.get(key)
        return None if token is None else self._backend.token_to_id(token)

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self._backend, self.settings, self.special)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises: CheckpointError naming the file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}; expected a JSON object")
    return values


def _special_tokens(backend: tokenizers.Tokenizer) -> dict[int, str]:
    return {number: token.content for number, token in backend.get_added_tokens_decoder().items() if token.special}


def _surroundings(backend: tokenizers.Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the post-processor puts before and after a text, found by trying one."""
    bare = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a", add_special_tokens=True).ids
    start = next(at for at in range(len(whole) + 1) if whole[at : at + len(bare)] == bare)
    return tuple(whole[:start]), tuple(whole[start + len(bare) :])


def _continuing(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The tokenizer for text after a special token: `prepend_scheme: first` puts its space before other text only."""
    text = backend.to_str()
    if '"prepend_scheme":"first"' not in text:
        return backend
    later = tokenizers.Tokenizer.from_str(text.replace('"prepend_scheme":"first"', '"prepend_scheme":"never"'))
    later.encode_special_tokens = True
    return later


def train_tokenizer(texts: Iterable[str], *, vocabulary: int, special: SpecialTokens | None = None) -> Tokenizer:
    """Train a byte-level BPE tokenizer of at most `vocabulary` rows; the last three are `special`, in upstream's order.

    The first rows are `<unk>`, `<s>`, `</s>` and `<pad>`. Equal texts give an equal tokenizer.
    Raises: DataError if `vocabulary` has no room for the 256 bytes and the special tokens.
    """
    special = special or SpecialTokens()
    least = 256 + len(BASE_SPECIALS) + 3
    if vocabulary < least:
        raise DataError(f"a vocabulary of {vocabulary} is too small: bytes and special tokens alone need {least}")
    backend = tokenizers.Tokenizer(models.BPE(unk_token=BASE_SPECIALS["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 3,
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
