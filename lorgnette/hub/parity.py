"""Parity of an exported checkpoint: differences from transformers' own classes on the same files, part by part.

This module imports transformers, and only when a check is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from lorgnette.errors import CheckpointError
from lorgnette.hub.formats.idefics1_parity import their_idefics1_parts
from lorgnette.hub.formats.llava_parity import their_llava_parts
from lorgnette.hub.formats.processor_parity import check_processor_files
from lorgnette.hub.load import load
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import read_json
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample

_TOLERANCE = 1e-5
"""Largest difference that counts as equal, relative to the largest value (float32)."""


@dataclass(frozen=True)
class Difference:
    """Difference of two tensors."""

    largest: float
    relative: float
    """The largest difference over the largest value."""

    @classmethod
    def between(cls, ours: Tensor, theirs: Tensor) -> Difference:
        largest = (ours.double() - theirs.double()).abs().max().item()
        return cls(largest, largest / max(theirs.double().abs().max().item(), 1e-30))


@dataclass(frozen=True)
class ParityReport:
    """Differences by part, and what they were measured on."""

    parts: dict[str, Difference]
    images: tuple[tuple[int, int], ...]
    """Width and height of the images that were shown."""
    tokens: int
    versions: dict[str, str]
    not_obeyed: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of inputs that transformers has no place for: compared without them, and images may differ there."""
    compared: dict[str, int] = dataclasses.field(default_factory=dict)
    """Conversations of equal token ids and shapes of images of equal pixels, where they were compared."""
    tolerance: float = _TOLERANCE

    @property
    def passed(self) -> bool:
        return all(part.relative <= self.tolerance for part in self.parts.values())

    def plain(self) -> dict[str, Any]:
        return {"passed": self.passed} | dataclasses.asdict(self)

    def checked(self) -> ParityReport:
        """Itself. Raises: CheckpointError if a part differs by more than the tolerance."""
        if not self.passed:
            found = ", ".join(f"{name} by {part.relative:.1e}" for name, part in self.parts.items())
            raise CheckpointError(f"transformers computes something else ({found}); {self.tolerance:.0e} is allowed")
        return self


def check_parity(folder: str | Path) -> ParityReport:
    """Run the same conversations through our model and transformers', both in float32 from the files of `folder`.

    Images are prepared by upstream's rules on both sides; a setting that upstream cannot obey is named in `not_obeyed`.
    Raises: CheckpointError if transformers is not installed, cannot open the folder, or reads the prompts differently.
    """
    model, processor = load(folder, dtype=torch.float32)
    processor, not_obeyed = _by_upstream_rules(processor)
    theirs, their_processor = _open_with_transformers(Path(folder))
    kind = theirs.config.model_type
    if kind == "idefics":  # whose class passes over the template in its folder
        their_processor.chat_template = processor.template.source
    their_parts = {"llava": their_llava_parts, "idefics": their_idefics1_parts}.get(kind, _their_parts)
    pictures = tuple(_picture(*size) for size in ((200, 120), (90, 150), (128, 128)))
    shown = (pictures[:2], (), pictures[2:])
    with torch.inference_mode():
        ours_by_part, tokens = _our_parts(model, processor, shown)
        theirs_by_part, their_tokens = their_parts(theirs, their_processor, shown, [_messages(one) for one in shown])
    if not torch.equal(tokens, their_tokens):
        raise CheckpointError(f"{folder}: transformers writes the same conversations as other tokens")
    check_ids(folder, processor, their_processor.tokenizer)
    counts = {} if kind in ("idefics", "idefics2") else check_processor_files(folder, processor, their_processor)
    parts = {name: Difference.between(ours, theirs_by_part[name]) for name, ours in ours_by_part.items()}
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return ParityReport(parts, tuple(picture.size for picture in pictures), len(tokens), versions, not_obeyed, counts)


MIXED_TEXT = (
    "User: 12 34 56.78 % of $1,000\tÀ côté d'une église, naïve, e\u0301, ﬁn…",
    "日本語のテキスト 한국어 العربية हिन्दी Ελληνικά русский",
    "🎈👩‍👩‍👧 \u2003 \u00a0no-break\r\n\n\n  two   spaces  ",
    " leading, trailing ",
    "it's we'll I'M DON'T antidisestablishmentarianism " + "x" * 200 + " 0" * 20,
    "def f(x):\n    return {'a': [x**2, <b>]}  # //--==>>",
    "<image> </s> <s> <|im_end|> <end_of_utterance>",
)
"""Texts that different pipelines of a tokenizer cut differently."""


def check_ids(folder: str | Path, processor: Processor, theirs: Any) -> None:
    """Raises: CheckpointError if transformers' tokenizer of the folder gives other ids than ours for any mixed text."""
    for text in (*MIXED_TEXT, "\n".join(MIXED_TEXT)):
        given = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if given != processor.tokenizer.encode(text):
            name = type(theirs).__name__
            raise CheckpointError(f"{folder}: transformers ({name}) reads {text[:40]!r} as other tokens than lorgnette")


UPSTREAM_RULES = {"keep_aspect": False, "positions": "parity", "resize": "exact"}


def _by_upstream_rules(processor: Processor) -> tuple[Processor, dict[str, Any]]:
    """The processor as transformers' would behave, and the settings that this takes away."""
    given = processor.images.plain()
    not_obeyed = {key: given[key] for key, rule in UPSTREAM_RULES.items() if given[key] != rule}
    images = processor.images.model_copy(update=UPSTREAM_RULES)
    return dataclasses.replace(processor, images=images), not_obeyed


Shown = tuple[tuple[PIL.Image.Image, ...], ...]
"""The images of each conversation."""


def _picture(width: int, height: int) -> PIL.Image.Image:
    """A picture with something to see everywhere: colours that run down and outwards, and a Mandelbrot set."""
    size = (width, height)
    down, around = (gradient("L").resize(size) for gradient in (PIL.Image.linear_gradient, PIL.Image.radial_gradient))
    return PIL.Image.merge("RGB", (down, around, PIL.Image.effect_mandelbrot(size, (-2.0, -1.5, 1.0, 1.5), 60)))


def _messages(images: Sequence[PIL.Image.Image]) -> list[dict[str, Any]]:
    parts = [{"type": "image", "image": image} for image in images]
    question = {"type": "text", "text": f"What do these {len(images)} pictures show?"}
    answer = {"type": "text", "text": "Colours, and a curve in them."}
    return [{"role": "user", "content": [*parts, question]}, {"role": "assistant", "content": [answer]}]


def _our_parts(model: VLM, processor: Processor, shown: Shown) -> tuple[dict[str, Tensor], Tensor]:
    batch = processor([Sample.from_messages(_messages(images)) for images in shown])
    vision_PD = model.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
    visual_VD = model.connector(vision_PD, batch.grids)
    logits = model(batch, visual_VD=visual_VD).logits
    assert logits is not None
    text = slice(*batch.documents.starts[1:3])
    return {"vision": vision_PD, "connector": visual_VD, "language": logits[text], "logits": logits}, batch.tokens_T


def _open_with_transformers(folder: Path) -> tuple[Any, Any]:
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(
            f"to compare with transformers, install it (pip install transformers): {error}"
        ) from error
    try:
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
        if model.config.model_type == "smolvlm":
            return model.eval(), _smolvlm_processor(folder)
        processor = transformers.AutoProcessor.from_pretrained(folder)
        kind = type(processor.image_processor).__name__.removesuffix("Fast").removesuffix("Pil")
        processor.image_processor = getattr(transformers, f"{kind}Pil").from_pretrained(folder)
    except Exception as error:  # whatever transformers raises, it is why the folder does not open there
        raise CheckpointError(f"{folder}: transformers does not open it: {type(error).__name__}: {error}") from error
    return model.eval(), processor


def _smolvlm_processor(folder: Path) -> Any:
    """transformers' processor of a SmolVLM for images and texts: Idefics3's, around its own image processor.

    Its own class needs torchvision and num2words for videos, and writes the same text for an image.
    """
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pictures = transformers.SmolVLMImageProcessorPil.from_pretrained(folder)
    values, file = read_json(folder / "processor_config.json"), folder / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else None
    template = template or read_json(folder / "chat_template.json")["chat_template"]
    return transformers.Idefics3Processor(
        pictures, tokenizer, image_seq_len=values["image_seq_len"], chat_template=template
    )


def _their_parts(
    model: Any, processor: Any, shown: Shown, messages: list[list[dict[str, Any]]]
) -> tuple[dict[str, Tensor], Tensor]:
    """Outputs of transformers, without padding."""
    texts = [processor.apply_chat_template(one) for one in messages]
    inputs = processor(
        text=texts, images=[list(images) for images in shown], padding=True, padding_side="right", return_tensors="pt"
    )
    real = inputs["attention_mask"].bool()
    logits = model(**inputs).logits
    pixels = {key: inputs[key] for key in ("pixel_values", "pixel_attention_mask")}
    seen = model.model.get_image_features(**pixels, return_dict=True)
    patches = _real_patches(inputs["pixel_attention_mask"], model.config.vision_config.patch_size)
    return {
        "vision": seen.last_hidden_state[patches],
        "connector": torch.cat(list(seen.pooler_output)),
        "language": logits[1][real[1]],
        "logits": logits[real],
    }, inputs["input_ids"][real]


def _real_patches(mask: Tensor, patch: int) -> Tensor:
    """Mask of the patches that are wholly real (bool: images, patches). Images of padding alone are left out."""
    mask = mask.flatten(0, 1)
    mask = mask[mask.any(-1).any(-1)]
    return mask.unfold(1, patch, patch).unfold(2, patch, patch).all(-1).all(-1).flatten(1)
