"""The adapter to lmms-eval, under its interface as recorded here, which is compared with an installed one."""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lorgnette.errors import DataError, SettingsError
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.hub.export import save
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import picture, tiny_model, tiny_processor

RECORDED = Path(__file__).parent / "recorded"
FILES = ("api/model.py", "api/instance.py", "models/registry_v2.py")
OURS = "lorgnette.eval.models.lmms_eval"
DOCS = [{"question": f"what colour is number {n}?", "picture": picture(40 + n, 60, seed=n)} for n in range(5)]


def signatures(root: Path) -> dict[str, list[str]]:
    """Every field of the classes in the files, and every method with its marks and the names of its parameters."""
    found = {}
    for name in FILES:
        for node in ast.parse((root / "lmms_eval" / name).read_text(encoding="utf-8")).body:
            for member in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(member, ast.FunctionDef):
                    marks = [ast.unparse(mark) for mark in member.decorator_list]
                    found[f"{node.name}.{member.name}"] = [*marks, *(one.arg for one in member.args.args)]
                elif isinstance(member, ast.AnnAssign):
                    found[f"{node.name}.{ast.unparse(member.target)}"] = []
    return found


def test_what_is_recorded_is_what_is_installed() -> None:
    recorded = signatures(RECORDED)
    assert {"lmms.generate_until", "Instance.arguments", "ModelManifest.chat_class_path"} <= recorded.keys()
    installed = importlib.machinery.PathFinder.find_spec("lmms_eval")
    if installed is not None:  # its own code is not run: that takes fifty more packages
        there = signatures(Path(str(installed.origin)).parent.parent)
        assert {name: there.get(name) for name in recorded} == recorded
        abstract = {name for name, marks in there.items() if "abc.abstractmethod" in marks}
        assert abstract <= recorded.keys(), "something new must be answered"


@pytest.fixture(scope="module")
def adapter() -> Iterator[Any]:
    """The adapter's module, imported as lmms-eval would."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in sys.modules if name.split(".")[0] == "lmms_eval" or name == OURS]:
            patch.delitem(sys.modules, name)
        patch.syspath_prepend(str(RECORDED))
        module = importlib.import_module(OURS)
        yield module
        for name in [name for name in sys.modules if name.split(".")[0] == "lmms_eval" or name == OURS]:
            del sys.modules[name]


@pytest.fixture(scope="module")
def lm(adapter: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("lmms") / "model"
    save(tiny_model(), tiny_processor(), folder)
    config = {"batch_size": "2", "max_batch_size": None, "device": "cpu"}
    made = adapter.Lorgnette.create_from_arg_string(f"pretrained={folder},split=False", config)
    made.task_dict["colours"] = {"test": DOCS}
    return made


def messages(doc: dict[str, Any]) -> list[dict[str, Any]]:
    content = [{"type": "image", "url": doc["picture"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def asked(number: int, arguments: dict[str, Any], of: Any = messages) -> Any:
    from lmms_eval.api.instance import Instance

    return Instance("generate_until", ("context", of, arguments, number, "colours", "test"), 0)


def sample(number: int) -> Sample:
    doc = DOCS[number]
    return Sample((Turn("user"), Image(doc["picture"]), Text(doc["question"])))


def test_the_entry_point_names_a_class_for_messages_and_one_without(adapter: Any) -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["lmms_eval.models"]["lorgnette"].partition(":")
    assert module == OURS
    made = getattr(adapter, name)()
    assert made.model_id == "lorgnette"
    for path, simple in ((made.chat_class_path, False), (made.simple_class_path, True)):
        home, _, kind = path.rpartition(".")
        assert getattr(importlib.import_module(home), kind).is_simple is simple
    assert not adapter.Lorgnette.__abstractmethods__


def test_requests_of_unlike_settings_are_answered_in_their_order(lm: Any) -> None:
    ways = [
        {"max_new_tokens": 8, "until": ["\n"], "temperature": 0, "num_beams": 1},
        {"max_new_tokens": 3, "until": "e", "do_sample": False, "temperature": 0.7, "top_p": None},
        {"max_new_tokens": 6, "until": [""], "temperature": 1.0, "top_p": 0.9},
    ]
    settings = [
        GenerationConfig(max_tokens=8, stop=("\n",)),
        GenerationConfig(max_tokens=3, stop=("e",)),
        GenerationConfig(max_tokens=6, temperature=1.0, top_p=0.9),
    ]
    found = lm.generate_until([asked(n, ways[n % 3]) for n in range(5)])
    model, processor = lm.model.model, lm.model.processor
    expected = [generate(model, processor, [sample(n)], settings[n % 3])[0].text for n in range(5)]
    assert found == expected
    assert sorted(lm.cache_hook.added, key=lambda one: expected.index(one[2]))[0][0] == "generate_until"
    assert {answer for _, _, answer in lm.cache_hook.added} == set(expected)
    assert lm.device.type == "cpu"
    assert lm.batch_size == 2


def test_without_messages_pictures_stand_before_the_text(lm: Any, adapter: Any) -> None:
    from lmms_eval.api.instance import Instance

    simple = object.__new__(adapter.LorgnetteSimple)
    simple.__dict__ |= lm.__dict__
    settings = {"max_new_tokens": 8, "until": ["\n"]}
    requests = [
        Instance("generate_until", (doc["question"], settings, lambda doc: [doc["picture"]], n, "colours", "test"), 0)
        for n, doc in enumerate(DOCS)
    ]
    assert simple.generate_until(requests) == lm.generate_until([asked(n, settings) for n in range(5)])


def test_continuations_are_scored_by_question(lm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.api.instance import Instance, unwrap_generation_output

    def visuals(doc: dict[str, Any]) -> list[Any]:
        return [doc["picture"]]

    best = LorgnetteModel(lm.model.model, lm.model.processor).generate([sample(1)], max_tokens=3)[0]
    question = DOCS[1]["question"]
    requests = [
        Instance("loglikelihood", (question, " red", visuals, 1, "colours", "test"), 0),
        Instance("loglikelihood", ("no picture", "blue", lambda doc: None, 0, "colours", "test"), 0),
        Instance("loglikelihood", (question, f" {best}", visuals, 1, "colours", "test"), 1),
        Instance("loglikelihood", (question, lambda doc: "red", visuals, 1, "colours", "test"), 2),
        Instance("loglikelihood", ("", "red"), 0),
    ]
    asked_together: list[int] = []
    score = LorgnetteModel.score

    def counted(self: LorgnetteModel, prompts: list[Sample], texts: list[list[str]]) -> list[list[float]]:
        asked_together.append(len(prompts))
        return score(self, prompts, texts)

    monkeypatch.setattr(LorgnetteModel, "score", counted)
    found = [unwrap_generation_output(one)[0] for one in lm.loglikelihood(requests)]
    assert asked_together == [2, 1], "three questions by two"
    prompts = [
        sample(1),
        Sample((Turn("user"), Text("no picture"))),
        sample(1),
        sample(1),
        Sample((Turn("user"), Text(""))),
    ]
    alone = LorgnetteModel(lm.model.model, lm.model.processor)
    for (loss, greedy), prompt, text in zip(found, prompts, ("red", "blue", best, "red", "red"), strict=True):
        assert loss == pytest.approx(-score(alone, [prompt], [[text]])[0][0], abs=1e-4)
        assert greedy == (text == best)


def test_what_cannot_be_done_is_said(lm: Any, adapter: Any) -> None:
    with pytest.raises(SettingsError, match="one round of questions"):
        lm.generate_until_multi_round([])
    with pytest.raises(SettingsError, match="num_beams is 3; lorgnette decodes greedily"):
        lm.generate_until([asked(0, {"num_beams": 3})])
    video = [{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}]
    with pytest.raises(DataError, match="'video' is not supported; give some of its frames"):
        lm.generate_until([asked(0, {}, lambda doc: video)])
    with pytest.raises(SettingsError, match="batch_size is 'auto'; give a number"):
        adapter.Lorgnette("nowhere", batch_size="auto")
    with pytest.raises(SettingsError, match="dtype is 'half-ish'"):
        adapter.Lorgnette("nowhere", dtype="half-ish")
