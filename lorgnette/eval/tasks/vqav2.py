"""VQAv2 (Goyal et al. 2017): open questions about photographs of COCO, with ten people's answers each."""

from __future__ import annotations

from lorgnette.eval.benchmark import Benchmark, Split
from lorgnette.eval.benchmark_prompts import QUESTION_BASE, SHORT_ANSWER
from lorgnette.eval.tasks.reading import people_answered

VQAV2 = Benchmark(
    name="vqav2",
    about="open questions about photographs, with short answers of ten people",
    data="lmms-lab/VQAv2",
    splits={
        "train": Split("data/train-*", 443_757, public=False),
        "validation": Split("data/validation-*", 214_354),
        "testdev": Split("data/testdev-*", 107_394, answers=False),
        "test": Split("data/test-*", 447_793, answers=False),
    },
    split="validation",
    train="train",
    read=people_answered,
    metric="vqa_accuracy",
    metrics={"lmms-eval": "vqa_accuracy_normalised", "vlmevalkit": "vqa_accuracy_normalised"},
    licence="CC BY 4.0",
    chat=SHORT_ANSWER,
    base=QUESTION_BASE,
    role="vqav2",
)
