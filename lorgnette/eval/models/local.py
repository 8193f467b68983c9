"""A model of ours, with its processor, as evaluation asks it: text is generated, candidates are scored."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any

import torch

from lorgnette.errors import DataError
from lorgnette.eval.models.base import Answer, Model, in_runs
from lorgnette.infer.generate import check_length, end_tokens, evaluating, generate
from lorgnette.infer.image_cache import KEEP_BYTES, ImageFeatureCache, ImageRef, without_images
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.render import Rendered
from lorgnette.model.batch import IGNORE_INDEX, Batch, Grid, SequenceLengths
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, ImageSource, Sample, Text, Turn


def device_facts(device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Facts of a device and precision, for the record."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": f"{device} ({name})", "dtype": str(dtype).removeprefix("torch.")}


class LorgnetteModel(Model):
    """Answers `batch_size` prompts at a time, greedily unless `settings` say more.

    identity: names the model to people. weights: the digest of its files (`hub.checkpoint_hash`), if it has some.
    keep_bytes: visual tokens of images that are kept for prompts that show them again, in bytes.
    """

    encodes_images = True

    def __init__(
        self,
        model: VLM,
        processor: Processor,
        *,
        identity: str = "lorgnette model",
        weights: str = "",
        settings: GenerationConfig | None = None,
        split: bool | None = None,
        batch_size: int = 16,
        keep_bytes: int = KEEP_BYTES,
    ) -> None:
        self.model, self.processor, self.identity, self.weights = model, processor, identity, weights
        self.settings = settings or GenerationConfig()
        self.split, self.batch_size = split, batch_size
        self.image_cache = ImageFeatureCache(model, processor, split=split, keep_bytes=keep_bytes)

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """The answer to each prompt: at most `max_tokens` tokens, ending before the first stop string."""
        settings = GenerationConfig.parse(self.settings.plain() | {"max_tokens": max_tokens, "stop": tuple(stop)})
        too_long = {
            number: reason
            for number, sample in enumerate(samples)
            if (reason := self._too_long(self.image_cache.prompt(sample)))
        }
        asked = [sample for number, sample in enumerate(samples) if number not in too_long]
        answers = (
            answer.text
            for prompts in in_runs(asked, self.batch_size)
            for answer in generate(self.model, self.processor, prompts, settings, image_cache=self.image_cache)
        )
        return [
            Answer("", declined=too_long[number]) if number in too_long else next(answers)
            for number in range(len(samples))
        ]

    def _too_long(self, asked: Rendered) -> str:
        """Return why a prompt, or it and a candidate, exceeds the model's positions; empty if it fits."""
        try:
            check_length(self.model.config.language, asked.name, len(asked.tokens_T))
        except DataError as error:
            return str(error)
        return ""

    def environment(self) -> dict[str, Any]:
        """Device, precision and threads, for the record."""
        where = device_facts(self.model.device, self.model.dtype)
        return where | {"threads": torch.get_num_threads()}

    def rendered_prompts(self, samples: Sequence[Sample]) -> list[str]:
        """The text that the model reads for each prompt, up to where its answer begins; see `Processor.decode`."""
        return [self.processor.decode(self.image_cache.prompt(sample).tokens_T.tolist()) for sample in samples]

    @torch.no_grad()
    def encode_images(self, images: Sequence[ImageSource]) -> Any:
        """A vector of length 1 for each image: the mean over its patches of what the vision encoder makes of them.

        Returns: float32 of shape (images, width of the encoder), as numpy.
        """
        rendered = [self.processor.render(Sample((Image(source),)), split=False) for source in images]
        batch = self.processor.pack(rendered).to(self.model.device)
        with evaluating(self.model):
            patches_PD = self.model.vision(batch.patches_PC, batch.patch_positions_P, batch.grids)
        means = [
            part.float().mean(dim=0) for part in patches_PD.split(list(self.model.vision.states(batch.grids).lengths))
        ]
        return torch.nn.functional.normalize(torch.stack(means), dim=-1).cpu().numpy()

    @torch.no_grad()
    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> list[list[float]]:
        """The log-likelihood of each prompt's candidates, in nats, summed over their tokens; an end is not counted.

        What a prompt's candidates share, images first of all, is computed once. All candidates of a prompt are as
        unlikely as can be where one of them exceeds the model's positions with it.
        """
        images = [self.image_cache.images(sample) for sample in samples]
        written = [
            [self.image_cache.text_of(_answered(sample, text), shown) for text in texts]
            for sample, shown, texts in zip(samples, images, candidates, strict=True)
        ]
        fits = [bool(ones) and not any(map(self._too_long, ones)) for ones in written]
        asked = [one for one, fit in zip(zip(images, written, strict=True), fits, strict=True) if fit]
        with evaluating(self.model):
            scores = iter([row for chunk in in_runs(asked, self.batch_size) for row in self._score(chunk)])
        rows = zip(candidates, fits, strict=True)
        return [next(scores) if fit else [float("-inf")] * len(texts) for texts, fit in rows]

    def _score(self, pairs: Sequence[tuple[list[ImageRef], Sequence[Rendered]]]) -> list[list[float]]:
        """Log-likelihoods of candidates. pairs: the images of prompts, and each written with each of its candidates."""
        written = [rendered for _, rendered in pairs]
        shared = [_shared_tokens(rendered) for rendered in written]
        tails = [_Part(one, n, len(one.tokens_T)) for n, ones in zip(shared, written, strict=True) for one in ones]
        cache = None
        if any(shared):
            cache = KVCache(self.model.config, reserve=max(part.stop - part.start for part in tails))
            heads = [_Part(ones[0], 0, n) for ones, n in zip(written, shared, strict=True)]
            shown = [image for images, _ in pairs for image in images]
            visual_VD, grids = self.image_cache.visual_tokens(shown), self.image_cache.grids_of(shown)
            self.model(self._pack(heads, grids), output="scores", cache=cache, visual_VD=visual_VD)
            cache.keep([row for row, rendered in enumerate(written) for _ in rendered])
        sums = iter(self._log_likelihoods(tails, cache))
        return [list(islice(sums, len(rendered))) for rendered in written]

    def _log_likelihoods(self, tails: Sequence[_Part], cache: KVCache | None) -> list[float]:
        batch = self._pack(tails)
        no_images = torch.empty(0, self.model.config.visual_width, device=self.model.device)
        scores_T = self.model(batch, output="scores", cache=cache, visual_VD=no_images).scores
        assert scores_T is not None
        return [part.sum().item() for part in scores_T.cpu().double().split(list(batch.documents.lengths))]

    def _pack(self, parts: Sequence[_Part], grids: tuple[Grid, ...] | None = None) -> Batch:
        """A batch of parts of samples that predicts no end of an answer. grids: of images that have slots in these."""
        whole = self.processor.pack([part.rendered for part in parts])
        firsts = whole.documents.starts[:-1]
        places = [first + torch.arange(part.start, part.stop) for first, part in zip(firsts, parts, strict=True)]
        kept = torch.cat(places)
        tokens_T, targets_T = whole.tokens_T[kept], whole.targets_T[kept]
        ends = torch.isin(targets_T, torch.tensor(sorted(end_tokens(self.processor))))
        none = torch.empty(0, dtype=torch.int64)
        batch = dataclasses.replace(
            whole,
            tokens_T=tokens_T,
            targets_T=targets_T.masked_fill(ends, IGNORE_INDEX),
            positions_T=whole.positions_T[kept],
            documents=SequenceLengths(tuple(part.stop - part.start for part in parts)),
            visual_positions_V=(tokens_T == self.processor.image_token).nonzero()[:, 0] if grids is not None else none,
        )
        return without_images(batch, grids or ()).to(self.model.device)


@dataclass(frozen=True)
class _Part:
    """Part of a sample's tokens: those from `start` up to `stop`."""

    rendered: Rendered
    start: int
    stop: int


def _answered(sample: Sample, text: str) -> Sample:
    """The sample with a candidate as the assistant's words, or for a document as its continuation."""
    turn = (Turn("assistant"),) if sample.is_chat else ()
    return dataclasses.replace(sample, segments=(*sample.segments, *turn, Text(text, supervised=True)))


def _shared_tokens(rendered: Sequence[Rendered]) -> int:
    """Length of the prefix that all share, before the token from which the first supervised token is predicted."""
    lists = [one.tokens_T[: max(0, int(one.loss_mask_T.argmax()) - 1)].tolist() for one in rendered]
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*lists, strict=False)))
