"""Values of columns in the forms that files hold them in: lists, images that there are and are not, blank texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lorgnette.data.record import Refused
from lorgnette.data.sources.reading.values import missing
from lorgnette.errors import DataError
from lorgnette.untrusted import parse_json

IMAGE_COLUMNS = ("images", "image")
"""Columns of images, in the order in which they are looked at; the first with an image in it is taken."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of files of images."""
IMAGE_FIELDS = ("bytes", "path", "url")
"""Fields of a struct that is an image."""
_UNSEEN = ("Cc", "Cf")
"""Unicode categories of characters that show nothing: control characters, zero-width ones, marks of direction."""


def is_blank(text: str) -> bool:
    """Return whether a text shows nothing: white space, zero-width and control characters alone, or none at all."""
    return all(char.isspace() or unicodedata.category(char) in _UNSEEN for char in text)


def is_absent(value: Any) -> bool:
    """Return whether a value stands for no image or text: null, NaN (pandas), "", or a struct of nothing but these."""
    if value is None or value is False:
        return True
    if isinstance(value, float):
        return value != value
    if isinstance(value, str):
        return is_blank(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return len(value) == 0
    if isinstance(value, Mapping):
        known = [value[key] for key in IMAGE_FIELDS if key in value]
        return all(isinstance(one, Mapping | list) is False and is_absent(one) for one in known) and (
            bool(known) or not value
        )
    return False


def as_list(value: Any) -> list[Any] | None:
    """A list, or the struct of lists that `datasets` makes of a list of structs; None for anything else."""
    if isinstance(value, Mapping):
        lists = list(value.values())
        if lists and all(isinstance(one, list | tuple) for one in lists) and len({len(one) for one in lists}) == 1:
            return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
        return None
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | bytes | bytearray) else None


def one_or_list(value: Any) -> list[Any] | None:
    """As `as_list`, and a struct alone as a list of one."""
    listed = as_list(value)
    return [value] if listed is None and isinstance(value, Mapping) else listed


def list_in(row: Mapping[str, Any], column: str) -> list[Any]:
    """A column that holds a list, or the JSON text of one. Raises: Refused if it is missing, null or something else."""
    value = row.get(column)
    if value is None:
        raise missing(row, column)
    if isinstance(value, str):
        try:
            value = parse_json(value, repr(column))
        except DataError as error:
            raise Refused("not JSON", str(error)) from None
    found = as_list(value)
    if found is None:
        raise Refused("wrong type", f"{column!r} is a {type(value).__name__}, not a list")
    return found


def images_in(row: Mapping[str, Any], columns: Sequence[str] = IMAGE_COLUMNS) -> tuple[list[Any], int]:
    """The images that a row gives in a column of their own, and how many of its values stand for none.

    Raises: Refused for a column that is neither an image nor a list of images.
    """
    absent = 0
    for column in columns:
        value = row.get(column)
        if value is None:
            continue
        values = _images(value, column)
        found = [one for one in values if not is_absent(one)]
        absent += len(values) - len(found)
        if found:
            return found, absent
    return [], absent


def _images(value: Any, column: str) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith("[") and value.rstrip().endswith("]"):
        return list_in({column: value}, column)
    if is_absent(value) or isinstance(value, str | bytes | bytearray):
        return [value]
    listed = one_or_list(value)
    if listed is None:
        raise Refused("wrong type", f"{column!r} is a {type(value).__name__}, not an image or a list of images")
    return listed
