"""A conversation in the terminal, images by path. It knows no terminal: lines come in, text goes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lorgnette.errors import LorgnetteError
from lorgnette.files import expand_user
from lorgnette.infer.generate import Generation, stream
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.inputs.processor import Processor
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Segment, Text, Turn

HELP = """\
/image PATH   show an image with your next words (as often as you like)
/reset        forget the conversation
/help         show this
/quit         leave (or press Ctrl-D)
Anything else is said to the model. A line that begins with // is said with one slash."""


class Chat:
    """A conversation so far. `ask` adds a question and its answer; a question that fails leaves nothing behind."""

    def __init__(
        self, model: VLM, processor: Processor, settings: GenerationConfig | None = None, *, split: bool | None = None
    ) -> None:
        self.model, self.processor, self.split = model, processor, split
        self.settings = settings or GenerationConfig()
        self.segments: list[Segment] = []
        self.images: list[Image] = []
        """Images to be shown with the next question."""

    def reset(self) -> None:
        self.segments, self.images = [], []

    def show(self, path: str) -> None:
        """Put an image before the next question. Raises: LorgnetteError if there is no such file."""
        file = expand_user(path.strip().strip("'\""))
        if not file.is_file():
            raise LorgnetteError(f"{file}: no such file")
        self.images.append(Image(file))

    def ask(self, text: str, write: Callable[[str], None] = lambda piece: None) -> Generation:
        """Say something; `write` is given the answer piece by piece.

        Raises: ImageError if a shown image cannot be read; it is then no longer shown.
        """
        question = [*self.segments, Turn("user"), *self.images, Text(text)]
        self.images = []
        answer = None
        for piece in stream(self.model, self.processor, [Sample(tuple(question))], self.settings, split=self.split):
            write(piece.text)
            answer = piece.generation
        assert answer is not None  # a stream ends with its answer
        self.segments = [*question, Turn("assistant"), Text(answer.text)]
        return answer


def converse(chat: Chat, lines: Iterable[str], write: Callable[[str], None]) -> None:
    """Read lines until they end or one says `/quit`; write answers as they come, and errors as one line each."""
    for line in lines:
        if line.strip() == "/quit":
            return
        try:
            _obey(chat, line.strip(), write)
        except LorgnetteError as error:
            write(f"{error}\n")
        except KeyboardInterrupt:  # stops the answer, not the conversation
            write("\n")


def _obey(chat: Chat, line: str, write: Callable[[str], None]) -> None:
    if not line:
        return
    if not line.startswith("/") or line.startswith("//"):
        chat.ask(line[1:] if line.startswith("//") else line, write)
        write("\n")
        return
    command, _, argument = line.partition(" ")
    if command == "/image":
        chat.show(argument)
        write(f"{len(chat.images)} to be shown with your next words\n")
    elif command == "/reset":
        chat.reset()
        write("forgotten\n")
    elif command == "/help":
        write(f"{HELP}\n")
    else:
        write(f"{command} is not a command; /help lists them, and //{line[1:]} says it to the model\n")
