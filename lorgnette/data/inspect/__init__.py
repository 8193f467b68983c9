"""Seeing what will be trained on: the documents of a step as the model gets them, in a page and in the terminal."""

from lorgnette.data.inspect.first_samples import first_samples, source_config
from lorgnette.data.inspect.gather import Gatherer, rules, shares
from lorgnette.data.inspect.page import write_page
from lorgnette.data.inspect.preview import Document, Pack, Preview, Share
from lorgnette.data.inspect.terminal import print_preview
from lorgnette.data.inspect.token_text import TokenDecoder

__all__ = [
    "Document",
    "Gatherer",
    "Pack",
    "Preview",
    "Share",
    "TokenDecoder",
    "first_samples",
    "print_preview",
    "rules",
    "shares",
    "source_config",
    "write_page",
]
