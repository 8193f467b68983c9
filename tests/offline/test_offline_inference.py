"""Many prompts into one file: the answers are generate's, nothing is asked twice, and bad rows stop nothing."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import lorgnette
from lorgnette.cli import app
from lorgnette.errors import DataError, LorgnetteError, SettingsError
from lorgnette.hub.export import save
from lorgnette.infer.engine.request import SamplingParams
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.offline.answer_file import AnswerFile
from lorgnette.offline.offline_inference import run_job
from lorgnette.offline.prompt_rows import image_prompts, row_prompts
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import picture, tiny_model, tiny_processor
from tests.infer.engine.driving import engine

PROMPT = "what colour is the cat?"
SIZES = {"one.png": (60, 40), "deep/two.png": (30, 80), "three.png": (44, 44)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save(tiny_model(seed=1), tiny_processor(), folder)
    return folder


@pytest.fixture
def scans(tmp_path):
    for name, size in SIZES.items():
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        picture(*size).save(tmp_path / "scans" / name)
    return tmp_path / "scans"


def ask(model, *options: object) -> str:
    line = ("generate", "--model", model, "--max-tokens", 6, *options)
    result = CliRunner().invoke(app, list(map(str, line)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def alone(model, images, prompt=PROMPT):
    sample = Sample((Turn("user"), *map(Image, images), Text(prompt)))
    [answer] = lorgnette.generate(*lorgnette.load(model), [sample], GenerationConfig(max_tokens=6))
    return answer


def test_each_image_of_a_folder_is_answered_as_alone(model, scans, tmp_path):
    out = tmp_path / "answers.jsonl"
    said = ask(model, "--folder", scans, "--prompt", PROMPT, "--out", out)
    rows = lines(out)
    assert [row["id"] for row in rows] == sorted(SIZES)
    for row in rows:
        expected = alone(model, [scans / row["id"]])
        assert (row["text"], row["finish"]) == (expected.text, expected.finish)
        assert (row["tokens"], row["prompt_tokens"]) == (len(expected.tokens), expected.prompt_tokens)
        assert row["error"] is None
    assert "3 answered" in said and "answers/s" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "scans"], "nothing is left beside it"


def test_parquet_in_and_out(model, scans, tmp_path):
    images = [{"bytes": (scans / name).read_bytes(), "path": None} for name in SIZES]
    asked = tmp_path / "asked.parquet"
    pq.write_table(pa.table({"id": [7, 8, 9], "image": images, "question": ["one?", "two?", "three?"]}), asked)
    ask(model, "--rows", asked, "--out", tmp_path / "answers.parquet")
    rows = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["7", "8", "9"]
    for row, name, prompt in zip(rows, SIZES, ("one?", "two?", "three?"), strict=True):
        assert row["text"] == alone(model, [scans / name], prompt).text


def test_conversations_are_asked_up_to_their_last_question(model, scans, tmp_path):
    messages = [
        {"role": "user", "content": "<image>what is it?"},
        {"role": "assistant", "content": "a mat"},
        {"role": "user", "content": "and now?"},
        {"role": "assistant", "content": "not shown"},
    ]
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"messages": messages, "images": ["scans/one.png"]}) + "\n")
    [row] = row_prompts(str(file)).read()
    kinds = [one.role if isinstance(one, Turn) else type(one).__name__ for one in row.sample.segments]
    assert kinds == ["user", "Image", "Text", "assistant", "Text", "user", "Text"]
    ask(model, "--rows", file, "--out", tmp_path / "answers.jsonl")
    assert lines(tmp_path / "answers.jsonl")[0]["error"] is None


def test_bad_rows_are_named_and_asked_again_by_the_next_run(model, scans, tmp_path):
    (scans / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    out = tmp_path / "answers.jsonl"
    said = ask(model, "--folder", scans, "--prompt", PROMPT, "--out", out)
    by_id = {row["id"]: row for row in lines(out)}
    assert by_id["damaged.png"]["text"] is None and "damaged.png" in by_id["damaged.png"]["error"]
    assert "1 of 4 have no answer" in said and sum(row["error"] is None for row in by_id.values()) == 3
    picture(20, 20).save(scans / "damaged.png")
    said = ask(model, "--folder", scans, "--prompt", PROMPT, "--out", out)
    assert "3 were answered before" in said and "1 answered" in said
    assert {row["id"]: row for row in lines(out)} == by_id | {
        "damaged.png": next(row for row in lines(out) if row["id"] == "damaged.png" and row["error"] is None)
    }


def test_rows_without_a_prompt_take_the_one_given_or_are_refused(scans, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text("image,prompt\nscans/one.png,own?\nscans/three.png,\n")
    assert [row.refusal != "" for row in row_prompts(str(file)).read()] == [False, True]
    texts = [row.sample.segments[-1].text for row in row_prompts(str(file), "given?").read()]
    assert texts == ["own?", "given?"]


def test_two_rows_of_one_id_are_refused(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": 1, "prompt": "a"}\n{"id": "1", "prompt": "b"}\n')
    with pytest.raises(DataError, match=r"two rows have the id '1'"):
        row_prompts(str(file))


def test_a_job_that_is_killed_asks_nothing_twice(scans, tmp_path):
    rows, out, params = image_prompts(str(scans), PROMPT), tmp_path / "answers.jsonl", SamplingParams(max_tokens=6)
    whole = AnswerFile(tmp_path / "whole.jsonl", "x")
    run_job(engine(), rows, whole, params)

    class Killed(Exception):
        pass

    def kill(done, total):
        if done == 2:
            raise Killed

    broken = AnswerFile(out, "x")
    with pytest.raises(Killed):
        run_job(engine(), rows, broken, params, on_done=kill)
    broken.close()
    with broken.partial.open("a") as stream:
        stream.write('{"id": "three.p')  # the kill met a write
    again, fresh = AnswerFile(out, "x"), engine()
    report = run_job(fresh, rows, again, params)
    assert (report.before, report.answered) == (2, 1) and fresh.stats().generation_tokens == report.tokens
    assert out.read_text() == whole.path.read_text() and not again.partial.exists()


def test_answers_of_another_model_or_prompt_are_never_mixed(model, scans, tmp_path):
    out = tmp_path / "answers.jsonl"
    ask(model, "--folder", scans, "--prompt", PROMPT, "--out", out)
    before = out.read_bytes()
    for options in (("--prompt", "other?"), ("--prompt", PROMPT, "--temperature", 0.5)):
        with pytest.raises(DataError, match="by another model, prompt or sampling"):
            ask(model, "--folder", scans, "--out", out, *options)
    assert out.read_bytes() == before


@pytest.mark.parametrize("name", ["notes.jsonl", "notes.parquet"])
def test_a_file_of_somebody_else_is_left_alone(model, scans, tmp_path, name):
    (tmp_path / name).write_text("my notes\n")
    with pytest.raises(LorgnetteError, match="is a file that lorgnette did not write"):
        ask(model, "--folder", scans, "--prompt", PROMPT, "--out", tmp_path / name)
    assert (tmp_path / name).read_text() == "my notes\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give --prompt"),
        (("--prompt", "x", "--out", "a.jsonl"), "--out is for --folder and --rows"),
        (("--folder", "f", "--rows", "r", "--out", "a.jsonl"), "not both"),
        (("--folder", "f", "--prompt", "x"), "take --out FILE"),
        (("--folder", "f", "--prompt", "x", "--out", "a.jsonl", "--image", "i.png"), "neither --image"),
        (("--folder", "f", "--out", "a.jsonl"), "--folder needs --prompt"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, said):
    with pytest.raises(SettingsError, match=said):
        ask("nowhere", *options)


def test_no_answer_at_all_is_an_error(model, scans, tmp_path):
    for path in scans.rglob("*.png"):
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match="3 of 3 have no answer"):
        ask(model, "--folder", scans, "--prompt", PROMPT, "--out", tmp_path / "answers.jsonl")
