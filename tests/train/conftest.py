"""A run so small that a step takes milliseconds: thirty-two coloured pictures, each asked for its colour."""

from __future__ import annotations

import json
from pathlib import Path

import PIL.Image
import pytest

from lorgnette.inputs.config import SpecialTokens
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.run import Run

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "purple", "orange")
SIZES = ((32, 32), (48, 32), (24, 40), (16, 16))


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> Path:
    """A folder with a JSONL file of conversations (one of them without image) and a tokenizer."""
    folder = tmp_path_factory.mktemp("squares")
    rows = []
    for number in range(32):
        colour, size = COLOURS[number % 8], SIZES[number // 8]
        PIL.Image.new("RGB", size, colour).save(folder / f"{number}.png")
        content = [{"type": "image", "path": f"{number}.png"}, {"type": "text", "text": "What colour?"}]
        if number == 1:
            content = "Say green."
        rows.append([{"role": "user", "content": content}, {"role": "assistant", "content": colour}])
    (folder / "rows.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    texts = ["What colour?", "Say green.", *COLOURS] * 4
    train_tokenizer(texts, vocabulary=300, special=SpecialTokens()).save(folder / "tokenizer")
    return folder


@pytest.fixture(scope="session")
def tiny(squares) -> Run:
    from lorgnette.inputs.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(squares / "tokenizer")
    return Run.parse(
        {
            "name": "tiny",
            "threads": 1,
            "tokenizer": {"path": str(squares / "tokenizer")},
            "images": {"shortest": 16, "longest": 32, "patch": 8, "grid": 4},
            "model": {
                "vision": {"width": 16, "layers": 1, "heads": 2, "mlp_width": 32, "patch": 8, "grid": 4},
                "connector": {
                    "projection_width": 32,
                    "latents": 2,
                    "depth": 1,
                    "heads": 2,
                    "head_width": 8,
                    "kv_heads": 1,
                },
                "language": {
                    "vocabulary": tokenizer.vocabulary - 3,
                    "width": 16,
                    "layers": 2,
                    "heads": 2,
                    "kv_heads": 1,
                    "head_width": 8,
                    "mlp_width": 32,
                },
                "image_token": tokenizer.vocabulary - 2,
            },
            "stages": [
                {
                    "name": "first",
                    "steps": 5,
                    "pack": {"samples": 4, "packs_per_step": 1},
                    "lr": 0.003,
                    "warmup": 2,
                    "sources": [{"kind": "chat", "path": str(squares / "rows.jsonl")}],
                },
                {
                    "name": "second",
                    "steps": 6,
                    "pack": {"samples": 4, "packs_per_step": 1},
                    "micro_batches": 2,
                    "lr": 0.002,
                    "sources": [{"kind": "chat", "path": str(squares / "rows.jsonl")}],
                },
            ],
            "loader": {"workers": 0},
            "checkpoints": {"every": 3},
        }
    )


@pytest.fixture
def short(tiny):
    """The first stage alone, and one checkpoint."""
    return type(tiny).parse(tiny.plain() | {"stages": tiny.plain()["stages"][:1], "checkpoints": {"every": 1000}})
