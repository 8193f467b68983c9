"""lorgnette builds vision-language models: join two backbones, train the join, measure every choice, serve the result.

The names below are imported when they are first used, so that `import lorgnette` costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorgnette.errors import LorgnetteError as LorgnetteError
    from lorgnette.eval.runner import evaluate as evaluate
    from lorgnette.eval.task import Task as Task
    from lorgnette.hub.export import export as export
    from lorgnette.hub.load import load as load
    from lorgnette.infer.generate import generate as generate
    from lorgnette.inputs.processor import Processor as Processor
    from lorgnette.model.batch import Batch as Batch
    from lorgnette.model.config import VLMConfig as VLMConfig
    from lorgnette.model.vlm import VLM as VLM
    from lorgnette.run import Run as Run
    from lorgnette.sample import Image as Image
    from lorgnette.sample import Sample as Sample
    from lorgnette.sample import Text as Text
    from lorgnette.sample import Turn as Turn
    from lorgnette.train.callbacks import Callback as Callback
    from lorgnette.train.loop import Trainer as Trainer
    from lorgnette.tuning.from_python import train as train
    from lorgnette.tuning.run_tuning import tune as tune
    from lorgnette.tuning.tune_options import TuneOptions as TuneOptions

__version__ = "0.1.0"

_HOMES = {
    "Batch": "lorgnette.model.batch",
    "Callback": "lorgnette.train.callbacks",
    "Image": "lorgnette.sample",
    "LorgnetteError": "lorgnette.errors",
    "Processor": "lorgnette.inputs.processor",
    "Run": "lorgnette.run",
    "Sample": "lorgnette.sample",
    "Task": "lorgnette.eval.task",
    "Text": "lorgnette.sample",
    "Trainer": "lorgnette.train.loop",
    "TuneOptions": "lorgnette.tuning.tune_options",
    "Turn": "lorgnette.sample",
    "VLM": "lorgnette.model.vlm",
    "VLMConfig": "lorgnette.model.config",
    "evaluate": "lorgnette.eval.runner",
    "export": "lorgnette.hub.export",
    "generate": "lorgnette.infer.generate",
    "load": "lorgnette.hub.load",
    "train": "lorgnette.tuning.from_python",
    "tune": "lorgnette.tuning.run_tuning",
}

__all__ = sorted(_HOMES)


class CallableRoom(ModuleType):
    """A room whose name is a function's too: both `lorgnette.train(run)` and `lorgnette.train.loop` work."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(_HOMES[name]), name)(*arguments, **options)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lorgnette' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    value = sys.modules.get(f"{__name__}.{name}", value)  # a room of that name stays importable, and is called
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
