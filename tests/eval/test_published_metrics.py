"""Every metric against published code, over a thousand generated answers: see scripts/metric_golden.py.

The official code of VQA and MMMU and the rules of VLMEvalKit are on no package index: here they are written once more.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lorgnette.eval.metrics import METRICS, Reference
from lorgnette.eval.metrics.choice import choose
from lorgnette.eval.metrics.mmmu import (
    lmms_eval_choice,
    official_choice,
    open_matches,
    parse_choice,
    parse_choice_lmms_eval,
    parse_choice_vlmevalkit,
    vlmevalkit_choice,
)
from lorgnette.eval.metrics.ptb import caption_words
from lorgnette.eval.metrics.vqa import normalise_words, strip_punctuation

GOLDEN = Path(__file__).parent / "golden" / "published_metrics.jsonl"
ROWS = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()][1:]


def rows(kind: str) -> list[list[Any]]:
    found = [row[1:] for row in ROWS if row[0] == kind]
    assert len(found) >= 1000
    return found


def scores(metric: str, answers: Sequence[str], truths: Sequence[Reference]) -> list[float]:
    return METRICS[metric].scores(answers, truths)


# --- VQA


def official_vqa(answer: str, references: Sequence[str]) -> float:
    """GT-Vision-Lab/VQA since a013f00 (2021), in its own order, over the answers of people."""
    people = [{"id": number, "answer": one} for number, one in enumerate(references)]
    for one in people:
        one["answer"] = str(one["answer"]).replace("\n", " ").replace("\t", " ").strip()
    answer = answer.replace("\n", " ").replace("\t", " ").strip()
    if len({one["answer"] for one in people}) > 1:
        for one in people:
            one["answer"] = normalise_words(strip_punctuation(str(one["answer"])))
        answer = normalise_words(strip_punctuation(answer))
    shares = []
    for left_out in people:
        matching = [one for one in people if one != left_out and one["answer"] == answer]
        shares.append(min(1, len(matching) / 3))
    return sum(shares) / len(shares)


def test_vqa_accuracy_is_the_harnesses() -> None:
    answers, references, normalised, textvqa = zip(*rows("vqa"), strict=True)
    truths = [Reference(tuple(texts)) for texts in references]
    assert scores("vqa_accuracy_normalised", answers, truths) == pytest.approx(list(normalised))
    assert scores("textvqa_accuracy", answers, truths) == pytest.approx(list(textvqa))


def test_vqa_accuracy_is_the_official_one() -> None:
    answers, references, *_ = zip(*rows("vqa"), strict=True)
    wanted = [official_vqa(answer, texts) for answer, texts in zip(answers, references, strict=True)]
    assert scores("vqa_accuracy", answers, [Reference(tuple(texts)) for texts in references]) == pytest.approx(wanted)
    assert len(set(wanted)) > 5


# --- ANLS, charts


def test_anls_is_the_servers() -> None:
    answers, references, wanted = zip(*rows("anls"), strict=True)
    truths = [Reference(tuple(texts)) for texts in references]
    assert scores("anls", answers, truths) == pytest.approx(list(wanted))
    assert wanted.count(0.5) > 5, "a similarity of exactly 0.5 stays"
    plain = scores("anls_normalised", answers, truths)
    for answer, texts, ours, theirs in zip(answers, references, plain, wanted, strict=True):
        surplus = any(text != " ".join(text.split()) or len(text) != len(text.upper()) for text in [answer, *texts])
        assert surplus or ours == pytest.approx(theirs)


def test_relaxed_accuracy_is_pix2structs_but_where_that_is_worse() -> None:
    answers, references, _ = zip(*rows("relaxed"), strict=True)
    ours = scores("relaxed_accuracy", answers, [Reference((text,)) for text in references])
    differing = [row for row, mine in zip(rows("relaxed"), ours, strict=True) if mine != row[2]]
    for answer, reference, theirs in differing:
        zero = not float(re.sub(r"[^\d.]", "", reference).strip(".") or 1)  # a reference of 0 written otherwise
        spaced, doubled = answer != answer.strip(), "%%" in answer
        assert (theirs == 0 and (zero or spaced)) or (theirs == 1 and doubled), (answer, reference)


# --- MMMU


def first_code(answer: str, options: Sequence[str]) -> str | None:
    """MMMU's `parse_multi_choice_response` (eval/eval_utils.py), None where it draws lots."""
    letters = [chr(ord("A") + number) for number in range(len(options))]
    for mark in [",", ".", "!", "?", ";", ":", "'"]:
        answer = answer.strip(mark)
    answer = " " + answer + " "
    places = {letter: answer.rfind(f"({letter})") for letter in letters if f"({letter})" in answer}
    if not places:
        places = {letter: answer.rfind(f" {letter} ") for letter in letters if f" {letter} " in answer}
    if not places and len(answer.split()) > 5:
        low, texts = answer.lower(), dict(zip(letters, options, strict=True))
        places = {letter: low.rfind(text.lower()) for letter, text in texts.items() if text.lower() in low}
    return max(places, key=lambda letter: places[letter]) if places else None


def kit_code(answer: str, options: Sequence[str]) -> str | None:
    """VLMEvalKit's `can_infer`, None where it asks a language model."""
    choices = {chr(ord("A") + number): text for number, text in enumerate(options)}
    words = "".join(" " if letter in ".()[],:;!*#{}" else letter for letter in answer).split()
    there = [letter for letter in choices if letter in words]
    if len(there) == 1:
        if words.index(there[0]) > len(words) - 5:
            return there[0]
    elif not there and "Z" in words:
        return None
    if len(answer) > 2 * sum(len(text) for text in options):
        return None
    found = [letter for letter, text in choices.items() if text.lower() in answer.lower()]
    return found[0] if len(found) == 1 else None


def test_mmmu_choices_are_the_published_ones() -> None:
    found = dict.fromkeys(("official", "lmms-eval", "vlmevalkit"), 0)
    for answer, options, theirs in rows("mmmu_choice"):
        official, kit = first_code(answer, options), kit_code(answer, options)
        assert official_choice(answer, options) == official, (answer, options)
        assert lmms_eval_choice(answer, options) == theirs, (answer, options)
        assert vlmevalkit_choice(answer, options) == kit, (answer, options)
        assert parse_choice(answer, options) == (official or choose(answer, options))
        assert parse_choice_lmms_eval(answer, options) == (theirs or choose(answer, options))
        assert parse_choice_vlmevalkit(answer, options) == (kit or choose(answer, options))
        for name, letter in zip(found, (official, theirs, kit), strict=True):
            found[name] += letter is not None
    assert min(found.values()) > 400


def test_mmmu_open_answers_are_the_published_ones() -> None:
    for answer, references, wanted in rows("mmmu_open"):
        assert open_matches(answer, references) == bool(wanted), (answer, references)


# --- captions


def test_words_of_captions_are_the_published_ones() -> None:
    differing = [(text, words) for text, words in rows("words") if caption_words(text) != words]
    assert differing == []


def test_cider_is_the_published_one() -> None:
    answers, references, wanted = zip(*rows("cider"), strict=True)
    truths = [Reference(tuple(texts)) for texts in references]
    assert scores("cider_d", answers, truths) == pytest.approx(list(wanted), abs=1e-9)
