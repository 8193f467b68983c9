"""OK-VQA (Marino et al. 2019): questions about photographs that need knowledge from outside of them."""

from __future__ import annotations

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import OKVQA_PROMPTS, QUESTION_BASE
from lorgnette.eval.tasks.reading import people_answered

OKVQA = Benchmark(
    name="okvqa",
    about="questions about photographs that need outside knowledge, with short answers of ten people",
    data="lmms-lab/OK-VQA",
    splits={"train": Split("data/train-*", 9_009, public=False), "val2014": Split("data/val2014-*", 5_046)},
    split="val2014",
    train="train",
    read=people_answered,
    metric="vqa_accuracy",
    metrics={"lmms-eval": "textvqa_accuracy", "vlmevalkit": "vqa_accuracy_normalised"},
    licence="CC BY 4.0",
    chat=OKVQA_PROMPTS,
    base=QUESTION_BASE,
    role="okvqa",
)
