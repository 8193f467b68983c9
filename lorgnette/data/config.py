"""Settings of what is trained on: named sources and their weights."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from lorgnette.settings import Settings

QuestionKind = Literal["category", "colour", "count", "position"]


class SourceSettings(Settings):
    weight: float = pydantic.Field(default=1.0, gt=0)
    """Share of the samples relative to the other sources of the stage."""


class CaptionsConfig(SourceSettings):
    """The built-in drawings, each with a caption."""

    kind: Literal["captions"] = "captions"


class QuestionsConfig(SourceSettings):
    """Scenes composed of built-in drawings, with questions and short answers."""

    kind: Literal["questions"] = "questions"
    turns: int = pydantic.Field(default=1, ge=1)
    """Questions asked about one scene."""
    kinds: tuple[QuestionKind, ...] = ("category", "colour", "count", "position")
    size: int = pydantic.Field(default=128, ge=32)
    """Longest side of a scene, in pixels."""


class MessagesConfig(SourceSettings):
    """Your own conversations: a JSONL file, or a folder of them, with `messages` in each row."""

    kind: Literal["messages"] = "messages"
    path: str


SourceConfig = Annotated[CaptionsConfig | QuestionsConfig | MessagesConfig, pydantic.Field(discriminator="kind")]


class LoaderConfig(Settings):
    """How batches are made ready while the model computes. Changes nothing in what is trained on, or in which order."""

    workers: int = pydantic.Field(default=1, ge=0)
    prefetch: int = pydantic.Field(default=4, ge=1)
    """Steps made ready ahead by each worker."""
