"""Provenance of a score: the text as read, the code, the weights; and refusal to mix results."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import CheckpointError, LorgnetteError, SettingsError
from lorgnette.eval.metrics import Reference
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.results.store import Example, Result, ResultsFolder, score
from lorgnette.eval.results.summary import means
from lorgnette.eval.tasks import task_named
from lorgnette.hub.checkpoint_hash import SETTLED, checkpoint_digest
from lorgnette.hub.export import save
from lorgnette.sample import Sample, Text, Turn
from lorgnette.version import code
from tests.eval.fixtures import docvqa, write_benchmark, write_rows
from tests.hub.tiny import SAMPLES, tiny_model, tiny_processor


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save(tiny_model(), tiny_processor(), folder)
    return folder


def run(*arguments: object) -> str:
    """Output of the command; its exception is raised again."""
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


# --- the text as the model reads it


def test_the_text_as_read_is_the_templates_with_runs_of_image_tokens_counted() -> None:
    answerer = LorgnetteModel(tiny_model(), tiny_processor())
    slot = "<fake_token_around_image><image>×4<fake_token_around_image>"
    neighbours = slot + "<image>×4<fake_token_around_image>" * 2
    assert answerer.rendered_prompts(SAMPLES) == [
        f"<s>User:{slot} what colour is the cat?<end_of_utterance>\nAssistant:",
        "<s>User: the mat<end_of_utterance>\nAssistant:",
        f"<s>User:{neighbours} a red square over a blue circle: which is red?<end_of_utterance>\nAssistant:",
        "<s>the cat sat on",
        f"<s>{slot} is a",
    ]
    five = LorgnetteModel(tiny_model(), tiny_processor(), split=True).rendered_prompts(SAMPLES[:1])
    assert five[0].count("<image>×4") == 5
    typed = Sample((Turn("user"), Text("<image>é<image>×4")))
    assert answerer.rendered_prompts([typed]) == ["<s>User: <image>é<image>×4<end_of_utterance>\nAssistant:"]


def test_the_text_as_read_is_of_the_tokens_that_are_read() -> None:
    answerer = LorgnetteModel(tiny_model(), tiny_processor())
    batch, _ = answerer.image_cache.prompts(SAMPLES)
    spelled = [answerer.processor.decode(ids.tolist()) for ids in batch.tokens_T.split(list(batch.documents.lengths))]
    assert answerer.rendered_prompts(SAMPLES) == spelled


# --- the digest of weights


def remembered(cache: Path) -> dict[str, object]:
    return json.loads(cache.read_text()) if cache.exists() else {}


def test_a_digest_is_of_content_and_not_of_a_path(model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    first = checkpoint_digest(model, cache)
    save(tiny_model(), tiny_processor(), tmp_path / "copy")
    assert checkpoint_digest(tmp_path / "copy", cache) == first
    (tmp_path / "copy" / "parity.json").write_text("{}")
    (tmp_path / "copy" / "README.md").write_text("a card")
    assert checkpoint_digest(tmp_path / "copy", cache) == first, "what decides no answer changes nothing"
    digests = {first}
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors", "processor_config.json"):
        file = tmp_path / "copy" / name
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
        digests.add(checkpoint_digest(tmp_path / "copy", cache))
    assert len(digests) == 6
    with pytest.raises(CheckpointError, match="no such folder"):
        checkpoint_digest(tmp_path / "none" / "here", cache)


def test_a_remembered_digest_does_not_lie(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = tmp_path / "model", tmp_path / "digests.json"
    save(tiny_model(), tiny_processor(), folder)
    first = checkpoint_digest(folder, cache)
    assert remembered(cache) == {}, "changed less than a moment ago"
    monkeypatch.setattr("lorgnette.hub.checkpoint_hash.SETTLED", -SETTLED)
    cache.write_text(json.dumps({str(tmp_path / "gone"): [[1], "a"]}))
    assert checkpoint_digest(folder, cache) == first
    kept = remembered(cache)
    assert str(folder / "model.safetensors") in kept
    assert str(tmp_path / "gone") not in kept
    monkeypatch.setattr("hashlib.file_digest", None)
    assert checkpoint_digest(folder, cache) == first, "nothing is read again"
    monkeypatch.undo()
    weights = folder / "model.safetensors"
    before = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_size == before.st_size
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    assert checkpoint_digest(folder, cache) != first, "the same size and time of change, and yet other weights"


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_memory_of_digests_is_done_without(content: str, model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "digests.json"
    cache.write_text(content.replace("x", str((model / "config.json").resolve())))
    assert checkpoint_digest(model, cache) == checkpoint_digest(model, tmp_path / "other.json")


# --- what the folder says


def test_a_folder_says_which_code_and_which_weights(model: Path, tmp_path: Path) -> None:
    run("--model", model, "--tasks", "scene_vqa", "--limit", 4, "--folder", tmp_path, "--batch-size", 2)
    store = ResultsFolder(tmp_path / "scene_vqa")
    assert store.settings()["model"] == str(model)
    assert store.settings()["weights"] == checkpoint_digest(model)
    assert store.settings()["version"] == 1
    (session,) = store.sessions()
    assert {key: session[key] for key in ("lorgnette", "commit")} == code()
    assert session["torch"] == torch.__version__.split("+")[0] or session["torch"] == torch.__version__
    assert session["dtype"] == "float32"
    assert session["device"].startswith("cpu (")
    assert (session["batch_size"], session["rank"], session["ranks"]) == (2, 0, 1)
    summary = json.loads((store.path / "summary.json").read_text())
    assert summary["made_by"] == [{key: value for key, value in session.items() if key not in ("began", "rank")}]
    assert (summary["scored"], summary["missing"]) == (True, 0)
    asked = task_named("scene_vqa").samples
    for example in store.examples():
        assert example.rendered.startswith("<s>User:<fake_token_around_image><image>×4<fake_token_around_image>")
        assert example.rendered.endswith("<end_of_utterance>\nAssistant:")
        assert asked[example.index].segments[2].text in example.rendered  # type: ignore[union-attr]
    assert store.lacks() == ""


def test_other_weights_at_the_same_path_are_refused(tmp_path: Path) -> None:
    folder, results = tmp_path / "model", tmp_path / "results"
    save(tiny_model(), tiny_processor(), folder)
    asked = ("--model", folder, "--tasks", "scene_vqa", "--limit", 3, "--folder", results)
    run(*asked)
    run(*asked)
    save(tiny_model(seed=1), tiny_processor(), folder)
    with pytest.raises(SettingsError, match="have changed since the stored answers"):
        run(*asked)
    folder = ResultsFolder(results / "scene_vqa")
    assert len(found := folder.sessions()) == 1, "a finished folder is asked nothing"
    (folder.path / "sessions.jsonl").rename(folder.path / "sittings.jsonl")
    assert folder.sessions() == found, "as older versions call them"


def older(folder: Path) -> None:
    """Take away what older versions did not store."""
    settings = json.loads((folder / "settings.json").read_text())
    for key in ("weights", "questions"):
        del settings[key]
    (folder / "settings.json").write_text(json.dumps(settings))
    rows = [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]
    for row in rows:
        for key in ("rendered", "id", "by", "declined"):
            del row[key]
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "sessions.jsonl").unlink()


def test_an_older_folder_opens_and_says_what_it_lacks(model: Path, tmp_path: Path) -> None:
    for name in ("old", "new"):
        run("--model", model, "--tasks", "scene_vqa", "--limit", 4, "--folder", tmp_path / name)
    old = tmp_path / "old" / "scene_vqa"
    scores = json.loads(run("rescore", old, "--json"))
    older(old)
    done = CliRunner().invoke(app, ["eval", "rescore", str(old), "--json"])
    assert json.loads(done.stdout)["scene_vqa"]["overall"] == scores["scene_vqa"]["overall"]
    assert "written by an older lorgnette, which did not store the code and weights" in done.stderr
    assert "+0.0 points" in run("compare", old, tmp_path / "new" / "scene_vqa")
    with pytest.raises(SettingsError, match="written by an older lorgnette, which did not store questions"):
        run("--model", model, "--tasks", "scene_vqa", "--limit", 4, "--folder", tmp_path / "old")


# --- the verbs


def test_scores_are_computed_again_without_torch(model: Path, tmp_path: Path) -> None:
    run("--model", model, "--tasks", "scene_vqa,text_vqa", "--limit", 4, "--folder", tmp_path)
    summary = (tmp_path / "scene_vqa" / "summary.json").read_text()
    (tmp_path / "scene_vqa" / "summary.json").unlink()
    program = f"""
import sys
from lorgnette.cli import app
try:
    app(["eval", "rescore", {str(tmp_path)!r}, "--json"])
except SystemExit:
    pass
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"scene_vqa", "text_vqa"}
    assert (tmp_path / "scene_vqa" / "summary.json").read_text() == summary
    assert "all" in run("rescore", tmp_path / "scene_vqa")
    found = json.loads(run("rescore", tmp_path / "scene_vqa", "--metric", "anls", "--json"))
    assert found["scene_vqa"]["metric"] == "anls"
    with pytest.raises(LorgnetteError, match="holds no results"):
        run("rescore", tmp_path / "nowhere")


def test_an_unfinished_evaluation_is_scored_as_far_as_it_is(tmp_path: Path) -> None:
    store = ResultsFolder(tmp_path)
    settings = {"task": "t", "metric": "exact_match", "questions": 5, "weights": "a"}
    store.begin(settings, {"began": "now"})
    assert store.lacks() == ""
    printed = run("rescore", tmp_path)
    assert "5 questions are not answered yet" in printed
    assert not (tmp_path / "summary.json").exists()


def test_what_is_secret_or_unfinished_is_in_no_mean() -> None:
    def asked(**settings: object) -> Result:
        return score({"metric": "exact_match", **settings}, [Example(0, "q", "", "?", "a", Reference(("a",)), ())])

    whole = {name: asked() for name in ("one", "two")}
    assert means(whole, {"both": ("one", "two")})["both"].value == 100
    for other in (asked(metric="unscored"), asked(questions=2)):
        assert means({**whole, "two": other}, {"both": ("one", "two")}) == {}


def test_two_evaluations_are_compared(model: Path, tmp_path: Path) -> None:
    common = ("--model", model, "--tasks", "scene_vqa,text_vqa", "--limit", 5)
    run(*common, "--folder", tmp_path / "a")
    run(*common, "--folder", tmp_path / "b", "--blind")
    page = tmp_path / "page.html"
    printed = run("compare", tmp_path / "a", tmp_path / "b", "--page", page)
    assert "blind: False -> True" in printed
    assert "on the same 5 questions" in printed
    assert {path.name for path in tmp_path.glob("*.html")} == {"page-scene_vqa.html", "page-text_vqa.html"}
    found = json.loads(run("compare", tmp_path / "a", tmp_path / "b", "--json"))
    assert found["scene_vqa"]["settings"] == {"blind": {"before": False, "after": True}}
    assert found["scene_vqa"]["difference"]["count"] == 5
    run("compare", tmp_path / "a" / "scene_vqa", tmp_path / "b" / "scene_vqa", "--page", page)
    assert page.exists()
    with pytest.raises(LorgnetteError, match="differ in their task"):
        run("compare", tmp_path / "a" / "scene_vqa", tmp_path / "b" / "text_vqa")


def test_ranks_share_the_command(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("--model", model, "--tasks", "scene_vqa,text_vqa", "--limit", 6, "--json")
    whole = json.loads(run(*asked))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SettingsError, match="several processes share an evaluation through a folder"):
        run(*asked)
    waiting = CliRunner().invoke(app, ["eval", *map(str, asked), "--folder", str(tmp_path)])
    assert waiting.stdout == ""
    assert "6 questions are still with other processes" in waiting.stderr
    monkeypatch.setenv("RANK", "0")
    assert json.loads(run(*asked, "--folder", tmp_path)) == whole


# --- files for the servers


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vqav2", [{"question_id": n, "answer": f"says {n}"} for n in range(8)]),
        ("docvqa", [{"questionId": n, "answer": f"says {n}"} for n in range(8)]),
        (
            "mmmu",
            {
                "validation_Accounting_0": "A",
                "validation_Art_1": "B",
                "validation_Computer_Science_2": "G",
                "validation_Art_Theory_3": "B",
                "validation_Math_4": "says 4",
                "validation_History_5": "says 5",
                "validation_Music_6": "",
                "validation_Pharmacy_7": "D",
            },
        ),
    ],
)
def test_files_for_servers(name: str, content: object, model: Path, tmp_path: Path) -> None:
    data = write_benchmark(tmp_path, name)[name]
    folder, out = tmp_path / "results", tmp_path / "out.json"
    run("--model", model, "--tasks", name, "--data", f"{name}={data}", "--incomplete", "--folder", folder)
    store = ResultsFolder(folder / name)
    said = {index: f"The answer is ({letter})." for index, letter in {0: "A", 1: "B", 2: "G", 3: "B", 7: "D"}.items()}
    said = said if name == "mmmu" else {}
    told = [dataclasses.replace(one, answer=said.get(one.index, f" says \n {one.index} ")) for one in store.examples()]
    (store.path / "examples.jsonl").unlink()
    store.append(told, {})
    with pytest.raises(LorgnetteError) as lacking:
        run("submission", store.path, "--out", out)
    assert not out.exists()
    assert f"the data hold {store.settings()['size']} of the split's" in str(lacking.value)
    assert "could not be asked: " in str(lacking.value)
    assert all(row.name in str(lacking.value) for row in store.rejected().values())
    assert "The server wants every question; --incomplete" in str(lacking.value)
    assert f"Wrote {out}" in run("submission", store.path, "--out", out, "--incomplete")
    assert json.loads(out.read_text()) == content


def test_a_submission_names_what_a_limit_left_out(model: Path, tmp_path: Path) -> None:
    data = write_benchmark(tmp_path, "vqav2")["vqav2"]
    asked = ("--model", model, "--tasks", "vqav2", "--data", f"vqav2={data}", "--incomplete", "--limit", 3)
    run(*asked, "--folder", tmp_path / "results")
    with pytest.raises(LorgnetteError, match=r"not answered: row \d, row \d"):
        run("submission", tmp_path / "results" / "vqav2", "--out", tmp_path / "out.json")
    store = ResultsFolder(tmp_path / "results" / "vqav2")
    first, *rest = store.examples()
    for changed, message in (
        (dataclasses.replace(first, id=""), "has no id"),
        (dataclasses.replace(first, id=rest[0].id), f"two questions have the id {rest[0].id}"),
        (dataclasses.replace(first, id="seven"), "question 'seven': the server knows questions by number"),
    ):
        (store.path / "examples.jsonl").unlink()
        store.append([changed, *rest], {})
        with pytest.raises(LorgnetteError, match=message):
            run("submission", store.path, "--out", tmp_path / "out.json", "--incomplete")
    run("--model", model, "--tasks", "scene_vqa", "--limit", 2, "--folder", tmp_path / "results")
    with pytest.raises(SettingsError, match="scene_vqa has no server; there are files for vqav2, docvqa, mmmu"):
        run("submission", tmp_path / "results" / "scene_vqa", "--out", tmp_path / "out.json")


def test_a_split_without_answers_is_asked_and_not_scored(model: Path, tmp_path: Path) -> None:
    write_rows(tmp_path / "data" / "DocVQA" / "test-0.parquet", [row | {"answers": None} for row in docvqa(False)])
    asked = ("--model", model, "--tasks", "docvqa:test", "--data", f"docvqa={tmp_path / 'data'}", "--incomplete")
    found = json.loads(run(*asked, "--folder", tmp_path / "results", "--json"))["docvqa:test"]
    assert found["overall"] == {"count": 8}
    assert found["kinds"] == {}
    assert found["scored"] is False
    stored = ResultsFolder(tmp_path / "results" / "docvqa-test")
    assert len(stored.examples()) == 8
    assert "its server scores them" in run("rescore", stored.path)
    with pytest.raises(LorgnetteError, match="are secret: there are no scores to compare"):
        run("compare", stored.path, shutil.copytree(stored.path, tmp_path / "again"))
    run("submission", stored.path, "--out", tmp_path / "out.json", "--incomplete")
    assert [row["questionId"] for row in json.loads((tmp_path / "out.json").read_text())] == list(range(8))
