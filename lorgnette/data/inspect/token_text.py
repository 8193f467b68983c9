"""Tokens for people: each as its text, special ones by name, the visual tokens of an image folded into one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from lorgnette.inputs.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Chip:
    """A token, or a few that are one thing for people."""

    kind: Literal["text", "special", "image"]
    text: str
    position: int
    """Of its first token, within the document."""
    ids: tuple[int, ...]
    """Several for the visual tokens of an image, and for a character that is cut into bytes."""
    supervised: bool
    image: int = 0
    """For `image`: which picture of the document, from 0."""


class TokenDecoder:
    """Decodes ids, one or several; equal ids once."""

    def __init__(self, tokenizer: Tokenizer, image_token: int) -> None:
        self.tokenizer = tokenizer
        self.image_token = image_token
        self._special = {tokenizer.id(token): token for token in tokenizer.special_tokens}
        self._anchor = tokenizer.encode("a", first=False)[-1:]
        self._anchored = tokenizer.decode(self._anchor)
        self._known: dict[tuple[int, ...], str] = {}

    def decode(self, ids: tuple[int, ...]) -> str:
        """The text of ids as it stands in the middle of a document: some decoders drop the space before the first."""
        if ids not in self._known:
            self._known[ids] = self.tokenizer.decode([*self._anchor, *ids])[len(self._anchored) :]
        return self._known[ids]

    def chips(
        self, tokens_T: np.ndarray, loss_mask_T: np.ndarray, visual_tokens: Sequence[int], most: int | None = None
    ) -> Iterator[Chip]:
        """The tokens of one document, in order; at most the first `most` of them.

        visual_tokens: of each of its images.

        The first token of a document is never supervised: there is nothing to predict it from.
        """
        ids = tokens_T.tolist()
        end = len(ids) if most is None else min(most, len(ids))
        supervised = [False, *loss_mask_T.tolist()[1:]]
        at = images = 0
        while at < end:
            if ids[at] == self.image_token:
                stop, room = at + 1, visual_tokens[images] if images < len(visual_tokens) else len(ids)
                while stop < len(ids) and ids[stop] == self.image_token and stop - at < room:
                    stop += 1
                chip = Chip(
                    "image", f"{stop - at} visual tokens", at, tuple(ids[at:stop]), any(supervised[at:stop]), images
                )
                images += 1
            elif ids[at] in self._special:
                chip = Chip("special", self._special[ids[at]], at, (ids[at],), supervised[at])
            else:
                chip = self._text(ids, supervised, at)
            yield chip
            at += len(chip.ids)

    def _text(self, ids: list[int], supervised: list[bool], at: int) -> Chip:
        """One token of text; up to four if they are the bytes of one character."""
        text, count = self.decode((ids[at],)), 1
        if "\ufffd" in text:
            for more in range(2, 5):
                longer = tuple(ids[at : at + more])
                if len(longer) < more or any(one in self._special for one in longer):
                    break
                if supervised[at + more - 1] != supervised[at]:
                    break
                if "\ufffd" not in (joined := self.decode(longer)):
                    text, count = joined, more
                    break
        return Chip("text", text, at, tuple(ids[at : at + count]), supervised[at])


def runs(chips: Iterator[Chip]) -> list[tuple[bool, list[Chip]]]:
    """Neighbouring chips that are all supervised, or all not."""
    return [(supervised, list(group)) for supervised, group in groupby(chips, key=lambda chip: chip.supervised)]
