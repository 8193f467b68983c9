"""Scenes: composed from their specification as it says, the same each time, refused by name where it cannot be."""

from __future__ import annotations

import io
import json
import time

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from lorgnette.data.builtin.drawings import SPLITS, drawings
from lorgnette.data.config import ScenesConfig
from lorgnette.data.prepare import prepare
from lorgnette.data.record import Refused
from lorgnette.data.sources.scenes import picture_of, read
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.sample import Image, Text, Turn
from tests.data.sources.made import parquet

CONFIG = ScenesConfig(path=".")
TURNS = [{"user": "How many?", "assistant": "2"}, {"user": "Where?", "assistant": "left"}]


def scene(split: str = "train", **changes) -> dict:
    """A red canvas of 64 x 32 pixels with a drawing at the left, and another one at the right."""
    row = {
        "drawings": [drawings(split)[3].id, drawings(split)[4].id],
        "boxes": [0, 0, 30, 30, 34, 2, 60, 28],
        "mirrored": [],
        "width": 64,
        "height": 32,
        "background": "#ff0000",
        "texts": TURNS,
        "caption": None,
    }
    return {**row, **changes}


def pixels(row: dict) -> np.ndarray:
    return np.asarray(picture_of(row))


@pytest.mark.parametrize("split", SPLITS)
def test_drawings_lie_in_their_boxes_on_the_canvas(split):
    shown = pixels(scene(split))
    assert shown.shape == (32, 64, 3)
    canvas = PIL.Image.new("RGB", (64, 32), "red")
    for number, box in ((3, (0, 0, 30, 30)), (4, (34, 2, 60, 28))):
        drawing = drawings(split).resized(number, box[2] - box[0], box[3] - box[1])
        canvas.paste(drawing, box[:2], drawing)
    assert np.array_equal(shown, np.asarray(canvas))
    assert (shown[:, 61:] == (255, 0, 0)).all()


def test_a_drawing_is_mirrored_where_the_row_says_so_and_the_others_are_not():
    plain, mirrored = pixels(scene()), pixels(scene(mirrored=[1]))
    assert np.array_equal(plain[:, :32], mirrored[:, :32])
    box = np.asarray(PIL.ImageOps.mirror(PIL.Image.fromarray(plain[2:28, 34:60])))
    assert np.array_equal(mirrored[2:28, 34:60], box) and not np.array_equal(plain, mirrored)


def test_a_canvas_is_white_where_no_colour_is_given():
    assert (pixels(scene(background=None))[:, 61:] == 255).all()


def test_questions_are_units_of_which_the_answers_are_learned():
    record = read(scene(), CONFIG, "row 0")
    assert record.units[1] == (Turn("user"), Text("Where?"), Turn("assistant"), Text("left", supervised=True))
    [image] = record.prefix
    assert isinstance(image, Image) and isinstance(image.source, bytes)
    with PIL.Image.open(io.BytesIO(image.source)) as opened:
        assert np.array_equal(np.asarray(opened), pixels(scene()))
    assert record.meta["name"] == "row 0" and not record.doubts


def test_a_caption_is_learned_beside_the_picture():
    record = read(scene(texts=None, caption="Two drawings."), CONFIG, "row 0")
    assert record.units == ((Text("Two drawings.", supervised=True),),) and len(record.prefix) == 1


def test_a_question_without_an_answer_is_left_out_and_said():
    record = read(scene(texts=[*TURNS, {"user": "Why?", "assistant": " "}]), CONFIG, "row 0")
    assert len(record.units) == 2 and record.doubts[0][0] == "blank answer"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"drawings": ["nothing", "no"]}, "no drawing: drawing 0 is 'nothing'"),
        ({"drawings": [[], {}]}, "no drawing"),
        ({"drawings": []}, "boxes: 0 drawings and 8 edges"),
        ({"drawings": None}, "no value"),
        ({"boxes": [0, 0, 30, 30]}, "boxes: 2 drawings and 4 edges"),
        ({"boxes": [0, 0, 30, 30, 34, 2, 66, 28]}, "boxes: the box of drawing 1 is .* on 64 x 32 pixels"),
        ({"boxes": [0, 0, 0, 30, 34, 2, 60, 28]}, "boxes: the box of drawing 0"),
        ({"boxes": [-1, 0, 30, 30, 34, 2, 60, 28]}, "boxes: the box of drawing 0"),
        ({"boxes": [0.5, 0, 30, 30, 34, 2, 60, 28]}, "boxes: the box of drawing 0"),
        ({"boxes": "all"}, "wrong type: 'boxes'"),
        ({"mirrored": "all"}, "wrong type: 'mirrored'"),
        ({"width": None}, "no value: 'width'"),
        ({"height": "32"}, "wrong type: 'height'"),
        ({"width": 10**9}, "size: a canvas of 1000000000 x 32"),
        ({"height": 0}, "size"),
        ({"background": "reddish"}, "wrong type: 'background'"),
        ({"texts": None}, "no "),
        ({"texts": [{"user": "Why?", "assistant": ""}]}, "no answer"),
    ],
)
def test_a_row_that_cannot_be_composed_or_learned_is_refused_with_the_reason(changes, reason):
    with pytest.raises(Refused, match=f"^{reason}"):
        read(scene(**changes), CONFIG, "row 0")


@pytest.fixture(scope="module")
def processor() -> Processor:
    tokenizer = train_tokenizer(["How many? 2 Where? left"] * 9, vocabulary=300)
    return Processor(tokenizer, ImageConfig(shortest=16, longest=64, patch=8, grid=8), PerceiverConfig(latents=4))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_scenes_are_prepared_from_any_form_of_rows(tmp_path, processor, form):
    rows = [scene(), scene(drawings=["none", "none"]), scene(mirrored=[0])]
    path = tmp_path / f"rows.{form}"
    if form == "parquet":
        parquet(path, rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepared = prepare(ScenesConfig(path=str(path)), processor, workers=1)
    assert prepared.facts["reasons"] == {"no drawing": 1} and len(prepared) == 2
    assert [tuple(prepared.index.width_I), tuple(prepared.index.height_I)] == [(64, 64), (32, 32)]
    first = prepared.record(0).piece()
    assert first.text == "How many?2Where?left" and len(first.images) == 1


def test_a_scene_is_composed_in_a_few_milliseconds():
    rows = [scene(mirrored=[number % 2]) for number in range(200)]
    read(rows[0], CONFIG, "")  # decodes the drawings
    start = time.process_time()
    for row in rows:
        read(row, CONFIG, "")
    assert (time.process_time() - start) / len(rows) < 0.006
