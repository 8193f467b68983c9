"""From a `Run` to a model and a processor that fit each other."""

from __future__ import annotations

from lorgnette.errors import SettingsError
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.template import Idefics2Template
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from lorgnette.model.vlm import VLM
from lorgnette.run import Run


def build(run: Run) -> tuple[VLM, Processor]:
    """Build the model and the processor that a run starts from.

    Raises: SettingsError if the tokenizer has not the rows that the model expects.
    """
    processor = build_processor(run)
    model = VLM(run.model)
    model.initialise(run.seed)
    return model, processor


def build_processor(run: Run) -> Processor:
    tokenizer = build_tokenizer(run)
    image = tokenizer.id(run.special.image)
    if tokenizer.vocabulary != run.model.vocabulary or image != run.model.image_token:
        raise SettingsError(
            f"the tokenizer has {tokenizer.vocabulary} rows and its image token is {image}, but the model has"
            f" {run.model.vocabulary} rows and expects {run.model.image_token}: set model.language.vocabulary to"
            f" {tokenizer.vocabulary - run.model.extra_vocabulary} and model.image_token to {image}"
        )
    return Processor(
        tokenizer,
        run.images,
        visual_tokens=run.model.connector.latents,
        template=Idefics2Template(run.special),
        mean=run.model.vision.mean,
        std=run.model.vision.std,
    )


def build_tokenizer(run: Run) -> Tokenizer:
    if run.tokenizer.path is not None:
        return Tokenizer.load(run.tokenizer.path, run.special)
    from lorgnette.data.builtin import tokenizer_texts

    return train_tokenizer(tokenizer_texts(), vocabulary=run.model.vocabulary, special=run.special)
