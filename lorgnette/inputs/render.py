"""`render`: one `Sample` to tokens and patches. `pack`: many of them to one `Batch`, nothing cut, nothing padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from lorgnette.errors import DataError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import Patches, image_patches
from lorgnette.inputs.templates.template import Piece, Special, Template, can_continue
from lorgnette.inputs.tiles import Slot, Tile, tag_of, text_before, tiles_of
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.configs.connector_settings import ConnectorSettings
from lorgnette.sample import Image, Sample, Text, Turn

Ending = Literal["whole", "generation_prompt", "continue_final_message"]
"""End of a rendered sample: whole, ready for an answer, or inside the last message."""


def ending_of(add_generation_prompt: bool, continue_final_message: bool) -> Ending:
    """The ending that transformers' two arguments ask for. Raises: DataError for both."""
    if add_generation_prompt and continue_final_message:
        raise DataError("add_generation_prompt and continue_final_message exclude each other")
    return (
        "generation_prompt"
        if add_generation_prompt
        else "continue_final_message"
        if continue_final_message
        else "whole"
    )


def prompt_ending(sample: Sample) -> Ending:
    """Return where a prompt ends: a last text of the assistant's is continued."""
    roles = [segment.role for segment in sample.segments if isinstance(segment, Turn)]
    if roles and roles[-1] == "assistant" and can_continue(sample):
        return "continue_final_message"
    return "generation_prompt"


@dataclass(frozen=True, eq=False)
class Rendered:
    """One sample as the model reads it, before it is packed with others."""

    tokens_T: np.ndarray
    """Token ids (int64)."""
    loss_mask_T: np.ndarray
    """True where this token is a target to be predicted (bool)."""
    images: tuple[Patches, ...]
    """Every image, or every crop of it when split, in the order of the visual tokens."""
    visual_tokens: tuple[int, ...]
    """Visual tokens that each of them becomes."""
    name: str
    source: str = ""
    """Origin of the sample: `meta["source"]`."""


def render(
    sample: Sample,
    tokenizer: Tokenizer,
    template: Template,
    config: ImageConfig,
    connector: ConnectorSettings,
    *,
    ending: Ending = "whole",
    split: bool | None = None,
    enlarged: Sequence[tuple[int, int]] | None = None,
) -> Rendered:
    """Write a sample as token ids with a slot of visual tokens for each image, or each crop, and cut its images.

    A conversation is written by the template; a document stands between what the tokenizer puts before a text and the
    end of sequence.
    ending: where it ends. `generation_prompt`: after `Assistant:`, or for a document without its end, so that the model
        goes on. `continue_final_message`: after the last text of a conversation's last turn, which the model goes on
        with.
    split: overrides `config.split`, for the text and the images alike.
    enlarged: for each image, width and height to which it is enlarged before it is sized; see `image_patches`.
    Raises: ImageError naming the sample and image; DataError; CheckpointError for a template that fails.
    """
    split = config.split if split is None else split
    pieces = rendered_pieces(sample, template, ending)
    images = [piece for piece in pieces if isinstance(piece, Image)]
    sizes: Sequence[tuple[int, int] | None] = enlarged or [None] * len(images)
    if len(sizes) != len(images):
        raise DataError(f"{sample.name}: {len(images)} images, but sizes for {len(sizes)}; give one for each")
    crops = [
        image_patches(image.source, config, split, f"{sample.name}, image {number}", size)
        for number, (image, size) in enumerate(zip(images, sizes, strict=True), 1)
    ]
    slots = [tuple(patches.crop.slot(connector) for patches in one) for one in crops]
    tokens_T, loss_mask_T = write_tokens(sample, pieces, tokenizer, slots, ending)
    return Rendered(
        tokens_T,
        loss_mask_T,
        tuple(crop for one in crops for crop in one),
        tuple(slot.tokens for one in slots for slot in one),
        sample.name,
        source=str(sample.meta.get("source", "")),
    )


def rendered_pieces(sample: Sample, template: Template, ending: Ending) -> list[Piece]:
    """The texts, images and special tokens of a sample in their order: a conversation's by its template."""
    if sample.is_chat:
        return list(template.pieces(sample, ending == "generation_prompt", ending == "continue_final_message"))
    if ending == "continue_final_message":
        raise DataError(f"{sample.name}: a document has no message to continue; use add_generation_prompt")
    return [segment for segment in sample.segments if not isinstance(segment, Turn)]


def write_tokens(
    sample: Sample, pieces: Sequence[Piece], tokenizer: Tokenizer, slots: Sequence[Sequence[Slot]], ending: Ending
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (int64) and loss mask (bool) of the pieces of a sample; see `render`.

    slots: for each image, those of its crops.
    """
    writer = _Writer(tokenizer, slots)
    if sample.is_chat:
        begun = bool(pieces) and isinstance(pieces[0], Special) and tokenizer.id(pieces[0].token) in tokenizer.prefix
        writer.ids(() if begun else tokenizer.prefix)  # some templates write the beginning of sequence themselves
        writer.write(pieces)
        writer.ids(tokenizer.suffix if ending == "whole" else ())
    else:
        writer.ids(tokenizer.prefix)
        writer.write(pieces)
        if tokenizer.eos is not None and ending == "whole":
            texts = [piece for piece in pieces if isinstance(piece, Text)]
            writer.ids([tokenizer.eos], supervised=bool(texts) and texts[-1].supervised)
    return np.array(writer.tokens, dtype=np.int64), np.array(writer.supervised, dtype=bool)


def tag_tokens(tokenizer: Tokenizer, images: ImageConfig) -> tuple[int, int, int, int]:
    """Tokens of what stands around tiles: `ImageConfig.tag_tokens` for this tokenizer."""
    along = images.longest // images.shortest
    *tiles, whole = (len(tokenizer.structure(tag_of(tile))) for tile in tiles_of(along, max(along, 2)))
    newline, two = (len(tokenizer.structure(text)) for text in ("\n", "\n\n"))
    return max(tiles), whole, newline, two


class _Writer:
    """Collects ids and what is learned. Neighbouring texts are joined first: an edge of a segment cuts no word."""

    def __init__(self, tokenizer: Tokenizer, slots: Sequence[Sequence[Slot]]) -> None:
        self.tokenizer = tokenizer
        around = tokenizer.special.around_image
        self.around = [tokenizer.id(around)] if around else []
        self.image = tokenizer.id(tokenizer.special.image)
        self.slots = iter(slots)
        self.tokens: list[int] = []
        self.supervised: list[bool] = []
        self.texts: list[Text] = []
        self.after_image = False
        self.first = True

    def write(self, pieces: Sequence[Piece]) -> None:
        """Write pieces in order. Upstream's first run of text is the one at character 0, whatever ids precede it."""
        for piece in pieces:
            if isinstance(piece, Text):
                self.texts.append(piece)
            elif isinstance(piece, Image):
                self._image()
            elif isinstance(piece, Special):
                self._special(piece)
        self._flush()

    def ids(self, ids: Sequence[int], supervised: bool = False) -> None:
        self.tokens.extend(ids)
        self.supervised.extend([supervised] * len(ids))

    def _image(self) -> None:
        self._flush()
        slots = next(self.slots)
        is_tiled = slots[0].tile is not None
        if not is_tiled and self.tokens[-1:] != self.around:  # neighbouring images share one
            self.ids(self.around)
        last: Tile | None = None
        for count, tile in slots:
            if tile is not None:
                self.ids(self.tokenizer.structure(text_before(last, tile)))
                self.ids(self.around)
                self.ids(self.tokenizer.structure(tag_of(tile)))
                last = tile
            self.ids([self.image] * count)
            self.ids(() if is_tiled else self.around)
        self.ids(self.around if is_tiled else ())
        self.after_image, self.first = not is_tiled, False

    def _special(self, piece: Special) -> None:
        self._flush()
        self.ids([self.tokenizer.id(piece.token)], piece.supervised)
        self.after_image, self.first = False, False

    def _flush(self) -> None:
        """Tokenise the joined texts; a token is learned if it stands for any learned character."""
        text = "".join(piece.text for piece in self.texts)
        if text:
            # Idefics2's processor parts a word from the image before it, but not a `<`; others do not.
            parts = bool(self.around) and self.tokenizer.special.space_after_image
            space = parts and self.after_image and not text[0].isspace() and text[0] != "<"
            ids, offsets = self.tokenizer.encode_with_offsets(f" {text}" if space else text, self.first)
            self.tokens.extend(ids)
            self.supervised.extend(_supervised_mask(self.texts, offsets, start=int(space)))
            self.first = False
        self.texts = []


def _supervised_mask(texts: Sequence[Text], offsets: Sequence[tuple[int, int]], start: int) -> list[bool]:
    """Mask of the tokens that overlap a supervised text, given that the first text starts at character `start`."""
    marks = {text.supervised for text in texts if text.text}
    if len(marks) == 1:
        return [marks.pop()] * len(offsets)
    mask = bytearray(start)
    for text in texts:
        mask += (b"\1" if text.supervised else b"\0") * len(text.text)
    return [1 in mask[begin:end] for begin, end in offsets]


def pack(rendered: Sequence[Rendered], *, image_token: int, patch_width: int) -> Batch:
    """Lay samples end to end. Targets are shifted within each document; its last position learns nothing.

    image_token: the id whose places visual tokens take; patch_width: values in one patch.
    Raises: DataError if the slots and images of a sample disagree, or if one has no tokens.
    """
    for one in rendered:
        _check(one, image_token, patch_width)
    documents = SequenceLengths(tuple(len(one.tokens_T) for one in rendered))
    images = [image for one in rendered for image in one.images]
    tokens_T = _joined([one.tokens_T for one in rendered])
    loss_mask_T = _joined([one.loss_mask_T for one in rendered]).astype(bool)
    targets_T = np.full_like(tokens_T, IGNORE_INDEX)
    np.copyto(targets_T[:-1], tokens_T[1:], where=loss_mask_T[1:])
    targets_T[np.array(documents.starts[1:], dtype=np.int64) - 1] = IGNORE_INDEX  # the next document is not foreseen
    pixels = [np.empty((0, patch_width), dtype=np.uint8), *(image.pixels_PC for image in images)]
    return Batch(
        tokens_T=torch.from_numpy(tokens_T),
        targets_T=torch.from_numpy(targets_T),
        positions_T=torch.from_numpy(_joined([np.arange(length) for length in documents.lengths])),
        documents=documents,
        patches_PC=torch.from_numpy(np.concatenate(pixels)),
        patch_positions_P=torch.from_numpy(_joined([image.positions_P for image in images])),
        grids=tuple((image.rows, image.columns) for image in images),
        visual_positions_V=torch.from_numpy(np.flatnonzero(tokens_T == image_token)),
    )


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays end to end as int64; of no arrays, an empty one."""
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _check(one: Rendered, image_token: int, patch_width: int) -> None:
    slots, wanted = int((one.tokens_T == image_token).sum()), sum(one.visual_tokens)
    if slots != wanted:
        raise DataError(
            f"{one.name}: {slots} visual tokens for {len(one.images)} images that become {wanted};"
            " a sample may not be cut between rendering and packing"
        )
    if one.images and len(one.images) != len(one.visual_tokens):
        raise DataError(f"{one.name}: {len(one.images)} images for {len(one.visual_tokens)} slots; give one for each")
    if len(one.tokens_T) == 0 or len(one.tokens_T) != len(one.loss_mask_T):
        raise DataError(f"{one.name}: {len(one.tokens_T)} tokens with {len(one.loss_mask_T)} learning marks")
    if (one.loss_mask_T & (one.tokens_T == image_token)).any():
        raise DataError(f"{one.name}: visual tokens are marked as supervised; only text is predicted")
    for image in one.images:
        if image.pixels_PC.shape != (len(image.positions_P), patch_width):
            raise DataError(f"{one.name}: patches of shape {image.pixels_PC.shape}; expected {patch_width} values each")
