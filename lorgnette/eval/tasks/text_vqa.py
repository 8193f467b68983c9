"""Questions about text in rendered pictures: in TextVQA's place."""

from __future__ import annotations

from lorgnette.eval.benchmark import Benchmark
from lorgnette.eval.tasks.builtin import LICENCE, built_in_splits
from lorgnette.eval.tasks.reading import people_answered
from lorgnette.eval.tasks.wordings import QUESTION_BASE, SHORT_ANSWER

TEXT_VQA = Benchmark(
    name="text_vqa",
    about="questions about text in rendered pictures",
    data="builtin:",
    splits=built_in_splits("text_vqa"),
    split="test",
    train="train",
    read=people_answered,
    metric="textvqa_accuracy",
    licence=LICENCE,
    chat=SHORT_ANSWER,
    base=QUESTION_BASE,
    max_tokens=16,
    role="textvqa",
)
