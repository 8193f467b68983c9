"""How many tokens each part of a record costs, such that the parts of any piece never cost less than it has.

Neighbouring texts are joined before they are tokenised (`inputs.render`), so the tokens of a piece are not quite the
sum of its units' tokens: where a piece starts or ends within a text, a few tokens differ. So a record is tokenised once
as a whole and each of its units once alone. A unit's tokens are those it has in the whole. Where both have the same two
tokens side by side in a unit, they tell how many tokens more a piece has if it starts there, or ends; the most of these
differences is what every piece of the record is charged.

Why two: byte-pair encoding merges across a border only if the pieces on both sides come to a state in which they merge.
Where one border, and the token on either side of it, are the same in two texts, no merge crossed it in either, and none
does in a text that has the left of one and the right of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lorgnette.data.record import Record
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.template import Idefics2Template, Piece, Special
from lorgnette.sample import Image, Sample, Segment, Text, Turn

SLACK = 2
"""Tokens more at an edge of a unit too short to tell."""
MARK = -1
"""Stands for an image, which text is never joined across."""
NOBODY = -1
"""Owns what no unit does: beginning and end of sequence, and what a template writes around any conversation."""

Part = tuple[int, Piece]
"""A piece with the unit that it belongs to."""


@dataclass(frozen=True)
class Counts:
    """Tokens of text, without the slots of images. A piece has `head` and those of its units, or fewer."""

    head: int
    tokens: tuple[int, ...]
    learned: tuple[int, ...]
    """Of each unit's tokens, how many are learned."""


@dataclass(frozen=True, eq=False)
class _Stream:
    """Tokens in order (T), with marks where images stand."""

    id_T: np.ndarray
    owner_T: np.ndarray
    start_T: np.ndarray
    """Characters from where the token starts to the end of its owner."""
    end_T: np.ndarray
    learn_T: np.ndarray

    def of(self, owner: int) -> _Stream:
        here = self.owner_T == owner
        return _Stream(*(values[here] for values in (self.id_T, self.owner_T, self.start_T, self.end_T, self.learn_T)))

    def before(self, place: int) -> int:
        """Tokens before a place."""
        return int((self.id_T[:place] != MARK).sum())

    @property
    def count(self) -> int:
        return self.before(len(self.id_T))

    @cached_property
    def keys(self) -> list[tuple[int, int, int]]:
        return list(zip(self.id_T.tolist(), self.start_T.tolist(), self.end_T.tolist(), strict=True))


class Counter:
    """Counts tokens of records as a processor renders them. Visual tokens are not counted: a stage may split images."""

    def __init__(self, processor: Processor) -> None:
        self.processor, self.tokenizer, self.template = processor, processor.tokenizer, processor.template

    def __call__(self, record: Record) -> Counts:
        """Raises: DataError for text that cannot be tokenised, CheckpointError for what the template cannot write."""
        writer, units = _Writer(self.processor), len(record.units)
        is_chat = record.piece().is_chat
        if units == 1:
            stream = writer.stream(self._alone(record, 0, is_chat), is_chat)
            return Counts(0, (stream.count,), (int(stream.learn_T.sum()),))
        order = [*range(units), *((0, 1) if record.shuffle else ())]
        whole = self._whole(record, order, is_chat)
        if whole is None:
            return self._one_by_one(record, writer)
        joint = writer.stream(whole, is_chat)
        places = [units if record.shuffle and unit == 0 else unit for unit in range(units)]
        inside = [joint.of(place) for place in places]
        alone = [writer.stream(self._alone(record, unit, is_chat), is_chat) for unit in range(units)]
        edges = [_edges(alone[unit], inside[unit], unit) for unit in range(units)]
        tokens = [one.count for one in inside]
        if record.shuffle and len({_tail(whole, place) for place in range(len(order))}) > 1:
            tokens = [
                max(one, two.of(unit).count) + 1 for unit, (one, two) in enumerate(zip(tokens, alone, strict=True))
            ]
        head = max(before for before, _ in edges) + max(after for _, after in edges)
        return Counts(max(0, head), tuple(tokens), tuple(int(one.learn_T.sum()) for one in inside))

    def _alone(self, record: Record, unit: int, is_chat: bool) -> list[Part]:
        """One unit as a piece of its own."""
        if not is_chat:
            return [*_owned(record.head, NOBODY), *_owned(record.units[unit], unit)]
        pieces = self.template.pieces(record.piece(unit, unit + 1))
        opening, rest = _without(pieces, self._opening or "")
        return [*((NOBODY, piece) for piece in opening), *((unit, piece) for piece in rest)]

    def _whole(self, record: Record, order: Sequence[int], is_chat: bool) -> list[Part] | None:
        """Units one after another, owned by their places in `order`; None if the template writes them otherwise."""
        if not is_chat:
            units = (_owned(record.units[unit], place) for place, unit in enumerate(order))
            return [*_owned(record.head, NOBODY), *(part for unit in units for part in unit)]
        if self._opening is None:
            return None
        parts = [(NOBODY if owner == NOBODY else 0, piece) for owner, piece in self._alone(record, order[0], True)]
        for place, unit in enumerate(order[1:], 1):
            pieces = self.template.pieces(Sample(record.units[unit]))
            parts += [(place, piece) for piece in _without(pieces, self._opening)[1]]
        if not isinstance(self.template, Idefics2Template):
            sample = Record(tuple(record.units[unit] for unit in order), record.head).piece()
            if _spelled(self.template.pieces(sample)) != _spelled(piece for _, piece in parts):
                return None
        return parts

    @cached_property
    def _opening(self) -> str | None:
        """What the template writes before any conversation, spelled; None if it does not write turns one by one."""
        turns = (Turn("user"), Text("q"), Turn("assistant"), Text("a", learn=True))
        once, twice = (_spelled(self.template.pieces(Sample(turns * times))) for times in (1, 2))
        opening = once[: 2 * len(once) - len(twice)]
        return opening if twice == once + once[len(opening) :] else None

    def _one_by_one(self, record: Record, writer: _Writer) -> Counts:
        """For a template that writes a turn differently by its place: every unit costs what it costs alone, or more."""
        units = len(record.units)

        def count(start: int, end: int) -> _Stream:
            pieces = self.template.pieces(record.piece(start, end))
            return writer.stream([(0, piece) for piece in pieces], is_chat=True)

        alone = [count(unit, unit + 1) for unit in range(units)]
        tokens = [one.count for one in alone]
        most = units if units <= 6 else 2
        for length in [*range(2, most + 1), *([units] if units > most else [])]:
            for start in range(units - length + 1):
                lacking = count(start, start + length).count - sum(tokens[start : start + length])
                tokens[start + length - 1] += max(0, lacking)
        return Counts(0, tuple(tokens), tuple(int(one.learn_T.sum()) for one in alone))


def _owned(segments: Iterable[Segment], owner: int) -> list[Part]:
    return [(owner, segment) for segment in segments if not isinstance(segment, Turn)]


def _edges(alone: _Stream, inside: _Stream, unit: int) -> tuple[int, int]:
    """How many tokens more than it has inside the whole a unit has before and behind it, as a piece of its own."""
    mine = np.flatnonzero(alone.owner_T == unit)
    first, end = (int(mine[0]), int(mine[-1]) + 1) if len(mine) else (len(alone.id_T),) * 2
    places = {key: place for place, key in enumerate(alone.keys[first:end], first)}
    if alone.keys[first:end] == inside.keys:
        return alone.before(first), alone.count - alone.before(end)
    for at, key in enumerate(inside.keys):
        place = places.get(key)
        if place is None:
            continue
        is_border = key[1] == key[2]
        if is_border or (at + 1 < len(inside.keys) and places.get(inside.keys[at + 1]) == place + 1):
            before = alone.before(place) - inside.before(at)
            return before, alone.count - inside.count - before
    before = alone.before(first) + SLACK
    return before, max(alone.count - inside.count - before, alone.count - alone.before(end) + SLACK)


class _Writer:
    """Writes pieces as `inputs.render` does, and keeps whose each token is. Texts met twice are tokenised once."""

    def __init__(self, processor: Processor) -> None:
        self.tokenizer = processor.tokenizer
        self.known: dict[tuple[str, bool], tuple[np.ndarray, np.ndarray]] = {}

    def stream(self, parts: Sequence[Part], is_chat: bool) -> _Stream:
        tokenizer = self.tokenizer
        self.runs: list[list[np.ndarray]] = []
        self.texts: list[tuple[int, Text]] = []
        self.left: dict[int, int] = {}
        for owner, piece in parts:
            self.left[owner] = self.left.get(owner, 0) + (len(piece.text) if isinstance(piece, Text) else 0)
        opening = parts[0][1] if parts else None
        begun = is_chat and isinstance(opening, Special) and tokenizer.id(opening.token) in tokenizer.prefix
        self._ids(tokenizer.prefix if is_chat or tokenizer.bos is None else (tokenizer.bos,), not begun)
        self._write(parts)
        self._ids(
            tokenizer.suffix if is_chat or tokenizer.eos is None else (tokenizer.eos,),
            is_chat or tokenizer.eos is not None,
        )
        columns = zip(*self.runs, strict=True) if self.runs else [[np.empty(0, np.int64)]] * 5
        return _Stream(*(np.concatenate(column) for column in columns))

    def _ids(self, ids: Sequence[int], there: bool) -> None:
        for one in ids if there else ():
            self._one(one, NOBODY)

    def _one(self, token: int, owner: int, learn: bool = False) -> None:
        place = self.left.get(owner, 0)
        self.runs.append([np.array([value]) for value in (token, owner, place, place, learn)])

    def _write(self, parts: Iterable[Part]) -> None:
        after_image, first = False, True
        for owner, piece in parts:
            if isinstance(piece, Text):
                self.texts.append((owner, piece))
                continue
            first = self._flush(after_image, first)
            if isinstance(piece, Image):
                self._one(MARK, owner)
            else:
                self._one(self.tokenizer.id(piece.token), owner, piece.learn)
            after_image, first = isinstance(piece, Image), False
        self._flush(after_image, first)

    def _flush(self, after_image: bool, first: bool) -> bool:
        """Tokenise the texts that wait, joined; whether the next text is still the first."""
        text = "".join(piece.text for _, piece in self.texts)
        if text:
            space = after_image and not text[0].isspace() and text[0] != "<"  # as `inputs.render` puts it
            ids_T, offsets_T2 = self._encode(f" {text}" if space else text, first)
            self.runs.append(self._placed(ids_T, offsets_T2 - int(space)))
        self.texts = []
        return first and not text

    def _encode(self, text: str, first: bool) -> tuple[np.ndarray, np.ndarray]:
        if (text, first) not in self.known:
            ids, offsets = self.tokenizer.encode_with_offsets(text, first)
            arrays = np.array(ids, dtype=np.int64), np.array(offsets, dtype=np.int64).reshape(-1, 2)
            self.known[text, first] = arrays
        return self.known[text, first]

    def _placed(self, ids_T: np.ndarray, offsets_T2: np.ndarray) -> list[np.ndarray]:
        """A run's tokens with their owners: a token belongs to the text that it starts in."""
        lengths = np.array([len(piece.text) for _, piece in self.texts])
        ends = np.cumsum(lengths)
        at_T = np.minimum(np.searchsorted(ends, np.maximum(offsets_T2[:, 0], 0), side="right"), len(ends) - 1)
        owners = np.array([owner for owner, _ in self.texts])
        left = []  # characters of its owner from the start of each text
        for owner, piece in self.texts:
            left.append(self.left[owner])
            self.left[owner] -= len(piece.text)
        origin_T = (np.array(left) + ends - lengths)[at_T]
        learned = np.concatenate([[0], np.cumsum(np.repeat([piece.learn for _, piece in self.texts], lengths))])
        begin_T, end_T = (np.clip(offsets_T2[:, side], 0, ends[-1]) for side in (0, 1))
        return [
            ids_T,
            owners[at_T],
            origin_T - offsets_T2[:, 0],
            origin_T - offsets_T2[:, 1],
            learned[end_T] > learned[begin_T],
        ]


def _spell(piece: Piece) -> str:
    """A piece as text that no text of a conversation looks like."""
    if isinstance(piece, Text):
        return piece.text
    return f"\ue000{piece.token}\ue001" if isinstance(piece, Special) else "\ue002"


def _spelled(pieces: Iterable[Piece]) -> str:
    return "".join(map(_spell, pieces))


def _without(pieces: Sequence[Piece], opening: str) -> tuple[list[Piece], list[Piece]]:
    """Pieces parted behind `opening`, if they begin with it."""
    if not opening or not _spelled(pieces).startswith(opening):
        return [], list(pieces)
    first: list[Piece] = []
    for place, piece in enumerate(pieces):
        spelled = _spell(piece)
        if len(spelled) > len(opening) and isinstance(piece, Text):
            cut = len(opening)
            return [*first, Text(piece.text[:cut], piece.learn)], [
                Text(piece.text[cut:], piece.learn),
                *pieces[place + 1 :],
            ]
        if not opening:
            return first, list(pieces[place:])
        first.append(piece)
        opening = opening[len(spelled) :]
    return first, []


def _tail(parts: Sequence[Part], owner: int) -> str:
    """The text with which an owner's part ends, behind its last token or image."""
    text = ""
    for whose, piece in parts:
        if whose == owner:
            text = text + piece.text if isinstance(piece, Text) else ""
    return text
