"""Answers of reasoning models: the thought before the answer is cut off before anything is scored.

Nothing is cut from what is stored, so that scoring again sees the raw text, whoever answered.
"""

from __future__ import annotations

import re
from typing import NamedTuple

THOUGHT_MARKS = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, QwQ, GLM and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ("◁think▷", "◁/think▷"),  # Kimi-VL
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<unused94>thought", "<unused95>"),  # MedGemma
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
)
"""Tags that open and close a reasoning section. The chat template may already have written the opening one."""
_TAG = re.compile(r"<(/?)([\w:]+)>")


def _pattern(mark: str) -> str:
    """A mark as models write it: a tag may have attributes, spaces before its end, and be escaped as HTML."""
    tag = _TAG.fullmatch(mark)
    if not tag or mark == "<unused95>":
        return re.escape(mark)
    return rf"(?:<|&lt;)\s?{tag[1]}\s?{re.escape(tag[2])}(?:\s[^<>&]{{0,200}})?(?:>|&gt;)"


_OPEN = re.compile("|".join(_pattern(opening) for opening, _ in THOUGHT_MARKS), re.IGNORECASE)
_CLOSE = re.compile("|".join(_pattern(closing) for _, closing in THOUGHT_MARKS), re.IGNORECASE)
_AROUND = (
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|begin_of_box|>", "<|end_of_box|>"),  # GLM-4.1V
    ("<answer>", "</answer>"),  # DeepSeek-R1's prompt
    ("<conclusion>", "</conclusion>"),  # LLaVA-CoT
    ("<|start_response|>", "<|end_response|>"),  # Command A
    ("", "<|return|>"),
    ("", "<|end|>"),
)
"""Tags that may enclose the answer after the reasoning, in lower case; the closing one may be cut off."""


class Cut(NamedTuple):
    """An answer without the thought before it."""

    answer: str
    unclosed: bool = False
    """True if the text ends within its reasoning, so that there is no answer."""


def cut_thought(text: str) -> Cut:
    """The answer behind the last closed thought, or the text as it is where there is no thought.

    A thought that is opened and never closed reaches to the end: the answer is what stands before it, mostly nothing.
    """
    closings = list(_CLOSE.finditer(text))
    answer = text[closings[-1].end() :] if closings else text
    opening = _OPEN.search(answer)
    if opening:
        before = answer[: opening.start()].strip()
        return Cut(before, unclosed=not before)
    return Cut(_unwrapped(answer.strip())) if closings else Cut(text)


def _unwrapped(answer: str) -> str:
    for opening, closing in _AROUND:
        if answer.lower().startswith(opening):
            end = len(answer) - len(closing) if answer.lower().endswith(closing) else len(answer)
            answer = answer[len(opening) : end].strip()
    return answer
