"""The other side of `train.py`: transformers' Idefics2 with PEFT, trained as a user of both would.

Its worker opens and sizes the same image files as ours. Samples go through transformers' own processor, padded to the
right and to the largest image; what is not learned is labelled -100; the loss is the model's own, over all learned
tokens of a step, whose micro-batches' gradients add up, as its Trainer does it. AdamW is torch's, fused. There is no
gradient checkpointing, on either side. torchvision, with which the processor is faster, is used where it is installed.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import pickle
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from lorgnette.data.loader.batches import BatchBuilder, Drawn
from lorgnette.inputs.image import crop_sizes, split_quadrants
from lorgnette.model.batch import IGNORE_INDEX

Inputs = dict[str, Tensor]
"""A micro-batch as the model takes it."""


@functools.cache
def find_torchvision() -> torch.library.Library | None:
    """Import torchvision, if it is there, before transformers looks for it. Returns what must be kept meanwhile.

    One that was built for another torch lacks its own operators, of which nothing here needs more than the names.
    """
    try:
        importlib.import_module("torchvision")
    except ImportError:
        sys.modules["torchvision"] = None  # type: ignore[assignment]
    except RuntimeError:
        operators = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
        return operators
    return None


@dataclass(frozen=True)
class Picture:
    """An image as its file has it."""

    file: bytes
    sizes: list[tuple[int, int]]
    """Width and height at which the whole is shown, or its four quadrants and the whole."""
    patch: int

    def crops(self) -> list[PIL.Image.Image]:
        """As our side has them, without what does not fill a patch at the right and bottom."""
        whole = PIL.Image.open(io.BytesIO(self.file)).convert("RGB")
        crops = split_quadrants(whole) if len(self.sizes) > 1 else (whole,)
        sized = [crop.resize(to, PIL.Image.Resampling.BILINEAR) for crop, to in zip(crops, self.sizes, strict=True)]
        return [one.crop((0, 0, *(side - side % self.patch for side in one.size))) for one in sized]


def pictures(drawn: Drawn, steps: BatchBuilder) -> list[Picture]:
    """The images of a sample, with the sizes at which the plan shows them this time."""
    view = steps.plan.view(drawn.ref, steps.sources[drawn.ref.source].record(drawn.ref.record).shuffle)
    config, made = steps.processor.images, []
    for image, enlarged in zip(drawn.sample.images, view.sizes, strict=True):
        assert isinstance(image.source, bytes), "of rows with the files in them"
        made.append(Picture(image.source, crop_sizes(*enlarged, view.split, config), config.patch))
    return made


@dataclass(frozen=True)
class Collator:
    """From the samples of a step to its micro-batches."""

    processor: Any
    size: int
    """Samples of a micro-batch; 0 for those of the step in one."""
    by_length: bool

    def __call__(self, samples: list[dict[str, Any]]) -> list[Inputs]:
        if self.by_length:
            samples = sorted(samples, key=lambda one: len(one["learn"]))
        size = self.size or len(samples)
        return [self._batch(samples[start : start + size]) for start in range(0, len(samples), size)]

    def _batch(self, samples: list[dict[str, Any]]) -> Inputs:
        samples = sorted(samples, key=lambda one: not one["images"])  # the processor wants an image in the first row
        images = [[crop for picture in one["images"] for crop in picture.crops()] for one in samples]
        inputs: Inputs = self.processor(
            text=[one["text"] for one in samples],
            images=images if any(images) else None,
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        inputs["labels"] = torch.full_like(inputs["input_ids"], IGNORE_INDEX)
        for row, one in enumerate(samples):
            tokens, supervised = torch.from_numpy(one["tokens"]), torch.from_numpy(one["learn"])
            assert torch.equal(inputs["input_ids"][row][inputs["attention_mask"][row].bool()], tokens), (
                "the same tokens"
            )
            inputs["labels"][row, : len(tokens)] = tokens.where(supervised, IGNORE_INDEX)
        return dict(inputs)


class Peer:
    """A model with its adapters and optimiser.

    folder: holds `model`, `adapters`, `trained.json` (what trains beside them) and `samples.pickle`. way: samples of a
    micro-batch, in their order or `by length`; `all` for the step in one batch.
    """

    def __init__(self, folder: Path, way: str, lr: float) -> None:
        find_torchvision()
        import peft
        import transformers

        plain = transformers.AutoModelForImageTextToText.from_pretrained(folder / "model")
        [adapter] = (folder / "adapters").iterdir()
        self.model = peft.PeftModel.from_pretrained(plain, adapter, is_trainable=True).train()
        for name in json.loads((folder / "trained.json").read_text()):
            plain.get_parameter(name).requires_grad_(True)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=lr, weight_decay=0.0, fused=True)
        processor = transformers.AutoProcessor.from_pretrained(folder / "model")
        self.backend = type(processor.image_processor).__name__
        self.collate = Collator(processor, 0 if way == "all" else int(way.split()[0]), way.endswith("by length"))
        self.samples: list[list[dict[str, Any]]] = pickle.loads((folder / "samples.pickle").read_bytes())

    def batches(self) -> Iterator[list[Inputs]]:
        """The micro-batches of each step, made ready by a worker."""
        return iter(
            torch.utils.data.DataLoader(
                self.samples,  # type: ignore[arg-type]
                batch_size=None,
                collate_fn=self.collate,
                num_workers=1,
                prefetch_factor=4,
            )
        )

    def step(self, batches: list[Inputs]) -> tuple[float, int]:
        """One update. Returns the loss and the number of supervised tokens."""
        supervised_tokens = sum(int((inputs["labels"][:, 1:] != IGNORE_INDEX).sum()) for inputs in batches)
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for inputs in batches:
            loss = self.model(**inputs, num_items_in_batch=supervised_tokens, use_cache=False).loss
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimiser.step()
        return total, supervised_tokens
