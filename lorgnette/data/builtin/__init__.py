"""The built-in corpus: public-domain drawings, captions of them, and questions about scenes composed of them."""

from lorgnette.data.builtin.drawings import Drawing, Drawings, drawings
from lorgnette.data.builtin.questions import CATEGORIES, COLOURS, KINDS
from lorgnette.data.builtin.sources import CaptionSource, QuestionSource, questions_for_evaluation, tokenizer_texts

__all__ = [
    "CATEGORIES",
    "COLOURS",
    "KINDS",
    "CaptionSource",
    "Drawing",
    "Drawings",
    "QuestionSource",
    "drawings",
    "questions_for_evaluation",
    "tokenizer_texts",
]
