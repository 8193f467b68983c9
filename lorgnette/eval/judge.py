"""A language model as a judge: it reads the final answer out of texts in which the rules find none.

Any `Model` can judge, so also one behind an OpenAI-style server. What it reads is stored beside the raw answer:
scoring again needs no judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lorgnette.eval.benchmark_prompts import JUDGE_PROMPT
from lorgnette.eval.metrics.mathvista import extract
from lorgnette.eval.models.base import Answer, Model, in_runs
from lorgnette.eval.reasoning import cut_thought
from lorgnette.eval.results.store import Example, Result, ResultsFolder, score
from lorgnette.sample import Sample, Text, Turn

JUDGE_TOKENS = 32
AT_ONCE = 64
"""Answers read before what was read is stored."""


def doubtful(examples: Sequence[Example]) -> list[Example]:
    """Those in whose answers the rules find nothing, and that no judge has read. An unclosed thought is no answer."""
    unread = [one for one in examples if one.extracted is None and not one.unclosed]
    return [one for one in unread if extract(one.judged, one.truth) is None]


def extracted(examples: Sequence[Example], judge: Model, wanted: Sequence[Example] | None = None) -> list[Example]:
    """The examples, with what the judge read in the wanted ones (None: in all doubtful ones).

    What it declines to read stays as it was.
    """
    wanted = doubtful(examples) if wanted is None else wanted
    asked = [Sample((Turn("user"), Text(_request(one))), {"name": one.name}) for one in wanted]
    said = judge.generate(asked, max_tokens=JUDGE_TOKENS) if asked else []
    cuts = [cut_thought(text) for text in said]
    read = {
        one.index: cut.answer.strip()
        for one, text, cut in zip(wanted, said, cuts, strict=True)
        if not Answer.of(text).declined and not cut.unclosed
    }
    name = judge.identity
    return [
        replace(one, extracted=read[one.index], extracted_by=name) if one.index in read else one for one in examples
    ]


def _request(example: Example) -> str:
    return JUDGE_PROMPT.format(question=example.question.replace("[image]", "").strip(), answer=example.judged.strip())


def judged(result: Result, judge: Model, folder: str | Path | None = None) -> Result:
    """Return the result with doubtful answers read by the judge, and scored again.

    It is written to `folder`, if there is one, every `AT_ONCE` answers: those are not read again.
    """
    waiting = doubtful(result.examples)
    for some in in_runs(waiting, AT_ONCE):
        examples = extracted(result.examples, judge, some)
        result = score(result.settings, examples, result.rejected)
        if folder is not None:
            ResultsFolder(folder).finish(result)
    return result
