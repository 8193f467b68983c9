"""The preview shows exactly the loader's packs: the same tokens, marks and pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lorgnette.data.inspect import Gatherer
from lorgnette.data.inspect.preview import Total, spread
from lorgnette.data.inspect.unpatchify import original_size, picture, unpatchify
from lorgnette.inputs.image import image_patches, open_image
from lorgnette.model.batch import IGNORE_INDEX
from lorgnette.sample import Image, Sample, Text
from tests.data.inspect.conftest import RED, Listed, samples
from tests.data.inspect.conftest import picture as made_picture


def test_the_packs_are_those_of_the_loader(gatherer, steps):
    packs, refused = gatherer.steps(steps, 0, 3, most=1000)
    batches = [batch for step in range(3) for batch in steps.batches(step)]
    assert not refused and len(packs) == len(batches) == 6
    for pack, batch in zip(packs, batches, strict=True):
        tokens = np.concatenate([one.tokens_T for one in pack.documents])
        assert torch.equal(torch.from_numpy(tokens), batch.tokens_T)
        assert pack.total.supervised_tokens == int((batch.targets_T != IGNORE_INDEX).sum())
        assert pack.total.patches == len(batch.patches_PC)
        assert [one.name for one in pack.documents] == list(batch.names)
        assert pack.starts[:-1] == list(batch.documents.starts)[: len(pack.documents)]


def test_a_picture_is_put_together_from_the_patches_of_the_model(processor):
    image = made_picture(RED, (32, 24))
    image.putpixel((5, 20), (1, 2, 3))
    [patches] = image_patches(image, processor.images, split=False, name="one")
    shown = picture(patches, processor.images.grid)
    assert shown.size == (32, 24) and shown.patches == len(patches)
    assert np.array_equal(np.asarray(unpatchify(patches)), np.asarray(open_image(image, "one")))


def test_a_split_image_is_five_pictures_of_one_original(gatherer, processor):
    sample = samples()[0]
    rendered = processor.render(sample, split=True)
    [pack], _ = Gatherer(replace(processor, images=processor.images.override("split=true")), 400).samples([sample], 1)
    [document] = pack.documents
    assert len(document.pictures) == len(rendered.images) == 5
    assert document.originals == ((32, 16),) and document.crops == 5


FAULTS = {
    "nothing is learned": (Sample((Text("silence"),), {"name": "mute"}), "none of its"),
    "no text": (Sample((Image(made_picture(RED)),), {"name": "bare"}), "none of its"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_learned_is_a_fault_that_names_the_sample(gatherer, name):
    sample, reason = FAULTS[name]
    [pack], refused = gatherer.samples([*samples(), sample], most=64)
    assert [(one.name, reason in one.fault) for one in pack.documents if one.fault] == [(sample.name, True)]
    assert not refused


def test_too_long_and_outside_the_embedding_are_faults(processor):
    few = Gatherer(processor, vocabulary=20)
    short = Gatherer(processor, processor.tokenizer.vocabulary, most_tokens=5)
    for gatherer, reason in ((few, "outside the embedding"), (short, "exceed the limit of 5")):
        [pack], _ = gatherer.samples(samples()[2:3], most=64)
        assert reason in pack.documents[0].fault


def test_an_image_that_cannot_be_read_is_refused_by_name_and_the_others_are_shown(gatherer):
    broken = Sample((Image(b"no image"), Text("a", supervised=True)), {"name": "broken"})
    [pack], refused = gatherer.samples([broken, *samples(), "row 9: no image"], most=64)
    assert len(pack.documents) == len(samples())
    assert len(refused) == 2 and "broken" in refused[0] and refused[1] == "row 9: no image"


def test_a_refused_sample_of_a_step_is_told_and_not_replaced(gatherer, steps):
    broken = Sample((Image(b"no image"), Text("a", supervised=True)), {"name": "broken"})
    poisoned = replace(steps, sources=(Listed([broken, *samples()[1:]]), steps.sources[1]))
    packs, refused = gatherer.steps(poisoned, 0, 1, most=64)
    assert sum(len(pack.documents) for pack in packs) + len(refused) == 8
    assert refused and all("broken, image 1: " in one for one in refused)


def test_only_those_chosen_are_shown_and_all_are_counted(gatherer):
    [pack], _ = gatherer.samples(samples(), most=2)
    assert len(pack.chosen) == 2 and pack.total == Total.of(pack.documents) and pack.total.documents == 4
    assert [one.shown or not one.pictures for one in pack.documents] == [n in pack.chosen or n >= 2 for n in range(4)]


@pytest.mark.parametrize(("count", "most"), [(0, 3), (2, 3), (10, 3), (10, 10), (7, 1)])
def test_spread_takes_as_many_as_asked_from_end_to_end(count, most):
    chosen = sorted(spread(count, most))
    assert len(chosen) == min(count, most) and all(0 <= one < count for one in chosen)
    assert max(np.diff(chosen), default=0) <= -(-count // most)


def test_the_size_of_an_original_is_upright_and_unknown_behind_a_url(tmp_path):
    exif = made_picture(RED).getexif()
    exif[0x0112] = 6
    made_picture(RED, (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert original_size(tmp_path / "turned.jpg") == (20, 40)
    assert original_size((tmp_path / "turned.jpg").read_bytes()) == (20, 40)
    assert original_size("https://example.org/a.jpg") is None and original_size(b"no image") is None
