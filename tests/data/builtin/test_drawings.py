"""The drawings that the package carries: well described, and split so that no two splits share one."""

from __future__ import annotations

import hashlib
from itertools import combinations

import pytest

from corpus.drawn.questions import CATEGORIES
from lorgnette.data.builtin.drawings import SPLITS, drawings


def test_every_drawing_is_in_the_public_domain_and_well_described() -> None:
    for split in SPLITS:
        for row in drawings(split):
            assert row.licence == "public domain"
            assert row.category in (*CATEGORIES, None)
            assert hashlib.sha256(row.image).hexdigest() == row.sha256
            assert row.path.endswith(".svg")
            assert max(row.width, row.height) == 160
            assert min(row.width, row.height) >= 24


def test_splits_share_no_drawing() -> None:
    rows = {split: drawings(split) for split in SPLITS}
    for one, two in combinations(SPLITS, 2):
        for key in ("id", "path", "sha256", "group"):
            assert not {getattr(row, key) for row in rows[one]} & {getattr(row, key) for row in rows[two]}


def test_every_split_has_its_share_of_every_category() -> None:
    sizes = {split: len(drawings(split)) for split in SPLITS}
    total = sum(sizes.values())
    assert 4000 <= total <= 4500
    assert sizes["test"] / total == pytest.approx(0.15, abs=0.03)
    assert sizes["validation"] / total == pytest.approx(0.05, abs=0.02)
    for split, fewest in (("train", 40), ("validation", 2), ("test", 8)):
        assert set(drawings(split).by_category) == set(CATEGORIES)
        assert min(map(len, drawings(split).by_category.values())) >= fewest
