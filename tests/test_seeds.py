"""Seeds: one derivation, fixed for ever, that tells its parts apart."""

import random

import numpy as np
import pytest
import torch

from lorgnette.seeds import derive_seed


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(0, "connector.latents") == 8938549129639660282


@pytest.mark.parametrize("other", [(1, "a"), (0, "b"), (0, b"a"), ("0", "a"), (0, "a", 0), ((0, 1), "a"), ("0, 'a'",)])
def test_parts_and_their_types_are_told_apart(other: tuple[int | str | bytes, ...]) -> None:
    assert derive_seed(*other) != derive_seed(0, "a")


def test_every_generator_takes_it() -> None:
    seeds = [derive_seed(seed, "x") for seed in range(1000)]
    assert len(set(seeds)) == 1000 and all(0 <= seed < 2**63 for seed in seeds)
    for seed in seeds[:20]:
        torch.Generator().manual_seed(seed)
        np.random.default_rng(seed)
        random.Random(seed)


def test_text_that_is_no_unicode_has_a_seed_too() -> None:
    assert derive_seed("\ud800") != derive_seed("\ud801")
