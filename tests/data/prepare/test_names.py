"""Folders of any name are prepared, and rows that are refused there are named."""

from __future__ import annotations

import json
import os
import sys

import PIL.Image
import pytest

from lorgnette.cli import main

TOKENIZER = "lorgnette/hub/shipped/language"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="names of files are bytes on Linux")
@pytest.mark.parametrize("name", [b"bad\xff\xfe", b"[x]*?", b"line\nbreak", b"[bold]x"])
def test_a_folder_of_any_name_is_prepared_and_its_rows_are_named(tmp_path, name, monkeypatch, capsys):
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    PIL.Image.new("RGB", (32, 32), "red").save(folder / "a.png")
    rows = []
    for image in ("a.png", "gone.png"):
        content = [{"type": "image", "path": image}, {"type": "text", "text": "What is it?"}]
        answer = {"role": "assistant", "content": "red"}
        rows.append({"messages": [{"role": "user", "content": content}, answer]})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [
        "lorgnette",
        "data",
        "prepare",
        "--kind",
        "chat",
        str(folder),
        "--tokenizer",
        TOKENIZER,
        "--workers",
        "1",
    ]
    monkeypatch.setattr(sys, "argv", command)
    for _ in range(2):  # made, and found again
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
    [rejected] = folder.glob(".lorgnette/*/index-*/rejected.jsonl")
    [refused] = map(json.loads, rejected.read_text(encoding="utf-8").splitlines())
    assert "gone.png" in json.dumps(refused)
