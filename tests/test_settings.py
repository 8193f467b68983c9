import random

import pytest
import yaml

from lorgnette.errors import SettingsError
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.config import VLMConfig
from lorgnette.run import Run, find_recipe
from lorgnette.settings import apply_override, flatten
from tests.house.source import ROOT

PLAIN = {
    "name": "tiny",
    "stages": [{"name": "one", "steps": 3, "lr": 0.001, "sources": [{"kind": "chat", "path": "rows.jsonl"}]}],
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
        ("stages.0.learning_rate=1", "did you mean 'lr'"),
        ("lr=1", "did you mean 'stages.0.lr'"),
        ("learning_rate=1", "did you mean 'stages.0.lr'"),
        ("epochs=3", "did you mean 'stages.0.steps'"),
        ("stages.0.num_train_epochs=3", "did you mean 'steps'"),
        ("stages.0.batch_size=8", "did you mean 'pack.samples'"),
        ("max_steps=8", "did you mean 'stages.0.steps'"),
        ("stages.0.gradient_accumulation_steps=2", "did you mean 'micro_batches'"),
        ("stages.0.lora_r=8", "did you mean 'lora.rank'"),
        ("stages.0.lora.lora_alpha=8", "did you mean 'alpha'"),
        ("stages.0.num_workers=1", "did you mean 'loader.workers'"),
        ("model.vision.widht=8", "did you mean 'width'"),
        ("stages.0.sources.0.wieght=2", "did you mean 'weight'"),
        ("stages.0.lr=fast", "stages.0.lr"),
        ("stages.0.lr=-1", "greater than 0"),
        ("stages.3.lr=1", "not an index below 1"),
        ("name", "key=value"),
        ("name.x=1", "nothing to set inside a str"),
        ("seed.x.y=1", "no settings inside"),
        ("stages.0.sources=[]", "no sources"),
        ("stages.0.connector.mode=lora", "takes no adapters"),
        ("images.patch=7", "patches of 7"),
        ("stages.0.samples_per_step=64", "now called pack.samples"),
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


@pytest.mark.parametrize(
    "override",
    [
        "seed=" + "9" * 5000,
        "seed=" + "[" * 2000,
        'seed={"a":' * 3000,
        f"seed={2**64}",
        "seed=-1",
        "name=!!int abc",
        "name=!!binary x",
        "name=!!set {a}",
        "stages.²=1",
        "stages.٠.lr=1",
        "stages.-1.lr=1",
        "stages.999999999999.lr=1",
        "stages." + "9" * 5000 + ".lr=1",
        "stages..lr=1",
        ".name=1",
        "name.=1",
        "images={1: 2}",
        "images={null: 2}",
        "name=[*a]",
        "name=&a [*a]",
        'name="\\0"',
        'name="\\ud800"',
        "seed=[" + "x" * 5000 + "]",
        "x" * 5000 + "=1",
        "stages.0.name=" + "/" * 5000,
    ],
    ids=lambda override: override[:20],
)
def test_an_override_that_means_nothing_is_one_short_sentence(override):
    with pytest.raises(SettingsError) as caught:
        tiny().override(override)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


@pytest.mark.parametrize("text", ["1e5", "inf", "nan", "2024", "007", "true", "null", "2024-13-45", "1.50", "0x10"])
def test_a_text_setting_takes_an_override_as_it_is_written(text):
    assert tiny().override(f"name={text}").name == text
    if text != "null":  # which is what the setting may be
        assert tiny().override(f"tokenizer.path={text}").tokenizer.path == text
    assert Run.parse(PLAIN).override("seed=1e3").seed == 1000


def test_parts_of_a_file_that_share_an_alias_are_set_one_by_one(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: a\nstages:\n- {<<: &one {steps: 1, sources: &s [{kind: chat, path: a}]}, name: a}\n"
        "- &b {<<: *one, name: b}\n"
    )
    run = Run.load(path, ["stages.0.sources.0.weight=2"])
    assert [stage.sources[0].weight for stage in run.stages] == [2, 1]


@pytest.mark.parametrize("content", ["false", "0", "''", "[]"])
def test_a_file_of_one_empty_value_is_no_recipe(tmp_path, content):
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(SettingsError, match="expected `key: value` lines"):
        Run.load(tmp_path / "r.yaml")


def test_many_wrong_settings_are_counted(tmp_path):
    (tmp_path / "r.yaml").write_text("".join(f"key{number}: 1\n" for number in range(1000)))
    with pytest.raises(SettingsError, match=r"and 99. more") as caught:
        Run.load(tmp_path / "r.yaml")
    assert len(str(caught.value)) < 4000


def test_a_folder_named_like_a_recipe_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "micro").mkdir()
    (tmp_path / "mine").mkdir()
    assert find_recipe("micro").name == "micro.yaml"
    with pytest.raises(SettingsError, match=r"mine: is a folder without run\.yaml"):
        find_recipe("mine")
    for name in ("x" * 300, "\0", "no\nsuch"):
        with pytest.raises(SettingsError, match="no such recipe") as caught:
            find_recipe(name)
        assert "\n" not in str(caught.value)


ODD = [
    *("[" * 2000, "- " * 2000, "9" * 5000, "2024-13-45", "!!int abc", "!!float x", "!!binary x", "!!set {a}", "1:30"),
    *("!!omap [a: 1]", "!!timestamp 2024-13-45", "!!python/object:os.system x", ".inf", ".nan", "1e999", "1e5", "inf"),
    *("null", "x" * 5000, '"\\0"', '"\\ud800"', "&a [*a]", "{1: 2}", "{null: 3}", "{[1]: 2}", "[]", "{}", "0", "-1"),
    *("18446744073709551616", "1_000", "0x10", "*x", "\t", "²", "٣", "?", "%", "@", "|", "a: b: c", "1.5", "/", ".."),
    *("{kind: chat, path: 1}", "[{kind: chat, path: a}, *a]", "999999999999", "1e308", "\0", "\x1b[31m"),
]
"""Values and parts of keys that have broken readers of settings."""


def mutated(random: random.Random, text: str) -> str:
    lines = text.split("\n")
    for _ in range(random.randint(1, 3)):
        place = random.randrange(len(lines))
        key, _, _ = lines[place].partition(":")
        lines[place] = random.choice(
            [
                f"{key}: {random.choice(ODD)}",
                lines[random.randrange(len(lines))],
                lines[place].replace(random.choice("abeilnost"), random.choice(ODD), 1),
                " " * random.randrange(9) + lines[place].strip(),
            ]
        )
    return "\n".join(lines)


def test_mutated_files_of_settings_are_read_or_refused_in_one_sentence(tmp_path):
    drawn, path = random.Random(1), tmp_path / "mutated.yaml"
    recipes = [file.read_text(encoding="utf-8") for file in sorted((ROOT / "recipes").rglob("*.yaml"))]
    refused = 0
    for _ in range(300):
        path.write_text(mutated(drawn, drawn.choice(recipes)), encoding="utf-8")
        try:
            assert Run.load(path).digest()
        except SettingsError as error:
            refused += 1
            assert str(error).startswith(str(path)) and len(str(error)) < 4000
    assert 100 < refused < 300


def test_mutated_overrides_are_obeyed_or_refused_in_one_sentence():
    drawn, run = random.Random(2), Run.load(find_recipe("micro"))
    keys = [key.split(".") for key in flatten(run.plain())]
    refused = 0
    for _ in range(300):
        key = list(drawn.choice(keys))
        if drawn.random() < 0.5:
            key[drawn.randrange(len(key))] = drawn.choice([*ODD, "", "99", "stages"])
        try:
            assert run.override(f"{'.'.join(key)}={drawn.choice(ODD)}").digest()
        except SettingsError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 4000
    assert 100 < refused < 300


@pytest.mark.parametrize("override", ["seed=true", "threads=false", "stages.0.lr=yes", "stages.0.betas=[true, 0.9]"])
def test_true_and_false_are_no_numbers(override):
    name = override.split("=")[0].rpartition(".")[2]
    with pytest.raises(SettingsError, match=f"{name} is a number, not"):
        tiny().override(override)
    assert tiny().override("compile=true").compile is True


def test_a_key_that_stands_twice_in_a_recipe_is_refused(tmp_path):
    (tmp_path / "r.yaml").write_text(tiny().to_yaml() + "seed: 1\n")
    with pytest.raises(SettingsError, match="the key 'seed' stands twice"):
        Run.load(tmp_path / "r.yaml")
    with pytest.raises(SettingsError, match="the key 'every' stands twice"):
        tiny().override("checkpoints={every: 1, every: 2}")


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: GenerationConfig(top_p=2.0), "top_p"),
        (lambda: GenerationConfig(stop=("",)), "stop"),
        (lambda: ImageConfig(shortest=-1), "shortest"),
        (lambda: GenerationConfig(temprature=0.5), "did you mean 'temperature'"),
    ],
)
def test_a_wrong_value_given_in_python_is_refused_as_one_in_a_file(make, key):
    with pytest.raises(SettingsError, match=key) as caught:
        make()
    assert "\n" not in str(caught.value) and str(caught.value).startswith(("GenerationConfig: ", "ImageConfig: "))


RENAMED = [
    ("packs_at_once=2", "packs_at_once: is now called parallel_microbatches"),
    ("spikes.act=skip", "spikes: is now called divergence"),
    ("stages.0.clip=0.5", "stages.0.clip: is now called max_grad_norm"),
    ("stages.0.pack.per_step=4", "stages.0.pack.per_step: is now called packs_per_step"),
    ("stages.0.weights=learned", "learned is now called supervised"),
]


@pytest.mark.parametrize(("override", "said"), RENAMED)
def test_a_former_name_of_a_setting_is_refused_with_the_new_one(override, said):
    with pytest.raises(SettingsError, match=said):
        tiny().override(override)


def test_settings_that_an_earlier_version_stored_are_read(tmp_path):
    stored = tiny().plain()
    for override, _ in RENAMED:
        apply_override(stored, override)
    for now in ("parallel_microbatches", "divergence"):
        del stored[now]
    del stored["stages"][0]["max_grad_norm"]
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(stored), encoding="utf-8")
    with pytest.raises(SettingsError, match="is now called"):
        Run.load(tmp_path / "run.yaml")
    run = Run.load(tmp_path / "run.yaml", ["stages.0.lr=0.5"], stored=True)
    stage = run.stages[0]
    assert (run.parallel_microbatches, run.divergence.act, stage.max_grad_norm, stage.lr) == (2, "skip", 0.5, 0.5)
    assert stage.pack is not None and (stage.pack.packs_per_step, stage.weights) == (4, "supervised")


@pytest.mark.parametrize(
    ("source", "instead"),
    [
        ({"kind": "captions"}, '{kind: pairs, path: "builtin:train/pairs", captions: synthetic}'),
        ({"kind": "questions", "turns": 6}, '{kind: scenes, path: "builtin:train/scenes/scene_questions.parquet"}'),
        ({"kind": "scenes", "tasks": ["tell"]}, '{kind: scenes, path: "builtin:train/scenes"}'),
    ],
)
def test_a_source_on_demand_is_refused_with_the_one_that_takes_its_place(source, instead):
    values = tiny().plain()
    values["stages"][0]["sources"] = [source]
    with pytest.raises(SettingsError) as refused:
        Run.parse(values)
    assert f"kind {source['kind']} made samples on demand" in str(refused.value) and instead in str(refused.value)
    Run.parse(values | {"stages": [{**values["stages"][0], "sources": [yaml.safe_load(instead)]}]})
