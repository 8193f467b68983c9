"""`Run`: one frozen, typed tree of settings that decides everything a training run does.

It round-trips through YAML, is hashed to name the run, is saved in every checkpoint, and can be diffed. The order of
the data is a pure function of (Run, step).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from lorgnette import plugins
from lorgnette.data.config import AugmentConfig, LoaderConfig, PackConfig, SourceConfig
from lorgnette.inputs.config import ImageConfig, SpecialTokens
from lorgnette.model.config import Mode, VLMConfig
from lorgnette.model.configs.fusion_config import CrossAttentionConfig
from lorgnette.model.configs.vision_config import STATES_TAKEN
from lorgnette.settings import STORED, VALIDATOR_PREFIX, Settings, find_shipped

PartName = Literal["vision", "connector", "fusion", "language"]
Beta = Annotated[float, pydantic.Field(ge=0, lt=1)]
Projection = Literal["query", "key", "value", "output", "gate", "up", "down", "head"]


class PartConfig(Settings):
    """Training mode of one part of the model during a stage. Rows of the extra vocabulary always train."""

    mode: Mode = "full"
    lr: float | None = pydantic.Field(default=None, gt=0)
    """Peak learning rate; None for the stage's."""
    weight_decay: float | None = pydantic.Field(default=None, ge=0)
    quantize: Literal["int8"] | None = None
    """Hold the frozen weights of a backbone's linear layers as 8-bit integers during the stage: a quarter of their
    memory (QLoRA's way, with LoRA or DoRA in float beside them)."""


class LoraConfig(Settings):
    """Low-rank adapters, for parts whose mode is `lora` or `dora`.

    The paper says none of these. Rank 64 on every linear layer of both backbones is the reading that gives the
    parameters of its Table 3; the other defaults are those of the same team's released training code.
    """

    rank: int = pydantic.Field(default=64, ge=1)
    alpha: int = pydantic.Field(default=16, ge=1)
    dropout: float = pydantic.Field(default=0.1, ge=0, lt=1)
    init: Literal["gaussian", "kaiming"] = "gaussian"
    """Distribution of the first of the two matrices; the second starts at zero, so that the adapter changes nothing."""
    targets: tuple[Projection, ...] = ("query", "key", "value", "output", "gate", "up", "down")
    """Linear layers within the layers of a part that are adapted (the vision encoder has no `gate`); and `head`, the
    language model's output table, where it is not tied to the embedding. The head's adapter has no dropout."""
    unfreeze: tuple[Literal["norms", "patches"], ...] = ()
    """Parameters that train in full beside the adapters: norms, and embeddings of patches and of their positions."""
    keep: bool = True
    """At the end of the stage, write the adapters in PEFT's format, and what they stand on, to `adapters/`."""


class StageConfig(Settings):
    """One stage of training. Pre-training, instruction tuning and chat tuning differ only in these values."""

    renamed = {"clip": "max_grad_norm"}

    name: str
    sources: tuple[SourceConfig, ...]
    steps: int = pydantic.Field(ge=1)
    pack: PackConfig = PackConfig()
    """Packs of samples, and how many of them make a step."""
    weights: Literal["samples", "tokens", "supervised", "epochs"] = "samples"
    """Unit that the sources' weights are shares of."""
    shortest: int | None = pydantic.Field(default=None, ge=1)
    longest: int | None = pydantic.Field(default=None, ge=1)
    """Sides of images in this stage, in pixels; None for the run's (the paper trains first on 384, then on 980)."""
    augment: AugmentConfig = AugmentConfig()
    micro_batches: int = pydantic.Field(default=1, ge=1)
    """Batches that each pack is computed in, one after another (gradient accumulation); the update is the same for any
    number."""
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
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    max_grad_norm: float = pydantic.Field(default=1.0, gt=0)
    """Largest norm of the gradient over all parameters."""
    vision: PartConfig = PartConfig()
    connector: PartConfig = PartConfig()
    fusion: PartConfig = PartConfig()
    """Blocks of cross-attention, where the model has them."""
    language: PartConfig = PartConfig()
    lora: LoraConfig = LoraConfig()
    neftune: float = pydantic.Field(default=0.0, ge=0)
    """NEFTune's alpha: strength of the noise on embedded tokens while training (Jain et al. 2023; 5 is usual)."""
    z_loss: float = pydantic.Field(default=0.0, ge=0)
    """Weight of the squared log-normaliser of each supervised token; it keeps logits from drifting (1e-4 is usual)."""
    checkpointing: tuple[PartName, ...] = ()
    """Parts whose activations are recomputed in the backward pass: less memory for about a third more work."""

    @pydantic.model_validator(mode="before")
    @classmethod
    def _counted_in_packs(cls, values: Any, info: pydantic.ValidationInfo) -> Any:
        """Refuse `samples_per_step`, which `pack.samples` replaces; a stored run may hold it unused beside `pack`."""
        if not isinstance(values, dict) or "samples_per_step" not in values:
            return values
        if info.context is not STORED or values.get("pack") is None:
            samples = values["samples_per_step"]
            raise ValueError(
                f"samples_per_step is now called pack.samples: write pack: {{samples: {samples}, packs_per_step: 1}}"
            )
        return {name: value for name, value in values.items() if name != "samples_per_step"}

    @pydantic.field_validator("weights", mode="before")
    @classmethod
    def _renamed_measure(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        if value == "learned" and info.context is not STORED:
            raise ValueError("learned is now called supervised")
        return "supervised" if value == "learned" else value

    @pydantic.model_validator(mode="after")
    def _possible(self) -> StageConfig:
        if not self.name or Path(self.name).name != self.name or self.name.startswith("."):
            raise ValueError(f"stage {self.name!r}: files are named after it; leave out slashes and leading dots")
        if not self.sources:
            raise ValueError(f"stage {self.name!r} has no sources to train on")
        if self.pack.samples is not None and self.micro_batches > self.pack.samples:
            raise ValueError(
                f"stage {self.name!r}: a pack of {self.pack.samples} samples cannot fill {self.micro_batches} batches"
            )
        if self.connector.mode in ("lora", "dora"):
            raise ValueError(f"stage {self.name!r}: the connector takes no adapters; set its mode to full or frozen")
        for part in ("vision", "connector", "fusion", "language"):
            config: PartConfig = getattr(self, part)
            if config.quantize and (part == "connector" or config.mode == "full"):
                about = "the connector is not rounded" if part == "connector" else "weights that train are not rounded"
                raise ValueError(f"stage {self.name!r}: {about}; leave out {part}.quantize")
        return self


class TokenizerConfig(Settings):
    """Source of the tokenizer."""

    path: str | None = None
    """Folder with a `tokenizer.json`; None for that of what the run starts from, or, where it starts from nothing, to
    train one on the built-in texts, as large as the model's vocabulary."""


class InitConfig(Settings):
    """Initial weights of a run; without any, all are drawn from the seed.

    Give a whole `model`, or a `vision` encoder and a `language` model to be joined: folders, or `owner/name` on a hub.
    The settings `model` and `images` and the tokenizer may then be left out: they are those of what is started from.
    Beside two backbones `model.connector` and `model.fusion` alone may be given, and of `model.vision` which states are
    taken and how positions are: `class_token`, `norm_after`, `skipped_layers`, `position_rule`.
    """

    model: str | None = None
    """A vision-language model of lorgnette or transformers' Idefics2, or the folder of a run."""
    vision: str | None = None
    """A SigLIP, SigLIP 2, CLIP or DINOv2 in transformers' format, or an EVA-02-CLIP-E in timm's."""
    language: str | None = None
    """A decoder of the Llama family in transformers' format."""

    @pydantic.model_validator(mode="after")
    def _whole(self) -> InitConfig:
        if self.model and (self.vision or self.language):
            raise ValueError("init.model is a whole model; leave out init.vision and init.language")
        if bool(self.vision) != bool(self.language):
            missing = "language" if self.vision else "vision"
            raise ValueError(
                f"a model is joined from two backbones: give init.{missing} too, or neither (init={{}}) for new weights"
            )
        return self

    @property
    def given(self) -> bool:
        return bool(self.model or self.vision)


class DivergenceConfig(Settings):
    """Detection of training divergence, and the response (full unfreezing diverged in the paper's section 3.3).

    Two things are watched: a spike, which is one step that stands out, and a slow rise of the smoothed loss.
    """

    act: Literal["report", "skip", "rewind", "stop"] = "report"
    """`report`: log and continue; `skip`: discard the update, and end the run after ten in a row; `rewind`: restore the
    weights of the last checkpoint, and continue with the next step's data; `stop`: end the run before the update. No
    single step makes a rise: for it `skip` is `report`, and `rewind` restores the last checkpoint before the rise."""
    window: int = pydantic.Field(default=50, ge=4)
    """Steps that a step is compared with; those before it in its stage, after the warm-up. Also the steps that the loss
    is smoothed over, and those for which it has not been lower when it counts as risen."""
    loss: float = pydantic.Field(default=6.0, gt=0)
    """Deviations by which the loss exceeds the window's mean."""
    grad_norm: float = pydantic.Field(default=10.0, gt=1)
    """Times by which the gradient's norm exceeds the window's median."""
    rise: float = pydantic.Field(default=0.1, gt=0)
    """Share by which the smoothed loss exceeds its lowest in the stage; what noise can do is never a rise."""


class ValidationConfig(Settings):
    """The loss on samples that no stage trains on, source by source, during training."""

    every: int | None = pydantic.Field(default=None, ge=1)
    """Steps between two validations; None for none. The end of a stage is always one of them."""
    samples: int = pydantic.Field(default=64, ge=1)
    """Samples of each source."""
    sources: tuple[SourceConfig, ...] = ()
    """Sources to validate on; by default the validation split of the stage's built-in sources."""
    keep_best: bool = False
    """Keep the model with the lowest mean loss in `best/`; it is then the run's model, in place of the last one."""


class CheckpointConfig(Settings):
    every: int = pydantic.Field(default=200, ge=1)
    """Steps between checkpoints."""
    keep: int = pydantic.Field(default=2, ge=1)


class EvaluationConfig(Settings):
    """Benchmarks during training; and the questions that the demo asks before and after it."""

    every: int | None = pydantic.Field(default=None, ge=1)
    """Steps between two evaluations; None for none. The end of a stage is always one of them."""
    tasks: tuple[str, ...] = pydantic.Field(default=("drawings",), min_length=1)
    """Their names, as `lorgnette eval --tasks` takes them."""
    questions: int = pydantic.Field(default=400, ge=1)
    """Questions of each; those about unseen drawings have their kinds in equal numbers."""
    seed: int = pydantic.Field(default=0, ge=0, lt=2**48)
    batch_size: int = pydantic.Field(default=50, ge=1)
    max_tokens: int = pydantic.Field(default=12, ge=1)
    """Longest answer about a drawing."""
    keep_best: bool = True
    """Keep the model with the best mean of scores in `best/`, ready to use."""


CHANGEABLE = ("parallel_microbatches", "device", "loader", "checkpoints", "divergence", "validation", "evaluation")
"""Settings that may change when a run is resumed: of these, only what `divergence` does changes the weights
by more than the rounding of another device."""


class Run(Settings):
    """Everything a run does. See `recipes/` for whole examples."""

    renamed = {"packs_at_once": "parallel_microbatches", "spikes": "divergence"}

    name: str
    seed: int = pydantic.Field(default=0, ge=0, lt=2**48)
    """Seed of everything random, together with the numbers of stages, steps and samples."""
    threads: int | None = pydantic.Field(default=None, ge=1)
    """CPU threads to compute with; None for all cores."""
    parallel_microbatches: int = pydantic.Field(default=4, ge=1)
    """Most packs of a step that are computed at the same time on a CPU, each with its share of the threads. Each holds
    its own activations: 1 takes the least memory."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to compute on; `auto` is a GPU of CUDA where there is one, else Apple's (MPS), else the CPU."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Type that layers compute in; `auto` is bf16 on a GPU of CUDA, else fp32. Weights that train are always fp32."""
    compile: bool | None = None
    """Compile each layer; None does so on a GPU of CUDA."""
    init: InitConfig = InitConfig()
    model: VLMConfig = VLMConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    images: ImageConfig = ImageConfig()
    special: SpecialTokens = SpecialTokens()
    stages: tuple[StageConfig, ...]
    loader: LoaderConfig = LoaderConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    divergence: DivergenceConfig = DivergenceConfig()
    validation: ValidationConfig = ValidationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Run:
        vision, images = self.model.vision, self.images
        if not self.stages:
            raise ValueError("a run needs at least one stage")
        if self.validation.keep_best and self.evaluation.every and self.evaluation.keep_best:
            raise ValueError("validation.keep_best and evaluation.keep_best both keep best/: set one of them to false")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"two stages share a name: {', '.join(names)}; give each its own")
        self._check_new_parts()
        if not self.has_sizes:
            return self  # they come with the weights, and are checked then
        if isinstance(self.model.fusion, CrossAttentionConfig):
            self.model.fusion.fitted(self.model.language)
            if self.model.fusion.sees == "group" and images.policy == "tiles":
                raise ValueError(
                    "model.fusion.sees group joins images that stand side by side, and images.policy tiles writes tags"
                    " between the tiles of an image: set sees to all, or another policy"
                )
        for stage in self.stages:
            self._check_stage(stage)
        if (images.patch, images.grid) != (vision.patch, vision.grid):
            raise ValueError(
                f"images are cut in patches of {images.patch} on a {images.grid} x {images.grid} grid, but the vision"
                f" encoder expects patches of {vision.patch} on {vision.grid} x {vision.grid}"
            )
        if vision.interpolates != (images.positions == "interpolated"):
            needs = "interpolated" if vision.interpolates else "parity or exact"
            raise ValueError(f"images.positions is {images.positions}, but model.vision.position_rule needs {needs}")
        return self

    def _check_new_parts(self) -> None:
        """Refuse a first stage that leaves new weights as they were drawn, and settings of blocks that nobody has."""
        first, has_blocks = self.stages[0], self.model.fusion != "autoregressive"
        new = [("connector", first.connector.mode), *([("fusion", first.fusion.mode)] if has_blocks else ())]
        for part, mode in new:
            if not self.init.model and mode != "full":
                raise ValueError(
                    f"stage {first.name!r}: the {part} is newly initialised, and {mode} it would stay as it was drawn;"
                    f" set {part}.mode to full, or start from a whole model (init.model)"
                )
        for stage in () if has_blocks or not self.has_sizes else self.stages:
            if stage.fusion != PartConfig() or "fusion" in stage.checkpointing:
                raise ValueError(
                    f"stage {stage.name!r}: fusion is set, but autoregressive fusion has no weights; leave it out, or"
                    " set model.fusion to cross_attention"
                )

    def _check_stage(self, stage: StageConfig) -> None:
        """Refuse a stage that the model cannot train."""
        most = self.model.language.max_positions
        if self.model.isolate_documents and stage.pack.tokens > most:
            raise ValueError(
                f"stage {stage.name!r}: packs of {stage.pack.tokens} tokens may hold documents longer than the language"
                f" model's {most} positions; set pack.tokens to {most} or less"
            )
        try:
            fault = self.stage_images(stage).unlike(self.model.slots.only_grid)
        except pydantic.ValidationError as error:
            said = error.errors()[0]["msg"].removeprefix(VALIDATOR_PREFIX)
            raise ValueError(f"stage {stage.name!r}: {said}") from None
        if fault:
            raise ValueError(f"stage {stage.name!r}: connector {self.model.connector.about}: {fault}")

    def stage_images(self, stage: StageConfig) -> ImageConfig:
        """Return the image settings of a stage."""
        sides = {"shortest": stage.shortest, "longest": stage.longest}
        given = {name: side for name, side in sides.items() if side is not None}
        return ImageConfig.model_validate(self.images.plain() | given) if given else self.images

    @property
    def has_sizes(self) -> bool:
        """Return whether the model's settings are all here; else they are those of what the run starts from."""
        given, vision = self.model.model_fields_set, self.model.vision
        chosen = "vision" not in given or vision.model_fields_set <= set(STATES_TAKEN)
        joined = bool(self.init.vision) and given <= {"connector", "fusion", "vision"} and chosen
        return not self.init.given or ("model" in self.model_fields_set and not joined)

    @property
    def identity(self) -> str:
        """Twelve hex digits that name what is learned: runs that differ in the `CHANGEABLE` alone have the same."""
        values = {name: value for name, value in self.plain().items() if name not in CHANGEABLE}
        return type(self).parse(values).digest()

    def plugins(self) -> dict[str, str]:
        """Plug-ins that the settings name -> the package and version of each. Raises: SettingsError."""
        sources = [*(source for stage in self.stages for source in stage.sources), *self.validation.sources]
        kinds = dict.fromkeys(source.kind for source in sources)
        return plugins.record(
            ("connectors", self.model.connector.kind),
            ("encoders", self.model.vision.kind),
            *(("sources", kind) for kind in kinds),
        )

    @property
    def steps(self) -> int:
        """Steps of all stages together."""
        return sum(stage.steps for stage in self.stages)


def read_run(folder: Path) -> Run:
    """Read the settings in a run's folder, which cannot name code to run by themselves. Raises: SettingsError."""
    with plugins.reading(str(folder / "run.yaml")):
        return Run.load(folder / "run.yaml", stored=True)


def open_run(recipe: str | Path, overrides: Sequence[str] = ()) -> Run:
    """The settings of a recipe by name or path, or of a run's folder, changed by dotted overrides."""
    settings = Path(recipe) / "run.yaml"
    stored = os.path.isfile(settings)
    return Run.load(settings if stored else find_recipe(str(recipe)), overrides, stored=stored)


def find_recipe(name: str) -> Path:
    """The path of a recipe given by path or by name (`micro` for `recipes/micro.yaml`).

    A folder of that name hides no recipe. Raises: SettingsError with the names that there are.
    """
    return find_shipped(name, "recipes", "recipe")
