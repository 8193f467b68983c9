"""`Run`: one frozen, typed tree of settings that decides everything a training run does.

It round-trips through YAML, is hashed to name the run, is saved in every checkpoint, and can be diffed. The order of
the data is a pure function of (Run, step).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic

from lorgnette.data.config import AugmentConfig, LoaderConfig, PackConfig, SourceConfig
from lorgnette.errors import SettingsError
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.model.config import VLMConfig
from lorgnette.settings import Settings

Mode = Literal["frozen", "lora", "dora", "full"]


class PartConfig(Settings):
    """How one part of the model trains during a stage. Rows of the extra vocabulary always train."""

    mode: Mode = "full"
    lr: float | None = pydantic.Field(default=None, gt=0)
    """Peak learning rate; None for the stage's."""
    weight_decay: float | None = pydantic.Field(default=None, ge=0)


class LoraConfig(Settings):
    """Low-rank adapters, for parts whose mode is `lora` or `dora`. Rank 64 is the reading that fits Table 3."""

    rank: int = pydantic.Field(default=64, ge=1)
    alpha: int = pydantic.Field(default=16, ge=1)
    dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)


class StageConfig(Settings):
    """One stage of training. Pre-training, instruction tuning and chat tuning differ only in these values."""

    name: str
    sources: tuple[SourceConfig, ...]
    steps: int = pydantic.Field(ge=1)
    samples_per_step: int = pydantic.Field(default=32, ge=1)
    """Used where `pack` is not given."""
    pack: PackConfig | None = None
    """Make packs by length, which prepared sources allow."""
    weights: Literal["samples", "tokens", "learned"] = "samples"
    """What the sources' weights are shares of; other than samples only for prepared sources."""
    augment: AugmentConfig = AugmentConfig()
    micro_batches: int = pydantic.Field(default=1, ge=1)
    """Packs that a step is computed in; the update is the same for any number."""
    optimiser: Literal["adamw", "muon"] = "adamw"
    """`muon` for parts that start from random weights: matrices inside layers learn by Muon, the rest by AdamW."""
    lr: float = pydantic.Field(default=1e-4, gt=0)
    muon_lr: float = pydantic.Field(default=0.02, gt=0)
    """Peak learning rate of the matrices that Muon trains; a part's own `lr` scales it as it does `lr`."""
    warmup: int = pydantic.Field(default=0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    final_lr: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Learning rate at the last step, as a share of the peak."""
    weight_decay: float = pydantic.Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float = pydantic.Field(default=1.0, gt=0)
    """Largest norm of the gradient over all parameters."""
    vision: PartConfig = PartConfig()
    connector: PartConfig = PartConfig()
    language: PartConfig = PartConfig()
    lora: LoraConfig = LoraConfig()

    @pydantic.model_validator(mode="after")
    def _possible(self) -> StageConfig:
        if not self.sources:
            raise ValueError(f"stage {self.name!r} has no sources to train on")
        if self.micro_batches > self.samples_per_step:
            raise ValueError(
                f"stage {self.name!r}: {self.samples_per_step} samples cannot fill {self.micro_batches} packs"
            )
        if self.connector.mode in ("lora", "dora"):
            raise ValueError(f"stage {self.name!r}: the connector is newly initialised; its mode is full or frozen")
        return self


class TokenizerConfig(Settings):
    """Where the tokenizer comes from."""

    path: str | None = None
    """Folder with a `tokenizer.json`; None to train one on the built-in texts, as large as the model's vocabulary."""


class CheckpointConfig(Settings):
    every: int = pydantic.Field(default=200, ge=1)
    """Steps between checkpoints."""
    keep: int = pydantic.Field(default=2, ge=1)


class EvaluationConfig(Settings):
    questions: int = pydantic.Field(default=400, ge=1)
    """Questions asked about unseen drawings, the kinds in equal numbers."""
    seed: int = 0
    batch_size: int = pydantic.Field(default=50, ge=1)
    max_tokens: int = pydantic.Field(default=12, ge=1)


class Run(Settings):
    """Everything a run does. See `recipes/` for whole examples."""

    name: str
    seed: int = 0
    threads: int | None = pydantic.Field(default=None, ge=1)
    """CPU threads to compute with; None for all cores."""
    model: VLMConfig = VLMConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    images: ImageConfig = ImageConfig()
    special: SpecialTokens = SpecialTokens()
    stages: tuple[StageConfig, ...]
    loader: LoaderConfig = LoaderConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Run:
        vision, images = self.model.vision, self.images
        if not self.stages:
            raise ValueError("a run needs at least one stage")
        if (images.patch, images.grid) != (vision.patch, vision.grid):
            raise ValueError(
                f"images are cut in patches of {images.patch} on a {images.grid} x {images.grid} grid, but the vision"
                f" encoder expects patches of {vision.patch} on {vision.grid} x {vision.grid}"
            )
        return self

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)


def find_recipe(name: str) -> Path:
    """The path of a recipe given by path or by name (`micro` for `recipes/micro.yaml`)."""
    if Path(name).exists():
        return Path(name)
    package = Path(__file__).parent
    shipped = package / "recipes"  # an installed package carries them; a checkout has them beside it
    folder = shipped if shipped.is_dir() else package.parent / "recipes"
    found = folder / f"{name.removesuffix('.yaml').removeprefix('recipes/')}.yaml"
    if found.exists():
        return found
    names = sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))
    raise SettingsError(f"{name}: no such recipe; give the path of a YAML file or one of: {', '.join(names)}")
