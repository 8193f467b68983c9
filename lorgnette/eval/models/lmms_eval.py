"""lorgnette's models in lmms-eval, its tasks and its numbers:

    lmms-eval --model lorgnette --model_args pretrained=FOLDER --tasks mmmu_val --batch_size 8

lmms-eval finds this file by the entry point `lorgnette` in its group `lmms_eval.models`, and is the only one to import
it: lorgnette does without lmms-eval. With `--force_simple` it scores multiple choice by likelihood; tasks that give
messages only generate. Model arguments: `pretrained`, a folder of a model (or of a run) or a hub id;
`split`, images in five crops (320 visual tokens) or one (64); `dtype`, such as bfloat16, if not as stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from rich.progress import Progress

from lorgnette.errors import SettingsError
from lorgnette.eval.models.base import in_runs
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.hub.load import load
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.ops.device import choose_device
from lorgnette.output import progress_bar
from lorgnette.sample import Image, Sample, Text, Turn

DEFAULT_TOKENS = 1024
"""The longest answer of a task that does not say."""


def manifest() -> Any:
    """Manifest for lmms-eval's registry of models."""
    from lmms_eval.models.registry_v2 import ModelManifest

    classes = {"chat_class_path": f"{__name__}.Lorgnette", "simple_class_path": f"{__name__}.LorgnetteSimple"}
    return ModelManifest(model_id="lorgnette", **classes)


class Lorgnette(lmms):  # type: ignore[misc]  # without lmms-eval it is of no known type
    """A model of lorgnette as lmms-eval asks it. It reads messages, with pictures where they stand."""

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        split: bool | None = None,
        dtype: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        """max_batch_size: what lmms-eval gives with automatic batch sizes; unused.

        Raises: SettingsError, CheckpointError.
        """
        super().__init__()
        if not str(batch_size).isdecimal():
            raise SettingsError(f"batch_size is {batch_size!r}; give a number")
        if dtype and not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise SettingsError(f"dtype is {dtype!r}; use float32, bfloat16 or float16")
        self._device = torch.device(device) if device else choose_device()
        opened = load(pretrained, device=self._device, dtype=getattr(torch, dtype) if dtype else None)
        self.model = LorgnetteModel(*opened, identity=pretrained, split=split, batch_size=int(batch_size))

    @property
    def device(self) -> torch.device:
        """Device of the model; lmms-eval gathers counts there."""
        return self._device

    @property
    def batch_size(self) -> int:
        return self.model.batch_size

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to each request: greedy unless it asks for samples, and cut before its first stop string.

        Raises: SettingsError for beams; DataError for a video or a sound; ImageError.
        """
        answers = [""] * len(requests)
        bar = self._bar("answering", len(requests))
        with bar:
            for settings, places in _grouped(requests, lambda request: _settings(self._arguments(request))).items():
                self.model.settings = settings
                for some in in_runs(places, self.batch_size):
                    prompts = [self._prompt(requests[place]) for place in some]
                    said = self.model.generate(prompts, max_tokens=settings.max_tokens, stop=settings.stop)
                    for place, text in zip(some, said, strict=True):
                        asked = requests[place].args[0], self._arguments(requests[place])
                        self.cache_hook.add_partial("generate_until", asked, text)
                        answers[place] = text
                    bar.advance(bar.task_ids[0], len(some))
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """For each continuation its loss, and whether the model, asked greedily, would say it.

        The loss is minus the log-likelihood in nats, summed over tokens: whatever the method is called, the tasks of
        lmms-eval take the smallest. The pair is the `text` of a GenerationResult, since its evaluator makes a string of
        a bare one. Continuations of one question are scored together: what they share is computed once.
        """
        found: list[Any] = [None] * len(requests)
        questions = list(_grouped(requests, _question_of).values())
        self.model.settings = GenerationConfig()
        bar = self._bar("scoring", len(requests))
        with bar:
            for some in in_runs(questions, self.batch_size):
                prompts = [self._question(requests[places[0]]) for places in some]
                texts = [[self._continuation(requests[place]) for place in places] for places in some]
                scores = self.model.score(prompts, texts)
                said = self.model.generate(prompts, max_tokens=self._most_tokens(texts))
                for places, row, options, best in zip(some, scores, texts, said, strict=True):
                    for place, score, text in zip(places, row, options, strict=True):
                        found[place] = GenerationResult((-score, best.startswith(text)))
                bar.advance(bar.task_ids[0], sum(map(len, some)))
        return found

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Raises: SettingsError: tasks of several rounds are not supported."""
        raise SettingsError("lorgnette answers one round of questions; choose a task of output type generate_until")

    def _arguments(self, request: Any) -> Mapping[str, Any]:
        """Read the generation settings of a task."""
        arguments: Mapping[str, Any] = request.args[2]
        return arguments

    def _prompt(self, request: Any) -> Sample:
        _, messages_of, _, number, task, split = request.args
        messages = messages_of(self.task_dict[task][split][number])
        return Sample.from_messages(messages, supervised=None, meta={"name": f"{task} {split} {number}"})

    def _question(self, request: Any) -> Sample:
        """Without a document where a choice is scored by itself, as for mutual information."""
        context, *rest = request.args
        images: Sequence[Any] = ()
        if len(rest) > 1:
            _, visuals_of, number, task, split = rest
            images = visuals_of(self.task_dict[task][split][number]) or ()
        return Sample((Turn("user"), *map(Image, images), Text(context)), {"name": str(_question_of(request)[1:])})

    def _continuation(self, request: Any) -> str:
        """The template writes the space before an answer."""
        _, text, *rest = request.args
        if callable(text):
            _, number, task, split = rest
            text = text(self.task_dict[task][split][number])
        return str(text).lstrip()

    def _most_tokens(self, texts: Sequence[Sequence[str]]) -> int:
        encode = self.model.processor.tokenizer.encode
        return max(1 + len(encode(text)) for options in texts for text in options)

    def _bar(self, what: str, total: int) -> Progress:
        bar = progress_bar()
        bar.disable = self.rank > 0
        bar.add_task(what, total=total)
        return bar


class LorgnetteSimple(Lorgnette):
    """As lmms-eval asks with `--force_simple`: the pictures, then a text. Only so it scores choices by likelihood."""

    is_simple = True

    def _arguments(self, request: Any) -> Mapping[str, Any]:
        arguments: Mapping[str, Any] = request.args[1]
        return arguments

    def _prompt(self, request: Any) -> Sample:
        return self._question(request)


def _settings(arguments: Mapping[str, Any]) -> GenerationConfig:
    """A task's way to generate. Raises: SettingsError."""
    if int(arguments.get("num_beams") or 1) > 1:
        raise SettingsError(f"num_beams is {arguments['num_beams']}; lorgnette decodes greedily or draws samples")
    until = arguments.get("until") or ()
    temperature = float(arguments.get("temperature") or 0)
    values: dict[str, Any] = {
        "max_tokens": int(arguments.get("max_new_tokens") or DEFAULT_TOKENS),
        "stop": [text for text in ((until,) if isinstance(until, str) else until) if text],
        "temperature": temperature if arguments.get("do_sample", temperature > 0) else 0.0,
    }
    values |= {key: arguments[key] for key in ("top_p", "top_k") if arguments.get(key)}
    return GenerationConfig.parse(values, "a task of lmms-eval")


def _question_of(request: Any) -> tuple[Any, ...]:
    """Key that the continuations of one question share: context, number, task and split."""
    context, _, *rest = request.args
    return (context, *rest[1:])


def _grouped(requests: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, list[int]]:
    """Places of requests by key, in order."""
    groups: dict[Any, list[int]] = {}
    for place, request in enumerate(requests):
        groups.setdefault(key(request), []).append(place)
    return groups
