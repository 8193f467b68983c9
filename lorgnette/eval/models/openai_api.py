"""A server of OpenAI's chat completions as a `Model`: vLLM, SGLang, llama.cpp, LM Studio, or one that is paid."""

from __future__ import annotations

import base64
import io
import logging
import re
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, NoReturn

import PIL.Image

from lorgnette.errors import SettingsError
from lorgnette.eval.image_checks import image_digest
from lorgnette.eval.models.base import Answer, Model, conversation, until_stop
from lorgnette.eval.models.http_client import Client, Declined, ServerError, ServerSettings
from lorgnette.inputs.image_io import image_bytes, open_image, plain_format
from lorgnette.sample import Image, ImageSource, Sample, Text
from lorgnette.untrusted import quoted

log = logging.getLogger("lorgnette")

MEDIA = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Formats that servers open."""

MOST_STOPS = 4
"""Stop strings that OpenAI's servers take. All of them are obeyed here."""
MOST_DECLINED = 4
"""Prompts that a server may decline before it answers its first one."""
OPTIONS = ("max_tokens", "temperature", "stop")
"""Request fields that are renamed or left out where a server does not know them."""
_UNSUPPORTED = re.compile(r"unsupported|not support|unrecogni[sz]ed|unexpected|not permitted|unknown", re.IGNORECASE)


class OpenAIModel(Model):
    """Asks a server, several prompts at once, greedily. A conversation is sent as it is, a document as one user's turn.

    A prompt that the server declines (by status 400, or a content filter) has an empty answer that says why.
    """

    def __init__(self, url: str, model: str, settings: ServerSettings | None = None) -> None:
        """url: up to `/v1`. Raises: SettingsError if a variable that the settings name holds no key."""
        self.model, self.identity = model, f"{url}#{model}"
        self.settings = settings or ServerSettings()
        self._client = Client(f"{url}/chat/completions", self.settings)
        self._without: set[str] = set()
        self._lock = threading.Lock()
        self._answered = self._declined = 0

    def generate(self, samples: Sequence[Sample], *, max_tokens: int, stop: Sequence[str] = ()) -> list[str]:
        """The answer to each prompt, in order. Tokens are the server's own.

        Raises: ServerError if the server cannot be reached or answers nothing; ImageError.
        """
        self._client.stopped.clear()
        pool = ThreadPoolExecutor(self.settings.concurrency)
        futures = [pool.submit(self._answer, sample, max_tokens, stop) for sample in samples]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()  # raises what one of them raised
            answers = [future.result() for future in futures]
        finally:
            self._client.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
        self._check(answers)
        return list[str](answers)

    def score(self, samples: Sequence[Sample], candidates: Sequence[Sequence[str]]) -> NoReturn:
        """Raises: SettingsError. Chat completions give no likelihood of a text that the server did not write."""
        raise SettingsError(f"{self.identity}: a server cannot score given answers; ask with --choices generation")

    def rendered_prompts(self, samples: Sequence[Sample]) -> list[str]:
        """The messages as they are sent; the server's own template is not known here."""
        return [messages_written(sample) for sample in samples]

    def _answer(self, sample: Sample, max_tokens: int, stop: Sequence[str]) -> Answer:
        request = {"model": self.model, "messages": chat_messages(sample)}
        while True:
            options = self._options(max_tokens, stop)
            try:
                return _read(self._client.post(request | options), stop)
            except Declined as declined:
                if not self._adapted(declined, options):
                    return Answer("", declined=str(declined))

    def _options(self, max_tokens: int, stop: Sequence[str]) -> dict[str, Any]:
        limit = "max_completion_tokens" if "max_tokens" in self._without else "max_tokens"
        options: dict[str, Any] = {limit: max_tokens, "temperature": 0}
        options |= {"stop": list(stop[:MOST_STOPS])} if stop else {}
        return {name: value for name, value in options.items() if name not in self._without}

    def _adapted(self, declined: Declined, options: dict[str, Any]) -> bool:
        """Return whether the server complains of an option that is then no longer sent."""
        said = str(declined)
        if not _UNSUPPORTED.search(said):
            return False
        named = [name for name in OPTIONS if name == declined.option or re.search(rf"\b{name}\b", said)]
        wrong = next((name for name in named if name in options), None)
        if wrong is None:
            return False
        with self._lock:
            if wrong not in self._without and wrong == "temperature":
                log.warning("%s takes no temperature, so its answers may vary from run to run", self.identity)
            self._without.add(wrong)
        return True

    def _check(self, answers: Sequence[Answer]) -> None:
        """Raises: ServerError if nothing was ever answered: then it is not the prompts."""
        reasons = [answer.declined for answer in answers if answer.declined]
        self._declined += len(reasons)
        self._answered += len(answers) - len(reasons)
        if not self._answered and self._declined >= MOST_DECLINED:
            raise ServerError(f"{self.identity}: declines all that it is asked: {reasons[-1]}")


def _read(reply: dict[str, Any], stop: Sequence[str]) -> Answer:
    """The answer in a reply, up to the first stop string."""
    by = " ".join(str(reply[key]) for key in ("model", "system_fingerprint") if reply.get(key))
    choice: dict[str, Any] = next(iter(reply["choices"]), {})
    message = choice.get("message")
    message = message if isinstance(message, dict) else {}
    text, thought = _text(message.get("content")), _thought(message)
    declined = _declined(choice, message, text)
    if declined or text:
        return Answer("" if declined else until_stop(text, stop), by=by, declined=declined)
    if thought and choice.get("finish_reason") == "length":
        text = f"<think>{thought}"  # a server that keeps thoughts apart: this one was cut off before any answer
    elif thought:
        declined = "it says all as a thought (reasoning_content) and nothing behind it; see its reasoning parser"
    return Answer(text, by=by, declined=declined)


def _declined(choice: dict[str, Any], message: dict[str, Any], text: str) -> str:
    """Return why a reply holds no answer; empty if it holds one, be it an empty text."""
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    refusals = [message.get("refusal"), *(part.get("refusal") for part in parts)]
    if choice.get("finish_reason") == "content_filter":
        return "its content filter"
    if not message:
        return "its reply holds no message"
    if text:
        return ""
    if any(refusals):
        return f"it refuses: {quoted(str(next(filter(None, refusals))))}"
    if message.get("tool_calls") or message.get("function_call"):
        return "it calls a tool in place of an answer"
    if content is not None and not isinstance(content, str | list):
        return f"its answer is no text: {quoted(str(content))}"
    return ""


THOUGHTS = ("thinking", "reasoning", "reasoning_text", "redacted_thinking")
"""Types of the parts of a message that hold no answer."""


def _text(content: Any) -> str:
    """The text of a message: a string, or a list of parts, of which thoughts are none."""
    if isinstance(content, list):
        told = [part for part in content if not (isinstance(part, dict) and part.get("type") in THOUGHTS)]
        parts = [part.get("text") if isinstance(part, dict) else part for part in told]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _thought(message: dict[str, Any]) -> str:
    """The text of a thought that a server keeps apart from the answer."""
    apart = _text(message.get("reasoning_content") or message.get("reasoning"))
    content = message.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    parts = [part for part in parts if part.get("type") in THOUGHTS]
    return apart or "".join(_text(part.get("thinking")) or _text(part.get("text")) for part in parts)


def chat_messages(sample: Sample) -> list[dict[str, Any]]:
    """The messages of OpenAI's chat completions. A turn of text alone is a plain string, which every server takes.

    Raises: ImageError naming the sample and image.
    """
    numbers = iter(range(1, len(sample.images) + 1))

    def part(content: Text | Image) -> dict[str, Any]:
        if isinstance(content, Text):
            return {"type": "text", "text": content.text}
        url = image_url(content.source, f"{sample.name}, image {next(numbers)}")
        return {"type": "image_url", "image_url": {"url": url}}

    return [
        {"role": role, "content": _plain(contents) or [part(content) for content in contents]}
        for role, contents in conversation(sample)
    ]


def _plain(contents: Sequence[Text | Image]) -> str:
    """The text, if that is all."""
    return contents[0].text if len(contents) == 1 and isinstance(contents[0], Text) else ""


def messages_written(sample: Sample) -> str:
    """The messages for the record: a line for each turn, an image as `[image DIGEST]`."""
    named = (
        (role, (f"[image {image_digest(one.source)}]" if isinstance(one, Image) else one.text for one in contents))
        for role, contents in conversation(sample)
    )
    return "\n".join(f"{role}: {''.join(parts)}" for role, parts in named)


def image_url(source: ImageSource, name: str = "image") -> str:
    """An image for a server: a link stays a link, all else becomes a `data:` URL.

    The file is sent as it is if it is an upright and opaque PNG, JPEG or WebP of eight bits, of which everybody makes
    the same picture; any other one is sent as the PNG of the pixels that our own models see.

    Raises: ImageError naming it.
    """
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return source
    content = source if isinstance(source, PIL.Image.Image) else image_bytes(source, name)
    media = MEDIA.get(plain_format(content)) if isinstance(content, bytes) else None
    if media is None:
        file = io.BytesIO()
        open_image(content, name).save(file, "PNG")
        media, content = MEDIA["PNG"], file.getvalue()
    assert isinstance(content, bytes)
    return f"data:{media};base64,{base64.b64encode(content).decode()}"
