"""Tiles: sizes, pixels and texts as Idefics3's and SmolVLM's own processors make them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tokenizers
import torch
import transformers
from tokenizers import AddedToken
from transformers.models.idefics3 import image_processing_pil_idefics3 as idefics3
from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
from transformers.models.smolvlm import image_processing_pil_smolvlm as smolvlm
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from lorgnette.data.inspect.preview import Document
from lorgnette.data.inspect.unpatchify import picture
from lorgnette.data.plan.augment import image_costs
from lorgnette.errors import SettingsError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import crops_of, image_crops, image_patches, least_slots
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import turns
from lorgnette.inputs.tiles import WHOLE_IMAGE, tag_of, tile_grid, tiled_sizes, tiles_of
from lorgnette.inputs.tokenizer import Tokenizer, train_tokenizer
from lorgnette.model.configs.connector_config import LinearConfig, PixelShuffleConfig
from lorgnette.sample import Image, Sample, Text, Turn
from tests.inputs.conftest import CORPUS, noise
from tests.inputs.image_files import saved

SIDES = {"size": {"longest_edge": 112}, "max_image_size": {"longest_edge": 28}}
RAW = {"do_rescale": False, "do_normalize": False}
EDGES = [(1, 1), (1, 300), (300, 1), (2, 999), (999, 2), (56, 56), (57, 56), (28, 28), (112, 28), (28, 112), (113, 56)]


def shapes(count: int, most: float = 2.6) -> list[tuple[int, int]]:
    draw = random.Random(3)
    return [*EDGES, *((round(10 ** draw.uniform(0, most)), round(10 ** draw.uniform(0, most))) for _ in range(count))]


def tiled(side: int = 28, tiles: int = 4, **given: Any) -> ImageConfig:
    sizes = {"shortest": side, "longest": side * tiles, "patch": 14, "grid": side // 14}
    return ImageConfig(**sizes | {"policy": "tiles", "split": True, "resample": "lanczos"} | given)


ORACLES = {"Idefics3": idefics3.Idefics3ImageProcessorPil, "SmolVLM": smolvlm.SmolVLMImageProcessorPil}


def pixels_of(image: PIL.Image.Image, config: ImageConfig, split: bool) -> np.ndarray:
    """Crops as pictures: crops, channels, height, width."""
    side = config.patch
    return np.stack(
        [
            crop.pixels_PC.reshape(crop.rows, crop.columns, 3, side, side)
            .transpose(2, 0, 3, 1, 4)
            .reshape(3, crop.rows * side, crop.columns * side)
            for crop in image_patches(image, config, split)
        ]
    )


@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("name", ORACLES)
def test_pixels_are_the_processors(name: str, split: bool) -> None:
    config = tiled()
    oracle = ORACLES[name](**SIDES, do_image_splitting=split, **RAW)
    for size in shapes(25):
        image = noise(*size)
        theirs = oracle(image, return_tensors="np", return_row_col_info=True)
        ours = pixels_of(image, config, split)
        assert np.array_equal(ours, theirs["pixel_values"][0]), size
        rows, columns = (int(one) for one in tile_grid(*size, split, config))
        expected = (theirs["rows"][0][0], theirs["cols"][0][0])
        assert (rows, columns) == (expected if expected != (0, 0) else (1, 1))


SIZES = {"8B": (364, 4, 14), "256M": (512, 4, 16), "2.2B": (384, 4, 14), "six": (98, 6, 14), "one": (98, 1, 14)}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_processors_for_one_image_and_for_arrays(name: str) -> None:
    side, tiles, patch = SIZES[name]
    if side % patch:
        patch = 16
    config = tiled(side, tiles, patch=patch, grid=-(-side // patch))
    oracle = idefics3.Idefics3ImageProcessorPil()
    oracle.resize = lambda image, size, **given: size
    found = shapes(500, most=4.0)
    width, height = (np.array(column) for column in zip(*found, strict=True))
    firsts, seconds = (np.stack(size, 1).tolist() for size in tiled_sizes(width, height, config))
    for (wide, high), first, second in zip(found, firsts, seconds, strict=True):
        shape = np.broadcast_to(np.uint8(0), (3, high, wide))
        expected = idefics3.get_resize_output_image_size(shape, side * tiles)
        again = np.broadcast_to(np.uint8(0), (3, *expected))
        whole = oracle.resize_for_vision_encoder(again, side)
        assert first == [expected[1], expected[0]], (wide, high)
        assert second == [whole.width or side, whole.height or side], (wide, high)
        assert [tuple(map(int, size)) for size in tiled_sizes(wide, high, config)] == [tuple(first), tuple(second)]
    rows, columns = tile_grid(width, height, np.ones(len(found), bool), config)
    assert max(rows.max(), columns.max()) == tiles and min(rows.min(), columns.min()) == 1


def test_shapes_of_crops_are_known_from_a_header() -> None:
    config = tiled()
    for size in shapes(40):
        for split in (True, False):
            crops = image_patches(noise(*size), config, split)
            assert tuple(one.crop for one in crops) == crops_of(*size, split, config)
            assert image_crops(saved(noise(*size), "PNG"), config, split) == crops_of(*size, split, config)
    assert tiles_of(1, 2) == ((1, 1), (1, 2), WHOLE_IMAGE) and tiles_of(1, 1) == (WHOLE_IMAGE,)
    assert [tag_of(one) for one in tiles_of(1, 2)] == ["<row_1_col_1>", "<row_1_col_2>", "<global-img>"]


def test_a_large_photograph_may_be_decoded_smaller_and_is_much_the_same() -> None:
    source = saved(noise(300, 200).resize((1600, 1000)), "JPEG", quality=90)
    fast, exact = (image_patches(source, tiled(resize=how), split=True) for how in ("fast", "exact"))
    assert [one.crop for one in fast] == [one.crop for one in exact]
    differences = [np.abs(one.pixels_PC.astype(int) - two.pixels_PC) for one, two in zip(fast, exact, strict=True)]
    assert np.concatenate(differences).mean() < 8


# --- Texts ------------------------------------------------------------------------------------------------------------

ADDED = [tag_of(tile) for tile in tiles_of(4, 4)]


def tokenizer_with(tags: bool) -> Tokenizer:
    """One whose vocabulary holds the tags, as SmolVLM's, or none of them, as Idefics3-8B's."""
    made = train_tokenizer(CORPUS, vocabulary=420)
    if not tags:
        return made
    backend = tokenizers.Tokenizer.from_str(made.to_json())
    backend.encode_special_tokens = False
    backend.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in ADDED])
    return Tokenizer(backend, made.settings, made.special)


def their_ids(kind: str, folder: Path, text: str, images: list[PIL.Image.Image], split: bool) -> list[int]:
    """Ids of a text with `<image>` in it. SmolVLM's processor needs packages for videos: its text is made without."""
    words = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    if kind == "Idefics3":
        processor = Idefics3Processor(idefics3.Idefics3ImageProcessorPil(**SIDES), words, image_seq_len=4)
        given = {"images": [images], "do_image_splitting": split} if images else {}
        return [*processor(text=[text], **given)["input_ids"][0]]
    pictures = smolvlm.SmolVLMImageProcessorPil(**SIDES, do_image_splitting=split)
    before, *after = text.split("<image>")
    for image, following in zip(images, after, strict=True):
        found = pictures(image, return_row_col_info=True, return_tensors="np")
        cut = (found["rows"][0][0], found["cols"][0][0])
        before += get_image_prompt_string(*cut, 4, "<fake_token_around_image>", "<image>", "<global-img>") + following
    return [*words(before)["input_ids"]]


SAMPLES = [
    Sample((Turn("user"), Image(noise(90, 61)), Text("What is it?"), Turn("assistant"), Text("A ball", True))),
    Sample((Turn("user"), Image(noise(10, 300)), Image(noise(400, 20)), Text("Which is longer?"))),
    Sample((Turn("user"), Text("How many "), Image(noise(28, 28)), Text(" and "), Image(noise(3, 3)), Text("here?"))),
    Sample((Turn("user"), Text("Nothing to see"))),
]


@pytest.mark.parametrize("tags", [True, False], ids=["tokens", "text"])
@pytest.mark.parametrize("kind", ["Idefics3", "SmolVLM"])
def test_texts_are_the_processors(kind: str, tags: bool, tmp_path: Path) -> None:
    tokenizer = tokenizer_with(tags)
    tokenizer.save(tmp_path)
    words = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    for split in (True, False):
        ours = Processor(tokenizer, tiled(grid=4, patch=7, split=split), PixelShuffleConfig(side=2))
        for sample in SAMPLES:
            messages = [{"role": role, "content": [_part(one) for one in contents]} for role, contents in turns(sample)]
            text = words.apply_chat_template(messages, chat_template=ours.template.source, tokenize=False)
            images = [one.source for one in sample.images]
            assert ours([sample]).tokens_T.tolist() == their_ids(kind, tmp_path, text, images, split)


def _part(content: Text | Image) -> dict[str, str]:
    return {"type": "image"} if isinstance(content, Image) else {"type": "text", "text": content.text}


@pytest.mark.parametrize("tags", [True, False], ids=["tokens", "text"])
def test_what_a_user_types_is_no_tag(tags: bool) -> None:
    tokenizer = tokenizer_with(tags)
    processor = Processor(tokenizer, tiled(), PixelShuffleConfig(side=2))
    ids = processor([Sample((Turn("user"), Text("<row_1_col_1> is text")))]).tokens_T.tolist()
    assert "<row_1_col_1> is text" in tokenizer.decode(ids)
    if tags:
        assert tokenizer.id("<row_1_col_1>") not in ids


@pytest.mark.parametrize("connector", [PixelShuffleConfig(side=2), LinearConfig()], ids=["shuffle", "linear"])
@pytest.mark.parametrize("tags", [True, False], ids=["tokens", "text"])
def test_the_plan_counts_what_is_written(tags: bool, connector: Any) -> None:
    """Without pixels, by one function of an image's size; of tags that are text, the longest is counted for each."""
    processor = Processor(tokenizer_with(tags), tiled(), connector)
    found = shapes(40, most=2.0)
    width, height = (np.array(column) for column in zip(*found, strict=True))
    for split in (True, False):
        switches = np.full(len(found), split)
        tokens, patches = image_costs(width, height, switches, processor.images, connector)
        for size, counted, cut in zip(found, tokens.tolist(), patches.tolist(), strict=True):
            rendered = processor.render(Sample((Image(noise(*size)),)), split=split)
            text = len(rendered.tokens_T) - len(processor.render(Sample(())).tokens_T)
            assert text == counted if tags else text <= counted <= text + 17
            assert sum(len(one) for one in rendered.images) == cut


def test_the_least_text_of_an_image_is_that_of_one_row() -> None:
    processor = Processor(tokenizer_with(True), tiled(), PixelShuffleConfig(side=2))
    for split in (True, False):
        least = least_slots(processor.images, processor.connector, split)
        shortest = len(processor.render_text(Sample((Image(noise(1, 1)),)), [least]).tokens_T)
        rendered = [processor.render(Sample((Image(noise(*size)),)), split=split) for size in shapes(30)]
        assert shortest == min(len(one.tokens_T) for one in rendered)


def test_split_images_are_learned_around_and_never_within() -> None:
    rendered = Processor(tokenizer_with(False), tiled(), PixelShuffleConfig(side=2)).render(SAMPLES[0])
    learned = np.flatnonzero(rendered.loss_mask_T)
    assert len(learned) and learned[0] > np.flatnonzero(rendered.tokens_T == rendered.tokens_T[2]).max()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no multiple": ({"longest": 100}, "longest 100 is not a multiple of shortest 28, the side of a tile"),
    "a rest of a patch": (
        {"shortest": 30, "longest": 60, "grid": 9},
        "shortest 30, the side of a tile, is not a multi",
    ),
    "a rest of a square": ({"multiple": 3}, "is not a multiple of 3 x 14 pixels"),
    "beyond the table": ({"grid": 1}, "a tile's \\(shortest\\) side 28 exceeds the position table"),
    "beyond upstream's limit": ({"longest": 28 * 150}, "longest 4200 exceeds the 4096 pixels"),
}


@pytest.mark.parametrize(("given", "said"), REFUSED.values(), ids=REFUSED)
def test_sides_that_upstream_cuts_otherwise_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ImageConfig.parse(tiled().plain() | given)


def test_pixels_and_masks_of_upstream_have_no_padding() -> None:
    """So a tile needs no mask here: every crop of every image has one size."""
    found = idefics3.Idefics3ImageProcessorPil(**SIDES)([[noise(90, 61)]], return_tensors="pt")
    assert bool(torch.as_tensor(found["pixel_attention_mask"]).all())


# --- Looked at --------------------------------------------------------------------------------------------------------


def test_a_page_names_the_tiles_of_each_image() -> None:
    images = tiled()
    shown = [one for size in ((56, 28), (28, 28)) for one in image_patches(noise(*size), images, split=True)]
    alone = image_patches(noise(5, 5), images, split=False)
    pictures = tuple(picture(one, images.grid) for one in (*shown, *alone))
    document = Document("row 1", 0, np.zeros(1, np.int64), np.zeros(1, bool), pictures)
    wide = [f"tile {row}, {column}" for row in (1, 2) for column in (1, 2, 3, 4)]
    square = [f"tile {row}, {column}" for row in (1, 2, 3, 4) for column in (1, 2, 3, 4)]
    assert document.parts == [
        *((0, name) for name in (*wide, "whole")), *((1, name) for name in (*square, "whole")), (2, "")
    ]  # fmt: skip
