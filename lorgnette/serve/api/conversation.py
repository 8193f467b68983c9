"""From the messages of a request to a `Sample`. Structure comes from roles and parts, never from text."""

from __future__ import annotations

from collections.abc import Iterator

from lorgnette.errors import DataError
from lorgnette.inputs.processor import Processor
from lorgnette.sample import OTHER_NAMES, Image, Sample, Segment, Text, Turn
from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.api.protocol import ChatMessage, Conversation, ImagePart
from lorgnette.serve.config import ServeConfig
from lorgnette.serve.http.request_images import ImageReader

CHECKED = 16_384
"""Characters beyond which a text is counted in tokens before the engine sees it."""


def read_sample(asked: Conversation, config: ServeConfig, processor: Processor, longest: int) -> Sample:
    """The messages of a request as a sample, its images decoded from base64 or fetched. Slow: not for an event loop.

    longest: tokens that a prompt may have. Raises: ApiError 400 naming the field.
    """
    reader = ImageReader(config)
    segments: list[Segment] = []
    for number, message in enumerate(asked.messages):
        segments.append(Turn(OTHER_NAMES.get(message.role, message.role)))
        segments += _segments(message, f"messages[{number}].content", reader)
    sample = Sample(tuple(segments), {"name": "the request"})
    _check_length(sample, processor, longest)
    return sample


def _segments(message: ChatMessage, where: str, reader: ImageReader) -> Iterator[Segment]:
    if isinstance(message.content, str):
        yield Text(message.content)
        return
    for number, part in enumerate(message.content or ()):
        if isinstance(part, ImagePart):
            yield Image(reader.read(part.image_url.url, f"{where}[{number}].image_url"))
        else:
            yield Text(part.text)


def _check_length(sample: Sample, processor: Processor, longest: int) -> None:
    """Refuse a long text here, in its own thread: the engine would stand still while it counted the tokens."""
    total = 0
    for text in (segment.text for segment in sample.segments if isinstance(segment, Text)):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ApiError(400, "messages: a text holds half of a surrogate pair", param="messages") from None
        if len(text) <= CHECKED:
            continue
        try:
            total += len(processor.tokenizer.encode(text))
        except DataError:
            raise ApiError(400, "messages: a text cannot be written as tokens", param="messages") from None
        if total > longest:
            said = f"messages: the text alone exceeds the {longest:,} tokens of the model; shorten it"
            raise ApiError(400, said, param="messages", code="context_length_exceeded")


def split_of(asked: Conversation) -> bool | None:
    """Images in crops or whole, by their `detail`; None for the model's own setting.

    Raises: ApiError 400 for images that ask for different things: an answer has one setting.
    """
    parts = [part for message in asked.messages if isinstance(message.content, list) for part in message.content]
    wanted = {_split(part.image_url.detail) for part in parts if isinstance(part, ImagePart)}
    if len(wanted) > 1:
        raise ApiError(400, "messages: images of one request have the same detail", param="messages")
    return wanted.pop() if wanted else None


def _split(detail: str | None) -> bool | None:
    return {"low": False, "high": True}.get(detail or "")
