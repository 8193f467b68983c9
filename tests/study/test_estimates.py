"""The estimator is honest: intervals cover, a null study is seldom decided, and a planted effect is found."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lorgnette.errors import SettingsError
from lorgnette.study.config import Claim, Study
from lorgnette.study.estimates import SeedEstimate, difference, estimate_of, of_seeds, student
from lorgnette.study.result_rows import StudyRow, TaskScores, provenance
from lorgnette.study.verdicts import judge, judge_claims
from tests.study.conftest import STUDY

REPETITIONS, LEVEL = 200, 0.05
MOST_DECIDED = LEVEL * REPETITIONS + 2 * (LEVEL * (1 - LEVEL) * REPETITIONS) ** 0.5
"""Verdicts of so many null studies at the level, and two standard errors of that number."""
QUESTIONS, TASKS = 60, ("one", "two")
KEYS = itertools.count()


def row(cell: str, seed: int, tasks=None, loss=1.0, **changes) -> StudyRow:
    values = {
        "key": f"{next(KEYS)}",
        "study": "mine",
        "study_digest": Study.parse(STUDY).digest(),
        "scale": "micro",
        "cell": cell,
        "seed": seed,
        "settings": {},
        "conditions": {"lorgnette": "1", "commit": "abc", "device": "cpu"},
        "ended": "",
        "cost": {},
        "tasks": tasks or {},
        "loss": {"a": loss},
        "loss_shuffled": {"a": loss + 1},
    }
    return StudyRow(**(values | changes))


def simulated(generator, effect: float, seeds: int = 3, spread: float = 0.03) -> tuple[list[StudyRow], list[StudyRow]]:
    """Rows of two cells. effect: difference of the chances of a right answer; spread: deviation of a seed's chance.

    Questions differ in difficulty and are the same for all; three are about each picture.
    """
    difficulty = {name: np.repeat(generator.normal(0, 0.1, QUESTIONS // 3), 3) for name in TASKS}
    cells = []
    for cell, extra in (("trained", effect), ("frozen", 0.0)):
        cells.append([])
        for seed in range(1, seeds + 1):
            luck, tasks = generator.normal(0, spread), {}
            for name in TASKS:
                chance = np.clip(0.4 + extra + luck + difficulty[name], 0, 1)
                scores = (generator.random(QUESTIONS) < chance).astype(float).tolist()
                pictures = np.repeat(np.arange(QUESTIONS // 3), 3).tolist()
                tasks[name] = TaskScores(scores, [0.0] * QUESTIONS, pictures, "same")
            cells[-1].append(row(cell, seed, tasks))
    return cells[0], cells[1]


CLAIM = Claim(cell="trained", over="frozen", by="score", level=LEVEL)


def verdicts(effect: float, **conditions) -> list[str]:
    generator = np.random.default_rng(7)
    pairs = (simulated(generator, effect, **conditions) for _ in range(REPETITIONS))
    return [judge(CLAIM, difference(*pair, "score", LEVEL)) for pair in pairs]


@pytest.mark.parametrize("conditions", [{"spread": 0.03}, {"spread": 0.1}, {"spread": 0.0, "seeds": 2}], ids=str)
def test_a_null_study_is_decided_no_more_often_than_its_level(conditions):
    decided = REPETITIONS - verdicts(0.0, **conditions).count("undecided")
    assert decided <= MOST_DECIDED


def test_a_null_study_of_losses_is_decided_no_more_often_than_its_level():
    generator = np.random.default_rng(3)
    claim = Claim(cell="trained", over="frozen", by="loss", kind="less")
    pairs = [[[row(c, s, loss=generator.normal(1, 0.01)) for s in (1, 2, 3)] for c in "ab"] for _ in range(REPETITIONS)]
    words = [judge(claim, difference(*pair, "loss", LEVEL)) for pair in pairs]
    assert REPETITIONS - words.count("undecided") <= MOST_DECIDED


def test_a_planted_effect_is_found_at_the_stated_power():
    generator = np.random.default_rng(5)
    known = [difference(*simulated(generator, 0.0), "score", LEVEL) for _ in range(50)]
    errors = [np.mean([getattr(one, name) ** 2 for one in known]) ** 0.5 for name in ("seed_error", "question_error")]
    stated = SeedEstimate(
        0.0, 3, *errors, LEVEL
    ).detectable  # at the true spread: that of three seeds is often too small
    words = verdicts(stated / 100)
    assert words.count("agrees") >= 0.8 * REPETITIONS - 2 * (0.16 * REPETITIONS) ** 0.5 and "disagrees" not in words


def test_intervals_cover_the_truth():
    generator = np.random.default_rng(11)
    found = [difference(*simulated(generator, 0.1), "score", LEVEL) for _ in range(REPETITIONS)]
    assert sum(one.low <= 10 <= one.high for one in found) >= REPETITIONS - MOST_DECIDED


def test_seeds_needed_would_decide():
    one = of_seeds([1.0, 3.0, 2.0, -1.0], LEVEL)
    assert one.low < 0 < one.high
    needed = one.seeds_needed(one.value)
    spread = np.std([1.0, 3.0, 2.0, -1.0], ddof=1)
    assert student(0.975, needed - 1) * spread / needed**0.5 < one.value
    assert student(0.975, needed - 2) * spread / (needed - 1) ** 0.5 >= one.value
    only_questions = SeedEstimate(0.5, 3, 0.0, 1.0)
    assert only_questions.seeds_needed(0.5) is None


@pytest.mark.parametrize(
    ("share", "freedom", "expected"), [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.9, 5, 1.476), (0.975, 1000, 1.9623)]
)
def test_quantiles_are_those_of_the_tables(share, freedom, expected):
    assert student(share, freedom) == pytest.approx(expected, rel=1e-3)
    assert student(1 - share, freedom) == pytest.approx(-expected, rel=1e-3)


def estimate(low: float, high: float) -> SeedEstimate:
    """An estimate with this interval."""
    return SeedEstimate((low + high) / 2, 3, (high - low) / 2 / student(0.975, 2))


@pytest.mark.parametrize(
    ("kind", "margin", "low", "high", "word"),
    [
        ("greater", 0, 1, 2, "agrees"),
        ("greater", 0, -2, -1, "disagrees"),
        ("greater", 0, -1, 1, "undecided"),
        ("greater", 3, 1, 2, "disagrees"),
        ("greater", 3, 1, 4, "undecided"),
        ("less", 0, -2, -1, "agrees"),
        ("less", 0, 1, 2, "disagrees"),
        ("less", 1, -4, -2, "agrees"),
        ("equivalent", 3, -2, 2, "agrees"),
        ("equivalent", 3, 4, 5, "disagrees"),
        ("equivalent", 3, -5, -4, "disagrees"),
        ("equivalent", 3, 2, 4, "undecided"),
    ],
)
def test_a_verdict_needs_the_whole_interval(kind, margin, low, high, word):
    assert judge(Claim(cell="a", over="b", kind=kind, margin=margin), estimate(low, high)) == word


def test_one_seed_decides_nothing():
    ours, theirs = simulated(np.random.default_rng(0), 0.5, seeds=1)
    found = difference(ours, theirs, "score", LEVEL)
    assert judge(CLAIM, found) == "undecided" and found.reach == float("inf") and "one seed" in str(found)
    assert difference(ours, [row("frozen", 9)], "score", LEVEL) is None


def test_the_score_is_the_mean_of_the_benchmarks_in_percent():
    tasks = {"one": TaskScores([1, 0], [0, 0], [0, 1], "q"), "two": TaskScores([1, 1], [1, 0], [0, 0], "r")}
    rows = [row("a", seed, tasks) for seed in (1, 2)]
    found = {name: estimate_of(rows, name).value for name in ("score", "blind", "gain", "one", "loss", "loss_gain")}
    assert found == {"score": 75, "blind": 25, "gain": 50, "one": 50, "loss": 1, "loss_gain": 1}
    with pytest.raises(SettingsError, match=r"no measure 'three'; use score, .* one, two"):
        estimate_of(rows, "three")
    with pytest.raises(SettingsError, match="no measure 'losses'"):
        estimate_of(rows, "losses")


def test_other_questions_are_not_compared():
    tasks = [{"one": TaskScores([1, 0], [0, 0], [0, 1], digest)} for digest in "ab"]
    with pytest.raises(SettingsError, match="one: the two cells were not asked the same questions"):
        difference([row("a", 1, tasks[0])], [row("b", 1, tasks[1])], "score", LEVEL)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"conditions": {"lorgnette": "1", "commit": "def", "device": "cpu"}}, "rows of 2 versions of the code"),
        ({"conditions": {"lorgnette": "1", "commit": "abc+", "device": "cpu"}}, "code that no commit names: 1 abc+"),
        ({"study_digest": "old"}, "1 rows are older than the study file"),
        ({"study": "other"}, "rows shared with other studies: other"),
        ({"conditions": {"lorgnette": "1", "commit": "abc", "device": "gpu"}}, "rows of 2 devices"),
        ({"failed": "the loss rose"}, "training diverged: trained, seed 2"),
    ],
)
def test_rows_that_are_not_alike_are_never_mixed_unmarked(changes, sentence):
    rows = [row(cell, seed) for cell in ("trained", "frozen") for seed in (1, 2)]
    study = Study.parse(STUDY)
    (clean,) = judge_claims(study, "micro", rows)
    assert not clean.marks and not provenance(study, rows)
    (marked,) = judge_claims(study, "micro", [*rows[:1], row("trained", 2, **changes), *rows[2:]])
    assert any(sentence in mark for mark in marked.marks)


def test_an_undecided_claim_says_what_would_decide_it():
    losses = {"trained": [0.9, 1.2, 1.0], "frozen": [1.1, 1.2, 1.1]}
    rows = [row(cell, seed, loss=one) for cell, all_ in losses.items() for seed, one in enumerate(all_)]
    (verdict,) = judge_claims(Study.parse(STUDY), "micro", rows)
    assert verdict.word == "undecided" and verdict.needs.startswith("about ") and "seeds" in verdict.needs
    (alone,) = judge_claims(Study.parse(STUDY), "micro", rows[:1])
    assert alone.word == "undecided" and alone.needs == "two seeds of both cells at least" and alone.found is None
