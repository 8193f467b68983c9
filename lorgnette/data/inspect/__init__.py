"""Seeing what will be trained on: the documents of a step as the model gets them, in a page and in the terminal."""

from lorgnette.data.inspect.gather import Gatherer, rules, shares
from lorgnette.data.inspect.look import Document, Look, Pack, Share
from lorgnette.data.inspect.page import write_page
from lorgnette.data.inspect.rows import first_samples, source_config
from lorgnette.data.inspect.terminal import print_look
from lorgnette.data.inspect.text import Speller

__all__ = [
    "Document",
    "Gatherer",
    "Look",
    "Pack",
    "Share",
    "Speller",
    "first_samples",
    "print_look",
    "rules",
    "shares",
    "source_config",
    "write_page",
]
