"""Samples as the messages that chat templates and servers take."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

import PIL.Image

from lorgnette.eval.pictures import image_digest
from lorgnette.inputs.image_io import image_bytes, open_image, plain_format
from lorgnette.inputs.template import turns
from lorgnette.sample import Image, ImageSource, Sample, Text, Turn

MEDIA = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Formats that servers open."""


def conversation(sample: Sample) -> list[tuple[str, list[Text | Image]]]:
    """Each turn: its role, and its contents with neighbouring texts joined. A document is one turn of the user."""
    if sample.is_chat:
        return [(role, _joined(contents)) for role, contents in turns(sample)]
    return [("user", _joined(one for one in sample.segments if not isinstance(one, Turn)))]


def _joined(contents: Iterable[Text | Image]) -> list[Text | Image]:
    joined: list[Text | Image] = []
    for content in contents:
        if isinstance(content, Text) and joined and isinstance(joined[-1], Text):
            joined[-1] = Text(joined[-1].text + content.text)
        else:
            joined.append(content)
    return joined


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
