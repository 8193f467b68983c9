"""Token counts of a record's parts, such that the parts of any piece never count less than it has.

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
from dataclasses import dataclass, field
from functools import cached_property

from lorgnette.data.record import Record
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import Idefics2Template, Piece, Special
from lorgnette.inputs.tokenizer import Encoded
from lorgnette.sample import Image, Sample, Segment, Text, Turn

SLACK = 2
"""Tokens more at an edge of a unit too short to tell."""
MARK = -1
"""Stands for an image, which text is never joined across."""
BORDER = -(2**31)
"""Stands for the end of a token that no text is joined across: special ones, and marks."""
NOBODY = -1
"""Owns what no unit does: beginning and end of sequence, and what a template writes around any conversation."""

_Part = tuple[int, Piece]
"""A piece with the unit that it belongs to."""


@dataclass(frozen=True)
class Counts:
    """Tokens of text, without the slots of images. A piece has those of the prefix and those of its units, or fewer."""

    prefix: int
    tokens: tuple[int, ...]
    supervised_tokens: tuple[int, ...]
    """Of each unit's tokens, how many are supervised."""


_Key = tuple[int, int, int]
"""A token's id, and the characters from where it starts, and ends, to the end of its owner."""


@dataclass(slots=True)
class _Stream:
    """Tokens in order, with marks where images stand."""

    keys: list[_Key] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    supervised: list[bool] = field(default_factory=list)

    def add(self, key: _Key, owner: int, supervised: bool) -> None:
        self.keys.append(key)
        self.owners.append(owner)
        self.supervised.append(supervised)

    def span(self, owner: int) -> tuple[int, int]:
        """Return the first and last position of an owner's tokens, which are contiguous."""
        first = self.owners.index(owner) if owner in self.owners else len(self.owners)
        return first, first + self.owners.count(owner)

    def of(self, owner: int) -> _Stream:
        first, end = self.span(owner)
        return _Stream(self.keys[first:end], self.owners[first:end], self.supervised[first:end])

    def before(self, place: int) -> int:
        """Tokens before a place."""
        return sum(key[0] != MARK for key in self.keys[:place])

    @property
    def count(self) -> int:
        return self.before(len(self.keys))

    @property
    def supervised_tokens(self) -> int:
        return sum(self.supervised)


class TokenCounter:
    """Counts tokens of records as a processor renders them. Visual tokens are not counted: a stage may split images."""

    def __init__(self, processor: Processor) -> None:
        self.processor, self.tokenizer, self.template = processor, processor.tokenizer, processor.template

    def __call__(self, record: Record) -> Counts:
        """Raises: DataError for text that cannot be tokenised, CheckpointError for what the template cannot write."""
        writer, units = _Writer(self.processor), len(record.units)
        is_chat = record.piece().is_chat
        if units == 1:
            stream = writer.stream(self._alone(record, 0, is_chat), is_chat)
            return Counts(0, (stream.count,), (stream.supervised_tokens,))
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
        prefix = max(before for before, _ in edges) + max(after for _, after in edges)
        return Counts(max(0, prefix), tuple(tokens), tuple(one.supervised_tokens for one in inside))

    def _alone(self, record: Record, unit: int, is_chat: bool) -> list[_Part]:
        """One unit as a piece of its own."""
        if not is_chat:
            return [*_owned(record.prefix, NOBODY), *_owned(record.units[unit], unit)]
        pieces = self.template.pieces(record.piece(unit, unit + 1))
        opening, rest = _without(pieces, self._opening or "")
        return [*((NOBODY, piece) for piece in opening), *((unit, piece) for piece in rest)]

    def _whole(self, record: Record, order: Sequence[int], is_chat: bool) -> list[_Part] | None:
        """Units one after another, owned by their places in `order`; None if the template writes them otherwise."""
        if not is_chat:
            units = (_owned(record.units[unit], place) for place, unit in enumerate(order))
            return [*_owned(record.prefix, NOBODY), *(part for unit in units for part in unit)]
        if self._opening is None:
            return None
        parts = [(NOBODY if owner == NOBODY else 0, piece) for owner, piece in self._alone(record, order[0], True)]
        for place, unit in enumerate(order[1:], 1):
            pieces = self.template.pieces(Sample(record.units[unit]))
            parts += [(place, piece) for piece in _without(pieces, self._opening)[1]]
        if not isinstance(self.template, Idefics2Template):
            sample = Record(tuple(record.units[unit] for unit in order), record.prefix).piece()
            if _joined_text(self.template.pieces(sample)) != _joined_text(piece for _, piece in parts):
                return None
        return parts

    @cached_property
    def _opening(self) -> str | None:
        """Text that the template writes before any conversation; None if it does not write turns one by one."""
        turns = (Turn("user"), Text("q"), Turn("assistant"), Text("a", supervised=True))
        once, twice = (_joined_text(self.template.pieces(Sample(turns * times))) for times in (1, 2))
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
        return Counts(0, tuple(tokens), tuple(one.supervised_tokens for one in alone))


def _owned(segments: Iterable[Segment], owner: int) -> list[_Part]:
    return [(owner, segment) for segment in segments if not isinstance(segment, Turn)]


def _edges(alone: _Stream, inside: _Stream, unit: int) -> tuple[int, int]:
    """Additional tokens before and after a unit when it is a piece of its own, compared with inside the whole."""
    first, end = alone.span(unit)
    if alone.keys[first:end] == inside.keys:
        return alone.before(first), alone.count - alone.before(end)
    places = {key: place for place, key in enumerate(alone.keys[first:end], first)}
    for at, key in enumerate(inside.keys):
        place = places.get(key)
        if place is None:
            continue
        if key[2] == BORDER or (at + 1 < len(inside.keys) and places.get(inside.keys[at + 1]) == place + 1):
            before = alone.before(place) - inside.before(at)
            return before, alone.count - inside.count - before
    before = alone.before(first) + SLACK
    return before, max(alone.count - inside.count - before, alone.count - alone.before(end) + SLACK)


class _Writer:
    """Writes pieces as `inputs.render` does, and keeps whose each token is. Texts met twice are tokenised once."""

    def __init__(self, processor: Processor) -> None:
        self.tokenizer = processor.tokenizer
        self.known: dict[tuple[str, bool], Encoded] = {}

    def stream(self, parts: Sequence[_Part], is_chat: bool) -> _Stream:
        tokenizer = self.tokenizer
        self.made = _Stream()
        self.texts: list[tuple[int, Text]] = []
        self.left: dict[int, int] = {}  # characters of each owner that are still to come
        for owner, piece in parts:
            self.left[owner] = self.left.get(owner, 0) + (len(piece.text) if isinstance(piece, Text) else 0)
        opening = parts[0][1] if parts else None
        begun = is_chat and isinstance(opening, Special) and tokenizer.id(opening.token) in tokenizer.prefix
        end = tokenizer.suffix if is_chat else () if tokenizer.eos is None else (tokenizer.eos,)
        for token in () if begun else tokenizer.prefix:
            self._border(token, NOBODY)
        self._write(parts)
        for token in end:
            self._border(token, NOBODY)
        return self.made

    def _border(self, token: int, owner: int, supervised: bool = False) -> None:
        self.made.add((token, self.left.get(owner, 0), BORDER), owner, supervised)

    def _write(self, parts: Iterable[_Part]) -> None:
        after_image, first = False, True
        for owner, piece in parts:
            if isinstance(piece, Text):
                self.texts.append((owner, piece))
                continue
            first = self._flush(after_image, first)
            if isinstance(piece, Image):
                self._border(MARK, owner)
            else:
                self._border(self.tokenizer.id(piece.token), owner, piece.supervised)
            after_image, first = isinstance(piece, Image), False
        self._flush(after_image, first)

    def _flush(self, after_image: bool, first: bool) -> bool:
        """Tokenise the texts that wait, joined; whether the next text is still the first."""
        text = "".join(piece.text for _, piece in self.texts)
        if text:
            space = after_image and not text[0].isspace() and text[0] != "<"  # as `inputs.render` puts it
            key = f" {text}" if space else text, first
            if key not in self.known:
                self.known[key] = self.tokenizer.encode_with_offsets(*key)
            self._place(self.known[key], int(space))
        self.texts = []
        return first and not text

    def _place(self, encoded: Encoded, space: int) -> None:
        """A run's tokens with their owners: a token belongs to the text that it starts in."""
        spans = []  # of each text: where it ends, its owner, whether it is learned, and where its owner ends
        end = 0
        for owner, piece in self.texts:
            spans.append((end + len(piece.text), owner, piece.supervised, end + self.left[owner]))
            end += len(piece.text)
            self.left[owner] -= len(piece.text)
        at, last = 0, len(spans) - 1
        for token, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True):
            begin, stop = max(0, start - space), stop - space
            while at < last and begin >= spans[at][0]:
                at += 1
            border, owner, supervised, origin = spans[at]
            reached = at
            while stop > border and reached < last:
                reached += 1
                border = spans[reached][0]
                supervised = supervised or spans[reached][2]
            self.made.add((token, origin - start + space, origin - stop), owner, supervised)


def _marked_text(piece: Piece) -> str:
    """A piece as text that no text of a conversation looks like."""
    if isinstance(piece, Text):
        return piece.text
    return f"\ue000{piece.token}\ue001" if isinstance(piece, Special) else "\ue002"


def _joined_text(pieces: Iterable[Piece]) -> str:
    return "".join(map(_marked_text, pieces))


def _without(pieces: Sequence[Piece], opening: str) -> tuple[list[Piece], list[Piece]]:
    """Pieces parted behind `opening`, if they begin with it."""
    if not opening or not _joined_text(pieces).startswith(opening):
        return [], list(pieces)
    first: list[Piece] = []
    for place, piece in enumerate(pieces):
        marked = _marked_text(piece)
        if len(marked) > len(opening) and isinstance(piece, Text):
            cut = len(opening)
            return [*first, Text(piece.text[:cut], piece.supervised)], [
                Text(piece.text[cut:], piece.supervised),
                *pieces[place + 1 :],
            ]
        if not opening:
            return first, list(pieces[place:])
        first.append(piece)
        opening = opening[len(marked) :]
    return first, []


def _tail(parts: Sequence[_Part], owner: int) -> str:
    """The text with which an owner's part ends, behind its last token or image."""
    text = ""
    for whose, piece in parts:
        if whose == owner:
            text = text + piece.text if isinstance(piece, Text) else ""
    return text
