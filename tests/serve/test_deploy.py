"""Files of docs/howto/deploy.md and the Dockerfile: what they name exists, and their times fit together."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from hatchling.builders.wheel import WheelBuilder

from lorgnette.cli import app
from lorgnette.hub.export import save
from lorgnette.serve.api.openapi import openapi
from tests.house.source import BLOCK, ROOT
from tests.hub.tiny import tiny_model, tiny_processor

PAGE = (ROOT / "docs/howto/deploy.md").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The block of the page whose first line names this file."""
    return next(body for _, body in BLOCK.findall(PAGE) if body.startswith(f"# {name}\n"))


def options() -> set[str]:
    """Options of `lorgnette serve`."""
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    return {name for parameter in command.params for name in parameter.opts}


def value_of(words: list[str], option: str) -> float:
    return float(words[words.index(option) + 1])


def check_options(words: list[str]) -> None:
    assert {word for word in words if word.startswith("--")} <= options()


def test_a_pod_is_given_time_to_end() -> None:
    pod = yaml.safe_load(block("deployment.yaml"))["spec"]["template"]["spec"]
    (server,) = pod["containers"]
    check_options(server["args"])
    paused = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > paused + value_of(server["args"], "--drain-seconds") + 5
    probes = {name: server[name] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert {one["httpGet"]["path"] for one in probes.values()} == {"/ready", "/health"} <= openapi()["paths"].keys()
    assert probes["livenessProbe"]["httpGet"]["path"] == "/health", "a server that drains is not to be killed"
    assert {one["httpGet"]["port"] for one in probes.values()} == {server["ports"][0]["containerPort"]}
    assert server["args"][0] in {mount["mountPath"] for mount in server["volumeMounts"]}
    memory = server["resources"]["limits"]["memory"]
    assert int(memory.removesuffix("Gi")) * 1024 > value_of(server["args"], "--kv-mib") + 1024
    volumes = {one["name"] for one in pod["volumes"]}
    assert {mount["name"] for mount in server["volumeMounts"]} == volumes


def test_a_unit_is_given_time_to_end() -> None:
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read_string(block("lorgnette.service"))
    service = unit["Service"]
    words = service["ExecStart"].split()
    assert words[1] == "serve"
    check_options(words[1:])
    assert float(service["TimeoutStopSec"]) > value_of(words, "--drain-seconds") + 5
    assert "HUP" in service["ExecReload"] and value_of(words, "--workers") > 1, "with one worker nothing is restarted"


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile and what stands behind them."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in text.splitlines() if line.strip()]


def test_the_container_starts_the_server() -> None:
    found = dict(instructions())
    words: list[str] = [*yaml.safe_load(found["ENTRYPOINT"]), *yaml.safe_load(found["CMD"])]
    assert words[:2] == ["lorgnette", "serve"]
    check_options(words)
    assert found["USER"] != "root" and found["EXPOSE"] == "8000"
    assert "http://127.0.0.1:8000/health" in found["HEALTHCHECK"]
    compile(yaml.safe_load(found["HEALTHCHECK"].partition("CMD ")[2])[2], "HEALTHCHECK", "exec")
    for name in found["COPY"].split()[:-1]:
        assert name.startswith("dist/") or (ROOT / name).is_file()
    assert not os.path.exists(ROOT / ".dockerignore") or "!dist/*.whl" in (ROOT / ".dockerignore").read_text()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_steps_of_the_container_make_a_server(tmp_path: Path) -> None:
    """Its RUN steps in a fresh environment, then what it starts, on a model; without an engine of containers."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    assert Path(wheel).parent == tmp_path
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    venv.create(tmp_path / "venv", with_pip=True)
    environment: dict[str, Any] = {**os.environ, "PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}", "TORCH_INDEX": ""}
    environment.pop("PYTHONPATH", None)
    for name, command in instructions():
        if name == "RUN":
            subprocess.run(["bash", "-ec", command], cwd=tmp_path, env=environment, check=True, stdout=sys.stderr)
    assert not list(tmp_path.glob("*.whl")), "the image does not keep the wheel"
    save(tiny_model(seed=1), tiny_processor(), tmp_path / "model")
    found = dict(instructions())
    start: list[str] = [*yaml.safe_load(found["ENTRYPOINT"]), *yaml.safe_load(found["CMD"])]
    start[2] = str(tmp_path / "model")
    start[start.index("0.0.0.0")] = "127.0.0.1"
    check = shlex.join(yaml.safe_load(found["HEALTHCHECK"].partition("CMD ")[2]))
    port = "8197"
    with subprocess.Popen([*start, "--port", port], cwd=tmp_path, env=environment) as process:
        try:
            until(f"http://127.0.0.1:{port}/ready", process)
            healthy = check.replace(":8000", f":{port}")
            assert subprocess.run(["bash", "-c", healthy], env=environment, cwd=tmp_path).returncode == 0
        finally:
            process.terminate()
        assert process.wait(60) == 0


def until(address: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until an address answers."""
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer")
