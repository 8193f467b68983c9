"""Description of a checkpoint folder: its parts and the cost of running it, without reading its weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorgnette.errors import CheckpointError
from lorgnette.hub.formats.format import MODEL_FORMATS
from lorgnette.hub.load import open_checkpoint
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import read_json
from lorgnette.model.config import VLMConfig
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.flops import ModelCost


@dataclass(frozen=True)
class ImageCost:
    """Cost of a square image of one size."""

    side: int
    """Pixels."""
    patches: int
    visual_tokens: int
    flops: int
    """Of the vision encoder and the connector."""
    crops: int = 1
    """Crops of this size that are counted together: of an image cut in tiles."""


@dataclass(frozen=True)
class Description:
    """The facts of one folder. FLOPs are of a forward pass, two per multiply-add."""

    folder: Path
    config: VLMConfig
    form: str
    """The model of transformers that it opens as, such as Idefics2; empty for lorgnette's own."""
    dtypes: tuple[str, ...]
    """Types of the stored numbers, as safetensors names them."""
    bytes: int
    """Size of the weights on disk."""
    parameters: dict[str, int]
    """By part: vision, connector, language, extra_vocabulary."""
    images: tuple[ImageCost, ...]
    """The smallest and the largest square image, not split; of images cut in tiles, one tile."""
    most_tiles: int
    """Crops of an image cut in tiles, the whole among them, at most; 1 where images are not."""
    token_flops: int
    """Of one token through the decoder and the output table, attention to earlier tokens not counted; and through
    blocks of cross-attention, to the largest image."""
    cache_bytes: int
    """Keys and values of one token, in the stored type."""
    special_tokens: dict[str, int]
    """Ids of the protocol's tokens, and of a sequence's beginning, end and padding where there are such."""
    certified: float | None
    """The largest relative difference that parity.json states, if it is there."""


def describe(source: str | Path) -> Description:
    """Describe a checkpoint folder, or one on the hub. Raises: CheckpointError as `load`, but weights are not read."""
    opened = open_checkpoint(source)
    processor, weights, config = opened.processor, opened.weights, opened.config
    folder = weights.folder
    cost, images = ModelCost(config), processor.images
    shown = tuple(image_cost(cost, side) for side in sorted(_sides(images)))
    dtypes = sorted({weights.dtype(name) for name in weights.names})
    return Description(
        folder=folder,
        config=config,
        form=form.title
        if (form := MODEL_FORMATS.get(str(read_json(folder / "config.json").get("model_type"))))
        else "",
        dtypes=tuple(dtypes),
        bytes=weights.bytes,
        parameters=cost.parameters,
        images=shown,
        most_tiles=images.most_tiles,
        token_flops=cost.token_flops() + cost.head_flops() + cost.seeing_flops(shown[-1].visual_tokens),
        cache_bytes=cost.cache_bytes(bytes_each=4 if dtypes == ["F32"] else 2),
        special_tokens=_special_tokens(processor),
        certified=_certified(folder),
    )


def print_description(description: Description) -> None:
    """Print what `lorgnette show` shows."""
    print(*lines(description), sep="\n")


def lines(description: Description) -> Iterator[str]:
    """The description for people, line by line."""
    kind = f"{description.form}, opens in transformers" if description.form else "lorgnette's own"
    yield f"{description.folder}: {kind}, {'/'.join(description.dtypes)}, {amount(description.bytes, 'B')}"
    yield ""
    for part, about in _parts(description.config).items():
        if part in description.parameters or part == "connector":  # which may have no weights
            yield f"{part:<18}{description.parameters.get(part, 0):>16,}  {about}"
    yield f"{'parameters':<18}{sum(description.parameters.values()):>16,}"
    yield ""
    for image in description.images:
        counts = f"{image.patches:,} patches, {image.visual_tokens} visual tokens"
        kind = "image" if description.most_tiles == 1 else f"tile, of up to {description.most_tiles} an image,"
        yield f"{kind} of {image.side} x {image.side} pixels: {amount(image.flops, 'FLOP')}, {counts}"
    yield f"token: {amount(description.token_flops, 'FLOP')}, {amount(description.cache_bytes, 'B')} of cache"
    yield ""
    yield "special tokens: " + ", ".join(f"{token} {number}" for token, number in description.special_tokens.items())
    if description.certified is not None:
        yield f"parity.json: within {description.certified:.1e} of transformers"


def _parts(config: VLMConfig) -> dict[str, str]:
    return {
        "vision": config.vision.about,
        "connector": config.connector.about,
        "fusion": config.fusion.about if isinstance(config.fusion, CrossAttentionConfig) else config.fusion,
        "language": config.language.about,
        "extra_vocabulary": f"{config.extra_vocabulary} rows after the table's {config.language.vocabulary:,}",
    }


def _sides(images: ImageConfig) -> set[int]:
    """Sides of the smallest and the largest square image."""
    return {images.crop_side} if images.policy != "native" else {images.shortest, images.longest}


def image_cost(cost: ModelCost, side: int, crops: int = 1) -> ImageCost:
    """Cost of a square image of so many pixels a side, or of several crops of this size."""
    connector = cost.config.connector
    along = side // cost.config.vision.patch // connector.multiple * connector.multiple
    tokens, flops = connector.visual_tokens(along, along), cost.image_flops(along**2)
    return ImageCost(side, crops * along**2, crops * tokens, crops * flops, crops)


def _special_tokens(processor: Processor) -> dict[str, int]:
    tokenizer, special = processor.tokenizer, processor.special
    named = {"begin": tokenizer.bos, "end": tokenizer.eos, "padding": tokenizer.pad}
    protocol = {token: tokenizer.id(token) for token in special.protocol}
    return protocol | {name: token for name, token in named.items() if token is not None}


def _certified(folder: Path) -> float | None:
    file = folder / "parity.json"
    if not file.is_file():
        return None
    try:
        return max(float(part["relative"]) for part in read_json(file)["parts"].values())
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckpointError(f"{file}: is not a parity certificate; export with --verify writes one") from None


def amount(value: float, unit: str) -> str:
    """A number with three digits and a prefix: 1234567 FLOP is 1.23 MFLOP."""
    for prefix in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.3g} {prefix}{unit}"
        value /= 1000
    return f"{value:.3g} T{unit}"
