"""The images of one answer: which of them its next tokens need, and what has been encoded of them."""

from __future__ import annotations

from lorgnette.infer.engine.image_inputs import ImageInputs, ImageState
from lorgnette.infer.engine.prompt import Prompt
from lorgnette.infer.image_cache import ImageRef


class AnswerImages:
    """Images of an answer, by their numbers in its prompt. Room for all is taken when the answer is admitted."""

    def __init__(self, prompt: Prompt, inputs: ImageInputs) -> None:
        self.prompt, self.inputs = prompt, inputs
        self.states: dict[int, ImageState] = {}
        """Those that have been encoded and are still needed."""
        self.held: set[str] = set()
        """Keys of those for which room is taken."""

    def take(self) -> bool:
        """Take room for all images of the prompt; False if there is not enough."""
        taken = self.inputs.take(self.prompt)
        if taken:
            self.held = {image.key for image in self.prompt.images}
        return taken

    def clear(self) -> None:
        """Let go of all."""
        self.inputs.give(self.held)
        self.held = set()
        self.states.clear()

    def needed(self, start: int, stop: int) -> list[int]:
        """Images that the tokens from `start` up to `stop` read."""
        images = [*self.prompt.images_seen(start), *self.prompt.images_within(start, stop)]
        return list(dict.fromkeys(number for number, _, _ in images))

    def missing(self, start: int) -> list[ImageRef]:
        """Images that the tokens from `start` on read, and that are not encoded."""
        numbers = self.needed(start, len(self.prompt.tokens))
        return [self.prompt.images[number] for number in numbers if number not in self.states]

    def first_missing(self, start: int, stop: int) -> int:
        """Place of the first token from `start` on that reads an image which is not encoded; `stop` if none does."""
        if any(number not in self.states for number, _, _ in self.prompt.images_seen(start)):
            return start
        wanted = self.prompt.images_within(start, stop)
        missing = (number for number, _, _ in wanted if number not in self.states)
        return max(next((self.prompt.start_of(number) for number in missing), stop), start)

    def advance(self, computed: int) -> None:
        """Let go of what no token from `computed` on reads."""
        if not self.prompt.places or (not self.held and not self.states):
            return
        needed = self.needed(computed, len(self.prompt.tokens))
        for number in [one for one in self.states if one not in needed]:
            del self.states[number]
        passed = self.held - {self.prompt.images[number].key for number in needed}
        self.inputs.give(passed)
        self.held -= passed

    def share(self, other: AnswerImages) -> None:
        """Let another answer to the same prompt see the same."""
        self.inputs.take_again(self.held)
        other.states, other.held = dict(self.states), set(self.held)
