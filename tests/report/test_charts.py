"""Charts hold every value, stay within their frame, say what they show, and obey nothing that stands in a name."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from lorgnette.report.charts import Interval, bins, bubble_chart, histogram, interval_chart, scatter_chart, tenths
from lorgnette.report.line_chart import Panel, Series, line_chart
from lorgnette.report.palette import HUES
from lorgnette.report.svg import is_own_drawing, log_ticks, short, standalone
from lorgnette.report.training_curve import CurvePoint, curve_from_log, training_curve
from tests.pages import Page

CURVE = [CurvePoint(step, "captions" if step <= 600 else "questions", 1 / step, 1e-3, 90.0) for step in range(1, 1401)]


def numbers(chart: str, name: str) -> list[float]:
    return [float(one.attrib[name].rstrip("%")) for one in ElementTree.fromstring(chart).iter() if name in one.attrib]


@pytest.mark.parametrize("values", [[], [5], [1, 2, 3, 400], list(range(1000)), [7] * 9])
def test_every_value_stands_in_one_bar(values):
    bars = bins([(value, n % 2) for n, value in enumerate(values)], groups=2)
    assert sum(sum(counts) for _, counts in bars) == len(values) and len(bars) <= 17
    shares = tenths([(n / max(1, len(values)), 0) for n in range(len(values))] + [(1.0, 0)], groups=1)
    assert sum(sum(counts) for _, counts in shares) == len(values) + 1 and len(shares) == 10


def test_charts_are_whole_and_say_what_they_show():
    bars = bins([(3, 0), (9, 1), (9, 1)], groups=2)
    bubbles = bubble_chart([(3, 2), (3, 2), (1, 5)], ("columns", "rows"), "images")
    intervals = interval_chart([("<kind>", [Interval("after", 50, 40, 60)])], "%")
    for chart in (histogram(bars, "documents", "tokens <&>"), bubbles, intervals, training_curve(CURVE)):
        Page(chart)
        assert "aria-label" in chart and "<&>" not in chart and "<kind>" not in chart
        assert ElementTree.fromstring(chart).tag == "svg"
    assert "2 images of 2 rows × 3 columns" in bubbles
    assert "after: 50.0% [40.0, 60.0]" in intervals
    assert histogram([], "a", "b") == bubble_chart([], ("a", "b"), "c") == interval_chart([], "%") == ""


def test_an_interval_chart_holds_every_interval_and_zero():
    rows = [("a", [Interval("difference", -3, -9, 2)]), ("b", [Interval("difference", 8, 5, 21)])]
    chart = interval_chart(rows, "")
    centres = numbers(chart, "cx")
    assert all(0 <= centre <= 100 for centre in centres) and centres[0] < centres[1]
    assert ">0</text>" in chart and ">-9</text>" in chart and ">21</text>" in chart
    fixed = numbers(interval_chart([("a", [Interval("after", 50, 0, 200)])], "%", bounds=(0, 100)), "width")
    assert max(width for width in fixed if width != 100) <= 96.1


def test_a_curve_stays_within_its_frame():
    svg = ElementTree.fromstring(training_curve(CURVE))
    lines = list(svg.iter("polyline"))
    assert len(lines) == 12, "two stages, three quantities, raw and smooth"
    for panel in (one for one in svg.iter("svg") if "viewBox" in one.attrib):
        _, _, width, height = map(float, panel.attrib["viewBox"].split())
        for line in panel.iter("polyline"):
            for point in line.attrib["points"].split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= width and -1e-6 <= y <= height
    labels = [text.text for text in svg.iter("text")]
    assert "captions · 600 steps" in labels and "1,400" in labels and "loss" in labels
    assert training_curve([]) == line_chart([Panel("loss", [])], "nothing") == ""


@pytest.mark.parametrize("steps", [1, 2, 401])
def test_short_curves(steps):
    points = [CurvePoint(step, "only", 1.0, 0.0, 0.0) for step in range(1, steps + 1)]
    assert ElementTree.fromstring(training_curve(points)).tag == "svg"


def test_names_at_the_ends_of_lines_do_not_lie_on_one_another():
    series = [Series([[(0, 1.0), (9, 1.0 + n / 1000)]], f"model {n}", f"h{n}") for n in range(5)]
    svg = ElementTree.fromstring(line_chart([Panel("loss", series)], "five equal models"))
    places = sorted(float(text.attrib["y"]) for text in svg.iter("text") if text.attrib["class"].startswith("value"))
    assert len(places) == 5 and all(below - above >= 12 for above, below in pairwise(places))


def test_values_below_zero_are_drawn():
    svg = ElementTree.fromstring(line_chart([Panel("gain", [Series([[(0, -5.0), (1, 5.0)]])], 100)], "a gain"))
    [line] = [one for one in svg.iter("polyline") if one.attrib["class"].startswith("line")]
    assert line.attrib["points"] == "0.0,100.0 1000.0,0.0"


def test_a_drawing_in_a_file_of_its_own_has_its_size_style_and_both_schemes():
    file = standalone(training_curve(CURVE))
    root = ElementTree.fromstring(file)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.attrib["width"] == "900"
    assert "prefers-color-scheme: dark" in file and "var(" not in file and file.count("http") == 1
    assert is_own_drawing(file.encode()) and not is_own_drawing(b"<svg xmlns='...'></svg>")
    assert is_own_drawing(b'<svg viewBox="0 0 900 424"><style>text{font:12px sans-serif;fill:#555}</style></svg>')


def test_every_hue_of_a_curve_is_one_of_the_palette():
    assert Series([]).hue in HUES and Interval("a", 0, 0, 0).hue in HUES


def test_log_ticks_are_round():
    low, high, ticks = log_ticks([0.3, 7.5])
    assert low < 0.3 < 7.5 < high
    assert ticks == pytest.approx([0.5, 1, 2, 5])


@pytest.mark.parametrize(("value", "said"), [(0.00123, "1.2e-3"), (0.5, "0.5"), (12.345, "12.3"), (123456, "123,456")])
def test_axes_say_about_three_digits(value, said):
    assert short(value) == said


def test_curve_from_log():
    log = [
        {"total_step": 1, "stage": "a", "loss": 2.0, "lr": 0.1, "samples": 32, "seconds": 2.0},
        {"total_step": 2, "stage": "a", "loss": 1.0, "lr": 0.2, "samples": 32, "seconds": 2.5},
    ]
    assert curve_from_log(log) == [CurvePoint(1, "a", 2.0, 0.1, 16.0), CurvePoint(2, "a", 1.0, 0.2, 64.0)]


def test_a_scatter_chart_holds_every_point_within_its_frame():
    points = [("a <b>", 1e9, 30.0, "h0"), ("c", 4e10, 35.0, "h1"), ("d", 2e9, 30.0, "h2")]
    chart = scatter_chart(points, ("FLOPs", "score"))
    Page(chart)
    circles = [one.attrib for one in ElementTree.fromstring(chart).iter() if one.tag == "circle"]
    across, up = ([float(one[name]) for one in circles] for name in ("cx", "cy"))
    assert len(circles) == 3 and across[0] < across[2] < across[1] and up[0] == up[2] > up[1]
    assert all(0 < x < 420 for x in across) and all(0 < y < 230 for y in up)
    assert "&lt;b&gt;" in chart and "score against FLOPs of 3 points" in chart
    assert not scatter_chart([], ("FLOPs", "score"))


def test_a_line_chart_names_the_unit_of_its_scale():
    assert "images 1<" in line_chart([Panel("loss", [Series([[(1, 2.0), (9, 1.0)]])])], "losses", unit="images")
