"""Captions of scenes of built-in drawings: in the place of COCO's."""

from __future__ import annotations

from lorgnette.eval.benchmark import Benchmark
from lorgnette.eval.tasks.builtin import LICENCE, built_in_splits
from lorgnette.eval.tasks.coco import CAPTION, read
from lorgnette.eval.tasks.wordings import CAPTION_BASE

SCENE_CAPTIONS = Benchmark(
    name="scene_captions",
    about="a caption for a scene of drawings, compared with several",
    data="builtin:",
    splits=built_in_splits("scene_captions"),
    split="test",
    train="train",
    read=read,
    metric="cider_d",
    licence=LICENCE,
    chat=CAPTION,
    base=CAPTION_BASE,
    max_tokens=32,
    role="coco",
)
