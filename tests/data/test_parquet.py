"""Rows written as parquet."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorgnette.data.parquet import write_rows

COLUMNS = pa.schema([("question_id", pa.int64()), ("question", pa.string())])


def test_row_groups_are_small_and_a_failure_leaves_no_file(tmp_path):
    def broken():
        yield from [{"question_id": 1}] * 70
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        write_rows(tmp_path / "x.parquet", broken(), COLUMNS)
    assert list(tmp_path.iterdir()) == []
    write_rows(tmp_path / "x.parquet", [{"question_id": number} for number in range(130)], COLUMNS)
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)] == [64, 64, 2]
