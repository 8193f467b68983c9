"""A folder as transformers itself writes it, for the tests of hub and infer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from lorgnette.hub import config_map
from lorgnette.model.config import VLMConfig
from tests.hub.tiny import tiny_config, tiny_processor

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def write_upstream(
    folder: Path, config: VLMConfig, *, dtype: torch.dtype = torch.float32, shards: bool = False
) -> Path:
    """Write a random Idefics2 with transformers' own classes, and the processor's files beside it."""
    tiny_processor(config).save(folder)
    (folder / "lorgnette.json").unlink()
    torch.manual_seed(0)
    values = config_map.write_idefics2(config)
    model = transformers.Idefics2ForConditionalGeneration(transformers.Idefics2Config(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.to(dtype).save_pretrained(folder, **({"max_shard_size": "100KB"} if shards else {}))
    return folder


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Idefics2 of transformers. Read only: copy it to change it."""
    return write_upstream(tmp_path_factory.mktemp("upstream"), tiny_config())


@pytest.fixture
def copied(upstream: Path, tmp_path: Path) -> Path:
    """A copy of `upstream` to spoil."""
    return Path(shutil.copytree(upstream, tmp_path / "copied"))


@pytest.fixture(scope="session")
def make_upstream() -> Callable[..., Path]:
    return write_upstream
