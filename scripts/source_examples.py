"""Rows that sources read, one of each form: docs/reference/sources.md shows them, and a test reads each of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """One form of a source, as a file of one row."""

    kind: str
    form: str
    """Name of the form, for people."""
    row: Any
    """The row; a text is the file as it stands."""
    file: str = "rows.jsonl"
    note: str = ""

    @property
    def content(self) -> str:
        """The file."""
        return self.row if isinstance(self.row, str) else json.dumps(self.row, ensure_ascii=False) + "\n"


def _asked(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts) if len(parts) > 1 else parts[0]}


def _said(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


_Q, _A = "What colour is it?", "Red."
_TEXT = {"type": "text", "text": _Q}
_TURNS = [{"from": "human", "value": f"<image>\n{_Q}"}, {"from": "gpt", "value": _A}]

EXAMPLES = (
    Example("chat", "transformers", {"messages": [_asked({"type": "image", "path": "red.png"}, _TEXT), _said(_A)]}),
    Example(
        "chat",
        "OpenAI",
        {"messages": [_asked({"type": "image_url", "image_url": {"url": "red.png"}}, _TEXT), _said(_A)]},
        note="The address may be `https://`, `data:` or a path; the role `developer` reads as `system`.",
    ),
    Example(
        "chat",
        "OpenAI, answers that are not learned",
        {"messages": [_asked("Hi."), _said("Hello.", weight=0), _asked(_Q), _said(_A, weight=1)]},
    ),
    Example(
        "chat",
        "TRL, language modelling",
        {"messages": [_asked({"type": "image"}, _TEXT), _said(_A)], "images": ["red.png"]},
    ),
    Example(
        "chat", "TRL, prompt and completion", {"prompt": [_asked(_Q)], "completion": [_said(_A)], "image": "red.png"}
    ),
    Example(
        "chat",
        "TRL, preference",
        {"prompt": _Q, "chosen": _A, "rejected": "Blue.", "images": ["red.png"]},
        note="The chosen answer is learned; the rejected one is not read.",
    ),
    Example("chat", "LLaVA", {"id": "1", "image": "red.png", "conversations": _TURNS}),
    Example("chat", "LLaVA, one JSON list", json.dumps([{"image": "red.png", "conversations": _TURNS}]), "rows.json"),
    Example(
        "chat",
        "LLaMA-Factory",
        {"messages": [_asked(f"<image>{_Q}"), _said(_A)], "images": ["red.png"]},
    ),
    Example("chat", "ShareGPT", {"conversations": _TURNS, "images": ["red.png"]}),
    Example("chat", "Alpaca", {"instruction": _Q, "input": "", "output": _A, "image": "red.png"}),
    Example("chat", "query and response", {"query": f"<image>{_Q}", "response": _A, "images": ["red.png"]}),
    Example(
        "chat",
        "as `datasets` writes it, with nulls",
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": _Q}]},
                {"role": "assistant", "content": [{"type": "text", "text": _A}]},
            ],
            "images": ["red.png"],
        },
    ),
    Example("instruct", "The Cauldron", {"images": ["red.png"], "texts": [{"user": _Q, "assistant": _A}]}),
    Example("pairs", "image and caption", {"image": "red.png", "caption": "A red square."}),
    Example("pairs", "CSV", "image,caption\nred.png,A red square.\n", "rows.csv"),
    Example("pairs", "hub image folder", "file_name,text\nred.png,A red square.\n", "metadata.csv"),
    Example("pairs", "a text beside each image", "A red square.", "red.txt"),
    Example("interleaved", "OBELICS", {"images": [None, "red.png", None], "texts": ["Look:", None, "a red square."]}),
    Example(
        "webpages",
        "a page of HTML",
        "<html><body><article><p>This square is all red, from its left side to its right side, and nothing else"
        ' is on it.</p><img src="red.png" width="200" height="160"><p>It was painted in one afternoon, by hand, with'
        " one brush and one colour.</p></article></body></html>\n",
        "page.html",
        note="Archives (`.warc`, `.warc.gz`) are read too.",
    ),
)
"""One row of each form; `red.png` lies beside each file. `documents` are PDF files, and `corpus` makes `scenes`."""
