"""An image that is enlarged before it is sized has the patches of one that was enlarged first, but is resized once."""

import numpy as np
import PIL.Image
import pytest

from lorgnette.errors import DataError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import crop_boxes, image_patches, target_size
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.sample import Image, Sample, Text

CONFIG = ImageConfig(shortest=42, longest=280)


def waves(width: int, height: int) -> PIL.Image.Image:
    """A smooth picture, which resizing once or twice leaves nearly alike."""
    y, x = np.mgrid[:height, :width]
    planes = [127 + 120 * np.sin(x / 31 + 1), 127 + 120 * np.cos(y / 23), 127 + 60 * np.sin((x + y) / 40)]
    return PIL.Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("resize", ["exact", "fast"])
@pytest.mark.parametrize(("size", "larger"), [((100, 60), (250, 150)), ((90, 130), (180, 260)), ((70, 70), (280, 280))])
def test_it_looks_as_if_it_had_been_enlarged_first(size, larger, split, resize):
    config = ImageConfig(shortest=42, longest=280, resize=resize)
    picture = waves(*size)
    ours = image_patches(picture, config, split, enlarged=larger)
    theirs = image_patches(picture.resize(larger, PIL.Image.Resampling.BILINEAR), config, split)
    assert [(one.rows, one.columns) for one in ours] == [(one.rows, one.columns) for one in theirs]
    sizes = [target_size(right - left, low - top, config) for left, top, right, low in crop_boxes(*larger, split)]
    assert [(one.columns, one.rows) for one in ours] == [(wide // 14, high // 14) for wide, high in sizes]
    for one, two in zip(ours, theirs, strict=True):
        assert np.abs(one.pixels_PC.astype(int) - two.pixels_PC).mean() < 3


@pytest.mark.parametrize("size", [(100, 60), (500, 300)])
def test_its_own_size_changes_nothing(size):
    picture = waves(*size)
    [ours], [theirs] = (image_patches(picture, CONFIG, False, enlarged=one) for one in (size, None))
    assert (ours.pixels_PC == theirs.pixels_PC).all()


def test_each_image_needs_a_size():
    processor = Processor(train_tokenizer(["a picture"], vocabulary=300), CONFIG, connector=PerceiverConfig(latents=2))
    sample = Sample((Image(waves(50, 50)), Text("a"), Image(waves(60, 50))), {"name": "two"})
    rendered = processor.render(sample, enlarged=[(100, 100), (60, 50)])
    assert [(one.columns, one.rows) for one in rendered.images] == [(7, 7), (4, 3)]
    with pytest.raises(DataError, match="two: 2 images, but sizes for 1; give one for each"):
        processor.render(sample, enlarged=[(100, 100)])
