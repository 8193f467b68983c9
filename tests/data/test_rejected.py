"""Rejected rows are written and read again, also under the names that earlier versions gave their files."""

import pytest

from lorgnette.data.rejected import REJECTED, RejectedRow, read_rejected, rejected_file, write_rejected

FORMER = '{"file": "a.jsonl", "place": "row 2", "reason": "no text", "detail": "blank", "rows": 1}\n'


@pytest.mark.parametrize(
    ("former", "name"), [("ledger.jsonl", REJECTED), ("00000.parquet.refused.jsonl", "00000.parquet.rejected.jsonl")]
)
def test_files_of_earlier_versions_are_found(tmp_path, former, name):
    (tmp_path / former).write_text(FORMER)
    [row] = read_rejected(rejected_file(tmp_path, name))
    assert row == RejectedRow("a.jsonl", "row 2", "no text", "blank") and row.name == "a.jsonl, row 2"
    write_rejected(tmp_path / name, [RejectedRow("b.jsonl", "", "empty", rows=0, parts=2)])
    assert [one.name for one in read_rejected(rejected_file(tmp_path, name))] == ["b.jsonl"]
