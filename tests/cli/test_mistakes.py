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
    "weightless.jsonl": {"messages": [TALK[0], TALK[1] | {"weight": 0}]},
    "place.jsonl": {"messages": [{"role": "user", "content": "<image>What?"}, TALK[1]], "images": []},
}
TUNED = """
name: tuned
init: {model: model}
stages: [{name: tune, steps: 6, pack: {samples: 1, packs_per_step: 1}, sources: [{kind: chat, path: mine.jsonl}]}]
loader: {workers: 0}
"""
"""A run on one row, of steps that take milliseconds."""
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
    "train micro --epochs 3": ("No such option: --epochs", "without dashes: stages.0.steps=VALUE"),
    "demo --learning-rate 1e-4": ("No such option: --learning-rate", "without dashes: stages.0.lr=VALUE"),
    "tune model mine.jsonl --lora-r 8": ("No such option: --lora-r", "without dashes: stages.0.lora.rank=VALUE"),
    "train micro --precision bf16": ("No such option: --precision", "without dashes: precision=VALUE"),
    "train micro --log mlflow": ("--log mlflow: no such tracker", "tensorboard, wandb, trackio"),
    "train demo model.language.width=256": (
        "language: does not fit the model's settings",
        "width 256, there 128",
        "leave out model.language",
    ),
    "train tuned.yaml model.language.width=256": (
        "model: does not fit the run's model settings",
        "leave out `model`, whose sizes come with the weights",
    ),
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
    # an image, an option, a device
    "generate --prompt x --model model --device gpu": ("--device gpu", "auto, cpu, cuda, cuda:N, mps"),
    "chat --model model --device mps": ("device mps: no MPS (Apple GPU) device here", "use device='cpu'"),
    "serve model --dtype int8": ("--dtype int8", "auto, float32, bfloat16, float16"),
    "look --model model --prompt x red.png --dtype half": ("--dtype half", "float16"),
    "eval --model http://127.0.0.1:9/v1#m --device cuda": ("--device cuda", "a server chooses that itself"),
    "eval --model http://127.0.0.1:9/v1#m --compile": ("--compile: is for models that lorgnette opens",),
    "generate --prompt x --model model --compile --dtype bfloat16": ("compile: is for float32 on the CPU", "bfloat16"),
    "export --model model out --dtype int4": ("--dtype int4", "bfloat16"),
    "tune model mine.jsonl --dtype float16": ("--dtype float16", "training computes in float32 or bfloat16"),
    "tune model mine.jsonl --device cuda:1": ("--device cuda:1", "CUDA_VISIBLE_DEVICES"),
    "train tuned.yaml name=apple device=mps": ("device mps: no MPS (Apple GPU) device here", "use device='cpu'"),
    "train tuned.yaml device=tpu": ("device", "'auto', 'cpu', 'cuda' or 'mps'"),
    "train micro --device cpu": ("No such option: --device", "without dashes: device=VALUE"),
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
    "tune model web.jsonl --kind interleaved --out runs/web": (
        "no held-out row has a question and its answer (kind interleaved)",
        "lorgnette train runs/web/recipe.yaml",
        "measures the loss of those held out",
    ),
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
    f"{PREPARE} chat weightless.jsonl": ("weightless.jsonl, row 1: no answer", "each has weight 0"),
    "train tuned.yaml stages.0.sources.0.path=weightless.jsonl": (
        "none of 1 rows can be trained on",
        "has weight 0",
    ),
    "data plan micro --verify": ("Option '--verify' requires an argument: --verify VERIFY. Folder of a run",),
    "generate --model model --prompt": ("'--prompt' requires an argument", "Text of the question"),
    "eval --tasks": ("'--tasks' requires an argument", "Benchmarks, separated by commas"),
    "export --model model out --verify=yes": ("Option '--verify' does not take a value",),
    "serve model --port many": ("Invalid value for '--port'", "valid integer"),
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
    (folder / "tuned.yaml").write_text(TUNED)
    web = []
    for number in range(8):
        PIL.Image.new("RGB", (32, 32), (30 * number, 0, 0)).save(folder / f"{number}.png")
        web.append(json.dumps({"images": [None, f"{number}.png", None], "texts": ["Before it.", None, "After it."]}))
    (folder / "web.jsonl").write_text("\n".join(web) + "\n")
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
        try:
            main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        printed = capsys.readouterr()
        return status, printed.out + printed.err

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


@pytest.mark.parametrize(
    ("package", "command", "parts"),
    [
        (
            "peft",
            "train tuned.yaml name=lacks stages.0.language.mode=lora",
            ("lora and dora need PEFT", "pip install 'lorgnette[lora]'"),
        ),
        ("peft", "demo", ("lora and dora need PEFT", "pip install 'lorgnette[lora]'")),
        (
            "tensorboard",
            "train tuned.yaml name=lacks --log tensorboard",
            ("tensorboard: is not installed", "pip install tensorboard"),
        ),
        ("uvicorn", "serve model", ("a server needs uvicorn", "pip install 'lorgnette[serve]'")),
    ],
)
def test_a_package_that_is_not_installed_is_named_before_anything_is_made(
    package: str, command: str, parts: tuple[str, ...], said: Any, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    status, message = said(command)
    assert status == 1 and all(part in message for part in parts), message
    assert not (place / "runs" / "lacks").exists() and not (place / "runs" / "demo").exists()


def test_a_rate_that_is_far_too_high_names_the_rows_and_the_way_to_look(said: Any) -> None:
    high = "train tuned.yaml name=high stages.0.lr=1000 stages.0.schedule=constant stages.0.weight_decay=0"
    status, message = said(high)
    assert status == 1 and "mine.jsonl, row 1; try a lower learning rate" in message
    again = message.split("`lorgnette ")[1].split("`")[0]
    assert again.startswith("train --replay runs/high/replay/step-")
    assert all(part in said(again)[1] for part in ("mine.jsonl, row 1", "finite"))


def test_a_run_resumed_with_other_settings_is_told_which(said: Any) -> None:
    assert said("train tuned.yaml name=same stages.0.steps=1")[0] == 0
    status, message = said("train tuned.yaml name=same stages.0.steps=1 stages.0.lr=1e-3")
    assert (
        status == 1 and "runs/same holds a run of other settings (stages.0.lr is 0.0001 there, 0.001 here)" in message
    )
    assert "choose another folder" in message


def test_a_server_that_cannot_be_reached_is_one_sentence(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorgnette.eval.models.http_client.FIRST_ATTEMPTS", 1)
    status, message = said("eval --model http://127.0.0.1:9/v1#m --tasks scene_vqa --limit 1")
    assert status == 1 and "http://127.0.0.1:9/v1/chat/completions: cannot be reached" in message
    assert "run the same command again when it is back" in message


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
