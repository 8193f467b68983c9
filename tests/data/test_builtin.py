"""The built-in sources: pure, disjoint by split, true by construction, balanced, fast."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from lorgnette.data.builtin import (
    CATEGORIES,
    COLOURS,
    KINDS,
    CaptionSource,
    QuestionSource,
    drawings,
    questions_for_evaluation,
    tokenizer_texts,
)
from lorgnette.data.builtin.captions import caption, with_article
from lorgnette.data.builtin.colours import NEIGHBOURS
from lorgnette.data.builtin.drawings import SPLITS, Drawing
from lorgnette.data.builtin.questions import FORMS, SCHEDULE
from lorgnette.errors import DataError
from lorgnette.sample import Sample, Text, Turn


def digest(sample: Sample) -> str:
    parts = [repr([part for part in sample.segments if isinstance(part, Text | Turn)])]
    for image in sample.images:
        parts += [repr(image.source.size), hashlib.sha256(image.source.tobytes()).hexdigest()]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


# The drawings


def test_every_drawing_is_in_the_public_domain_and_well_described() -> None:
    for split in SPLITS:
        for row in drawings(split):
            assert row.licence == "public domain"
            assert row.category in (*CATEGORIES, None)
            assert hashlib.sha256(row.image).hexdigest() == row.sha256
            assert row.path.endswith(".svg")
            assert max(row.width, row.height) == 160
            assert min(row.width, row.height) >= 24


def test_splits_share_no_drawing() -> None:
    rows = {split: drawings(split) for split in SPLITS}
    for one, two in combinations(SPLITS, 2):
        for key in ("id", "path", "sha256", "group"):
            assert not {getattr(row, key) for row in rows[one]} & {getattr(row, key) for row in rows[two]}


def test_every_split_has_its_share_of_every_category() -> None:
    sizes = {split: len(drawings(split)) for split in SPLITS}
    total = sum(sizes.values())
    assert 4000 <= total <= 4500
    assert sizes["test"] / total == pytest.approx(0.15, abs=0.03)
    assert sizes["validation"] / total == pytest.approx(0.05, abs=0.02)
    for split, fewest in (("train", 40), ("validation", 2), ("test", 8)):
        assert set(drawings(split).by_category) == set(CATEGORIES)
        assert min(map(len, drawings(split).by_category.values())) >= fewest


# Purity


@pytest.mark.parametrize("make", [lambda: CaptionSource("test", 3), lambda: QuestionSource("test", 3, turns=3)])
def test_a_sample_depends_on_nothing_but_settings_and_index(make: Any) -> None:
    source = make()
    forwards = [digest(source[index]) for index in range(24)]
    other = pickle.loads(pickle.dumps(make()))
    backwards = [digest(other[index]) for index in reversed(range(24))]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 24


def test_another_process_makes_the_same_samples() -> None:
    code = (
        "from lorgnette.data.builtin import QuestionSource\n"
        "import hashlib\n"
        "source = QuestionSource('validation', 5, turns=4)\n"
        "for sample in map(source.__getitem__, range(12)):\n"
        "    print(sample.meta['turns'], hashlib.sha256(sample.images[0].source.tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    source = QuestionSource("validation", 5, turns=4)
    samples = [source[index] for index in range(12)]
    lines = [f"{s.meta['turns']} {hashlib.sha256(s.images[0].source.tobytes()).hexdigest()}" for s in samples]
    assert done.stdout.splitlines() == lines


@pytest.mark.parametrize("source", [CaptionSource, QuestionSource])
def test_seed_and_split_change_the_samples(source: Any) -> None:
    assert digest(source("test", 0)[7]) != digest(source("test", 1)[7])
    assert digest(source("test", 0)[7]) != digest(source("train", 0)[7])
    assert source("train").size is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: CaptionSource("tset"),
        lambda: QuestionSource("tset"),
        lambda: QuestionSource("test", kinds=("colour", "shape")),
        lambda: QuestionSource("test", kinds=()),
        lambda: QuestionSource("test", turns=0),
        lambda: QuestionSource("test", size=8),
    ],
)
def test_what_cannot_be_made_is_refused(make: Any) -> None:
    with pytest.raises(DataError):
        make()


# Reference: answers worked out again from where the drawings lie, not from what the maker meant


def place_of(box: tuple[int, int, int, int], width: int, height: int) -> str:
    """The place's name from the centre of the box: thirds of the picture, or halves where nothing lies between."""

    def side(centre: float, low: str, high: str) -> str:
        assert not 0.33 < centre < 0.41, "a place in doubt"
        assert not 0.59 < centre < 0.67, "a place in doubt"
        return low if centre < 0.4 else high if centre > 0.6 else ""

    across = side((box[0] + box[2]) / 2 / width, "left", "right")
    down = side((box[1] + box[3]) / 2 / height, "top", "bottom")
    return f"{down} {across}".strip() or "middle"


def true_answer(question: str, sample: dict[str, Any], rows: dict[str, Drawing]) -> str:
    scene = sample["scene"]
    boxes = [thing.box for thing in scene.placed]
    known = [rows[identity] for identity in sample["drawings"]]

    def places() -> list[str]:
        return [place_of(box, scene.width, scene.height) for box in boxes]

    def the(what: str) -> int:
        """The one drawing meant by a colour or category; no other may be mistaken for it."""
        key = "colour" if what in NEIGHBOURS else "category"
        values = [getattr(row, key) for row in known]
        assert None not in values
        if key == "colour":
            assert not NEIGHBOURS[what] & set(values)
        (index,) = [index for index, value in enumerate(values) if value == what]
        return index

    def at(words: str) -> int:
        name = re.sub(r"^(on|in|at) the ", "", words)
        (index,) = [index for index, place in enumerate(places()) if place == name]
        return index

    def precedes(one: int, two: int, axis: int) -> bool:
        """Whether one lies wholly before the other along an axis; they never overlap along it."""
        assert boxes[one][axis + 2] <= boxes[two][axis] or boxes[two][axis + 2] <= boxes[one][axis]
        return boxes[one][axis] < boxes[two][axis]

    if question in ("What kind of thing is this?", "What does this drawing show?"):
        return str(known[0].category) if len(known) == 1 else "?"
    if question in ("What colour is this drawing?", "What is the main colour of this drawing?"):
        return str(known[0].colour) if len(known) == 1 else "?"
    if re.match(r"How many drawings", question):
        return str(len(known))
    if found := re.match(r"How many (\w+) drawings are there\?", question):
        assert None not in [row.colour for row in known]
        assert not NEIGHBOURS[found[1]] & {str(row.colour) for row in known}
        return str(sum(row.colour == found[1] for row in known))
    if found := re.match(r"What kind of thing is the (\w+) drawing\?", question):
        return str(known[the(found[1])].category)
    if found := re.match(r"What colour is the drawing (.*)\?", question):
        return str(known[at(found[1])].colour)
    if found := re.match(r"What colour is the (\w+)\?", question):
        return str(known[the(found[1])].colour)
    if found := re.match(r"Where is the (\w+) drawing\?", question):
        return places()[the(found[1])]
    if found := re.match(r"Is the (\w+) drawing left or right of the (\w+) one\?", question):
        return "left" if precedes(the(found[1]), the(found[2]), 0) else "right"
    if found := re.match(r"Is the (\w+) drawing above or below the (\w+) one\?", question):
        return "above" if precedes(the(found[1]), the(found[2]), 1) else "below"
    if found := re.match(r"Is the (\w+) (above|below|left of|right of) the (\w+)\?", question):
        axis = 1 if found[2] in ("above", "below") else 0
        first = precedes(the(found[1]), the(found[3]), axis)
        return "yes" if first == (found[2] in ("above", "left of")) else "no"
    if found := re.match(r"What kind of thing is (.*)\?", question):
        return str(known[at(found[1])].category)
    raise AssertionError(f"no rule for {question!r}")


@pytest.mark.parametrize("split", SPLITS)
def test_answers_are_true_and_scenes_show_only_drawings_of_the_split(split: str) -> None:
    rows = {row.id: row for row in drawings(split)}
    source = QuestionSource(split, 11, turns=6)
    forms = Counter()
    for index in range(360):
        sample = source.describe(index)
        assert set(sample["drawings"]) <= rows.keys()
        for turn in sample["turns"]:
            assert turn["answer"] == true_answer(turn["question"], sample, rows), turn
            forms[turn["form"]] += 1
    assert set(forms) == set(FORMS)


def test_drawings_lie_apart_and_are_drawn_where_the_scene_says() -> None:
    source = QuestionSource("test", 2, size=160)
    for index in range(120):
        scene = source[index].meta["scene"]
        picture = np.asarray(source[index].images[0].source).astype(int)
        assert picture.shape == (scene.height, scene.width, 3)
        assert max(picture.shape) == 160
        drawn = np.abs(picture - scene.background).max(axis=-1) > 0
        for thing in scene.placed:
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= scene.width
            assert 0 <= top < bottom <= scene.height
            assert drawn[top:bottom, left:right].mean() > 0.02, thing.drawing.path
            drawn[top:bottom, left:right] = False
        assert not drawn.any()
        for one, two in combinations([thing.box for thing in scene.placed], 2):
            assert one[2] <= two[0] or two[2] <= one[0] or one[3] <= two[1] or two[3] <= one[1]


# Form


def test_a_conversation_learns_its_answers_only() -> None:
    source = QuestionSource("train", 0, turns=4)
    most = 0
    for index in range(60):
        sample = source[index]
        texts = [part for part in sample.segments if isinstance(part, Text)]
        assert [part.learn for part in texts] == [False, True] * (len(texts) // 2)
        assert [part.role for part in sample.segments if isinstance(part, Turn)] == ["user", "assistant"] * (
            len(texts) // 2
        )
        assert len(sample.images) == 1
        questions = [part.text for part in texts[::2]]
        assert len(set(questions)) == len(questions) <= 4
        assert texts[1].text == sample.meta["answer"]
        assert questions[0] == sample.meta["question"]
        most = max(most, len(questions))
    assert most == 4


def test_only_the_kinds_wanted_are_asked() -> None:
    source = QuestionSource("train", 0, turns=5, kinds=("count", "position"))
    kinds = Counter(turn["kind"] for index in range(60) for turn in source.describe(index)["turns"])
    assert set(kinds) == {"count", "position"}


# Balance


def test_evaluation_is_balanced_by_kind_form_and_answer() -> None:
    source = QuestionSource("test", 0)
    samples = [source.describe(index) for index in range(2880)]
    assert [sample["question"] for sample in samples[:8]] == [
        sample.meta["question"] for sample in questions_for_evaluation("test", 8, seed=0)
    ]
    assert Counter(sample["kind"] for sample in samples) == dict.fromkeys(KINDS, 720)
    by_form = defaultdict(Counter)
    for sample in samples:
        assert sample["answer"] in FORMS[sample["form"]].answers
        by_form[sample["form"]][sample["answer"]] += 1
    for name, counts in by_form.items():
        assert max(counts.values()) - min(counts.values()) <= 1, (name, counts)
        assert len(counts) >= len(FORMS[name].answers) - 2
    for kind, most in (("category", 0.16), ("colour", 0.20), ("count", 0.25), ("position", 0.40)):
        asked = defaultdict(Counter)
        for sample in samples:
            if sample["kind"] == kind:
                wording = re.sub(rf"\b({'|'.join((*CATEGORIES, *COLOURS))})\b", "*", sample["question"])
                asked[wording][sample["answer"]] += 1
        guessed = sum(max(counts.values()) for counts in asked.values()) / sum(map(Counter.total, asked.values()))
        assert guessed <= most, (kind, guessed)


def test_evaluation_uses_most_test_drawings() -> None:
    source = QuestionSource("test", 0)
    used = {identity for index in range(1600) for identity in source.describe(index)["drawings"]}
    useful = [row for row in drawings("test") if row.category or row.colour in COLOURS or row.whole]
    assert len(used) >= 0.85 * len(useful)


def test_the_schedule_names_every_form_once_or_more() -> None:
    assert {name for names in SCHEDULE.values() for name in names} == set(FORMS)
    for kind, names in SCHEDULE.items():
        assert {FORMS[name].kind for name in names} == {kind}


# Captions and texts


def test_captions_are_clean_sentences() -> None:
    source = CaptionSource("train", 1)
    for index in range(300):
        sample = source[index]
        picture, text = sample.segments
        assert text.learn
        assert text.text.isascii()
        assert re.fullmatch(r"[A-Z][a-z ,\-]+\.", text.text), text.text
        assert len(text.text.split()) <= 20
        row = next(row for row in drawings("train") if row.id == sample.meta["drawings"][0])
        width, height = picture.source.size
        assert max(width, height) == 128
        if 0.4 < row.width / row.height < 2.5:
            assert width / height == pytest.approx(row.width / row.height, rel=0.2)


def test_every_drawing_is_captioned_once_per_round() -> None:
    count = len(drawings("validation"))
    source = CaptionSource("validation", 0)
    for start in (0, count):
        seen = [source[index].meta["drawings"][0] for index in range(start, start + count)]
        assert len(set(seen)) == count


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("red apple", "a red apple"),
        ("apple", "an apple"),
        ("scissors", "scissors"),
        ("food", "food"),
        ("glass", "a glass"),
    ],
)
def test_articles(phrase: str, expected: str) -> None:
    assert with_article(phrase, phrase) == expected


def test_tokenizer_texts_hold_every_answer() -> None:
    words = {word for text in tokenizer_texts() for word in re.findall(r"[a-z0-9]+", text.lower())}
    for form in FORMS.values():
        for answer in form.answers:
            assert set(answer.split()) <= words
    assert list(tokenizer_texts(20)) == list(tokenizer_texts(20))


def test_captions_say_nothing_that_is_not_known() -> None:
    import random

    row = drawings("test")[0]
    bare = Drawing("x", b"", "", None, (), None, None, 1, 1, "a.svg", row.licence, "", True, "g")
    assert caption(bare, random.Random(0)) == "A drawing."


# Speed


def test_a_scene_takes_a_few_milliseconds_at_most() -> None:
    source = QuestionSource("validation", 0, turns=4)
    for index in range(800):
        source[index]  # decodes the drawings
    start = time.process_time()
    for index in range(800, 1200):
        source[index]
    assert (time.process_time() - start) / 400 < 0.006


def test_questions_may_ask_for_a_brief_answer_as_the_benchmarks_do() -> None:
    from lorgnette.data.builtin.sources import BRIEF
    from lorgnette.eval.benchmark_prompts import SHORT_ANSWER

    assert SHORT_ANSWER["paper"].ask == "{question}" + BRIEF
    plain, brief = QuestionSource("test", 5, turns=3), QuestionSource("test", 5, turns=3, brief=0.5)
    texts = [(a, b) for n in range(20) for a, b in zip(_texts(plain[n]), _texts(brief[n]), strict=True)]
    asked = [b for a, b in texts if b != a]
    assert 10 < len(asked) < 50
    assert all(b in (a, a + BRIEF) for a, b in texts)
    assert plain[3].meta["turns"] == brief[3].meta["turns"]


def _texts(sample: Sample) -> list[str]:
    return [segment.text for segment in sample.segments if isinstance(segment, Text)]
