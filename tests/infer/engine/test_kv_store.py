"""Stores of keys and values: one battery for all, against attention over each document alone."""

from __future__ import annotations

import random

import pytest
import torch

from lorgnette.infer.engine.memory.kv_store import CachedDocument, SlabStore
from lorgnette.infer.engine.memory.slab_allocator import SlabAllocator
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.configs.language_config import LanguageConfig
from lorgnette.model.ops.attention import dense_attention

SIZES = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 8, "mlp_width": 48, "vocabulary": 40}
LAYERS = [{}, {"sliding_window": 5}, {"sliding_window": 70}, {"sliding_window": 5, "global_every": 2, "score_cap": 0.7}]


def store(layers: dict | None = None, tokens: int = 1024) -> SlabStore:
    config = LanguageConfig(**SIZES | (layers or {}))
    return SlabStore(config, tokens * 2 * 2 * 2 * 8 * 4, torch.device("cpu"), torch.float32)


class Model:
    """Documents of random keys and values, as a store should have them."""

    def __init__(self, layers: dict) -> None:
        self.store = store(layers)
        self.known: dict[CachedDocument, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        self.generator = torch.Generator().manual_seed(0)

    def draw(self, tokens: int, heads: int) -> torch.Tensor:
        return torch.randn(tokens, heads, 8, generator=self.generator)

    def step(self, documents: list[CachedDocument], new: list[int]) -> None:
        """Append so many tokens to each, and compare what each of them sees."""
        spans, q_THN = SequenceLengths(tuple(new)), self.draw(sum(new), 4)
        step = self.store.begin(documents)
        step.begin(spans, q_THN)
        assert step.longest == max(one.length + n for one, n in zip(documents, new, strict=True))
        for layer in range(2):
            k_TGN, v_TGN = self.draw(sum(new), 2), self.draw(sum(new), 2)
            out = step.attend(layer, q_THN, k_TGN, v_TGN, spans)
            parts = zip(documents, q_THN.split(new), k_TGN.split(new), v_TGN.split(new), out.split(new), strict=True)
            for document, q, k, v, seen in parts:
                keys, values = self.known[document][layer]
                k, v = torch.cat([keys, k]), torch.cat([values, v])
                self.known[document][layer] = k, v
                lengths = SequenceLengths((len(q),)), SequenceLengths((len(k),))
                config = self.store.config
                how = {"window": config.window_of(layer), "cap": config.score_cap}
                expected = dense_attention(q, k, v, *lengths, causal=True, **how)
                torch.testing.assert_close(seen, expected, atol=1e-5, rtol=1e-5)
        step.advance()


@pytest.mark.parametrize("layers", LAYERS, ids=str)
def test_documents_that_come_and_go_see_their_own_keys(layers: dict) -> None:
    draw, model = random.Random(0), Model(layers)
    live: list[CachedDocument] = []
    empty = [(torch.empty(0, 2, 8), torch.empty(0, 2, 8))] * 2
    for _ in range(60):
        if draw.random() < 0.4 and (document := model.store.join(draw.randint(1, 150))):
            live.append(document)
            model.known[document] = list(empty)
        if live and draw.random() < 0.2:
            source = draw.choice(live)
            length = draw.randint(0, source.length)
            if copy := model.store.fork(source, length, length + 10):
                live.append(copy)
                model.known[copy] = [(k[:length], v[:length]) for k, v in model.known[source]]
        if live and draw.random() < 0.2:
            gone = live.pop(draw.randrange(len(live)))
            model.store.leave(gone)
        fresh = [one for one in live if one.length == 0]
        ones = sorted((one for one in live if one.length), key=lambda one: one.places)
        new = [1] * len(ones) + [draw.randint(1, 30) for _ in fresh]
        chosen = [(one, n) for one, n in zip(ones + fresh, new, strict=True) if model.store.grow(one, one.length + n)]
        chosen.sort(key=lambda pair: (pair[1] != 1, pair[0].places))
        if chosen:
            model.step([one for one, _ in chosen], [n for _, n in chosen])
    for document in live:
        model.store.leave(document)
    assert model.store.used == 0
    assert model.store.join(model.store.longest) is not None


def test_documents_of_similar_lengths_are_one_group() -> None:
    """Sixteen of equal slabs take one fused call, and those that are much shorter take their own."""
    model = store(tokens=2048)
    documents = [model.join(128) for _ in range(16)]
    for number, document in enumerate(documents):
        document.length = 90 + number
    step = model.begin(documents)
    step.begin(SequenceLengths((1,) * 16), torch.zeros(1))
    assert [group.rows for group in step.groups[None]] == [slice(0, 16)]
    for document in documents[5:10]:
        document.length = 2
    step = model.begin(documents)
    step.begin(SequenceLengths((1,) * 16), torch.zeros(1))
    read = sum((group.rows.stop - group.rows.start) * group.longest for group in step.groups[None])
    filled = sum(one.length + 1 for one in documents)
    assert filled >= 0.75 * read
    assert len(step.groups[None]) > 1


def test_slots_are_cleaned_without_those_that_a_layer_has_written() -> None:
    """Compiled layers write before a plain one asks for the groups."""
    model = store(tokens=2048)
    documents = [model.join(128) for _ in range(2)]
    for table in (*model.keys, *model.values):
        table.fill_(torch.nan)
    for document, length in zip(documents, (85, 90), strict=True):
        document.length = document.clean = length
    step, start = model.begin(documents), documents[0].places[0]
    step.begin(SequenceLengths((1, 1)), torch.zeros(1))
    model.keys[0][start + 85] = 7
    assert step.groups[None][0].longest == 91
    assert (model.keys[0][start + 85] == 7).all()
    assert (model.keys[0][start + 86 : start + 91] == 0).all()
    assert documents[0].clean >= 91


def test_a_slab_grows_in_its_place_if_it_can() -> None:
    model = store()
    first = model.join(64)
    first.length = 64
    model.keys[0][:64] = 7
    assert model.grow(first, 65)
    assert (first.places, first.room, model.used) == ([0], 128, 128)
    second = model.join(64)
    assert model.grow(first, 200)
    assert (first.places, first.room) == ([256], 256), "moved, because the second lies behind it"
    assert (model.keys[0][256:320] == 7).all()
    assert not model.grow(second, 1024)
    assert (second.room, model.used) == (128, 256 + 128), "it has grown as far as it could"


@pytest.mark.parametrize("total", [64, 1000, 4096, 63])
def test_slabs_do_not_overlap_and_join_again(total: int) -> None:
    draw, slabs, live = random.Random(total), SlabAllocator(total), {}
    assert slabs.total == total // 64 * 64
    for _ in range(300):
        wanted = draw.randint(1, 400)
        start = slabs.take(wanted) if draw.random() < 0.6 else None
        if start is not None:
            size = slabs.size_for(wanted)
            assert size >= wanted
            assert start % size == 0
            live[start] = size
        elif live:
            gone = draw.choice(sorted(live))
            if draw.random() < 0.3 and slabs.extend(gone, live[gone]):
                live[gone] *= 2
            else:
                slabs.give(gone, live.pop(gone))
        places = [slot for first, size in live.items() for slot in range(first, first + size)]
        assert len(places) == len(set(places)) == slabs.used
        assert max(places, default=0) < max(total, 1)
    for start, size in live.items():
        slabs.give(start, size)
    assert slabs.used == 0
    assert slabs.largest == (1 << (total // 64).bit_length() - 1) * 64 if total >= 64 else slabs.largest == 0
    assert (slabs.take(1) is not None) == (total >= 64)
