"""Setup of a run: its complete settings, its model and its processor."""

from __future__ import annotations

from dataclasses import replace

import torch

from lorgnette.errors import SettingsError
from lorgnette.hub.join import LanguageBackbone, VisionBackbone, default_images, join, joined_config
from lorgnette.hub.load import load, open_checkpoint
from lorgnette.hub.source import find_folder
from lorgnette.inputs.generation_rules import GenerationRules, read_generation_rules
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import Idefics2Template, JinjaTemplate
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from lorgnette.model.config import VLMConfig
from lorgnette.model.vlm import VLM
from lorgnette.run import Run
from lorgnette.settings import Settings


def resolve(run: Run) -> Run:
    """The run with every setting written out: what it leaves to the weights that it starts from is read from those.

    Raises: CheckpointError or SettingsError naming the folder and what does not fit.
    """
    if run.has_sizes:
        return run
    given = {name for name in ("images", "tokenizer", "special") if name in run.model_fields_set}
    found = _of_model(run) if run.init.model else _of_backbones(run)
    values = run.plain() | {name: value.plain() for name, value in found.items() if name not in given}
    return Run.parse(values, f"run {run.name}, starting from {run.init.model or run.init.language}")


def check_fit(run: Run) -> None:
    """Check the sizes that a run gives against what it starts from, of which headers are read and no weights.

    Raises: CheckpointError or SettingsError naming the folder, the setting and both values.
    """
    if not run.has_sizes:
        return  # they are those of what it starts from
    if run.init.model:
        _check_same(run, open_checkpoint(run.init.model).config)
    elif run.init.vision and run.init.language:
        VisionBackbone.open(run.init.vision).check(run.model.vision)
        LanguageBackbone.open(run.init.language).check(run.model.language)


def build(run: Run) -> tuple[VLM, Processor]:
    """Build the model and the processor that a run starts from.

    Raises: SettingsError if the tokenizer has not the rows that the model expects; CheckpointError if what the run
    starts from does not fit its settings.
    """
    run = resolve(run)
    processor = build_processor(run)
    return build_model(run), processor


def build_model(run: Run) -> VLM:
    """Build the model of a resolved run: read its weights, or draw them. Raises: as `build`."""
    if run.init.model:
        return _load_whole(run)
    if run.init.vision and run.init.language:
        vision, language = VisionBackbone.open(run.init.vision), LanguageBackbone.open(run.init.language)
        return join(vision, language, run.model, run.seed, torch.float32)
    model = VLM(run.model)
    model.initialise(run.seed)
    return model


def build_processor(run: Run) -> Processor:
    run = resolve(run)
    tokenizer = build_tokenizer(run)
    image = tokenizer.id(run.special.image)
    spare = run.model.vocabulary - tokenizer.vocabulary  # tables of published models are often longer than needed
    if spare < 0 or (spare and not run.init.given) or image != run.model.image_token:
        raise SettingsError(
            f"the tokenizer has {tokenizer.vocabulary} rows and its image token is {image}, but the model has"
            f" {run.model.vocabulary} rows and expects {run.model.image_token}: set model.language.vocabulary to"
            f" {tokenizer.vocabulary - run.model.extra_vocabulary} and model.image_token to {image}"
        )
    processor = Processor(
        tokenizer,
        run.images,
        connector=run.model.slots,
        template=Idefics2Template(run.special),
        mean=run.model.vision.mean,
        std=run.model.vision.std,
    )
    if run.init.model:
        return _as_opened(processor, open_checkpoint(run.init.model).processor)
    if run.init.language:
        end_tokens = read_generation_rules(find_folder(run.init.language)).end_tokens
        return replace(processor, generation=GenerationRules(end_tokens=end_tokens))
    return processor


def _as_opened(processor: Processor, opened: Processor) -> Processor:
    """The processor with what the model that a run starts from says of generation and of conversations.

    Its template is kept where it ends turns as the run does: an answer's end is learned by it.
    """
    processor = replace(processor, generation=opened.generation, video=opened.video)
    source = opened.template.source
    if isinstance(opened.template, JinjaTemplate) and processor.special.end_of_utterance in source:
        return replace(processor, template=JinjaTemplate(source, processor.tokenizer))
    return processor


def build_tokenizer(run: Run) -> Tokenizer:
    if run.tokenizer.path is not None:
        return Tokenizer.load(run.tokenizer.path, run.special)
    if run.init.given:
        return Tokenizer.load(find_folder(str(run.init.model or run.init.language)), run.special)
    from lorgnette.data.builtin.questions import tokenizer_texts

    return train_tokenizer(tokenizer_texts(), vocabulary=run.model.vocabulary, special=run.special)


def _load_whole(run: Run) -> VLM:
    """The model that the run starts from, whose settings must be those of the run."""
    assert run.init.model is not None
    if (rounded := open_checkpoint(run.init.model).quantization) is not None:
        raise SettingsError(
            f"{run.init.model}: its weights are rounded to {rounded}, for answering; start from the model that they"
            f" were rounded from, with stages.0.language.quantize={rounded} where memory is short"
        )
    model, _ = load(run.init.model)
    _check_same(run, model.config)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone().float()  # the file is mapped, and training writes
    return model


def _check_same(run: Run, stored: VLMConfig) -> None:
    """Raises: SettingsError if the settings of a whole model are not those of the one that the run starts from."""
    differences = [f"{key} {ours!r}, there {theirs!r}" for key, (ours, theirs) in run.model.diff(stored).items()]
    if differences:
        raise SettingsError(
            f"{run.init.model}: does not fit the run's model settings, which say {differences[0]}; leave out `model`,"
            " whose sizes come with the weights, or init.model"
        )


def _of_model(run: Run) -> dict[str, Settings]:
    opened = open_checkpoint(str(run.init.model))
    tokenizer = run.tokenizer.override(f"path={opened.tokenizer_folder}")
    processor = opened.processor
    return {
        "model": opened.config,
        "images": processor.images,
        "tokenizer": tokenizer,
        "special": processor.special,
    }


def _of_backbones(run: Run) -> dict[str, Settings]:
    vision, language = VisionBackbone.open(str(run.init.vision)), LanguageBackbone.open(str(run.init.language))
    folder = language.weights.folder
    states = run.model.vision if "vision" in run.model.model_fields_set else None
    images = run.images if "images" in run.model_fields_set else default_images(vision, states)
    connector = run.model.connector if "connector" in run.model.model_fields_set else None
    tokenizer = Tokenizer.load(folder, run.special)
    config = joined_config(language, tokenizer, connector, vision.joined(states, images.grid), run.model.fusion)
    return {"model": config, "images": images, "tokenizer": run.tokenizer.override(f"path={folder}")}
