"""`check`: what must be true of a sample before it is trained on; else it is learned wrong, or not at all."""

from __future__ import annotations

from itertools import accumulate

import numpy as np

from lorgnette.errors import DataError
from lorgnette.inputs.render import Rendered


def check(
    rendered: Rendered,
    *,
    image_token: int,
    vocabulary: int,
    most_tokens: int | None = None,
    supervised: bool = True,
) -> None:
    """Refuse a rendered sample that a step cannot learn from as it was meant.

    image_token: the id whose places visual tokens take;
    vocabulary: rows of the model's embedding, those of added tokens included;
    most_tokens: the longest sequence, if there is a limit; supervised: whether something must be learned.
    Raises: DataError naming the sample, for: no tokens; an id outside the embedding; too many tokens; an image cut off
        by the limit; more or fewer images than slots; a visual token marked as supervised; nothing learned.
    """
    tokens_T, loss_mask_T, name = rendered.tokens_T, rendered.loss_mask_T, rendered.name
    if len(tokens_T) == 0 or len(tokens_T) != len(loss_mask_T):
        raise DataError(f"{name}: {len(tokens_T)} tokens with {len(loss_mask_T)} learning marks; render it again")
    _check_ids(rendered, vocabulary)
    visual_T = tokens_T == image_token
    _check_slots(rendered, visual_T, most_tokens)
    if most_tokens is not None and len(tokens_T) > most_tokens:
        lost = _lost(rendered, visual_T, most_tokens)
        raise DataError(
            f"{name}: {len(tokens_T)} tokens exceed the limit of {most_tokens}{lost};"
            " cut it in pieces, or raise the limit"
        )
    if (loss_mask_T & visual_T).any():
        place = int(np.flatnonzero(loss_mask_T & visual_T)[0])
        raise DataError(f"{name}: the visual token at position {place} is marked as supervised; only text is predicted")
    if supervised and not loss_mask_T[1:].any():  # the first token of a document has nothing to be predicted from
        raise DataError(
            f"{name}: none of its {len(tokens_T)} tokens is supervised; mark a text with supervised=True (of a"
            " conversation, the assistant's), or leave the sample out"
        )


def _check_ids(rendered: Rendered, vocabulary: int) -> None:
    wrong = np.flatnonzero((rendered.tokens_T < 0) | (rendered.tokens_T >= vocabulary))
    if len(wrong):
        place = int(wrong[0])
        raise DataError(
            f"{rendered.name}: token {int(rendered.tokens_T[place])} at position {place} is outside the embedding of"
            f" {vocabulary} rows; use the tokenizer that the model was made for, or enlarge the model's vocabulary"
        )


def _check_slots(rendered: Rendered, visual_T: np.ndarray, most_tokens: int | None) -> None:
    """Each image has its whole slot: as many places in a row as it becomes visual tokens."""
    left = list(rendered.visual_tokens)
    for start, end in _runs(visual_T):
        room, wanted = end - start, 0
        while room > 0 and left:  # crops and neighbours may share a run
            wanted = left.pop(0)
            room -= wanted
        if room < 0:
            reason = "cut off by the limit on length" if end == len(visual_T) else "incomplete"
            limit = f" of {most_tokens} tokens" if most_tokens is not None and end == len(visual_T) else ""
            raise DataError(
                f"{rendered.name}: the image slot at position {start} is {reason}{limit}: it has {room + wanted} visual"
                f" tokens, not {wanted}; cut samples only between their units"
            )
        if room > 0:
            raise DataError(
                f"{rendered.name}: {_count(len(rendered.images), 'image')}, and {room} visual tokens more at position"
                f" {end - room}; give one image for each slot"
            )
    if left:
        cut = most_tokens is not None and len(visual_T) >= most_tokens
        reason = f"were cut off by the limit of {most_tokens} tokens" if cut else "are missing from the text"
        slots = len(rendered.images) - len(left)
        raise DataError(
            f"{rendered.name}: {_count(len(rendered.images), 'image')} and {_count(slots, 'image slot')}: the slots of"
            f" the last {len(left)} {reason}; cut samples only between their units"
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _runs(marks_T: np.ndarray) -> list[tuple[int, int]]:
    """Start and end (not included) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], marks_T, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def _lost(rendered: Rendered, visual_T: np.ndarray, most_tokens: int) -> str:
    """Describe what a cut at the limit would do to the images."""
    kept = int(visual_T[:most_tokens].sum())
    lost = sum(end > kept for end in accumulate(rendered.visual_tokens))
    return f", and a cut there would lose {lost} of its images" if lost else ""
