import pytest
import yaml

from lorgnette.errors import SettingsError
from lorgnette.model.config import VLMConfig
from lorgnette.run import Run
from lorgnette.settings import apply_override, flatten

PLAIN = {
    "name": "tiny",
    "stages": [{"name": "one", "steps": 3, "lr": 0.001, "sources": [{"kind": "captions"}]}],
}


def tiny() -> Run:
    return Run.parse(PLAIN)


def test_yaml_round_trip_is_exact():
    run = tiny()
    assert Run.parse(yaml.safe_load(run.to_yaml())) == run
    assert Run.parse(yaml.safe_load(run.to_yaml())).digest() == run.digest()


def test_load_reads_a_file_with_overrides(tmp_path):
    (tmp_path / "r.yaml").write_text(tiny().to_yaml())
    run = Run.load(tmp_path / "r.yaml", ["stages.0.lr=1e-5", "images.split=true", "name=other"])
    assert (run.stages[0].lr, run.images.split, run.name) == (1e-5, True, "other")


def test_settings_are_frozen_and_hashed_by_value():
    run = tiny()
    with pytest.raises(Exception, match="frozen"):
        run.name = "other"
    assert run.override("seed=1").digest() != run.digest() == tiny().digest()


def test_diff_names_what_differs_and_nothing_else():
    run = tiny()
    assert run.diff(run.override("stages.0.steps=4", "seed=2")) == {"seed": (0, 2), "stages.0.steps": (3, 4)}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.0.lrr=1", "did you mean 'lr'"),
        ("model.vision.widht=8", "did you mean 'width'"),
        ("stages.0.sources.0.wieght=2", "did you mean 'weight'"),
        ("stages.0.lr=fast", "stages.0.lr"),
        ("stages.0.lr=-1", "greater than 0"),
        ("stages.3.lr=1", "not an index below 1"),
        ("name", "key=value"),
        ("name.x=1", "nothing to set inside a str"),
        ("seed.x.y=1", "no settings inside"),
        ("stages.0.sources=[]", "no sources"),
        ("stages.0.connector.mode=lora", "newly initialised"),
        ("images.patch=7", "patches of 7"),
        ("stages.0.micro_batches=64", "cannot fill 64 packs"),
        ("model.vision.heads=7", "not a multiple"),
        ("model.language.kv_heads=5", "cannot share"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_helps(override, expected):
    with pytest.raises(SettingsError, match=expected) as caught:
        tiny().override(override)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "no such file"), ("- 1", "holds a list"), ("a: [", "YAML"), (b"\xff\xfe\x00", "YAML")],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content, expected):
    path = tmp_path / "r.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=expected):
        Run.load(path)


def test_flatten_keeps_empty_groups():
    assert flatten({"a": {"b": [1, {"c": 2}], "d": {}}}) == {"a.b.0": 1, "a.b.1.c": 2, "a.d": {}}


def test_override_reads_yaml_values():
    values = {"a": {"b": 1}}
    for text in ("a.b=1e-4", "c.d=[1, 2]", "e=null", "f=some text"):
        apply_override(values, text)
    assert values == {"a": {"b": 1e-4}, "c": {"d": [1, 2]}, "e": None, "f": "some text"}


def test_the_default_model_is_idefics2_8b():
    config = VLMConfig()
    assert (config.vocabulary, config.image_token, config.vision.patch_width) == (32003, 32001, 588)
