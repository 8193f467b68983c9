"""`POST /v1/look`: where in its pictures an answer came from, word by word, with a check on the map.

The model is passed over in small parts between two steps of the engine, so that answers go on meanwhile.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.prompt import prepare
from lorgnette.infer.engine.request import Request as EngineRequest
from lorgnette.infer.engine.request import SamplingParams
from lorgnette.infer.generate import Generation, check_length
from lorgnette.inputs.processor import Processor
from lorgnette.look.look import LookJob, Measured, answer_tokens, blind_sentence
from lorgnette.look.scene_check import other_pictures
from lorgnette.look.steps import Steps
from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.api.protocol import LookRequest
from lorgnette.serve.api.replies import LookMap, LookReply, LookWord
from lorgnette.serve.chat_route import ChatRoutes
from lorgnette.serve.http.event_stream import ClientGone, unless_gone

MAP_SIDE = 32
"""Numbers along the longer side of a map."""
PASS_WORK = 512, 1024
"""Text tokens and patches computed between two steps of the engine; one variant of the picture may have more."""
MOST_IMAGES, MOST_WORDS, MOST_ANSWER_TOKENS, MOST_WAITING = 4, 64, 256, 4
"""Bounds of one request, and of requests that wait for the one at work."""
_Result = TypeVar("_Result")


class LookRoute:
    """Maps for one request at a time."""

    def __init__(self, chat: ChatRoutes, engine: Engine) -> None:
        self.chat, self.thread = chat, chat.thread
        self.model, self.processor = engine.model, engine.processor
        self._turn, self._waiting = asyncio.Lock(), 0

    async def look(self, request: Request) -> Response:
        """Answer one request. It is given up when its client goes away."""
        try:
            body = await self.chat.bodies.read(request)
            try:
                asked, wanted = await self.chat.read(request, body, LookRequest)
                reply = await unless_gone(request.receive, self._in_turn(asked, wanted))
            finally:
                body.release()
        except ClientGone:
            return Response(status_code=499)
        return JSONResponse(reply.model_dump())

    async def _in_turn(self, asked: LookRequest, wanted: EngineRequest) -> LookReply:
        images = len(wanted.sample.images)
        if not 0 < images <= MOST_IMAGES:
            said = f"messages: show 1 to {MOST_IMAGES} images to look at; there are {images}"
            raise ApiError(400, said, param="messages")
        if self._waiting > MOST_WAITING:
            raise ApiError(
                429, f"{MOST_WAITING} requests wait for their maps already; try again later", code="too_many"
            )
        self._waiting += 1
        try:
            async with self._turn:
                return await self._look(asked, wanted)
        finally:
            self._waiting -= 1

    async def _look(self, asked: LookRequest, wanted: EngineRequest) -> LookReply:
        # what is too long is said before an image is decoded
        await self.thread.call(lambda engine: prepare(wanted, engine.image_cache))
        processor = self._processor(wanted.split)
        tokens = await self._tokens(asked, wanted, processor)
        job = await self._aside(
            lambda: LookJob(self.model, processor, wanted.sample, tokens, side=MAP_SIDE, work=PASS_WORK)
        )
        check_length(self.model.config.language, wanted.sample.name, len(job.occluder.batch.tokens_T))
        steps = job.steps(others=await self._aside(other_pictures))
        measured: Measured | None = None
        while measured is None:
            measured = await self.thread.call(lambda engine: _advance(steps))
        done = measured
        return await self._aside(lambda: _reply(self.chat.config.name, job, done))

    async def _aside(self, function: Callable[[], _Result]) -> _Result:
        """Call a function in the threads that read images."""
        return await asyncio.get_running_loop().run_in_executor(self.chat.pool, function)

    def _processor(self, split: bool | None) -> Processor:
        """The processor, with images in crops or whole as the request says."""
        if split is None:
            return self.processor
        return dataclasses.replace(self.processor, images=self.processor.images.model_copy(update={"split": split}))

    async def _tokens(self, asked: LookRequest, wanted: EngineRequest, processor: Processor) -> tuple[int, ...]:
        """Tokens of the answer that is looked up: the given one, or the model's own."""
        if asked.answer is None:
            own = await self._own_answer(dataclasses.replace(wanted, params=_greedy(asked.max_tokens)))
            ended = own.finish == "stop" and len(own.tokens) > 1
            return own.tokens[:-1] if ended else own.tokens
        text = asked.answer
        tokens = await self._aside(lambda: answer_tokens(self.model, processor, wanted.sample, text, 1))
        if not 0 < len(tokens) <= MOST_ANSWER_TOKENS:
            said = f"answer: has {len(tokens)} tokens; give a text of 1 to {MOST_ANSWER_TOKENS}"
            raise ApiError(400, said, param="answer")
        return tokens

    async def _own_answer(self, wanted: EngineRequest) -> Generation:
        _, channel = await self.thread.open(wanted)
        try:
            while True:
                for event in await channel.read():
                    if event.error is not None:
                        raise event.error
                    if event.generation is not None:
                        return event.generation
        finally:
            self.thread.close_channel(wanted.id)


def _greedy(most: int | None) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=min(most or MOST_WORDS, MOST_ANSWER_TOKENS))


def _advance(steps: Steps[Measured]) -> Measured | None:
    """One pass of the model; the results after the last one."""
    try:
        next(steps)
        return None
    except StopIteration as end:
        measured: Measured = end.value
        return measured


def _reply(model: str, job: LookJob, measured: Measured) -> LookReply:
    found = measured.faithfulness
    assert measured.blind is not None  # there are other pictures
    words = job.words(measured)
    return LookReply(
        object="look",
        model=model,
        answer=job.processor.tokenizer.decode(list(job.tokens)).strip(),
        says_something=found.says_something,
        gain=round(found.gain, 4),
        interval=[round(one, 4) for one in found.interval],
        sentence=found.sentence,
        blind=round(measured.blind, 4),
        blind_sentence=blind_sentence(measured.blind),
        removes_patches=job.occluder.removes,
        maps=[_map(one) for one in job.whole(measured)],
        words=[
            LookWord(text=one.text, logprob=round(one.logprob, 4), maps=[_map(heat) for heat in one.heats])
            for one in words[:MOST_WORDS]
        ],
    )


def _map(heat_HW: np.ndarray) -> LookMap:
    return LookMap(width=heat_HW.shape[1], height=heat_HW.shape[0], values=np.round(heat_HW, 4).ravel().tolist())
