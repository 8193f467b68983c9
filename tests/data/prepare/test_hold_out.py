"""Held-out rows: no picture is on both sides, whatever its name, and the choice depends on pictures alone."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from lorgnette.data.config import ChatConfig
from lorgnette.data.prepare import prepare
from lorgnette.data.prepare.hold_out import choose_held_out, is_held_out, keys_text, read_keys
from lorgnette.errors import DataError, SettingsError
from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from tests.tuning.receipts import SHOPS, receipt, row


@pytest.fixture(scope="module")
def processor() -> Processor:
    texts = ["Which shop is this receipt from?", *SHOPS] * 4
    return Processor(train_tokenizer(texts, vocabulary=300, special=SpecialTokens()))


def write(folder, name, pictures):
    """A file of a row for each tuple of pictures, numbers of receipts, each under a name of the file's own."""
    folder.mkdir(exist_ok=True)
    rows = []
    for place, numbers in enumerate(pictures):
        paths = []
        for number in numbers:
            paths.append(f"{name}-{place}-{number}.png")
            receipt("garage", number).save(folder / paths[-1])
        one = row(paths[0], "garage")
        one["messages"][0]["content"] += [{"type": "image", "path": path} for path in paths[1:]]
        rows.append(json.dumps(one))
    (folder / f"{name}.jsonl").write_text("\n".join(rows))
    return ChatConfig(path=str(folder / f"{name}.jsonl"))


def test_a_picture_under_two_names_lands_on_one_side(tmp_path, processor):
    """In one file and in two; rows of several pictures join what they share."""
    first = write(tmp_path / "one", "first", [(0,), (0, 1), (1, 2), (3,), (4,), (5,), (6,), (7,), (3,), (8,)])
    second = write(tmp_path / "two", "second", [(2,), (3,), (9,), (9,), (10,), (11,), (12,), (13,), (14,), (15,)])
    for seed in range(6):
        whole = [prepare(config, processor, workers=1) for config in (first, second)]
        file = tmp_path / f"held-{seed}.txt"
        file.write_text(keys_text(choose_held_out([one.index for one in whole], 0.3, seed)))
        sides = {}
        for part in ("train", "held_out"):
            split = {"held_out": str(file), "part": part}
            parts = [prepare(one.model_copy(update=split), processor, workers=1) for one in (first, second)]
            assert sum(one.facts["apart"] for one in parts) + sum(map(len, parts)) == 20
            sides[part] = set(np.concatenate([one.index.sha_I for one in parts]).tolist())
        assert sides["train"] and sides["held_out"] and not sides["train"] & sides["held_out"]
        assert len(sides["train"] | sides["held_out"]) == 16


def test_the_choice_depends_on_pictures_and_not_on_names(tmp_path, processor):
    config = write(tmp_path / "one", "first", [(number,) for number in range(20)])
    shutil.copytree(tmp_path / "one", tmp_path / "other", ignore=shutil.ignore_patterns(".lorgnette"))
    moved = ChatConfig(path=str(tmp_path / "other" / "first.jsonl"))
    keys = [choose_held_out([prepare(one, processor, workers=1).index], 0.2) for one in (config, moved)]
    assert keys[0] == keys[1] and len(keys[0]) == 4
    assert choose_held_out([prepare(config, processor, workers=1).index], 0.2, seed=1) != keys[0]


def test_rows_without_pictures_are_held_out_by_their_place(tmp_path, processor):
    talk = [{"role": "user", "content": "Which shop?"}, {"role": "assistant", "content": "garage"}]
    (tmp_path / "text.jsonl").write_text((json.dumps({"messages": talk}) + "\n") * 10)
    index = prepare(ChatConfig(path=str(tmp_path / "text.jsonl")), processor, workers=1).index
    file = tmp_path / "held.txt"
    file.write_text(keys_text(choose_held_out([index], 0.3)))
    assert is_held_out(index, read_keys(str(file))).sum() == 3


def test_what_cannot_be_held_out_is_refused(tmp_path, processor):
    same = write(tmp_path / "one", "same", [(0,)] * 10)
    with pytest.raises(DataError, match="1 groups that share no picture, and at least 4"):
        choose_held_out([prepare(same, processor, workers=1).index], 0.1)
    few = write(tmp_path / "two", "few", [*[(1,)] * 6, *[(2,)] * 6, *[(3,)] * 6, (4,)])
    with pytest.raises(DataError, match="most rows show the same pictures"):
        choose_held_out([prepare(few, processor, workers=1).index], 0.1)
    (tmp_path / "bad.txt").write_text("0123456789abcdef\nred\n")
    with pytest.raises(DataError, match=r"bad\.txt, line 2: 'red' is no key"):
        read_keys(str(tmp_path / "bad.txt"))
    with pytest.raises(SettingsError, match="held_out names no file"):
        ChatConfig(path="a", part="held_out")


def test_a_picture_of_most_rows_stays_in_training(tmp_path, processor):
    config = write(tmp_path / "one", "first", [*[(0,)] * 12, *[(number,) for number in range(1, 9)]])
    index = prepare(config, processor, workers=1).index
    common = index.sha_I[0]
    assert all(int(common) not in choose_held_out([index], 0.3, seed) for seed in range(8))
