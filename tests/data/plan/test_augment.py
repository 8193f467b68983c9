"""Random augmentation: arrays agree with the rules of `inputs`, and draws have the requested frequencies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorgnette.data.config import AugmentConfig
from lorgnette.data.plan.augment import LEAST_FACTOR, Augmenter, hashed, image_costs, target_sizes, uniform
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import crop_boxes, target_size
from lorgnette.model.configs.connector_config import PerceiverConfig

CONFIGS = {
    "native": ImageConfig(),
    "keep aspect": ImageConfig(keep_aspect=True),
    "square": ImageConfig(policy="square", longest=384, shortest=384),
    "pixel shuffle": ImageConfig(multiple=3),
    "naflex": ImageConfig(policy="naflex", positions="interpolated", patch=16, grid=16, shortest=256, longest=256),
    "naflex squares": ImageConfig(policy="naflex", positions="interpolated", shortest=210, longest=210, multiple=3),
    "centre": ImageConfig(policy="square", longest=224, shortest=224, crop_from=256),
    "small": ImageConfig(shortest=48, longest=128, patch=16, grid=8, keep_aspect=True),
}
MANY = np.arange(20_000)


def patches_of(width: int, height: int, split: bool, config: ImageConfig) -> int:
    """The oracle: crop by crop, as `image_patches` cuts them."""
    boxes = crop_boxes(width, height, split)
    sizes = [target_size(right - left, bottom - top, config) for left, top, right, bottom in boxes]
    return sum((wide // config.patch) * (high // config.patch) for wide, high in sizes)


@pytest.mark.parametrize("name", CONFIGS)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 5000), st.booleans()), min_size=1, max_size=20))
def test_sizes_and_patches_of_arrays_are_those_of_the_inputs(name, images):
    config = CONFIGS[name]
    width, height, split = (np.array(column) for column in zip(*images, strict=True))
    wide, high = target_sizes(width, height, config)
    sizes = [target_size(one[0], one[1], config) for one in images]
    assert list(zip(wide.tolist(), high.tolist(), strict=True)) == sizes
    tokens, patches = image_costs(width, height, split, config, PerceiverConfig(latents=3))
    assert patches.tolist() == [patches_of(*one, config) for one in images]
    assert tokens.tolist() == [5 * 4 + 1 if one[2] else 4 + 1 for one in images]


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=6))
def test_a_hash_of_arrays_is_that_of_their_numbers(parts):
    def mixed(state: int) -> int:
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    state = 0
    for part in parts:
        state = mixed((state + part + 0x9E3779B97F4A7C15) % 2**64)
    assert int(hashed(*parts)[0]) == state


def test_hashes_look_random():
    drawn = uniform(7, 1, MANY)
    assert drawn.min() >= 0 and drawn.max() < 1
    counts, _ = np.histogram(drawn, 20, (0, 1))
    assert (np.abs(counts - 1000) < 150).all()
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.03
    assert abs(np.corrcoef(drawn, uniform(7, 2, MANY))[0, 1]) < 0.03, "draws of different purpose are alike"


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_samples_are_split_as_often_as_asked(share):
    augmenter = Augmenter(AugmentConfig(split=share), ImageConfig(), 0)
    drawn = augmenter.split(0, MANY, 0)
    assert abs(drawn.mean() - share) < 0.02
    if 0 < share < 1:
        assert 0.3 < (drawn == augmenter.split(0, MANY, 1)).mean() < 0.7, "every epoch splits the same samples"
    assert Augmenter(AugmentConfig(split=share), ImageConfig(split=True), 0).split(0, MANY, 0).all()


def test_images_are_enlarged_as_often_and_as_much_as_asked():
    augmenter = Augmenter(AugmentConfig(upscale=0.5, most_upscale=3.0), ImageConfig(), 0)
    width, height = np.full_like(MANY, 100), np.full_like(MANY, 50)
    wide, high = augmenter.enlarged((0, MANY, 0, 0), width, height)
    enlarged = wide > width
    assert abs(enlarged.mean() - 0.5) < 0.02
    factors = wide[enlarged] / 100
    assert factors.min() >= LEAST_FACTOR and factors.max() <= 3.0
    assert (factors < 2).mean() > 0.5, "small factors are to be more frequent"
    assert np.abs(high[enlarged] / 50 - factors).max() <= 0.02, "the aspect ratio changes"


def test_no_side_grows_beyond_the_longest_and_none_shrinks():
    augmenter = Augmenter(AugmentConfig(upscale=1.0, most_upscale=8.0), ImageConfig(), 0)
    draw = np.random.default_rng(0)
    width, height = draw.integers(1, 3000, len(MANY)), draw.integers(1, 3000, len(MANY))
    wide, high = augmenter.enlarged((0, MANY, 0, 0), width, height)
    larger = np.maximum(width, height) < 980
    assert (np.maximum(wide, high)[larger] <= 980).all() and (wide[larger] >= width[larger]).all()
    assert (wide[~larger] == width[~larger]).all() and (high[~larger] == height[~larger]).all()


def test_orders_are_permutations_that_change_with_the_epoch():
    augmenter = Augmenter(AugmentConfig(), ImageConfig(), 0)
    orders = {augmenter.order((0, 5, epoch), 3, 10) for epoch in range(20)}
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len(orders) > 15
