"""lorgnette builds vision-language models: join two backbones, train the join, measure every choice, serve the result.

The names below are imported when they are first used, so that `import lorgnette` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lorgnette.errors import LorgnetteError as LorgnetteError
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

__version__ = "0.1.0"

_HOMES = {
    "Batch": "lorgnette.model.batch",
    "Image": "lorgnette.sample",
    "LorgnetteError": "lorgnette.errors",
    "Processor": "lorgnette.inputs.processor",
    "Run": "lorgnette.run",
    "Sample": "lorgnette.sample",
    "Text": "lorgnette.sample",
    "Turn": "lorgnette.sample",
    "VLM": "lorgnette.model.vlm",
    "VLMConfig": "lorgnette.model.config",
    "export": "lorgnette.hub.export",
    "generate": "lorgnette.infer.generate",
    "load": "lorgnette.hub.load",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lorgnette' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
