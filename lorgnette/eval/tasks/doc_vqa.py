"""Questions about rendered pages: in DocVQA's place."""

from __future__ import annotations

from lorgnette.eval.benchmark import Benchmark
from lorgnette.eval.tasks.builtin import LICENCE, built_in_splits
from lorgnette.eval.tasks.docvqa import read
from lorgnette.eval.tasks.wordings import QUESTION_BASE, SHORT_ANSWER

DOC_VQA = Benchmark(
    name="doc_vqa",
    about="questions about rendered pages, answered in the page's words",
    data="builtin:",
    splits=built_in_splits("doc_vqa"),
    split="test",
    train="train",
    read=read,
    metric="anls",
    licence=LICENCE,
    chat=SHORT_ANSWER,
    base=QUESTION_BASE,
    max_tokens=32,
)
