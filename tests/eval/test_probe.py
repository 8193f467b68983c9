"""Table 7's probe, small: a benchmark's training split is written, trained on by the recipe, and measured."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from lorgnette.eval.benchmark import Asking
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.eval.runner import evaluate
from lorgnette.eval.tasks import BENCHMARKS, task_named
from lorgnette.eval.train_split import write_training
from lorgnette.run import Run, find_recipe
from lorgnette.train.loop import Trainer

SMALL = (
    "images.shortest=28 images.longest=56 images.patch=14 images.grid=8"
    " model.vision.width=24 model.vision.layers=1 model.vision.heads=2 model.vision.mlp_width=32"
    " model.vision.patch=14 model.vision.grid=8 model.connector.projection_width=32 model.connector.latents=4"
    " model.connector.depth=1 model.connector.heads=2 model.connector.head_width=8 model.connector.kv_heads=1"
    " model.language.vocabulary=509 model.language.width=32 model.language.layers=1 model.language.heads=2"
    " model.language.kv_heads=1 model.language.head_width=16 model.language.mlp_width=32 model.image_token=510"
    " stages.0.steps=2 stages.0.warmup=0 stages.0.pack.tokens=256 stages.0.pack.packs_per_step=1"
    " stages.0.vision.mode=full stages.0.language.mode=full loader.workers=0 threads=1"
).split()


def test_the_probe_says_what_the_paper_says() -> None:
    (stage,) = Run.load(find_recipe("probe/docvqa")).stages
    assert (stage.steps, stage.lr) == (500, 1e-5)
    assert BENCHMARKS["docvqa"].metric == BENCHMARKS["doc_vqa"].metric == "anls"


def test_write_train_measure(tmp_path: Path) -> None:
    written = write_training("doc_vqa", tmp_path / "data", Asking())
    assert written.rows == 64
    assert not written.refused
    run = Run.load(find_recipe("probe/docvqa"), [*SMALL, f"stages.0.sources.0.path={tmp_path / 'data'}"])
    trainer = Trainer(run, tmp_path / "run", Console(quiet=True))
    model = trainer.train()
    result = evaluate(task_named("doc_vqa"), LorgnetteModel(model, trainer.processor), limit=4)
    assert result.count == 4
    assert result.settings["metric"] == "anls"
    assert trainer.progress.total_step == 2
