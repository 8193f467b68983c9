"""The sampler against probabilities worked out by hand and by counting."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorgnette.infer.sampling import GenerationConfig, Sampler, draw
from lorgnette.infer.text import TextStream

PROBABILITIES = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])

KEPT = {
    "all": ({}, [0.1, 0.4, 0.05, 0.3, 0.15]),
    "top-k 2": ({"top_k": 2}, [0, 4 / 7, 0, 3 / 7, 0]),
    "top-k beyond": ({"top_k": 9}, [0.1, 0.4, 0.05, 0.3, 0.15]),
    "top-p 0.6": ({"top_p": 0.6}, [0, 4 / 7, 0, 3 / 7, 0]),
    "top-p of one": ({"top_p": 0.3}, [0, 1, 0, 0, 0]),
    "top-p, the crossing one is kept": ({"top_p": 0.71}, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
    "both: k first": ({"top_k": 3, "top_p": 0.8}, [0, 4 / 7, 0, 3 / 7, 0]),
    "min-p of half": ({"min_p": 0.5}, [0, 4 / 7, 0, 3 / 7, 0]),
    "min-p after top-p": ({"top_p": 0.71, "min_p": 0.37}, [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
    "colder": ({"temperature": 0.5}, [x**2 / 0.2850 for x in (0.1, 0.4, 0.05, 0.3, 0.15)]),
}


@pytest.mark.parametrize(("settings", "expected"), KEPT.values(), ids=KEPT)
def test_draws_follow_the_probabilities(settings: dict, expected: list[float]) -> None:
    """Evenly spread uniform numbers must hit each token in proportion: exact counting, no chance."""
    count = 20_000
    uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    config = GenerationConfig(**{"temperature": 1.0} | settings)
    tokens = draw(PROBABILITIES.log().expand(count, -1), uniform, config)
    shares = torch.bincount(tokens, minlength=5).double() / count
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64), atol=2 / count, rtol=1e-4)


def test_what_is_drawn_among_agrees_with_transformers() -> None:
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 40, generator=generator) * 3
    for temperature, top_k, top_p, min_p in ((0.7, 10, 0.9, 0), (1.3, 40, 0.5, 0), (1, 3, 1, 0), (1.5, 20, 0.9, 0.15)):
        theirs = TemperatureLogitsWarper(float(temperature))(None, logits)
        theirs = TopPLogitsWarper(float(top_p))(None, TopKLogitsWarper(top_k)(None, theirs))
        theirs = MinPLogitsWarper(float(min_p))(None, theirs).softmax(-1)
        config = GenerationConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        count = 4000
        uniform = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        for row, expected in zip(logits, theirs, strict=True):
            shares = torch.bincount(draw(row.expand(count, -1), uniform, config), minlength=40) / count
            torch.testing.assert_close(shares, expected, atol=2 / count, rtol=0)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=8),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.01, 1),
    st.integers(1, 8),
    st.floats(0.01, 10),
)
def test_a_token_that_is_kept_is_always_found(
    logits: list[float], uniform: float, top_p: float, top_k: int, temperature: float
) -> None:
    config = GenerationConfig(temperature=temperature, top_p=top_p, top_k=top_k)
    scores = torch.tensor([logits])
    (token,) = draw(scores, torch.tensor([uniform], dtype=torch.float64), config).tolist()
    assert (scores > scores[0, token]).sum() < top_k


def test_greedy_is_the_largest_and_banned_tokens_are_never_chosen() -> None:
    logits = torch.tensor([[0.0, 3.0, 2.0], [5.0, 1.0, 0.0]])
    greedy = Sampler(GenerationConfig(), [[1], [2]])
    assert greedy.choose(logits, [0, 1]) == [1, 0]
    assert Sampler(GenerationConfig(), [[1], [2]], banned=[1]).choose(logits, [0, 1]) == [2, 0]
    hot = Sampler(GenerationConfig(temperature=9.0), [[1]], banned=[0, 1])
    assert {hot.choose(logits[:1], [0])[0] for _ in range(50)} == {2}
    assert logits[0, 1] == 3.0, "the caller's logits stay as they are"


def test_a_documents_draws_do_not_depend_on_its_neighbours() -> None:
    config = GenerationConfig(temperature=1.0, seed=5)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 3, 50, generator=generator)
    together = Sampler(config, [[1], [2], [3]])
    alone = Sampler(config, [[2]])
    for step, logits in enumerate(rows):
        documents = [0, 1, 2] if step < 3 else [1, 2]  # the first leaves the batch
        chosen = together.choose(logits[documents], documents)
        assert chosen[documents.index(1)] == alone.choose(logits[[1]], [0])[0]


@given(st.text(max_size=20), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_a_stream_adds_up(text: str, stop: list[str]) -> None:
    """Whatever the text and the stop strings, streamed byte by byte: the pieces are the text up to the first stop."""
    data = text.encode("utf-8", errors="replace")
    text = data.decode()
    stream = TextStream(lambda ids: bytes(ids).decode("utf-8", errors="replace"), stop)
    pieces = []
    for byte in data:
        pieces.append(stream.push(byte))
        if stream.stopped:
            break
    pieces.append(stream.close())
    ends = [text.index(one) for one in stop if one in text]
    assert stream.stopped == bool(ends)
    assert "".join(pieces) == stream.text
    if not ends:
        assert stream.text == text
    elif not any(one in stream.text for one in stop):
        assert text.startswith(stream.text)
