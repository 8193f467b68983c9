"""Visual tokens are made once per image, are those that the model makes without a store, and follow the weights."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

import lorgnette.infer.image_cache
from lorgnette.errors import ImageError
from lorgnette.eval.models.local import LorgnetteModel
from lorgnette.infer.generate import generate
from lorgnette.infer.image_cache import ImageFeatureCache
from lorgnette.infer.sampling import GenerationConfig
from lorgnette.model.vlm import VLM
from lorgnette.sample import Image, Sample, Text, Turn
from tests.hub.tiny import SAMPLES, picture, question, tiny_model, tiny_processor

PROCESSOR = tiny_processor()
SETTINGS = GenerationConfig(max_tokens=8)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images that each call encoded."""
    calls: list[int] = []
    encode = VLM.encode_images
    monkeypatch.setattr(
        VLM, "encode_images", lambda self, batch: calls.append(len(batch.images)) or encode(self, batch)
    )
    return calls


@pytest.mark.parametrize("split", [None, True])
@pytest.mark.parametrize("keep_bytes", [0, 3000, 2**20])
def test_answers_are_those_without_a_store(split: bool | None, keep_bytes: int) -> None:
    model = tiny_model()
    latents = ImageFeatureCache(model, PROCESSOR, split=split, keep_bytes=keep_bytes)
    expected = generate(model, PROCESSOR, SAMPLES, SETTINGS, split=split)
    for _ in range(2):
        assert generate(model, PROCESSOR, SAMPLES, SETTINGS, image_cache=latents) == expected
    assert latents.bytes <= keep_bytes


@pytest.mark.parametrize("split", [False, True])
def test_tokens_are_those_of_the_batch(split: bool) -> None:
    model = tiny_model()
    with torch.no_grad():
        batch, visual_VD = ImageFeatureCache(model, PROCESSOR, split=split).prompts(SAMPLES)
        whole = PROCESSOR(SAMPLES, add_generation_prompt=True, split=split)
        assert torch.equal(batch.tokens_T, whole.tokens_T)
        assert torch.equal(batch.visual_positions_V, whole.visual_positions_V)
        torch.testing.assert_close(visual_VD, model.encode_images(whole), atol=1e-5, rtol=1e-5)


def test_an_image_is_encoded_once(encoded: list[int], tmp_path: Path) -> None:
    file = io.BytesIO()
    picture(40, 60).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    same = [Image(file.getvalue()), Image(tmp_path / "a.png"), Image(str(tmp_path / "a.png"))]
    latents = ImageFeatureCache(tiny_model(), PROCESSOR)
    latents.of([Sample((image,)) for image in same])
    latents.of([Sample((Turn("user"), *same, Text("again")))])
    assert encoded == [1]
    assert (latents.hits, latents.misses) == (5, 1)


def test_an_image_of_a_prompt_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[object] = []
    key = lorgnette.infer.image_cache._key
    monkeypatch.setattr(lorgnette.infer.image_cache, "_key", lambda source: hashed.append(source) or key(source))
    samples = [sample for sample in SAMPLES if sample.images]
    ImageFeatureCache(tiny_model(), PROCESSOR).prompts(samples)
    assert len(hashed) == sum(len(sample.images) for sample in samples) > 0


def test_what_was_not_used_for_longest_goes_first(encoded: list[int]) -> None:
    model = tiny_model()
    one = ImageFeatureCache(model, PROCESSOR).of([question("", (30, 30))]).nbytes
    a, b, c = (question("", size) for size in ((40, 60), (60, 40), (50, 50)))
    latents = ImageFeatureCache(model, PROCESSOR, keep_bytes=2 * one)
    for sample in (a, b, a, c, a, b):
        latents.of([sample])
    assert encoded == [1] + [1] * 4, "one to measure; a, b, c, and b again"
    assert latents.bytes == 2 * one


def test_other_weights_make_other_tokens() -> None:
    model = tiny_model()
    latents = ImageFeatureCache(model, PROCESSOR)
    before = latents.of(SAMPLES[:1]).clone()
    with torch.no_grad():
        model.connector.latents.mul_(2)
    assert not torch.equal(latents.of(SAMPLES[:1]), before)
    torch.testing.assert_close(latents.of(SAMPLES[:1]), ImageFeatureCache(model, PROCESSOR).of(SAMPLES[:1]))


def test_a_broken_image_is_named() -> None:
    sample = Sample((Image(picture(20, 20)), Image(b"nothing"), Text("?")), {"name": "row 7"})
    with pytest.raises(ImageError, match="row 7, image 2"):
        ImageFeatureCache(tiny_model(), PROCESSOR).of([sample])


def test_what_is_remembered_of_sizes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorgnette.infer.image_cache.MEMORY_OF_SIZES", 2)
    latents = ImageFeatureCache(tiny_model(), PROCESSOR)
    images = [latents.images(question("", (40 + number, 60)))[0] for number in range(4)]
    expected = [latents.crops(image) for image in images]
    headers = []
    read = lorgnette.infer.image_cache.image_crops
    monkeypatch.setattr("lorgnette.infer.image_cache.image_crops", lambda *given: headers.append(given) or read(*given))
    assert latents.crops(images[3]) == expected[3]
    assert not headers
    assert latents.crops(images[0]) == expected[0]
    assert len(headers) == 1


def test_an_image_is_found_as_it_was_encoded() -> None:
    """Split and whole are two images, and what is found is what was made."""
    latents = ImageFeatureCache(tiny_model(), PROCESSOR)
    whole, split = (latents.images(SAMPLES[0], split)[0] for split in (False, True))
    assert latents.find(whole) is None
    (made,) = latents.encode([whole])
    assert latents.find(whole) is made
    assert latents.find(split) is None
    assert len(latents.encode([split])[0]) == 5 * len(made)
    assert (latents.hits, latents.misses) == (1, 2)
    latents.clear()
    assert latents.find(whole) is None
    assert latents.bytes == 0


def test_looks_are_unit_vectors_that_know_the_picture() -> None:
    answerer = LorgnetteModel(tiny_model(), PROCESSOR)
    pictures = [picture(40, 60, seed) for seed in range(3)]
    vectors = answerer.encode_images(pictures)
    assert vectors.shape == (3, 24)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(answerer.encode_images(pictures[1:2])[0], vectors[1], atol=1e-5)
    assert abs(vectors[0] @ vectors[1]) < 0.9999
