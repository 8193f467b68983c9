"""Strings within nested, encoded and extension types of Arrow."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc


def any_starts(table: pa.Table, start: str) -> bool:
    """Return whether a string in nested columns starts like this, in whatever case."""
    left = [chunk for column in table.columns for chunk in column.chunks]
    while left:
        array = left.pop()
        inner = _inner(array)
        if inner is not None:
            left += inner
        elif _is_text(array.type) and pc.any(pc.starts_with(_as_large_string(array), start, ignore_case=True)).as_py():
            return True
    return False


def _inner(array: pa.Array) -> list[pa.Array] | None:
    """The arrays that an array of any nested, encoded or extension type is made of; None for plain values."""
    types, kind = pa.types, array.type
    if isinstance(kind, pa.BaseExtensionType):
        return [array.storage]
    if types.is_struct(kind):
        return list(array.flatten())
    if types.is_dictionary(kind):
        return [array.dictionary]
    if types.is_run_end_encoded(kind):
        return [array.values]
    if types.is_map(kind):
        return [array.keys, array.items]
    if any(is_list(kind) for is_list in LIST_TYPES):
        return [array.flatten()]
    return None


LIST_TYPES = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


def _is_text(kind: pa.DataType) -> bool:
    return any(is_text(kind) for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _as_large_string(array: pa.Array) -> pa.Array:
    """Views have no kernels of their own."""
    return array if pa.types.is_large_string(array.type) else array.cast(pa.large_string())
