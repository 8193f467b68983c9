"""The client that users have, against a server on this machine."""

from __future__ import annotations

import asyncio
from typing import Literal

import openai
import pydantic
import pytest

from tests.serve.running import Running, png, shown

MESSAGES = [{"role": "user", "content": "what colour is the cat?"}]


@pytest.fixture(scope="module")
def client(tiny: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tiny.address}/v1", api_key="none", max_retries=0)


class Answer(pydantic.BaseModel):
    colour: Literal["red", "blue"]
    bright: bool


def test_completions_and_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "lorgnette"
    reply = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=8, n=2, temperature=1, seed=1)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.usage.prompt_tokens_details.cached_tokens >= 0
    assert reply.choices[0].message.refusal is None


def test_an_image(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(model="tiny", **shown("what?", png()))
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_with_usage_and_log_probabilities(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=8, logprobs=True)
    stream = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=8,
        logprobs=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage or chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    listed = [one for chunk in chunks for choice in chunk.choices if choice.logprobs for one in choice.logprobs.content]
    assert [one.logprob for one in listed] == pytest.approx([one.logprob for one in whole.choices[0].logprobs.content])


def test_parse_with_a_schema(client: openai.OpenAI) -> None:
    reply = client.chat.completions.parse(model="tiny", messages=MESSAGES, max_tokens=60, response_format=Answer)
    assert reply.choices[0].message.parsed.colour in ("red", "blue")
    assert reply.choices[0].finish_reason == "stop"


def test_the_errors_that_the_client_raises(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny", messages=MESSAGES, temperature=3)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=MESSAGES, tools=[{"type": "function", "function": {}}])


def test_many_at_once_with_the_asynchronous_client(tiny: Running) -> None:
    async def ask(client: openai.AsyncOpenAI, number: int) -> str:
        messages = [{"role": "user", "content": f"the cat sat {number % 4}"}]
        if number % 2:
            stream = await client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        reply = await client.chat.completions.create(model="tiny", messages=messages, max_tokens=12)
        return reply.choices[0].message.content or ""

    async def run() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{tiny.address}/v1", api_key="none", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(12)))

    answers = asyncio.run(run())
    alone = [
        tiny.ask({"messages": [{"role": "user", "content": f"the cat sat {number}"}], "max_tokens": 12})[2]
        for number in range(4)
    ]
    expected = [one["choices"][0]["message"]["content"] for one in alone]
    assert answers == [expected[number % 4] for number in range(12)]


def test_bad_requests_touch_no_other(tiny: Running) -> None:
    """Damaged images, wrong fields and clients that go away stand among good requests, all at once."""
    whole = png(60, 60)
    good = [shown("what colour?", png(40, 60, seed)) for seed in range(4)]
    expected = [tiny.ask(one)[2]["choices"] for one in good]

    async def ask(client: openai.AsyncOpenAI, number: int) -> object:
        if number % 4 == 1:
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(model="tiny", **shown("what?", whole[: 40 * number]))
        elif number % 4 == 3:
            stream = await client.chat.completions.create(
                model="tiny", messages=MESSAGES, max_tokens=600, stream=True, extra_body={"ignore_eos": True}
            )
            await stream.close()
        else:
            reply = await client.chat.completions.create(model="tiny", **good[number // 2 % 4])
            return reply.choices[0].message.content
        return None

    async def run() -> list[object]:
        async with openai.AsyncOpenAI(base_url=f"{tiny.address}/v1", api_key="none", max_retries=4) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(24)))

    answers = asyncio.run(run())
    for number in range(0, 24, 2):
        assert answers[number] == expected[number // 2 % 4][0]["message"]["content"]
    assert tiny.engine.stats().faults == 0
