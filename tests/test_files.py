import errno

import pytest

from lorgnette.files import DiskError, new_file, new_folder, write_json, write_text


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "a.txt"
    write_text(target, "first")
    with pytest.raises(RuntimeError), new_file(target) as beside:
        beside.write_text("half")
        raise RuntimeError
    assert target.read_text() == "first"
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_a_folder_takes_the_place_of_the_old_one(tmp_path):
    target = tmp_path / "model"
    for text in ("one", "two"):
        with new_folder(target) as beside:
            (beside / text).write_text(text)
    assert [path.name for path in target.iterdir()] == ["two"]
    with pytest.raises(RuntimeError), new_folder(target) as beside:
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "no permission"), (errno.EIO, "cannot be written")],
)
def test_a_disk_that_refuses_is_one_sentence(tmp_path, number, expected):
    with pytest.raises(DiskError, match=expected), new_file(tmp_path / "a"):
        raise OSError(number, "reason")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_met_for_real():
    with pytest.raises(DiskError, match="disk is full"), new_file("/dev/full") as beside:
        with open("/dev/full", "w") as full:
            full.write("x")
        beside.touch()


def test_json_refuses_what_is_not_json(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []
