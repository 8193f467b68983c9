"""Every part of the corpus: its rows are pure, of the right form, of one split, and read by the source of its kind."""

from __future__ import annotations

import io
import re
from collections import Counter
from functools import cache
from itertools import pairwise

import PIL.Image
import pyarrow as pa
import pytest

from corpus.drawn.benchmarks import PEOPLE, REFERENCES, TYPES, ten
from corpus.drawn.labels import noun_of
from corpus.parts import PARTS
from lorgnette.data.builtin.drawings import SPLITS, drawings
from lorgnette.data.config import (
    ChatConfig,
    DocumentsConfig,
    InstructConfig,
    InterleavedConfig,
    PairsConfig,
    ScenesConfig,
)
from lorgnette.data.sources.table import KINDS
from lorgnette.sample import Text

CONFIGS = {
    "pairs": PairsConfig(path="."),
    "interleaved": InterleavedConfig(path="."),
    "documents": DocumentsConfig(path="."),
    "instruct": InstructConfig(path="."),
    "scenes": ScenesConfig(path="."),
    "chat": ChatConfig(path="."),
}
FEW = 8
DRAWN = [name for name, part in PARTS.items() if ".rendered." not in part.make]


@cache
def rows(name: str, split: str, count: int = FEW, seed: int = 0) -> list[dict]:
    return list(PARTS[name].maker()(split, count, seed))


def origin(row: dict) -> list[str]:
    """Drawings or things that a row is made of."""
    return row["origin"] if "origin" in row else row["drawings"]


def pictures(row: dict) -> list[bytes]:
    found = [*(row.get("images") or []), *([row["image"]] if "image" in row else [])]
    return [one if isinstance(one, bytes) else one["bytes"] for one in found if one is not None]


@pytest.mark.parametrize("name", PARTS)
def test_rows_have_the_columns_of_their_part(name):
    made = rows(name, "test")
    table = pa.Table.from_pylist(made, schema=PARTS[name].columns)
    table.validate(full=True)
    assert table.num_rows == FEW and all(row.keys() == set(table.column_names) for row in made)
    assert all(map(origin, made))


@pytest.mark.parametrize("name", PARTS)
def test_a_row_hangs_on_split_seed_and_number_alone(name):
    made = rows(name, "train")
    assert list(PARTS[name].maker()("train", 3, 0)) == made[:3]
    others = rows(name, "train", 3, 1)
    assert others != made[:3] and rows(name, "validation", 3) != made[:3]


@pytest.mark.parametrize("name", PARTS)
def test_pictures_are_flat_and_small(name):
    """Those of single drawings are kept without their paper: sources put them on white (see test_drawings.py)."""
    flat = ("RGBA", "RGB") if name == "drawings" else ("RGB", "L", "P", "1")
    for row in rows(name, "test"):
        for content in pictures(row):
            with PIL.Image.open(io.BytesIO(content)) as picture:
                picture.load()
                assert picture.mode in flat and "transparency" not in picture.info
                assert max(picture.size) <= 980


@pytest.mark.parametrize("name", [name for name, part in PARTS.items() if part.kind != "benchmark"])
def test_the_source_of_its_kind_reads_every_row(name):
    part = PARTS[name]
    for split in SPLITS:
        for number, row in enumerate(pa.Table.from_pylist(rows(name, split), schema=part.columns).to_pylist()):
            record = KINDS[part.kind].read(row, CONFIGS[part.kind], f"{name}, row {number}")
            sample = record.piece()
            assert any(one.supervised and one.text.strip() for one in sample.segments if isinstance(one, Text))
            assert len(sample.images) == (1 if part.kind == "scenes" else len(pictures(row)))


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("split", SPLITS)
def test_rows_of_drawings_are_made_of_drawings_of_their_split(name, split):
    ids = {row.id for row in drawings(split)}
    assert all(set(origin(row)) <= ids for row in rows(name, split))


def _texts(row: dict) -> list[str]:
    """Everything that a row says."""
    said = [
        one
        for turn in row.get("texts") or []
        if turn
        for one in ([turn] if isinstance(turn, str) else filter(None, turn.values()))
    ]
    said += [part["text"] for turn in row.get("messages", []) for part in turn["content"] if part["text"]]
    return said + [row[key] for key in ("caption", "question") if row.get(key)] + row.get("captions", [])


@pytest.mark.parametrize("name", DRAWN)
def test_texts_are_clean(name):
    for split in SPLITS:
        for row in rows(name, split, 24):
            for text in _texts(row):
                assert "{" not in text and "None" not in text and "  " not in text, text
                assert not re.search(r"\b[Aa] [aeio]\w", text), text
                assert not re.search(r"\b(a|an|the) (a|an|the)\b|\.\.|,,| ,", text), text


def test_answers_of_instructions_start_and_end_as_in_the_cauldron():
    for name in DRAWN:
        if PARTS[name].kind == "instruct":
            answers = [turn["assistant"] for row in rows(name, "train", 24) for turn in row["texts"]]
            assert all(text[0].isupper() or text[0].isdigit() for text in answers) and all(
                text.endswith(".") for text in answers
            )
            assert len(set(answers)) > len(answers) / 6


def test_an_article_shows_two_to_eight_pictures_and_a_text_behind_each():
    seen = Counter()
    for split in SPLITS:
        for row in rows("articles", split, 40):
            shown = [image is not None for image in row["images"]]
            assert [text is None for text in row["texts"]] == shown
            seen[sum(shown)] += 1
            assert not shown[-1] and not any(one and two for one, two in pairwise(shown))
    assert set(seen) <= set(range(2, 9)) and len(seen) >= 6


def _nouns(split: str) -> dict[str, str]:
    return {row.id: noun for row in drawings(split) if (noun := noun_of(row)) is not None}


def test_what_an_article_says_of_a_picture_is_what_it_shows():
    """The nouns stand in the texts in the order of the pictures, but where figures are spoken of in another order."""
    nouns = _nouns("test")
    for row in rows("articles", "test", 40):
        said = " ".join(text.lower() for text in row["texts"] if text)
        assert len(row["origin"]) == sum(image is not None for image in row["images"])
        assert all(nouns[one].lower() in said for one in row["origin"])
        behind = [text for image, text in zip(row["images"], row["texts"][1:], strict=False) if image is not None]
        if any(text.startswith("Number 1") for text in behind):
            for place, (one, text) in enumerate(zip(row["origin"], behind, strict=True), 1):
                assert nouns[one].lower() in text.partition("\n")[0].lower() and text.startswith(f"Number {place} ")
        for number, noun in re.findall(r"[Ii]n figure (\d) we see an? ([^.]+)\.", said):
            assert nouns[row["origin"][int(number) - 1]].lower() in noun


def test_what_a_conversation_says_of_a_picture_is_what_it_shows():
    nouns = _nouns("train")
    order = {"first": 0, "second": 1, "third": 2}
    checked = 0
    for row in rows("conversations", "train", 60):
        for one, two in zip(row["messages"][::2], row["messages"][1::2], strict=True):
            question, answer = one["content"][-1]["text"], two["content"][0]["text"]
            if match := re.match(r"What was in the (\w+) picture\?", question):
                assert nouns[row["origin"][order[match[1]]]].lower() in answer.lower()
                checked += 1
            elif match := re.match(r"Which picture shows (?:an? |the )?(.*)\?", question):
                place = re.match(r"The (\w+) picture", answer)
                assert place and nouns[row["origin"][order[place[1]]]] == match[1]
                checked += 1
    assert checked > 20


def test_conversations_have_one_to_three_images_and_several_turns():
    seen, turns = Counter(), Counter()
    for row in rows("conversations", "train", 60):
        parts = [part["type"] for turn in row["messages"] for part in turn["content"]]
        assert parts.count("image") == len(row["images"])
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"] * (len(row["messages"]) // 2)
        seen[len(row["images"])] += 1
        turns[len(row["messages"]) // 2] += 1
    assert set(seen) == {1, 2, 3} and max(turns) >= 5


@pytest.mark.parametrize("answers", [["yes"], ["plane", "airplane"], ["sailor", "captain", "skipper"]])
def test_ten_people_answer_and_each_right_answer_scores(answers):
    import random

    given = ten(answers, random.Random(1))
    assert len(given) == PEOPLE and set(given) == set(answers)
    assert all(given.count(answer) >= 3 for answer in answers), "three people make an answer fully right"


def test_types_and_answers_of_scene_vqa_are_balanced():
    made = rows("scene_vqa", "test", 120)
    assert Counter(row["question_type"] for row in made) == dict.fromkeys(TYPES, 40)
    yes = [max(set(row["answers"]), key=row["answers"].count) for row in made if row["question_type"] == "yes/no"]
    assert Counter(yes) == {"yes": 20, "no": 20}
    often = Counter(row["answers"][0] for row in made if row["question_type"] == "number").most_common(1)
    assert often[0][1] <= 10, "a fixed number would be right too often"


def test_questions_of_knowledge_are_spread_over_properties_and_answers():
    made = rows("knowledge_vqa", "test", 120)
    kinds = Counter(row["question_type"] for row in made)
    assert len(kinds) > 25 and max(kinds.values()) <= 8
    best = Counter(row["answers"][0] for row in made).most_common(1)[0]
    assert best[1] <= 24, f"{best} is the answer to too many questions"


def test_every_scene_has_five_references():
    assert {len(row["captions"]) for row in rows("scene_captions", "test", 24)} == {REFERENCES}
