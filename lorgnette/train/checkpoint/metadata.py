"""Reader of a checkpoint's shards that runs no code of theirs.

torch.distributed.checkpoint keeps what its files hold in `.metadata`, a pickle, and a pickle may call anything. Here it
can name the classes that such a file is made of and nothing else, and what it says is checked before it is used. The
tensors themselves are read with `weights_only` by the library.
"""

from __future__ import annotations

import pathlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import metadata as stored
from torch.distributed.checkpoint.filesystem import FileSystemReader, _StorageInfo
from torch.serialization import _get_layout

from lorgnette.errors import CheckpointError
from lorgnette.untrusted import quoted

MAX_METADATA_BYTES = 256 * 2**20
"""Bytes of a `.metadata`: about a kilobyte for each tensor."""

_ADMITTED: Mapping[tuple[str, str], Any] = {
    **{
        (stored.__name__, kind.__name__): kind
        for kind in (
            stored.BytesStorageMetadata,
            stored.ChunkStorageMetadata,
            stored.Metadata,
            stored.MetadataIndex,
            stored.StorageMeta,
            stored.TensorProperties,
            stored.TensorStorageMetadata,
            stored._MEM_FORMAT_ENCODING,
        )
    },
    (_StorageInfo.__module__, _StorageInfo.__name__): _StorageInfo,
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): _get_layout,  # looks a name up in a table
    **{("torch", str(kind).removeprefix("torch.")): kind for kind in vars(torch).values() if type(kind) is torch.dtype},
    # where the writer kept it, which nothing reads; the module is another one in later versions of Python
    **{(module, "PosixPath"): pathlib.PurePosixPath for module in ("pathlib", "pathlib._local")},
    **{(module, "WindowsPath"): pathlib.PureWindowsPath for module in ("pathlib", "pathlib._local")},
}
"""Everything that a `.metadata` may name. Each is a class that only keeps values, or a look-up."""


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"names {quoted(f'{module}.{name}', 80)}, which no checkpoint holds")
        return _ADMITTED[module, name]


class CheckpointReader(FileSystemReader):
    """FileSystemReader whose `read_metadata` raises CheckpointError instead of running what a pickle asks for."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> stored.Metadata:
        path = Path(self._get_metadata_path(kwargs.get("rank")))
        if path.stat().st_size > MAX_METADATA_BYTES:
            raise CheckpointError(f"{path}: exceeds the limit of {MAX_METADATA_BYTES:,} bytes")
        with path.open("rb") as file:
            try:
                metadata = _MetadataUnpickler(file).load()
            except Exception as error:  # damaged pickles raise anything
                raise CheckpointError(f"{path.name} {quoted(str(error) or type(error).__name__)}") from None
        _check(metadata, path.name)
        metadata.storage_meta = stored.StorageMeta(load_id=self.load_id)
        return metadata


def _check(metadata: Any, name: str) -> None:
    """Raises: CheckpointError if a value is not what the library relies on, or leads out of the folder."""
    if not isinstance(metadata, stored.Metadata):
        raise CheckpointError(f"{name} holds no metadata")
    tensors, places = metadata.state_dict_metadata, metadata.storage_data
    if not isinstance(tensors, dict) or not isinstance(places, dict):
        raise CheckpointError(f"{name} lacks its tables of tensors and files")
    for key, tensor in tensors.items():
        if not isinstance(key, str) or not isinstance(tensor, stored.TensorStorageMetadata) or not _is_whole(tensor):
            raise CheckpointError(f"{name} says of {quoted(key, 80)} what is no tensor's")
    for index, info in places.items():
        if not isinstance(index, stored.MetadataIndex) or not isinstance(info, _StorageInfo):
            raise CheckpointError(f"{name} holds a place of no tensor")
        file, numbers = info.relative_path, (info.offset, info.length)
        if not isinstance(file, str) or Path(file).name != file or "\0" in file:
            raise CheckpointError(f"{name} names the file {quoted(file, 80)}, which is not beside it")
        if any(not isinstance(number, int) or number < 0 for number in numbers) or info.transform_descriptors:
            raise CheckpointError(f"{name} says of {quoted(file, 80)} what lorgnette does not write")


def _is_whole(tensor: stored.TensorStorageMetadata) -> bool:
    """True if the size and the chunks of a tensor have valid values."""
    sizes = [tensor.size]
    if not isinstance(tensor.chunks, list) or not isinstance(tensor.properties, stored.TensorProperties):
        return False
    for chunk in tensor.chunks:
        if not isinstance(chunk, stored.ChunkStorageMetadata):
            return False
        sizes += [chunk.offsets, chunk.sizes]
    return all(isinstance(size, torch.Size) and all(side >= 0 for side in size) for size in sizes)
