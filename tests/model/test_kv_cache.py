"""Cached generation equals the full forward pass, whatever the lengths."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

import lorgnette.model.kv_cache
from lorgnette.model.batch import Batch, SequenceLengths
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.ops.attention import dense_attention

DOCUMENTS = [[(3, 5)], [], [(8, 8), (2, 2)], []]


def extended(batch: Batch, new: list[list[int]]) -> Batch:
    """Each document of the batch with more tokens at its end."""
    pieces = batch.tokens_T.split(batch.documents.lengths)
    tokens = [
        torch.cat([piece, torch.tensor(more, dtype=torch.int64)]) for piece, more in zip(pieces, new, strict=True)
    ]
    documents = SequenceLengths(tuple(map(len, tokens)))
    owner = torch.bucketize(batch.visual_positions_V, torch.tensor(batch.documents.starts[1:]), right=True)
    shift = torch.tensor(documents.starts)[owner] - torch.tensor(batch.documents.starts)[owner]
    return dataclasses.replace(
        batch,
        tokens_T=torch.cat(tokens),
        targets_T=torch.full((documents.total,), -100),
        positions_T=torch.cat([torch.arange(length) for length in documents.lengths]),
        documents=documents,
        visual_positions_V=batch.visual_positions_V + shift,
    )


LOCAL = {"layers": 3, "sliding_window": 4, "global_every": 2}
LAYERS = {
    "no window": {},
    "window": {"sliding_window": 4},
    "wide window": {"sliding_window": 30},
    "two kinds of layers": LOCAL | {"local_rope_theta": 70.0},
    "caps": LOCAL | {"score_cap": 0.5, "logit_cap": 2.0, "post_norms": True, "query_pre_attn_scalar": 3},
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_cached_equals_full(tiny, layers: dict, kv_heads: int) -> None:
    config = tiny.config(language=layers | {"kv_heads": kv_heads})
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    cache, new = KVCache(config, reserve=2), [[], [], [], []]
    with torch.no_grad():
        torch.testing.assert_close(model(batch, output="last", cache=cache).logits, model(batch, output="last").logits)
        for step in range(5):
            tokens = [(7 * step + 3 * row) % 50 for row in range(4)]
            new = [[*old, token] for old, token in zip(new, tokens, strict=True)]
            cached = model(cache.next(torch.tensor(tokens)), output="last", cache=cache).logits
            full = model(extended(batch, new), output="last").logits
            torch.testing.assert_close(cached, full, atol=1e-5, rtol=1e-5)
    assert cache.lengths == tuple(length + 5 for length in batch.documents.lengths)


def test_kernels_are_asked_for_the_same(tiny, monkeypatch) -> None:
    """The path of CUDA's kernels, which read the rows of the cache in place, with their oracle in their stead."""

    def kernel(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        queries: SequenceLengths,
        rows: SequenceLengths,
        *,
        used: SequenceLengths,
        **how: object,
    ) -> Tensor:
        slots = [torch.arange(start, start + count) for start, count in zip(rows.starts, used.lengths, strict=False)]
        kept = torch.cat(slots)
        return dense_attention(q, k[kept], v[kept], queries, used, **how)

    config = tiny.config(language={"sliding_window": 9, "global_every": 2})
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    steps = []
    for patched in (False, True):
        monkeypatch.setattr(lorgnette.model.kv_cache, "has_varlen", lambda _, patched=patched: patched)
        monkeypatch.setattr(lorgnette.model.kv_cache, "varlen", kernel)
        cache = KVCache(config, reserve=2)
        with torch.no_grad():
            steps.append([model(batch, output="last", cache=cache).logits])
            for step in range(4):
                following = cache.next(torch.arange(4) + step)
                steps[-1].append(model(following, output="last", cache=cache).logits)
    for ours, theirs in zip(*steps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_finished_documents_leave(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    cache = KVCache(config)
    with torch.no_grad():
        model(batch, output="last", cache=cache)
        model(cache.next(torch.tensor([1, 2, 3, 4])), output="last", cache=cache)
        cache.keep([2, 0])
        assert len(cache) == 2
        cached = model(cache.next(torch.tensor([5, 6])), output="last", cache=cache).logits
        full = model(extended(batch, [[1, 6], [2], [3, 5], [4]]), output="last").logits
        torch.testing.assert_close(cached, full[[2, 0]], atol=1e-5, rtol=1e-5)
        cache.keep([])
        assert len(cache) == 0


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_several_tokens_at_a_time(tiny, layers: dict) -> None:
    """A second turn of a conversation goes on from the first's keys."""
    config = tiny.config(language=layers)
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    new = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 11]]
    lengths = batch.documents.lengths
    turn = dataclasses.replace(
        KVCache(config).next(torch.tensor([token for tokens in new for token in tokens])),
        positions_T=torch.cat([torch.arange(a, a + len(b)) for a, b in zip(lengths, new, strict=True)]),
        documents=SequenceLengths(tuple(map(len, new))),
    )
    cache = KVCache(config)
    with torch.no_grad():
        model(batch, output="last", cache=cache)
        cached = model(turn, cache=cache).logits
        full = model(extended(batch, new)).logits.split([a + len(b) for a, b in zip(lengths, new, strict=True)])
    expected = torch.cat([rows[-len(more) :] for rows, more in zip(full, new, strict=True)])
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=1e-5)


def test_batch_of_one_equals_batch_of_many(tiny) -> None:
    config = tiny.config()
    model = tiny.model(config)
    batch, alone = tiny.batch(config, [[], []]), tiny.batch(config, [[]])
    caches = KVCache(config), KVCache(config)
    with torch.no_grad():
        for step in range(4):
            many = model(
                batch if step == 0 else caches[0].next(torch.tensor([step, 9])), output="last", cache=caches[0]
            )
            one = model(alone if step == 0 else caches[1].next(torch.tensor([step])), output="last", cache=caches[1])
            torch.testing.assert_close(many.logits[:1], one.logits, atol=2e-6, rtol=1e-5)


def test_another_number_of_documents_is_refused(tiny) -> None:
    config = tiny.config()
    model, cache = tiny.model(config), KVCache(config)
    with torch.no_grad():
        model(tiny.batch(config, [[], []]), output="last", cache=cache)
        with pytest.raises(ValueError, match="3 documents do not continue the 2 in the cache"):
            model(tiny.batch(config, [[], [], []]), output="last", cache=cache)


def test_decoding_calls_attention_once_per_layer(tiny) -> None:
    """One fused call for all documents, not one for each, and none of them copies the cache."""
    config = tiny.config(language={"layers": 3})
    model, batch, cache = tiny.model(config), tiny.batch(config, DOCUMENTS), KVCache(config)
    with torch.no_grad():
        model(batch, output="last", cache=cache)
        with torch.profiler.profile() as profile:
            model(cache.next(torch.tensor([1, 2, 3, 4])), output="last", cache=cache)
    calls = [event for event in profile.events() if event.name == "aten::scaled_dot_product_attention"]
    assert len(calls) == 3
