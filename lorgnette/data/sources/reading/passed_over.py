"""Files of rows that are not read because others lie beside them: said, so that nobody trains without them."""

from __future__ import annotations

import importlib

from lorgnette.data.config import PreparedConfig
from lorgnette.data.sources.reading.row_files import is_parquet, row_files
from lorgnette.errors import DataError
from lorgnette.untrusted import quoted

FILES = "files not read"
"""The reason of a line about them."""


def passed_over(config: PreparedConfig) -> str:
    """A sentence about files of rows that this kind finds in its folder and does not read; empty if there are none.

    Kind `chat` reads them all.
    """
    try:
        if config.kind == "pairs":
            others: list[str] = importlib.import_module("lorgnette.data.sources.caption_files").not_read(config)
        elif config.kind in ("instruct", "interleaved"):
            found = row_files(config.path)
            others = [path for path in found if not is_parquet(path)] if any(map(is_parquet, found)) else []
        else:
            return ""
    except DataError:
        return ""
    if not others:
        return ""
    which = "1 file is" if len(others) == 1 else f"{len(others):,} files are"
    return f"{which} passed over for those beside, {quoted(others[0])} first; give the path of a file itself to read it"
