"""`Processor`: everything between samples and a `Batch` for one model, and its files in a checkpoint folder."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorgnette import plugins
from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.files import write_json
from lorgnette.inputs.config import FILTERS, ImageConfig, SpecialTokens
from lorgnette.inputs.generation_rules import GenerationRules, read_generation_rules
from lorgnette.inputs.preprocessor import image_config, normalisation, read_image_settings, whole
from lorgnette.inputs.processors.idefics1_files import (
    idefics1_images,
    idefics1_pixels,
    idefics1_slots,
    idefics1_special,
)
from lorgnette.inputs.processors.idefics3_files import (
    CLASS_PREFIXES,
    SILENT_VISION,
    idefics3_files,
    is_tiled,
    tiled_images,
    tiled_slots,
    tiled_special,
    video_settings,
)
from lorgnette.inputs.processors.llava_files import check_slots, llava_images, llava_pixels, llava_special
from lorgnette.inputs.render import (
    Ending,
    Rendered,
    ending_of,
    pack,
    prompt_ending,
    render,
    rendered_pieces,
    tag_tokens,
    write_tokens,
)
from lorgnette.inputs.templates.template import Idefics2Template, JinjaTemplate, Template
from lorgnette.inputs.tiles import Slot
from lorgnette.inputs.tokenizer import Tokenizer, read_json
from lorgnette.model.batch import Batch
from lorgnette.model.configs.connector_config import PerceiverConfig, parse_slots
from lorgnette.model.configs.connector_settings import ConnectorSettings
from lorgnette.sample import Sample
from lorgnette.untrusted import quoted

IMAGE_FILES = ("processor_config.json", "preprocessor_config.json")
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")
_OURS = "lorgnette.json"
"""Settings of inputs that upstream's files have no place for."""


@dataclass(frozen=True)
class Processor:
    """Processor: tokenizer, chat template and image preprocessing of a model: `batch = processor([sample, ...])`."""

    tokenizer: Tokenizer
    images: ImageConfig = field(default_factory=ImageConfig)
    connector: ConnectorSettings = field(default_factory=PerceiverConfig)
    """Settings that say how many slots an image, or a crop of a split one, has in the text: `VLMConfig.slots`."""
    template: Template = field(default_factory=Idefics2Template)
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """The vision encoder's normalisation; not used here, but upstream's files keep it with the processor."""
    generation: GenerationRules = field(default_factory=GenerationRules)
    """Generation rules of the checkpoint, obeyed in every answer."""
    video: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a SmolVLM's video processor: kept for export, not obeyed."""

    def __post_init__(self) -> None:
        needed: dict[str, Any] = {"multiple": self.connector.multiple}
        if self.images.policy == "tiles":
            needed["tag_tokens"] = tag_tokens(self.tokenizer, self.images)
        if any(getattr(self.images, key) != value for key, value in needed.items()):
            images = ImageConfig.parse(self.images.plain() | needed)
            object.__setattr__(self, "images", images)  # frozen, but for this
        if fault := self.images.unlike(self.connector.only_grid):
            raise SettingsError(f"connector {self.connector.about}: {fault}")

    def __call__(
        self,
        samples: Sequence[Sample],
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        split: bool | None = None,
    ) -> Batch:
        """Render samples and pack them end to end. Arguments and errors: see `render` and `pack`."""
        ending = ending_of(add_generation_prompt, continue_final_message)
        return self.pack([self._render(one, ending, split) for one in samples])

    def prompts(self, samples: Sequence[Sample], *, split: bool | None = None) -> Batch:
        """Samples packed as prompts to be answered: a conversation whose last turn is a text of the assistant's ends
        with that text, which the answer continues; another ends with the opening of the assistant's turn.
        """
        return self.pack([self._render(one, prompt_ending(one), split) for one in samples])

    def render(
        self,
        sample: Sample,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        split: bool | None = None,
        enlarged: Sequence[tuple[int, int]] | None = None,
    ) -> Rendered:
        """One sample as tokens and patches; see `lorgnette.inputs.render.render`.

        add_generation_prompt: end with the opening of the assistant's turn, or a document without its end.
        continue_final_message: end with the text of the last turn, without what closes it.
        Raises: DataError for both, and as `render`.
        """
        return self._render(sample, ending_of(add_generation_prompt, continue_final_message), split, enlarged)

    def _render(
        self,
        sample: Sample,
        ending: Ending,
        split: bool | None,
        enlarged: Sequence[tuple[int, int]] | None = None,
    ) -> Rendered:
        return render(
            sample,
            self.tokenizer,
            self.template,
            self.images,
            self.connector,
            ending=ending,
            split=split,
            enlarged=enlarged,
        )

    def render_text(self, sample: Sample, slots: Sequence[Sequence[Slot]], ending: Ending = "whole") -> Rendered:
        """One sample as tokens alone, for a model that is given its visual tokens.

        slots: for each image, those of its crops.
        """
        pieces = rendered_pieces(sample, self.template, ending)
        tokens_T, loss_mask_T = write_tokens(sample, pieces, self.tokenizer, slots, ending)
        return Rendered(tokens_T, loss_mask_T, (), tuple(slot.tokens for one in slots for slot in one), sample.name)

    def pack(self, rendered: Sequence[Rendered]) -> Batch:
        """Rendered samples end to end; see `lorgnette.inputs.render.pack`."""
        return pack(
            rendered,
            image_token=self.image_token,
            patch_width=3 * self.images.patch**2,
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """Ids as the text that they are, special tokens included; a run of image tokens is `<image>×64`."""
        parts = []
        for is_image, run in itertools.groupby(tokens, key=self.image_token.__eq__):
            ids = list(run)
            parts.append(
                f"{self.special.image}×{len(ids)}" if is_image else self.tokenizer.decode(ids, keep_special=True)
            )
        return "".join(parts)

    @property
    def special(self) -> SpecialTokens:
        return self.tokenizer.special

    @property
    def image_token(self) -> int:
        """The id whose places visual tokens take."""
        return self.tokenizer.id(self.special.image)

    @classmethod
    def load(cls, folder: str | Path, base: str | Path | None = None) -> Processor:
        """Read a checkpoint folder with `processor_config.json` or the older `preprocessor_config.json`.

        base: a folder that holds what `folder` does not: that of the model below an adapter.

        Raises: CheckpointError naming the file that is missing or cannot be understood.
        """
        own, base = Path(folder), Path(base or folder)
        folder = own if any((own / name).is_file() for name in IMAGE_FILES) else base
        words = own if (own / "tokenizer.json").is_file() else base
        ours = _read_if_there(folder / _OURS)
        values = _read_if_there(folder / "processor_config.json")
        config = _read_if_there(base / "config.json")
        vision, kind = config.get("vision_config", {}), str(config.get("model_type"))
        llava, idefics1, tiled = kind == "llava", kind == "idefics", kind in CLASS_PREFIXES
        try:
            pictures = read_image_settings(folder)
            if not pictures:
                raise CheckpointError(f"{folder}: holds neither processor_config.json nor preprocessor_config.json")
            if llava:
                pictures = llava_pixels(pictures)
                images = llava_images(pictures, vision, ours.get("images", {}), str(folder))
                check_slots(values, config, images.patch)
                slots: dict[str, Any] = {"kind": "mlp"}
            elif idefics1:
                pictures = idefics1_pixels(pictures)
                images = idefics1_images(pictures, vision, ours.get("images", {}), str(folder))
                slots = idefics1_slots(config)
            elif is_tiled(pictures):
                vision = SILENT_VISION | vision if tiled else vision
                images = tiled_images(pictures, vision, ours.get("images", {}), str(folder))
                slots = tiled_slots(values, config, images) if tiled else {}
            else:
                images = image_config(pictures, vision, ours.get("images", {}), str(folder))
                slots = {"latents": whole({"image_seq_len": 64} | values, "image_seq_len")}
            special = SpecialTokens.parse(ours.get("special", {}), str(folder / _OURS))
            if "special" not in ours and (llava or idefics1):
                special = llava_special(words, values) if llava else idefics1_special(words)
            elif "special" not in ours and tiled:
                special = tiled_special(words, str(kind))
            video = video_settings(folder, values, pictures)
            with plugins.reading(str(folder / _OURS)):
                connector = parse_slots(ours.get("connector") or slots)
            mean, std = normalisation(pictures)
        except (SettingsError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            raise CheckpointError(f"{folder}: its image settings cannot be understood ({error})") from None
        tokenizer, rules = Tokenizer.load(words, special), read_generation_rules(base)
        templated = own if any((own / name).is_file() for name in TEMPLATE_FILES) else words
        template = _read_template(templated, values, tokenizer)
        return cls(tokenizer, images, connector, template, mean, std, rules, video)

    def save(self, folder: str | Path, values: Mapping[str, Any] | None = None, *, as_file: bool = False) -> None:
        """Write the files that `load` reads; transformers' AutoProcessor opens them as an Idefics2Processor, or as an
        Idefics3Processor where images are cut in tiles.

        What upstream has no setting for (`keep_aspect`, `positions: exact`) is kept for us, and not obeyed there.
        values: `processor_config.json` of another of its classes. as_file: as of `Tokenizer.save`.
        """
        folder = Path(folder)
        self.tokenizer.save(folder, as_file=as_file)
        if values is None and self.images.policy == "tiles":
            values = self.tiled_files("smolvlm" if self.video else "idefics3")
        write_json(folder / "processor_config.json", values or self._idefics2_files())
        ours = {"images": self.images, "special": self.special, "connector": self.connector}
        write_json(folder / _OURS, {name: settings.plain() for name, settings in ours.items()})
        (folder / "chat_template.jinja").write_text(self.template.source, encoding="utf-8")

    def tiled_files(self, kind: str = "idefics3") -> dict[str, Any]:
        """`processor_config.json` of an Idefics3Processor or, by `kind`, a SmolVLMProcessor."""
        along = self.images.shortest // self.images.patch
        slots = int(self.connector.visual_tokens(along, along))
        return idefics3_files(self.images, slots, (self.mean, self.std), kind, self.video)

    def _idefics2_files(self) -> dict[str, Any]:
        """`processor_config.json` of an Idefics2Processor."""
        pictures = {
            "image_processor_type": "Idefics2ImageProcessor",
            "do_convert_rgb": True,
            "do_image_splitting": self.images.split,
            "do_normalize": True,
            "do_pad": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "resample": FILTERS.index(self.images.resample),
            "rescale_factor": 1 / 255,
            "size": _upstream_size(self.images),
        }
        side = self.images.patch * self.images.multiple
        smallest = (-(-self.images.shortest // side) * self.images.multiple,) * 2
        return {
            "processor_class": "Idefics2Processor",
            "image_seq_len": self.connector.visual_tokens(*(self.connector.only_grid or smallest)),
            "image_processor": pictures,
        }


def _upstream_size(images: ImageConfig) -> dict[str, int]:
    if images.policy != "native":
        return {"height": images.longest, "width": images.longest}
    return {"shortest_edge": images.shortest, "longest_edge": images.longest}


def _read_template(folder: Path, values: Mapping[str, Any], tokenizer: Tokenizer) -> Template:
    """The folder's chat template, from wherever a version of upstream keeps it; Idefics2's own runs as code."""
    file = folder / "chat_template.jinja"
    try:
        source = file.read_text(encoding="utf-8") if file.is_file() else None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file}: is not text ({error})") from None
    source = source or _read_if_there(folder / "chat_template.json").get("chat_template")
    source = source or values.get("chat_template") or tokenizer.settings.get("chat_template")
    source = source or Idefics2Template(tokenizer.special).source
    source = _default_template(source, folder)
    if source.strip() == Idefics2Template(tokenizer.special).source.strip():
        return Idefics2Template(tokenizer.special)
    return JinjaTemplate(source, tokenizer)


def _default_template(source: Any, folder: Path) -> str:
    """Of several named templates, in a list or a mapping, the one that is called `default`."""
    if isinstance(source, str):
        return source
    named = source
    if isinstance(source, list):
        named = {one.get("name"): one.get("template") for one in source if isinstance(one, dict)}
    if not isinstance(named, dict):
        raise CheckpointError(f"{folder}: its chat template is a {type(source).__name__}; expected text")
    if not isinstance(named.get("default"), str):
        names = quoted(", ".join(map(str, named)))
        raise CheckpointError(
            f"{folder}: holds several chat templates ({names}), none called default; save one as chat_template.jinja"
        )
    return str(named["default"])


def _read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
