from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.metrics import METRICS, Reference
from lorgnette.eval.metrics.metric import mean
from lorgnette.eval.results.bootstrap import estimate, paired_difference, pool, wilson
from lorgnette.eval.results.compare import compare, compare_folders
from lorgnette.eval.results.rescore import rescore
from lorgnette.eval.results.store import Example, Result, ResultsFolder, score
from lorgnette.report.thumbnails import thumbnail
from tests.pages import Page


def answered(right: int, wrong: int, metric: str = "exact_match", nasty: str = "") -> Result:
    """The first questions answered rightly, the next wrongly; two questions to a picture."""
    examples = [
        Example(
            index,
            f"q{index}",
            ("colour", "count")[index % 2],
            f"[image] Which? {nasty}",
            "yes" if index < right else f"no {nasty}",
            Reference(("yes",)),
            (f"{index // 2:016x}",),
        )
        for index in range(right + wrong)
    ]
    return score({"task": "made up", "metric": metric, "model": f"right {right}"}, examples)


def changed(name: str = "", truth: Reference | None = None, **settings: object) -> Result:
    """As `answered(3, 3)`, with other settings, or another first question."""
    result = answered(3, 3)
    first = result.examples[0]
    first = dataclasses.replace(first, name=name or first.name, truth=truth or first.truth)
    return score(result.settings | settings, [first, *result.examples[1:]])


def stored(folder: Path, result: Result) -> Path:
    store = ResultsFolder(folder)
    store.begin(result.settings)
    colours = ("red", "green", "blue")
    pictures = {e.images[0]: PIL.Image.new("RGB", (90, 60), colours[e.index % 3]) for e in result.examples}
    store.append(result.examples, {digest: thumbnail(image) for digest, image in pictures.items()})
    store.finish(result)
    return folder


def test_paired_difference_sees_through_noise_that_both_share() -> None:
    before, after = answered(50, 50), answered(62, 38)
    found = compare(before, after)
    assert found.overall.value == pytest.approx(12)
    assert 0 < found.overall.low < 12 < found.overall.high
    assert before.overall.high > after.overall.low, "unpaired, the intervals overlap"
    assert found.kinds["colour"].value == pytest.approx(12)
    worse, better = found.changed()
    assert (len(worse), len(better)) == (0, 12)
    assert "more than chance explains" in found.sentence()
    same = compare(before, before)
    assert same.overall.value == 0 and -8 < same.overall.low == -same.overall.high < -7, "50 pictures are not all"
    assert "which chance alone could give" in same.sentence()


def test_lower_is_better_for_error_rates() -> None:
    worse, better = compare(answered(5, 5, "word_error_rate"), answered(8, 2, "word_error_rate")).changed()
    assert (len(worse), len(better)) == (0, 3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (answered(3, 3, "anls"), r"differ in their metric \(exact_match and anls\) and cannot be compared; rescore"),
        (answered(3, 5), r"2 questions were answered on one side only \(q6, q7\)"),
        (changed(task="other"), r"differ in their task \(made up and other\)"),
        (changed(version=2), r"differ in their version \(None and 2\)"),
        (changed(questions=9), "3 questions are not answered yet"),
        (changed(truth=Reference(("no",))), "from q0 on"),
        (changed(name="another"), "from q0 on"),
    ],
)
def test_what_cannot_be_paired_is_refused(other: Result, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare(answered(3, 3), other)


def test_page_of_changed_examples(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    before = stored(tmp_path / "a", answered(20, 20, nasty=nasty))
    after = stored(tmp_path / "b", answered(30, 10, nasty=nasty))
    found = compare_folders(before, after, tmp_path / "page.html", most=4)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "Better: 10, of which 4 are shown" in page.text
    assert "Worse: 0" in page.text
    assert found.sentence() in page.text
    assert "right 20 → right 30" in page.text
    assert len(page.links) == 4
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert "<script" not in html
    assert not re.search(r"https?://|url\(|@import|<link", html)


def test_page_says_who_saw_which_picture_and_what_was_read(tmp_path: Path) -> None:
    before, after = answered(0, 2), answered(2, 0)
    other = [dataclasses.replace(one, images=("other",), rendered=f"<s>User: {one.name}</s>") for one in after.examples]
    folders = [stored(tmp_path / "a", before), stored(tmp_path / "b", score(after.settings, other))]
    compare_folders(*folders, page=tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.links) == 4
    assert html.count(">before</div>") == html.count(">after</div>") == 2
    assert "as the model read it <s>User: q0</s>" in page.text


def test_page_without_pictures(tmp_path: Path) -> None:
    folders = [stored(tmp_path / name, answered(right, 4 - right)) for name, right in (("a", 1), ("b", 3))]
    for folder in folders:
        for picture in (folder / "pictures").iterdir():
            picture.unlink()
    compare_folders(*folders, page=tmp_path / "page.html")
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.links == []
    assert "no picture" in page.text


def test_half_a_character_is_stored_and_shown(tmp_path: Path) -> None:
    folders = [stored(tmp_path / str(right), answered(right, 4 - right, nasty="\ud83d \u2028")) for right in (1, 3)]
    assert "no \ud83d \u2028" in [one.answer for one in ResultsFolder(folders[0]).examples()]
    compare_folders(*folders, page=tmp_path / "page.html")
    assert "no \ufffd ⟨U+2028⟩" in Page((tmp_path / "page.html").read_text(encoding="utf-8")).text


def test_rescore_by_another_metric(tmp_path: Path) -> None:
    folder = stored(tmp_path, answered(3, 5))
    assert rescore(folder).accuracy == pytest.approx(37.5)
    lenient = rescore(folder, "anls")
    assert lenient.settings["metric"] == "anls"
    assert json.loads((folder / "summary.json").read_text())["metric"] == "anls"
    assert json.loads((folder / "settings.json").read_text())["metric"] == "exact_match", "what was asked stays"
    with pytest.raises(SettingsError, match="unknown; use one of"):
        rescore(folder, "bleu")
    with pytest.raises(DataError, match="give a folder that an evaluation wrote"):
        rescore(tmp_path / "nowhere")


@pytest.mark.parametrize("right", [0, 1, 4, 12])
def test_equal_and_few_answers_have_an_interval(right: int) -> None:
    """Wilson's, where a bootstrap would claim certainty."""
    counts = np.stack([np.arange(12) < right, np.ones(12)], axis=1).astype(float)
    found = estimate(counts, mean, range(12))
    assert found.low < found.high and found.low <= 100 * right / 12 <= found.high
    if right in (0, 12):
        assert found.high - found.low == pytest.approx(24.25, abs=0.01)
    one = estimate(counts[:1], mean, range(1))
    assert one.high - one.low > 79, "one answer says next to nothing"


def test_wilson_is_the_published_one() -> None:
    """Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    for right, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        assert wilson(right / count, count) == pytest.approx((low, high), abs=1e-4)
    assert wilson(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)


def test_few_differences_are_not_certain() -> None:
    found = compare(answered(0, 6), answered(6, 0))
    assert found.overall.value == 100 and found.overall.low < 0, "three pictures"
    assert "too few to say more" in found.sentence()
    many = compare(answered(0, 60), answered(60, 0))
    assert 70 < many.overall.low < 100 == many.overall.high


def test_questions_needed_for_three_points() -> None:
    """Differences of variance 0.21: 1.0 for three of ten questions."""
    found = compare(answered(0, 1000), answered(300, 700))
    assert found.needed == pytest.approx(2.8016**2 * 0.21 / 0.03**2, rel=0.01)
    assert f"takes about {found.needed:,} such questions" in found.sentence()
    assert compare(answered(3, 3), answered(3, 3)).needed == 0


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        rights = generator.random(100) < 0.6
        found = estimate(np.stack([rights, np.ones(100)], axis=1).astype(float), mean, range(100))
        covered += found.low <= 60 <= found.high
    assert 180 <= covered <= 199


def test_questions_on_one_picture_widen_the_interval() -> None:
    rights = np.repeat([1.0, 0.0] * 10, 10)
    counts = np.stack([rights, np.ones(200)], axis=1)
    apart = estimate(counts, mean, range(200))
    together = estimate(counts, mean, np.repeat(range(20), 10).tolist())
    assert together.value == apart.value == 50
    assert together.high - together.low > 2 * (apart.high - apart.low)
    assert pool(counts, ["a", "b", "a"] + ["b"] * 197).tolist() == [[2, 2], [98, 198]]


def test_difference_of_a_corpus_score() -> None:
    bleu = METRICS["bleu_4"]
    truths = [
        Reference(("a man rides a brown horse on the beach",)),
        Reference(("two dogs play in the green park",)),
    ] * 5
    good = bleu.counts([truth.answers[0] for truth in truths], truths)
    bad = bleu.counts(["a man rides a horse"] * 10, truths)
    found = paired_difference(good, bad, bleu.ratio, range(10))
    assert found.value == pytest.approx(100 * float(bleu.ratio(good.sum(0)) - bleu.ratio(bad.sum(0))))
    assert found.low > 0
