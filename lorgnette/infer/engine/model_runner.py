"""Runs the model on the chunks of a step. What fails is halved until the guilty request is found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorgnette.errors import LorgnetteError
from lorgnette.infer.engine.answer_state import AnswerState, PrefillChunk
from lorgnette.infer.engine.image_inputs import ImageInputs, PassPart
from lorgnette.infer.engine.memory.kv_store import KVStore
from lorgnette.infer.engine.request import as_fault
from lorgnette.infer.engine.scheduler import Scheduler
from lorgnette.infer.image_cache import ImageRef
from lorgnette.model.batch import IGNORE_INDEX, Batch, Grid, SequenceLengths
from lorgnette.model.vlm import VLM

QUIET_STEPS = 64
"""Steps without a lack of memory, after which a step may have twice as many tokens again."""
_FAILED = "the model failed on this request"


@dataclass(frozen=True)
class Ran:
    """A chunk that was computed, with the logits of its last token (K), or the reason why its request fails."""

    chunk: PrefillChunk
    logits_K: Tensor | None
    error: LorgnetteError | None = None


class Runner:
    """Forward passes of the vision part and the decoder, each request's faults kept to itself."""

    def __init__(self, model: VLM, store: KVStore, images: ImageInputs, scheduler: Scheduler, patches: int) -> None:
        """patches: image patches encoded in a step."""
        self.model, self.store, self.images, self.scheduler, self.patches = model, store, images, scheduler, patches
        self.failed: list[tuple[AnswerState, LorgnetteError]] = []
        """Answers whose images could not be encoded in this step."""
        self.faults = self.out_of_memory = 0
        """Failed passes, and those of them for lack of memory."""
        self._quiet = 0

    def encode(self, reading: list[AnswerState], tokens: int) -> None:
        """Encode the images that the next `tokens` tokens of these answers need, as far as a step may go."""
        wanted: dict[str, ImageRef] = {}
        users: dict[str, list[tuple[AnswerState, int]]] = {}
        patches = 0
        for answer in reading:
            reach = min(answer.pending, tokens)
            for number in answer.images.needed(answer.computed, answer.computed + reach):
                image = answer.owner.prompt.images[number]
                if number in answer.images.states or self._found(answer, number):
                    continue
                if not self.images.is_ready(image):  # the tokens before it can be read meanwhile
                    reach = max(answer.owner.prompt.start_of(number) - answer.computed, 0)
                    break
                more = 0 if image.key in wanted else self.images.patches(image)
                if patches and patches + more > self.patches:
                    break
                patches += more
                wanted[image.key] = image
                users.setdefault(image.key, []).append((answer, number))
            tokens -= reach
            if tokens <= 0:
                break
        self._encode(list(wanted.values()), users)

    def _found(self, answer: AnswerState, number: int) -> bool:
        kept = self.images.find(answer.owner.prompt.images[number])
        if kept is not None:
            answer.images.states[number] = kept
        return kept is not None

    def _encode(self, images: list[ImageRef], users: dict[str, list[tuple[AnswerState, int]]]) -> None:
        """Encode images in one packed pass; if it fails, half of them at a time."""
        if not images:
            return
        try:
            made = self.images.encode(images)
        except Exception as error:  # of a decoder or a kernel: whose image it was is found by halving
            if not isinstance(error, LorgnetteError):
                self._note(error)
            if len(images) > 1:
                self._encode(images[: len(images) // 2], users)
                return self._encode(images[len(images) // 2 :], users)
            self.failed += [(answer, as_fault(error, _FAILED)) for answer, _ in users[images[0].key]]
            return
        for image, state in zip(images, made, strict=True):
            for answer, number in users[image.key]:
                answer.images.states[number] = state
                answer.owner.encoded.add(number)

    def run(self, chunks: Sequence[PrefillChunk]) -> list[Ran]:
        """Compute chunks in one pass; if it fails, half of them at a time.

        For lack of memory, caches are dropped first, steps become smaller, and a chunk alone is halved too.
        """
        if not chunks:
            return []
        try:
            logits_BK = self._forward(chunks)
        except Exception as error:  # of the model on any of these requests: whose it was is found by halving
            return self._halved(chunks, error)
        self._recover()
        return [Ran(chunk, row) for chunk, row in zip(chunks, logits_BK, strict=True)]

    def _halved(self, chunks: Sequence[PrefillChunk], error: Exception) -> list[Ran]:
        lacks_memory = self._note(error)
        if len(chunks) > 1:
            middle = len(chunks) // 2
            return self.run(chunks[:middle]) + self.run(chunks[middle:])
        chunk = chunks[0]
        if not lacks_memory or chunk.stop - chunk.start == 1:
            return [Ran(chunk, None, as_fault(error, _FAILED))]
        first, second = chunk.halves()
        ran = self.run([first])
        return ran if ran[-1].error else self.run([second])

    def _note(self, error: Exception) -> bool:
        """Count a fault. For lack of memory: drop caches, and make steps smaller."""
        self.faults += 1
        lacks_memory = is_out_of_memory(error)
        if lacks_memory:
            self.out_of_memory += 1
            self._quiet = 0
            self.images.image_cache.clear()
            self.scheduler.prefixes.clear()
            self.scheduler.budget = max(self.scheduler.budget // 2, 1)
        return lacks_memory

    def _recover(self) -> None:
        self._quiet += 1
        if self._quiet >= QUIET_STEPS:
            self._quiet = 0
            self.scheduler.budget = min(2 * self.scheduler.budget, self.scheduler.config.tokens_per_step)

    def _forward(self, chunks: Sequence[PrefillChunk]) -> Tensor:
        """Logits of the last token of each chunk: a row per chunk (B,K)."""
        documents = [chunk.answer.document for chunk in chunks if chunk.answer.document is not None]
        answers = ((one, one.answer) for one in chunks)
        inputs = self.images.of_pass(
            [PassPart(answer.owner.prompt, one.start, one.stop, answer.images.states) for one, answer in answers]
        )
        cache = self.store.begin(documents, inputs.images)
        output = self.model(self._batch(chunks, inputs.grids), output="last", cache=cache, visual_VD=inputs.visual_VD)
        assert output.logits is not None
        logits_BK: Tensor = output.logits
        return logits_BK

    def _batch(self, chunks: Sequence[PrefillChunk], grids: tuple[Grid, ...]) -> Batch:
        """The tokens of the chunks end to end. grids: of images whose visual tokens are not in the sequence."""
        device = self.model.device
        tokens: list[int] = []
        positions: list[int] = []
        places: list[int] = []
        for chunk in chunks:
            prompt = chunk.answer.owner.prompt
            low, high = prompt.visual_range(chunk.start, chunk.stop)
            places += [len(tokens) + place - chunk.start for place in prompt.places[low:high]]
            tokens += chunk.answer.tokens[chunk.start : chunk.stop]
            positions += range(chunk.start, chunk.stop)
        tokens_T = torch.tensor(tokens, device=device)
        none = torch.empty(0, dtype=torch.int64, device=device)
        return Batch(
            tokens_T=tokens_T,
            targets_T=torch.full_like(tokens_T, IGNORE_INDEX),
            positions_T=torch.tensor(positions, device=device),
            documents=SequenceLengths(tuple(chunk.stop - chunk.start for chunk in chunks)),
            patches_PC=torch.empty(0, self.model.config.vision.patch_width, dtype=torch.uint8, device=device),
            patch_positions_P=none,
            grids=grids,
            visual_positions_V=torch.tensor(places, dtype=torch.int64, device=device),
        )


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an exception says that memory ran out, on a GPU or in torch's allocator of a CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
