"""Structured output: JSON schemas as masks over tokens, by llguidance. It bounds what a schema may cost.

A schema is compiled outside of the event loop and of the engine: an enum of 20,000 values takes a third of a second.
"""

from __future__ import annotations

import json
from typing import Any, Self

import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from lorgnette.errors import DataError
from lorgnette.infer.generate import end_tokens
from lorgnette.inputs.processor import Processor
from lorgnette.serve.api.api_errors import ApiError
from lorgnette.serve.api.protocol import MAX_SCHEMA, ResponseFormat
from lorgnette.untrusted import quoted

ANY_OBJECT = {"type": "object"}
"""Schema of `json_object`."""
STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""Form of the JSON: a model that may write any amount of white space may write nothing else."""


class GrammarCompiler:
    """Compiles the forms that requests ask for, for one tokenizer."""

    def __init__(self, processor: Processor, vocabulary: int) -> None:
        """vocabulary: rows of the logits."""
        ends = sorted(end_tokens(processor))
        self._tokenizer = LLTokenizer(processor.tokenizer.to_json(), n_vocab=vocabulary, eos_token=ends)

    def compile(self, wanted: ResponseFormat | None) -> JsonConstraint | None:
        """The grammar of an answer; None where any text will do.

        Raises: ApiError 400 naming the schema and what is wrong with it.
        """
        if wanted is None or wanted.type == "text":
            return None
        schema = wanted.json_schema.schema_ if wanted.json_schema is not None else ANY_OBJECT
        text = json.dumps(schema)
        if len(text) > MAX_SCHEMA:
            raise _refused(f"the schema exceeds {MAX_SCHEMA >> 10} KiB; make it shorter")
        try:
            grammar = LLMatcher.grammar_from_json_schema(text, overrides=STYLE)
        except ValueError as error:
            raise _refused(f"the schema cannot be used ({quoted(str(error))})") from None
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise _refused(f"the schema cannot be used ({quoted(matcher.get_error().splitlines()[0])})")
        return JsonConstraint(matcher)


def _refused(message: str) -> ApiError:
    param = "response_format.json_schema.schema"
    return ApiError(400, f"{param}: {message}", param=param, code="invalid_schema")


class JsonConstraint:
    """State of a grammar within one answer: a `Constraint` of the engine."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def allowed(self) -> Tensor:
        """The tokens that may come next (K, bool)."""
        mask = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8) != 0
        self._check()
        return mask

    def accept(self, token: int) -> None:
        """Advance by a token."""
        self._matcher.consume_token(token)
        self._check()

    @property
    def finished(self) -> bool:
        """Return whether nothing may follow."""
        return self._matcher.is_stopped()

    def copy(self) -> Self:
        """An equal state of its own."""
        return type(self)(self._matcher.deep_copy())

    def _check(self) -> None:
        """Raises: DataError if a limit of the library was reached."""
        if self._matcher.is_error():
            raise DataError("response_format: the schema is too complex to be followed; make it simpler")
