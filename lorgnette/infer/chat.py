"""A conversation in the terminal, images by path. It knows no terminal: lines come in, text goes out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

from lorgnette.errors import LorgnetteError
from lorgnette.files import expand_user
from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import Request, SamplingParams
from lorgnette.infer.generate import Generation
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.image_io import image_size
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Segment, Text, Turn
from lorgnette.untrusted import quoted

HELP = """\
/image PATH   show an image with your next words (as often as you like)
/reset        forget the conversation
/help         show this
/quit         leave (or press Ctrl-D)
Anything else is said to the model. A line that begins with // is said with one slash."""


class Chat:
    """A conversation so far. `ask` adds a question and its answer; a question that fails leaves nothing behind.

    The engine answers: what an earlier turn has computed of texts and pictures is not computed again.
    """

    def __init__(
        self, model: VLM, processor: Processor, settings: GenerationConfig | None = None, *, split: bool | None = None
    ) -> None:
        self.model, self.processor, self.split = model, processor, split
        self.engine = Engine(model, processor, EngineConfig())
        self.params = SamplingParams(**(settings or GenerationConfig()).model_dump(exclude_unset=True))
        self._names = map(str, itertools.count(1))
        self.segments: list[Segment] = []
        self.images: list[Image] = []
        """Images to be shown with the next question."""

    def reset(self) -> None:
        self.segments, self.images = [], []

    def show(self, path: str) -> str:
        """Put an image before the next question; its name and size. Raises: LorgnetteError if it is no image file."""
        file = expand_user(path.strip().strip("'\""))
        if not file.is_file():
            raise LorgnetteError(f"{file}: no such file")
        width, height = image_size(file, "image", self.processor.images.max_pixels)
        self.images.append(Image(file))
        return f"{quoted(file.name)}, {width} x {height} pixels"

    def ask(self, text: str, write: Callable[[str], None] = lambda piece: None) -> Generation:
        """Say something; `write` is given the answer piece by piece.

        Raises: ImageError if a shown image cannot be read; it is then no longer shown.
        """
        question = [*self.segments, Turn("user"), *self.images, Text(text)]
        self.images = []
        answer = self._answer(Request(next(self._names), Sample(tuple(question)), self.params, split=self.split), write)
        self.segments = [*question, Turn("assistant"), Text(answer.text)]
        return answer

    def _answer(self, request: Request, write: Callable[[str], None]) -> Generation:
        self.engine.add(request)
        try:
            while True:
                for event in self.engine.step():
                    if event.error is not None:
                        raise event.error
                    if event.text:
                        write(event.text)
                    if event.generation is not None:
                        return event.generation
        finally:
            self.engine.abort(request.id)  # where it was interrupted


def converse(
    chat: Chat, lines: Iterable[str], write: Callable[[str], None], draw: Callable[[Image], str] = lambda image: ""
) -> None:
    """Read lines until they end or one says `/quit`; write answers as they come, and errors as one line each.

    draw: makes text of an image that the terminal shows as a picture.
    """
    for line in lines:
        if line.strip() == "/quit":
            return
        try:
            _obey(chat, line.strip(), write, draw)
        except LorgnetteError as error:
            write(f"{error}\n")
        except KeyboardInterrupt:  # stops the answer, not the conversation
            write("\n")


def _obey(chat: Chat, line: str, write: Callable[[str], None], draw: Callable[[Image], str]) -> None:
    if not line:
        return
    if not line.startswith("/") or line.startswith("//"):
        chat.ask(line[1:] if line.startswith("//") else line, write)
        write("\n")
        return
    command, _, argument = line.partition(" ")
    if command == "/image":
        said = chat.show(argument)
        write(f"{draw(chat.images[-1])}{said}: to be shown with your next words\n")
    elif command == "/reset":
        chat.reset()
        write("forgotten\n")
    elif command == "/help":
        write(f"{HELP}\n")
    else:
        write(f"{command} is not a command; /help lists them, and //{line[1:]} says it to the model\n")
