"""The shipped drawings: named by their colours, apart in look between splits, and one file with the pairs."""

from __future__ import annotations

import numpy as np
import pytest

from corpus.clipart.basic_colour import basic_colour
from corpus.clipart.fingerprint import fingerprint, similar
from corpus.drawn.pairs import make_drawings
from corpus.drawn.pictures import on_white
from lorgnette.data.builtin.drawings import SPLITS, Drawings, drawings
from lorgnette.data.config import PairsConfig
from lorgnette.data.sources.reading.shards import Shards, list_shards
from lorgnette.data.sources.table import KINDS
from lorgnette.inputs.image_io import open_image
from lorgnette.sample import Text


def test_splits_share_no_look() -> None:
    rows = {split: drawings(split) for split in SPLITS}
    prints = {s: np.stack([fingerprint(table.rgba(i)) for i in range(len(table))]) for s, table in rows.items()}
    for split in ("test", "validation"):
        for index, one in enumerate(prints[split]):
            alike = np.flatnonzero(similar(prints["train"], one))
            assert not len(alike), (rows[split][index].path, rows["train"][int(alike[0])].path)


def test_the_stored_colour_is_the_computed_one() -> None:
    table = drawings("test")
    for index in range(0, len(table), 5):
        assert table[index].colour == basic_colour(table.rgba(index))


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"),
        ((255, 140, 0), "orange"),
        ((255, 230, 0), "yellow"),
        ((0, 160, 0), "green"),
        ((30, 60, 220), "blue"),
        ((130, 20, 160), "purple"),
        ((255, 170, 190), "pink"),
        ((120, 70, 20), "brown"),
        ((10, 10, 10), "black"),
        ((128, 128, 128), "grey"),
        ((255, 255, 255), "white"),
        ((0, 190, 190), None),
    ],
)
def test_colours_are_named_as_people_name_them(rgb: tuple[int, int, int], name: str | None) -> None:
    picture = np.zeros((8, 8, 4), dtype=np.uint8)
    picture[2:6, 2:6] = (*rgb, 255)
    assert basic_colour(picture) == name


def test_two_colours_are_no_clear_colour() -> None:
    picture = np.full((8, 8, 4), 255, dtype=np.uint8)
    picture[:, :4, :3] = (255, 0, 0)
    picture[:, 4:, :3] = (0, 0, 255)
    assert basic_colour(picture) is None
    assert basic_colour(np.zeros((4, 4, 4), dtype=np.uint8)) is None


@pytest.mark.parametrize("split", SPLITS)
def test_a_pair_shows_its_drawing_on_white(split: str) -> None:
    """A source of kind `pairs` yields the drawing's pixels on white paper, and both captions."""
    (shard,) = list_shards(f"builtin:{split}/pairs")
    table = drawings(split)
    place = {row.id: index for index, row in enumerate(table)}
    rows = list(Shards([shard]).rows(0, 0))
    for row in rows:
        record = KINDS["pairs"].read(row, PairsConfig(path="."), "a row")
        (image,) = record.piece().images
        index = place[row["id"]]
        assert np.array_equal(np.asarray(open_image(image.source)), np.asarray(on_white(table, index)))
        assert row["alt"] == table[index].title and row["origin"] == [row["id"]]
        said = "".join(one.text for one in record.piece().segments if isinstance(one, Text))
        assert said in (row["alt"].strip(), row["caption"])
    assert len(rows) == 64


def test_each_drawing_is_one_pair_and_drawings_lie_in_the_order_of_their_ids() -> None:
    for split in SPLITS:
        table = drawings(split)
        ids = [row.id for row in table]
        assert ids == sorted(set(ids))
        assert sorted(row["id"] for row in make_drawings(split, len(table), 0)) == ids
        assert list(Drawings(split, reversed(list(table)))) == list(table)
