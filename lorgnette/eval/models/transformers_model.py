"""Any `AutoModelForImageTextToText` of transformers as a `Model`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import PIL.Image
import torch
from torch import Tensor

from lorgnette.errors import CheckpointError, SettingsError
from lorgnette.eval.models.base import Model, conversation, in_runs, until_stop, with_crops
from lorgnette.eval.models.local import device_facts
from lorgnette.files import HUB_ID, expand_user
from lorgnette.hub.checkpoint_hash import checkpoint_digest
from lorgnette.hub.source import find_folder
from lorgnette.inputs.image_io import open_image
from lorgnette.model.ops.device import AUTO, choose_device, dtype_named, in_float64
from lorgnette.sample import Image, ImageSource, Sample, Text

log = logging.getLogger("lorgnette")

_Value = TypeVar("_Value")
LEFT, RIGHT = "\ue000", "\ue001"
"""Characters that no text holds, to see what a template writes between two others."""
SPLIT = "do_image_splitting"
"""Name of the switch for image splitting in transformers' image processors (Idefics2 and its successors)."""


def open_transformers(
    source: str, *, split: bool | None = None, batch_size: int = 16, device: str = AUTO, dtype: str = AUTO
) -> TransformersModel:
    """Open a folder, or an id on the hub, with transformers.

    device, dtype: by name; `auto` is a GPU where there is one, with bfloat16 on one of CUDA, else float32.
    Raises: SettingsError for a switch that the model does not have, CheckpointError if transformers is not installed
    or does not open it. Code that comes with a checkpoint is never run.
    """
    if not source:
        raise SettingsError("transformers: names no model; write transformers:FOLDER_OR_ID")
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(
            f"to measure a model of transformers, install it (pip install transformers): {error}"
        ) from error
    local = os.path.isdir(expand_user(source))
    named = HUB_ID.fullmatch(source)
    place, revision = (named["name"], named["revision"]) if named and not local else (source, None)
    place = str(find_folder(source)) if local else place
    place_of = choose_device(device)
    stored = dtype_named(dtype) or (torch.bfloat16 if place_of.type == "cuda" else torch.float32)
    try:
        model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
            place, dtype=stored, **({"revision": revision} if revision else {})
        )
        processor = transformers.AutoProcessor.from_pretrained(place, **({"revision": revision} if revision else {}))
    except Exception as error:  # whatever transformers raises, it is why the model does not open
        said = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{place}: transformers does not open it: {type(error).__name__}: {said}") from error
    weights = checkpoint_digest(place) if local else str(getattr(model.config, "_commit_hash", None) or "")
    return TransformersModel(
        model.to(place_of),
        processor,
        identity=f"transformers:{source}",
        weights=weights,
        split=split,
        batch_size=batch_size,
    )


@dataclass(frozen=True)
class _Row:
    """A prompt as a processor takes it. The last `candidate_length` characters of its text are a candidate."""

    name: str
    text: str
    images: list[PIL.Image.Image]
    candidate_length: int = 0


class TransformersModel(Model):
    """Answers `batch_size` prompts at a time, greedily, padded on the left. In float32, batches change no answer.

    A conversation is written by the processor's chat template; in a document each image stands as the template writes
    one. Text that spells a special token gets a space after its first character, so that it stays text.
    identity: names the model to people. split: images in five crops or one, where its image processor has the switch.
    """

    encodes_images = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        identity: str,
        weights: str = "",
        split: bool | None = None,
        batch_size: int = 16,
    ) -> None:
        """Raises: SettingsError if it has no such switch, CheckpointError for a processor that reads no text."""
        self.model, self.processor, self.batch_size = model.eval(), processor, batch_size
        self.identity = with_crops(identity, split)
        self.weights = weights
        if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
            raise CheckpointError(f"{identity}: has no processor of both text and images")
        self.tokenizer = processor.tokenizer
        self._set_padding()
        if split is not None:
            if not hasattr(processor.image_processor, SPLIT):
                raise SettingsError(f"{identity}: has no switch for crops; leave out --split and --no-split")
            setattr(processor.image_processor, SPLIT, split)
        model.generation_config.update(do_sample=False, num_beams=1, temperature=None, top_p=None, top_k=None)

    def environment(self) -> dict[str, Any]:
        """Device, type of numbers, image processor, and the version of transformers."""
        used = {"image_processor": type(self.processor.image_processor).__name__}
        used["transformers"] = importlib.metadata.version("transformers")
        return device_facts(self.model.device, self.model.dtype) | used

    def _set_padding(self) -> None:
        if self.tokenizer.pad_token is None:
            if self.tokenizer.eos_token is None:
                raise CheckpointError(f"{self.identity}: its tokenizer has no pad token; name one in its settings")
            log.warning(
                "%s: its tokenizer has no pad token; prompts of a batch are filled up with %s, which no prompt sees",
                self.identity,
                self.tokenizer.eos_token,
            )
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """The answer to each prompt: at most `max_tokens` tokens, ending before the first stop string.

        Raises: ImageError, SettingsError for a form that the model cannot be asked in, CheckpointError.
        """

        def answer(rows: Sequence[_Row]) -> list[str]:
            inputs = self._inputs(rows, "left")
            found = self.model.generate(**inputs, max_new_tokens=max_tokens, pad_token_id=self.tokenizer.pad_token_id)
            new = found if self.model.config.is_encoder_decoder else found[:, inputs["input_ids"].shape[1] :]
            decode = self.tokenizer.batch_decode
            return list(decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False))

        said = self._in_batches([self._prompt(sample) for sample in samples], answer)
        # The space after `Assistant:` belongs to the template, not to the answer.
        said = [text.removeprefix(" ") if one.is_chat else text for text, one in zip(said, samples, strict=True)]
        return [until_stop(text, stop) for text in said]

    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """The log-likelihood of each prompt's candidates, in nats, summed over every token that holds any of it.

        Raises: SettingsError for an encoder-decoder, or a tokenizer that does not know where its tokens stand.
        """
        if self.model.config.is_encoder_decoder:
            raise SettingsError(f"{self.identity}: has an encoder for text; ask with --choices generation")
        if not self.tokenizer.is_fast:
            raise SettingsError(f"{self.identity}: its tokenizer gives no offsets; ask with --choices generation")
        rows = [
            dataclasses.replace(prompt, text=start + text, candidate_length=len(text))
            for sample, texts in zip(samples, candidates, strict=True)
            for prompt, start, lead in [self._opened(sample)]
            for text in [lead + self._as_text(one) for one in texts]
        ]
        scores = iter(self._in_batches(rows, self._log_likelihoods))
        return [[next(scores) for _ in texts] for texts in candidates]

    def encode_images(self, images: Sequence[ImageSource]) -> Any:
        """A vector of length 1 for each image: the mean of what the vision encoder makes of it, before any connector.

        Returns: float32 of shape (images, width of the encoder), as numpy.
        Raises: SettingsError if the model does not show it.
        """
        return torch.stack([self._encode(open_image(source)) for source in images]).numpy()

    def rendered_prompts(self, samples: Sequence[Sample]) -> list[str]:
        """Return the text that the processor gets for each prompt. The number of tokens of an image is not in it."""
        return [self._text(sample) for sample in samples]

    def _in_batches(self, rows: Sequence[_Row], run: Callable[[Sequence[_Row]], list[_Value]]) -> list[_Value]:
        """`run` over batches. Rows with and without images go apart: upstream fails where the first one has none."""
        found: dict[int, _Value] = {}
        for seeing in (True, False):
            places = [place for place, row in enumerate(rows) if bool(row.images) == seeing]
            for chunk in in_runs(places, self.batch_size):
                with torch.no_grad():
                    found |= zip(chunk, run([rows[place] for place in chunk]), strict=True)
        return [found[place] for place in range(len(rows))]

    def _inputs(self, rows: Sequence[_Row], side: str, **more: Any) -> Any:
        """Rows as tensors on the model's device, padded on one side."""
        begun = self.tokenizer.bos_token and rows[0].text.startswith(self.tokenizer.bos_token)
        more |= {"add_special_tokens": False} if begun else {}  # the template wrote the beginning of sequence itself
        more |= {"images": [row.images for row in rows]} if rows[0].images else {}
        try:
            inputs = self.processor(
                text=[row.text for row in rows], padding=True, padding_side=side, return_tensors="pt", **more
            )
        except (ValueError, TypeError, KeyError, IndexError) as error:
            names = f"{rows[0].name} or the {len(rows) - 1} after it" if len(rows) > 1 else rows[0].name
            raise CheckpointError(f"{self.identity}: its processor cannot read {names}: {error}") from error
        return self._placed(inputs)

    def _placed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Move what a processor made to the model's device, and floating-point values to its type."""
        place, dtype = self.model.device, self.model.dtype
        return {
            key: value.to(place, dtype if value.is_floating_point() else value.dtype)
            if torch.is_tensor(value)
            else value
            for key, value in values.items()
        }

    def _log_likelihoods(self, rows: Sequence[_Row]) -> list[float]:
        # Padded on the right, so that positions are right in every family, whatever it makes of a mask.
        inputs = self._inputs(rows, "right", return_offsets_mapping=True)
        starts, ends = inputs.pop("offset_mapping").cpu().unbind(-1)
        self._check_ends(rows, inputs["input_ids"].cpu(), ends > starts)
        first = ends.amax(dim=1) - torch.tensor([row.candidate_length for row in rows])
        scored = (ends > first[:, None]) & (ends > starts)
        scored[:, 0] = False  # nothing stands before it
        wanted = scored.any(dim=0).nonzero()[:, 0]
        if not len(wanted):
            return [0.0] * len(rows)
        before = (wanted - 1).to(self.model.device)
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            logits = self.model(**inputs, logits_to_keep=before).logits
        else:
            logits = self.model(**inputs).logits[:, before]
        tokens = inputs["input_ids"][:, wanted.to(self.model.device)]
        scores: Tensor = in_float64(logits).log_softmax(-1)
        scores = scores.gather(-1, tokens.to(scores.device)[..., None])[..., 0].cpu()
        return scores.masked_fill(~scored[:, wanted], 0).sum(dim=1).tolist()

    def _check_ends(self, rows: Sequence[_Row], tokens_BT: Tensor, real_BT: Tensor) -> None:
        """A prompt must end with its candidate. Raises: SettingsError for a processor that writes on after it."""
        for row, tokens_T, real_T in zip(rows, tokens_BT, real_BT, strict=True):
            own = self.tokenizer(row.text, add_special_tokens=False, return_offsets_mapping=True)
            last = [
                token
                for token, (start, end) in zip(own["input_ids"], own["offset_mapping"], strict=True)
                if end > start
            ]
            if row.candidate_length and last and tokens_T[real_T][-1] != last[-1]:
                raise SettingsError(
                    f"{self.identity}: its processor writes on after a text; ask with --choices generation"
                )

    def _encode(self, image: PIL.Image.Image) -> Tensor:
        read = getattr(self.model, "get_image_features", None)
        seen = None
        if read is not None:
            whole = {SPLIT: False} if hasattr(self.processor.image_processor, SPLIT) else {}
            pixels = self.processor.image_processor([[image]], return_tensors="pt", **whole)
            named = inspect.signature(read).parameters
            known = {key: value for key, value in self._placed(pixels).items() if key in named}
            with torch.no_grad():
                seen = getattr(read(**known, return_dict=True), "last_hidden_state", None)
        if seen is None:
            raise SettingsError(
                f"{self.identity}: does not show its vision features; choose shots with --choose random"
            )
        mean = seen.reshape(-1, seen.shape[-1]).float().mean(dim=0)
        return torch.nn.functional.normalize(mean, dim=-1).cpu()

    def _prompt(self, sample: Sample) -> _Row:
        """A prompt up to where the answer begins. Raises: ImageError."""
        images = [open_image(one.source, f"{sample.name}, image {n}") for n, one in enumerate(sample.images, 1)]
        return _Row(sample.name, self._text(sample), images)

    def _text(self, sample: Sample) -> str:
        if sample.is_chat:
            return self._template(self._messages(sample), add_generation_prompt=True)
        ((_, contents),) = conversation(sample)
        parts = (self._image_mark if isinstance(one, Image) else self._as_text(one.text) for one in contents)
        return "".join(parts)

    def _opened(self, sample: Sample) -> tuple[_Row, str, str]:
        """A prompt, its text up to the candidate's first token, and what of the template that token belongs with."""
        prompt = self._prompt(sample)
        if not sample.is_chat:
            return prompt, prompt.text, ""
        said = {"role": "assistant", "content": [{"type": "text", "text": LEFT}]}
        whole = self._template([*self._messages(sample), said], add_generation_prompt=False)
        before, mark, _ = whole.partition(LEFT)
        before = before if mark and before.startswith(prompt.text) else prompt.text
        start = prompt.text.rstrip(" ")  # a model writes the space between `Assistant:` and its answer
        return prompt, start, before[len(start) :]

    def _messages(self, sample: Sample) -> list[dict[str, Any]]:
        def part(content: Text | Image) -> dict[str, str]:
            return (
                {"type": "image"}
                if isinstance(content, Image)
                else {"type": "text", "text": self._as_text(content.text)}
            )

        return [{"role": role, "content": [part(one) for one in contents]} for role, contents in conversation(sample)]

    def _template(self, messages: Sequence[dict[str, Any]], *, add_generation_prompt: bool) -> str:
        if not getattr(self.processor, "chat_template", None):
            raise SettingsError(f"{self.identity}: has no chat template; ask in documents, with --form base")
        try:
            return str(
                self.processor.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=add_generation_prompt
                )
            )
        except Exception as error:  # a template is a program of unknown origin
            raise CheckpointError(f"{self.identity}: its chat template fails: {error}") from error

    @cached_property
    def _image_mark(self) -> str:
        """Marker of an image in text: as the chat template writes it between texts, or the processor's own token."""
        around = [{"type": "text", "text": LEFT}, {"type": "image"}, {"type": "text", "text": RIGHT}]
        written = ""
        if getattr(self.processor, "chat_template", None):
            written = self._template([{"role": "user", "content": around}], add_generation_prompt=False)
        between = written.partition(LEFT)[2].partition(RIGHT)[0].strip()
        mark = between or str(getattr(self.processor, "image_token", None) or "")
        if not mark:
            raise SettingsError(f"{self.identity}: its processor names no image token; ask with --form chat")
        return mark

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Every special token, the longest first."""
        added = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        added |= {str(getattr(self.processor, "image_token", None) or "")}
        return re.compile(
            "|".join(re.escape(one) for one in sorted(added, key=len, reverse=True) if len(one) > 1) or "$^"
        )

    def _as_text(self, text: str) -> str:
        """Text in which nothing is a special token."""
        return self._special.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
