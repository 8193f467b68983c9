"""Penalties, biases, grammars and reports, each by the settings of its own request."""

from __future__ import annotations

import math

import pytest
import torch

from lorgnette.errors import DataError
from lorgnette.infer.engine.request import EngineFault, Request, SamplingParams
from lorgnette.infer.engine.token_sampler import TokenSampler, choose_tokens
from tests.hub.tiny import ROWS, SAMPLES, tiny_processor
from tests.infer.engine.driving import answers, ask, engine, finish, request

PROCESSOR = tiny_processor()
PROMPT = (5, 6, 7)


def sampler(constraint=None, **params: object) -> TokenSampler:
    return TokenSampler(SamplingParams(**params), PROMPT, 0, PROCESSOR, 10, constraint)


def row(**logits: float) -> torch.Tensor:
    """Logits of 0, but for those of the tokens t5, t6, ..."""
    values = torch.zeros(ROWS)
    for name, value in logits.items():
        values[int(name[1:])] = value
    return values


def chosen(one: TokenSampler, *rows: torch.Tensor) -> list[int]:
    return [one.choose(logits_K.clone()).id for logits_K in rows]


def test_frequency_counts_and_presence_does_not() -> None:
    rows = [row(t10=3.0, t11=2.0)] * 6
    assert chosen(sampler(), *rows) == [10] * 6
    assert chosen(sampler(presence_penalty=0.9), *rows) == [10] * 6, "2.1 stays above 2"
    assert chosen(sampler(presence_penalty=1.1), *rows) == [10, 11, 10, 10, 10, 10], "1.9 once, whatever the count"
    assert chosen(sampler(frequency_penalty=0.6), *rows) == [10, 10, 11, 10, 11, 10]


def test_a_repetition_penalty_knows_the_prompt() -> None:
    assert chosen(sampler(repetition_penalty=2.0), row(t5=3.0, t11=2.0)) == [11]
    assert chosen(sampler(), row(t5=3.0, t11=2.0)) == [5]


def test_biases_are_added() -> None:
    assert chosen(sampler(logit_bias={11: 2.0}), row(t10=3.0, t11=2.0)) == [11]
    assert chosen(sampler(logit_bias={10: -100.0}), row(t10=3.0, t11=2.0)) == [11]


def test_min_p_leaves_the_likely() -> None:
    share = 0.5
    logits_K = torch.full((ROWS,), -20.0)
    logits_K[10], logits_K[11], logits_K[12] = 0.0, math.log(0.6), math.log(0.4)
    one = sampler(temperature=1.0, min_p=share)
    assert set(chosen(one, *[logits_K] * 60)) == {10, 11}
    assert set(chosen(sampler(temperature=1.0), *[logits_K] * 60)) == {10, 11, 12}


def test_slots_of_images_are_never_chosen_though_biased() -> None:
    image = PROCESSOR.image_token
    assert chosen(sampler(logit_bias={image: 100.0}), row(t10=1.0)) == [10]


def test_reports_are_of_the_model_alone() -> None:
    logits_K = row(t10=3.0, t11=2.0)
    token = sampler(logprobs=2, logit_bias={11: 5.0}).choose(logits_K.clone())
    assert (token.id, [one for one, _ in token.top]) == (11, [10, 11])
    assert token.logprob == pytest.approx(float(logits_K.log_softmax(-1)[11]))
    bare = sampler(logprobs=0).choose(logits_K.clone())
    assert bare.logprob is not None
    assert bare.top == ()


def test_rows_of_all_kinds_in_one_step() -> None:
    rows = torch.stack([row(t10=3.0, t11=2.9)] * 4)
    rows[2] = float("nan")
    ones = [sampler(), sampler(logit_bias={11: 1.0}), sampler(), sampler(temperature=1e-3)]
    tokens = choose_tokens(rows, ones)
    assert [tokens[0].id, tokens[1].id, tokens[3].id] == [10, 11, 10]
    assert isinstance(tokens[2], DataError)
    assert [len(one.tokens) for one in ones] == [4, 4, 3, 4]


class Digits:
    """A grammar by hand: so many digits, and then the end."""

    def __init__(self, length: int, ends: bool = True) -> None:
        self.left, self.ends = length, ends

    def allowed(self) -> torch.Tensor:
        allowed = torch.zeros(ROWS, dtype=torch.bool)
        digits = [token for digit in "0123456789" for token in PROCESSOR.tokenizer.encode(digit)]
        allowed[digits if self.left else [PROCESSOR.tokenizer.eos]] = True
        return allowed

    def accept(self, token: int) -> None:
        self.left -= 1

    @property
    def finished(self) -> bool:
        return self.left == 0 and not self.ends

    def copy(self) -> Digits:
        return Digits(self.left, self.ends)


class Stuck(Digits):
    """A grammar that allows nothing."""

    def allowed(self) -> torch.Tensor:
        return torch.zeros(ROWS, dtype=torch.bool)

    def copy(self) -> Stuck:
        return Stuck(0)


class Breaking(Digits):
    """A grammar whose code fails."""

    def accept(self, token: int) -> None:
        raise ValueError("of a grammar")

    def copy(self) -> Breaking:
        return Breaking(3)


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers_obey_their_grammar(ends: bool, temperature: float) -> None:
    engine_, grammar = engine(), Digits(5, ends)
    params = SamplingParams(max_tokens=30, temperature=temperature, n=2)
    engine_.add(Request("grammar", SAMPLES[0], params, constraint=grammar))
    engine_.add(request("free", SAMPLES[0]))
    found = answers(finish(engine_))
    for choice in range(2):
        answer = found["grammar", choice]
        assert answer.text.isdigit() and len(answer.text) == 5
        assert (answer.finish, len(answer.tokens)) == ("end", 5 + ends)
    assert not found["free", 0].text.isdigit()
    assert grammar.left == 5, "each choice has a state of its own"


@pytest.mark.parametrize(("grammar", "kind"), [(Stuck(0), DataError), (Breaking(3), EngineFault)])
def test_a_grammar_that_fails_fails_its_request_alone(grammar: Digits, kind: type) -> None:
    engine_ = engine()
    engine_.add(Request("bad", SAMPLES[0], constraint=grammar))
    engine_.add(request("good", SAMPLES[0]))
    events = finish(engine_)
    assert [(one.request, type(one.error)) for one in events if one.error] == [("bad", kind)]
    assert ("good", 0) in answers(events)


def test_ends_can_be_ignored() -> None:
    end = PROCESSOR.tokenizer.eos
    params = {"logit_bias": {end: 100.0}, "max_tokens": 4}
    found = ask(
        engine(), request("ends", SAMPLES[0], **params), request("goes on", SAMPLES[0], ignore_eos=True, **params)
    )
    assert (found["ends", 0].tokens, found["ends", 0].finish) == ((end,), "end")
    assert (found["goes on", 0].tokens, found["goes on", 0].finish) == ((end,) * 4, "length")
    assert found["goes on", 0].text == ""
