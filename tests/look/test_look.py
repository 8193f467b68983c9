"""Maps of where an answer came from: against the model asked by hand, on one that needs one place, on the page."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

from lorgnette.cli import app
from lorgnette.errors import DataError, LorgnetteError, SettingsError
from lorgnette.hub.export import save
from lorgnette.look.faithfulness import check_map
from lorgnette.look.heat import heat, overlay, places_of
from lorgnette.look.look import asked, look, words_of
from lorgnette.look.look_page import render, sentences
from lorgnette.look.occlusion import Cell, Occluder, cells_of, joined
from lorgnette.look.scene_check import check_scenes, scenes
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.configs.connector_config import LinearConfig
from lorgnette.sample import Image, Sample, Text
from tests.hub.tiny import picture, question, tiny_config, tiny_model, tiny_processor
from tests.infer.engine.driving import forced_logits
from tests.pages import Page

ANSWER = (5, 9, 7)


@pytest.fixture
def occluder():
    return Occluder(tiny_model(seed=1), tiny_processor(), question("what?", (60, 40), (30, 44)), ANSWER)


def logprobs(model, processor, sample):
    logits = forced_logits(model, processor, sample, ANSWER).double().log_softmax(-1)
    return logits[range(len(ANSWER)), list(ANSWER)].numpy()


def test_scores_with_nothing_taken_out_are_the_models(occluder):
    expected = logprobs(tiny_model(seed=1), tiny_processor(), question("what?", (60, 40), (30, 44)))
    assert occluder.removes
    np.testing.assert_allclose(occluder.scores([()])[0], expected, atol=1e-5)


def test_a_variant_scores_as_it_does_alone_in_a_batch(occluder):
    sets = [(), (0,), (1, 2), tuple(range(len(occluder.cells))), (len(occluder.cells) - 1,)]
    together = occluder.scores(sets)
    alone = np.concatenate([occluder.scores([one]) for one in sets])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.abs(together[1:] - together[0]).max() > 1e-4, "the image counts for something"


def test_a_removed_cell_takes_its_patches_with_their_positions(occluder):
    batch, cell = occluder.batch, occluder.cells[3]
    kept = [place for place in range(len(batch.patches_PC)) if place not in cell.patches]
    lengths = list(batch.images.lengths)
    lengths[cell.crop] -= len(cell.patches)
    by_hand = dataclasses.replace(
        batch,
        patches_PC=batch.patches_PC[kept],
        patch_positions_P=batch.patch_positions_P[kept],
        grids=tuple((1, length) for length in lengths),
    )
    with torch.no_grad():
        scores_T = occluder.model(by_hand, output="scores").scores
    np.testing.assert_allclose(occluder.scores([(3,)])[0], scores_T[-len(ANSWER) :].numpy(), atol=1e-5)


def test_a_connector_that_needs_the_grid_has_its_patches_painted():
    config = tiny_config().model_copy(update={"connector": LinearConfig()})
    found = Occluder(tiny_model(config, seed=1), tiny_processor(config), question("what?", (60, 40)), ANSWER)
    assert not found.removes
    patches_PC, cell = found.batch.patches_PC.clone(), found.cells[0]
    colour_3 = patches_PC.view(len(patches_PC), 3, -1).float().mean((0, 2)).round().to(torch.uint8)
    patches_PC[list(cell.patches)] = colour_3.repeat_interleave(patches_PC.shape[1] // 3)
    with torch.no_grad():
        painted = found.model(dataclasses.replace(found.batch, patches_PC=patches_PC), output="scores").scores
    np.testing.assert_allclose(found.scores([(0,)])[0], painted[-len(ANSWER) :].numpy(), atol=1e-5)


@pytest.mark.parametrize("grids", [[(3, 5)], [(20, 9), (1, 1)], [(8, 8), (8, 8), (4, 16)]])
def test_cells_tile_every_crop(grids):
    cells = cells_of(grids)
    patches = sorted(patch for cell in cells for patch in cell.patches)
    assert patches == list(range(sum(rows * columns for rows, columns in grids)))
    for crop, (rows, columns) in enumerate(grids):
        own = [cell for cell in cells if cell.crop == crop]
        assert len(own) == min(rows, 8) * min(columns, 8)
        area = sum((cell.box[2] - cell.box[0]) * (cell.box[3] - cell.box[1]) for cell in own)
        assert area == pytest.approx(1)


def test_batches_are_joined_as_the_processor_packs_them():
    processor = tiny_processor()
    samples = [question("a", (60, 40)), question("b and c"), question("d", (30, 30), (44, 60))]
    whole, parts = processor.prompts(samples), joined([processor.prompts([one]) for one in samples])
    for field in dataclasses.fields(whole):
        ours, theirs = getattr(parts, field.name), getattr(whole, field.name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, field.name
    assert isinstance(parts.documents, SequenceLengths)


class OneCell(Occluder):
    """A model whose answer needs one cell of the image, and nothing else."""

    def __init__(self, wanted):
        self.cells, self.wanted, self.removes = cells_of([(6, 6)]), wanted, True

    def score_steps(self, without):
        yield
        return np.array([[-2.0 if self.wanted in cells else -0.5] for cells in without])


def test_a_true_map_passes_the_check_and_a_false_one_does_not():
    model = OneCell(14)
    maps, scores = model.maps()
    assert maps[:, 0].argmax() == 14 and scores[0] == -0.5
    true = check_map(model, maps[:, 0])
    assert true.says_something and true.drop == pytest.approx(1.5)
    false = check_map(model, -maps[:, 0])
    assert not false.says_something
    flat = check_map(OneCell(99), np.zeros(36))
    assert not flat.says_something and flat.gain == 0


def test_words_have_their_tokens():
    assert words_of(["", "a", "a red", "a redd", "a redd car"]) == [
        ("a", slice(0, 1)),
        ("redd", slice(1, 3)),
        ("car", slice(3, 4)),
    ]


def test_heat_lies_where_the_cell_is():
    cells = [Cell(0, (0.5, 0.0, 1.0, 0.5), (0,)), Cell(0, (0.0, 0.5, 0.5, 1.0), (1,))]
    found = heat(cells, np.array([2.0, -1.0]), [(0.0, 0.0, 1.0, 1.0)], (8, 4))
    assert found[:2, 4:].tolist() == [[2.0] * 4] * 2 and found[2:, :4].max() == -1
    assert found[:2, :4].max() == 0
    image = overlay(PIL.Image.new("RGB", (8, 4), "white"), found, 2.0)
    lit, dim = image.getpixel((6, 0)), image.getpixel((1, 0))
    assert sum(lit) > sum(dim) and lit[0] > lit[2], "warm and bright where the cell is, grey elsewhere"


def test_split_images_are_averaged_over_their_crops():
    processor = tiny_processor()
    from lorgnette.inputs.image import image_crops

    source = picture(60, 40)
    crops = image_crops(source, processor.images, True)
    places = places_of(crops, (60, 40), processor.images)
    assert places == [(0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1), (0, 0, 1, 1)]
    found = heat([Cell(0, (0, 0, 1, 1), ()), Cell(4, (0, 0, 1, 1), ())], np.array([4.0, 2.0]), places, (6, 4))
    assert found[0, 0] == 3 and found[3, 5] == 2


def test_look_finds_the_words_of_an_answer():
    model, processor = tiny_model(seed=1), tiny_processor()
    prompt = asked([Image(picture(60, 40))], "what colour is the cat?")
    found = look(model, processor, prompt, answer="a cat on a mat", others=[Image(picture(30, 30))], orders=5)
    assert found.answer == "a cat on a mat" and [word.text for word in found.words] == found.answer.split()
    assert [heat.shape for heat in found.heats] == [(213, 320)]
    total = sum(word.heats[0] for word in found.words)
    tokens = sum(1 for _ in processor.tokenizer.encode(found.answer))
    assert np.abs(total).max() > 0 and tokens > 0 and found.blind is not None
    page = Page(render(found, "m", "what <b>colour</b>?"))
    assert "a cat on a mat" in page.text and "what <b>colour</b>?" in page.text
    assert all(link.startswith("data:image/") for link in page.links)
    assert sentences(found)[0].startswith(("Taking out the places", "This map says nothing"))


def test_a_map_that_means_nothing_is_called_so():
    model, processor = tiny_model(seed=1), tiny_processor()
    for parameter in model.connector.parameters():
        parameter.data.zero_()  # a model that sees nothing
    prompt = asked([Image(picture(60, 40))], "what colour?")
    found = look(model, processor, prompt, answer="a cat", others=[Image(picture(30, 30))], orders=5)
    said = " ".join(sentences(found))
    assert "This map says nothing" in said and "did not come from the picture" in said
    assert "This map says nothing" in render(found, "m", "p")


def test_the_command_writes_pages_and_pictures(tmp_path):
    save(tiny_model(seed=1), tiny_processor(), tmp_path / "model")
    picture(60, 40).save(tmp_path / "one.png")
    line = [
        "look",
        str(tmp_path / "one.png"),
        "--model",
        str(tmp_path / "model"),
        "--prompt",
        "what?",
        "--answer",
        "cat",
    ]
    for name, start in (("look.html", b"<!doctype html>"), ("look.png", b"\x89PNG")):
        for _ in range(2):  # its own file may be written again
            result = CliRunner().invoke(app, [*line, "--out", str(tmp_path / name)], catch_exceptions=False)
        assert result.exit_code == 0 and "Wrote" in result.output
        assert (tmp_path / name).read_bytes().startswith(start)
    with pytest.raises(LorgnetteError, match="did not write"):
        CliRunner().invoke(app, [*line, "--out", str(tmp_path / "one.png")], catch_exceptions=False)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompt", "x"], "give an image"),
        (["i.png"], "give an image and --prompt"),
        (["--check", "3", "--prompt", "x"], "leave out"),
    ],
)
def test_commands_that_ask_nothing_are_refused(options, said):
    with pytest.raises(SettingsError, match=said):
        CliRunner().invoke(app, ["look", "--model", "m", *options], catch_exceptions=False)


def test_prompts_without_images_or_answers_are_refused():
    model, processor = tiny_model(seed=1), tiny_processor()
    with pytest.raises(DataError, match="shows no image"):
        Occluder(model, processor, Sample((Text("hello"),), {"name": "mine"}), ANSWER)
    with pytest.raises(DataError, match="the answer is empty"):
        Occluder(model, processor, question("what?", (60, 40)), ())


def test_the_check_over_scenes_gives_means_with_intervals():
    found = check_scenes(tiny_model(seed=1), tiny_processor(), 3).plain()
    assert found["scenes"] == [3] and found.keys() >= {"gain", "energy", "chance", "pointing", "blind"}
    assert all(low <= value <= high for value, low, high in (one for one in found.values() if len(one) == 3))
    assert json.dumps(found)


def test_scenes_are_the_same_every_time_and_show_their_drawing_in_its_box():
    first, again = scenes(4), scenes(4)
    assert [one.image.source for one in first] == [one.image.source for one in again]
    for one in first:
        image = np.asarray(PIL.Image.open(io.BytesIO(one.image.source)).convert("L"), dtype=int)
        height, width = image.shape
        left, top, right, bottom = (
            round(share * side) for share, side in zip(one.box, (width, height) * 2, strict=True)
        )
        outside = image.copy()
        outside[top:bottom, left:right] = 255
        assert (outside == 255).all() and (image < 250).any()
