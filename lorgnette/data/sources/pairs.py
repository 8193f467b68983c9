"""Images with captions: one row of parquet, one image, and the captions found with it or made for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from lorgnette.data.config import PairsConfig
from lorgnette.data.record import Record, Refused
from lorgnette.data.sources.reading.columns import IMAGE_COLUMNS, images_in, is_absent
from lorgnette.data.sources.reading.values import cut_text, missing, read_image
from lorgnette.sample import Text


def read(row: Mapping[str, Any], config: PairsConfig, name: str) -> Record:
    """An image and one caption, which is learned (Table 6 compares captions found with captions made).

    Where the settings accept both kinds, or a column holds a list, one caption is chosen at random: first a kind among
    those that the row has, then one of its captions. The choice depends on the captions alone: it is the same in every
    epoch, wherever the file lies. A caption too long for one sample goes on in another one with the same image.

    Raises: Refused if the row has no image, or no caption of an accepted kind.
    """
    image = read_image(image_of(row, config), row, f"{config.image_column!r}")
    columns = {"alt": config.alt_column, "synthetic": config.synthetic_column}
    accepted = columns.values() if config.captions == "both" else (columns[config.captions],)
    kinds = [captions for column in accepted if (captions := read_captions(row.get(column), column))]
    if not kinds:
        raise Refused("no caption", f"the row has no text in {' or '.join(map(repr, accepted))}")
    caption = _lot(_lot(kinds))
    units = tuple((Text(part, supervised=True),) for part in cut_text(caption))
    return Record(units, prefix=(image,), meta={"name": name, "source": config.title})


def image_of(row: Mapping[str, Any], config: PairsConfig) -> Any:
    """The one image of a row, as it stands there. Raises: Refused if there is none, or more than one."""
    columns = tuple(dict.fromkeys((config.image_column, *IMAGE_COLUMNS)))
    images, absent = images_in(row, columns)
    if len(images) == 1:
        return images[0]
    if images:
        raise Refused("images", f"the row has {len(images)} images, and its caption is of one")
    if absent:
        raise Refused("no image", f"{config.image_column!r} is null or empty")
    raise missing(row, config.image_column, "; set image_column")


def read_captions(value: Any, column: str) -> list[str]:
    """The captions of a column that are not blank, trimmed."""
    if is_absent(value) or isinstance(value, str):
        value = [value]
    if not isinstance(value, Iterable) or isinstance(value, bytes | Mapping):
        raise Refused("wrong type", f"{column!r} is a {type(value).__name__}, not a caption or a list of captions")
    captions = list(value)
    for one in captions:
        if not is_absent(one) and not isinstance(one, str):
            raise Refused("wrong type", f"{column!r} holds a {type(one).__name__}, not a caption")
    return [one.strip() for one in captions if not is_absent(one)]


def _lot(items: list[Any]) -> Any:
    """One of the items, by a hash of all of them."""
    digest = hashlib.sha256(repr(items).encode("utf-8", "surrogatepass")).digest()
    return items[int.from_bytes(digest[:8], "big") % len(items)]
