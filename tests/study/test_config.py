"""A study's file: cells differ by what they declare and nothing else, and its claims name what there is."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import yaml

from lorgnette.data.builtin.drawings import drawings_file
from lorgnette.data.sources import pairs
from lorgnette.errors import SettingsError
from lorgnette.study.config import Study, as_overrides, find_study, load_study, shipped_studies
from tests.study.conftest import SCALE, STUDY

STUDIES = shipped_studies()


@pytest.fixture(params=[(path, scale) for path in STUDIES for scale in load_study(str(path)).scales], ids=str)
def shipped(request):
    path, scale = request.param
    return load_study(str(path)), scale


def test_a_shipped_study_is_found_by_its_name():
    assert [find_study(path.stem) for path in STUDIES] == STUDIES
    assert [load_study(path.stem).name for path in STUDIES] == [path.stem for path in STUDIES]


def test_cells_of_a_shipped_study_differ_by_what_they_declare_alone(shipped):
    study, scale = shipped
    study.check(scale)
    base = study.run(scale, None, 1)
    for cell in study.cells:
        undone = {key: base_value for key, (base_value, _) in base.diff(study.run(scale, cell, 1)).items()}
        declared = study.changes(scale, cell)
        roots = {tuple(key.removesuffix(".preset").split(".")) for key in declared}
        for key in undone:
            parts = key.split(".")
            assert any(all(a in ("*", b) for a, b in zip(root, parts, strict=False)) for root in roots), key


def test_every_claim_of_a_shipped_study_is_about_a_measure_that_it_has(shipped):
    study, _ = shipped
    known = {"score", "gain", "loss", "loss_gain", "scene_vqa", "text_vqa", "score_curve", "loss_curve"}
    assert study.claims and {claim.by for claim in study.claims} <= known


def varied(tmp_path, base, **changes):
    path = tmp_path / "mine.yaml"
    values = STUDY | {"scales": {"micro": SCALE | {"base": str(base)}}} | changes
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([{"name": "a"}, {"name": "b", "changes": {"threads": 1}}], "threads changes nothing"),
        ([{"name": "a"}, {"name": "b"}], "is the same run as cell a"),
        ([{"name": "a"}, {"name": "b", "changes": {"stages.0.steps": 9}}], "changes the steps"),
        ([{"name": "a"}, {"name": "b", "changes": {"stages.0.lrr": 9}}], "did you mean 'lr'"),
    ],
)
def test_cells_that_are_not_comparable_are_refused_by_name(cells, message, tmp_path, tiny_base):
    study = load_study(str(varied(tmp_path, tiny_base, cells=cells, claims=[])))
    with pytest.raises(SettingsError, match=message):
        study.check("micro")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cells": [{"name": "a"}, {"name": "a"}], "claims": []}, "two cells are called 'a'"),
        ({"claims": [{"cell": "trained", "over": "thawed"}]}, "names the cell 'thawed'; there are: frozen, trained"),
        ({"claims": [{"cell": "frozen", "over": "frozen"}]}, "compared with itself"),
        ({"claims": [{"cell": "trained", "over": "frozen", "kind": "equivalent"}]}, "give a margin"),
        ({"cells": [{"name": "../a"}, {"name": "b"}], "claims": []}, "leave out slashes"),
        ({"cells": [{"name": "a"}, {"name": "b", "at": {"huge": {}}}], "claims": []}, "'huge', which is no scale"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(changes, message, tmp_path, tiny_base):
    with pytest.raises(SettingsError, match=message):
        load_study(str(varied(tmp_path, tiny_base, **changes)))


def test_an_unknown_scale_or_cell_is_refused_with_those_there_are(tiny_study):
    with pytest.raises(SettingsError, match="no scale 'paper'; there are: micro"):
        tiny_study.check("paper")
    with pytest.raises(SettingsError, match="no cell 'thawed'; there are: frozen, trained"):
        tiny_study.cell("thawed")


def test_a_change_of_every_stage_is_written_out_for_each():
    assert as_overrides({"stages.*.lr": 0.1, "threads": 2}, 2) == ["stages.0.lr=0.1", "stages.1.lr=0.1", "threads=2"]


def test_claims_change_the_digest_of_the_study(tiny_study):
    other = Study.parse(tiny_study.plain() | {"claims": []})
    assert other.digest() != tiny_study.digest()


def test_captions_of_table_6_are_those_of_the_column_that_a_cell_names():
    study, rows = load_study("t6"), pq.read_table(drawings_file("train")).slice(0, 50).to_pylist()
    for cell, column in (("synthetic", "caption"), ("alt-text", "alt")):
        source = study.run("micro", study.cell(cell), 1).stages[0].sources[1]
        said = [pairs.read(row, source, "row").units[0][0].text for row in rows]
        assert said == [row[column] for row in rows]
