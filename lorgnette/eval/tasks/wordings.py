"""Wordings that several benchmarks share.

`paper`: for conversations, how the authors had Idefics2 asked (their contribution to VLMEvalKit) and taught it (the
hints and letters of The Cauldron); the documents of the few-shot tables are not published, and ours are in the manner
of Idefics1's. `lmms-eval` and `vlmevalkit`: what these harnesses ask a model that they know nothing special about.
"""

from __future__ import annotations

from lorgnette.eval.benchmark import Variant
from lorgnette.eval.wording import Wording

BRIEF = Wording("{question}\nGive a very brief answer.")
PHRASE = Wording("{question}\nAnswer the question using a single word or phrase.")
SHORT_ANSWER: dict[Variant, Wording] = {"paper": BRIEF, "lmms-eval": PHRASE, "vlmevalkit": PHRASE}
"""Questions with a short answer."""

LETTER_TAUGHT = Wording(
    "Question: {question}\n{hint}Choices:\n{options}\nAnswer with the letter.", letter="Answer: {answer}"
)
"""As The Cauldron asks multiple-choice questions: the answer taught is `Answer: B`."""
LETTER_DIRECTLY = Wording("{question}\n{options}\nAnswer with the option's letter from the given choices directly.")
LETTER_ABOVE = Wording(
    "{hint}Question: {question}\nOptions:\n{options}\nPlease select the correct answer from the options above."
)
CHOICE: dict[Variant, Wording] = {
    "paper": LETTER_TAUGHT,
    "lmms-eval": LETTER_DIRECTLY,
    "vlmevalkit": LETTER_ABOVE,
}
"""Multiple choice."""

QUESTION_BASE = Wording(
    "Question: {question} Answer:",
    instruction="Instruction: provide an answer to the question. Use the image to answer.\n",
)
CHOICE_BASE = Wording(
    "Question: {question}\n{hint}Choices:\n{options}\nAnswer:",
    instruction="Instruction: answer the question with the letter of a choice. Use the image to answer.\n",
)
CAPTION_BASE = Wording("Caption:", instruction="Instruction: provide a short caption of the image.\n")
