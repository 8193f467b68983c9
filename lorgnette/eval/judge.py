"""A language model as a judge: it reads the final answer out of texts in which the rules find none.

Any `Answerer` can judge, so also one behind an OpenAI-style server. What it reads is stored beside the raw answer:
scoring again needs no judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorgnette.eval.answerer import Answerer
from lorgnette.eval.metrics.mathvista import extract
from lorgnette.eval.results import Example, Result, ResultsFolder
from lorgnette.eval.results import judge as score
from lorgnette.sample import Sample, Text, Turn

ASK = """\
Below are a question and a response to it. Write the final answer that the response gives, and nothing else: the letter
of a choice, a number, or a list. Write "none" if it gives none.

Question: {question}

Response: {answer}

Final answer:"""
MOST_TOKENS = 32


def extracted(examples: Sequence[Example], judge: Answerer) -> list[Example]:
    """The examples, with what the judge read where `extract` finds nothing. Those that were judged before stay."""
    doubtful = [one for one in examples if one.extracted is None and extract(one.answer, one.truth) is None]
    asked = [Sample((Turn("user"), Text(_request(one))), {"name": one.name}) for one in doubtful]
    said = judge.generate(asked, max_tokens=MOST_TOKENS) if asked else []
    read = {one.index: text.strip() for one, text in zip(doubtful, said, strict=True)}
    return [replace(one, extracted=read[one.index]) if one.index in read else one for one in examples]


def _request(example: Example) -> str:
    return ASK.format(question=example.question.replace("[image]", "").strip(), answer=example.answer.strip())


def judged(result: Result, judge: Answerer, folder: str | Path | None = None) -> Result:
    """The result with doubtful answers read by the judge, and scored anew; written to `folder`, if there is one."""
    again = score(result.settings, extracted(result.examples, judge), result.refused)
    if folder is not None:
        ResultsFolder(folder).finish(again)
    return again
