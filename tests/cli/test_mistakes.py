"""The table of mistakes: each command that newcomers mistyped, and what its message says: what, where, what to do.

Run in this process, in a folder with a tiny model and some files. Nothing is fetched and nothing trains.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from lorgnette.cli import main
from lorgnette.data.prepare import pool
from lorgnette.errors import SettingsError
from lorgnette.hub.export import save
from tests.hub.tiny import tiny_model, tiny_processor

TALK = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Red."}]
ROWS: dict[str, Any] = {
    "mine.jsonl": {"messages": TALK, "image": "red.png"},
    "qa.jsonl": {"question": "a", "answer": "b"},
    "narrator.jsonl": {"messages": [{"role": "narrator", "content": "x"}, *TALK]},
    "lost.jsonl": {"messages": TALK, "image": "gone.png"},
    "silent.jsonl": {"messages": TALK[:1]},
    "place.jsonl": {"messages": [{"role": "user", "content": "<image>What?"}, TALK[1]], "images": []},
}
PREPARE = "data prepare --tokenizer model --workers 1 --kind"

MISTAKES: dict[str, tuple[str, ...]] = {
    # a name that is nearly right
    "trian micro": ("No such command 'trian'", "Did you mean 'train'?"),
    "demo --recipe dmeo": ("dmeo: no such recipe", "did you mean 'demo'?"),
    "train mirco": ("mirco: no such recipe", "did you mean 'micro'?"),
    "eval --model model --tasks scenevqa": ("no task is called 'scenevqa'", "did you mean 'scene_vqa'?"),
    "study run t33": ("t33: no such study", "did you mean 't3'?"),
    "settings stages.loar": ("stages.loar: no such setting", "did you mean 'lora'?"),
    "data inspect micro --stage chta": ("--stage chta", "its stages are stage1, stage2, instruct, chat"),
    # a setting
    "train micro stages.0.lr=fast": ("stages.0.lr", "valid number", "given 'fast'"),
    "train micro stages.9.lr=1": ("'9' is not an index below 4", "one of stage1, stage2, instruct, chat"),
    "train micro stages.isntruct.lr=1e-4": ("'isntruct' is not an index", "did you mean 'instruct'?"),
    "train micro stages.0.learning_rate=1": ("stages.0.learning_rate", "did you mean 'lr'?"),
    "train micro lr=1": ("lr: no such setting", "did you mean 'stages.0.lr'?"),
    "train micro epochs=3": ("epochs: no such setting", "did you mean 'stages.0.steps'?"),
    "train micro stages.0.steps=0": ("stages.0.steps", "greater than or equal to 1", "given 0"),
    "train micro precision=fp16": ("precision", "'auto', 'fp32' or 'bf16'", "given 'fp16'"),
    "train micro init.language=null": ("give init.language too", "init={}"),
    "train micro init.language=fresh": ("fresh: no such folder", "give that of a checkpoint"),
    "train micro stages.0.connector.mode=lora": ("stage 'stage1'", "takes no adapters", "full or frozen"),
    "train micro stages.0.sources.0.kind=captions": ("kind 'captions' is unknown", "pairs"),
    "train micro stages.0.sources.0.kind=messages": ("kind messages is now called chat",),
    "train micro --epochs 3": ("No such option: --epochs",),
    "train bad.yaml": ("bad.yaml: cannot be read as YAML", "line 2, column 1", "expected ',' or ']'"),
    "train mine.jsonl": ("mine.jsonl: is a file of rows, not a recipe", "lorgnette tune MODEL mine.jsonl"),
    "data inspect mine.jsonl": ("mine.jsonl: is a file of rows, not a recipe", "--kind chat", "--tokenizer"),
    "train empty": ("empty: is a folder without run.yaml", "give a YAML file or one of"),
    # a model
    "generate --prompt x": ("Missing option '--model'",),
    "generate --prompt x --model nowhere": ("nowhere: no such folder", "owner/name of one on the hub"),
    "generate --prompt x --model owner/name": (
        "owner/name: no such folder here",
        "the hub did not give it",
        "a folder",
    ),
    "generate --prompt x --model empty": ("empty: holds no config.json",),
    "generate --prompt x --model adapters": ("adapters: is an adapter that names no base model", "name it"),
    "show nowhere": ("nowhere: no such recipe", "give the path of a YAML file"),
    "export --model model out --format gguf": ("format gguf", "lorgnette writes idefics2"),
    "eval --model transformers: --tasks scene_vqa": ("names no model", "transformers:FOLDER_OR_ID"),
    "eval --model http://127.0.0.1:9/v1 --tasks scene_vqa": ("names no model", "http://127.0.0.1:9/v1#MODEL"),
    # an image, an option
    "generate --prompt x --model model --image gone.png": ("image 1 (gone.png)", "no such file"),
    "generate --prompt x --model model --image bad.png": ("image 1 (bad.png)", "not an image of a known format"),
    "generate --prompt x --model model --image empty": ("image 1 (empty)", "not a regular file"),
    "generate --prompt x --model model --temperature=-1": ("generate: temperature", "greater than or equal to 0"),
    "chat --model model --max-tokens 0": ("chat: max_tokens", "greater than or equal to 1"),
    "eval --model model --tasks scene_vqa --shots 500": ("63 examples to show, not 500", "ask for fewer shots"),
    "eval --model model --metric anlz": ("metric 'anlz' is unknown", "anls"),
    "eval compare empty": ("empty is compared with nothing", "give two folders"),
    "eval rescore empty": ("empty: holds no results", "give a folder that an evaluation wrote"),
    # data
    "eval --model model --tasks nowhere.jsonl": ("nowhere.jsonl: no such file or folder",),
    "eval --model model --tasks qa.jsonl": ("the columns of qa.jsonl are question, answer", "say it by --kind"),
    "tune model nothing.jsonl": ("nothing.jsonl: is empty", "give a file with rows"),
    "tune model mine.jsonl --kind chats": ("kind 'chats' is unknown", "chat"),
    "tune model mine.jsonl --hold-out 0.9": ("--hold-out is 0.9", "between 0 and 0.5"),
    "tune model": ("Missing argument",),
    "data prepare --kind chat mine.jsonl": ("give --tokenizer", "folder of a tokenizer or a model"),
    "data prepare --kind chat mine.jsonl --tokenizer nowhere": ("nowhere: no such file", "tokenizer.json"),
    f"{PREPARE} captions mine.jsonl": ("kind 'captions' is unknown", "pairs"),
    f"{PREPARE} chat narrator.jsonl": ("narrator.jsonl, row 1: role: message 0 is by 'narrator'", "known are human"),
    f"{PREPARE} chat qa.jsonl": ("qa.jsonl, row 1: no column: 'messages' is missing", "question, answer"),
    f"{PREPARE} chat lost.jsonl": ("lost.jsonl, row 1: no image", "gone.png"),
    f"{PREPARE} chat silent.jsonl": ("silent.jsonl, row 1: no answer", "the assistant says nothing"),
    f"{PREPARE} chat bad.json": ("bad.json, row 1: not JSON",),
    f"{PREPARE} chat owner/set": (
        "owner/set: no such file or folder here",
        "the hub did not give a data set",
        "a folder",
    ),
    "data plan micro --verify": ("Option '--verify' requires an argument",),
}
"""Command -> what its message says."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    save(tiny_model(), tiny_processor(), folder / "model")
    PIL.Image.new("RGB", (32, 32), "red").save(folder / "red.png")
    for name, row in ROWS.items():
        (folder / name).write_text(json.dumps(row) + "\n")
    (folder / "nothing.jsonl").write_text("")
    (folder / "bad.json").write_text('{"messages": [\n')
    (folder / "bad.yaml").write_text("name: [a\n")
    (folder / "bad.png").write_bytes(b"not an image")
    for name in ("empty", "adapters"):
        (folder / name).mkdir()
    (folder / "adapters" / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": null}')
    return folder


@pytest.fixture
def said(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "hub"))

    def run(command: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["lorgnette", *shlex.split(command)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return run


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_answered_with_what_where_and_what_to_do(command: str, said: Any) -> None:
    status, message = said(command)
    assert status in (1, 2), message
    assert "Traceback" not in message
    missing = [part for part in MISTAKES[command] if part not in message]
    assert not missing, message


def test_a_place_without_image_is_noted_where_it_is_prepared(said: Any) -> None:
    status, message = said(f"{PREPARE} chat place.jsonl")
    assert not status and "noted: <image> and no image" in message


def test_a_cluster_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is not among the packages of the tests: Daft and Ray are stood in for, and raise as Ray does."""

    class Daft:
        @staticmethod
        def set_runner_ray(address: str, noop_if_initialized: bool) -> None:
            raise ConnectionError(f"ray client connection timeout: {address}")

    monkeypatch.setitem(sys.modules, "daft", Daft)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(SettingsError, match=r"--ray nowhere:1: no cluster answers there .*ray start --head"):
        pool._daft("nowhere:1")
