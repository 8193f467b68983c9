"""Whatever comes in, it is used or refused by a lorgnette error; nothing else is raised, and nothing hangs."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lorgnette.errors import CheckpointError, ImageError, LorgnetteError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import image_patches
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import IDEFICS2_TEMPLATE, JinjaTemplate
from lorgnette.sample import Image, Sample
from tests.fuzz.readers import FORMATS
from tests.inputs.conftest import noise, old_checkpoint
from tests.inputs.shapes import PART_SHAPES, STRING_SHAPES

MAGIC = [
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"RIFF\0\0\0\0WEBP",
    b"II*\0",
    b"BM",
    b"%!PS-Adobe",
    b"8BPS",
    b"\0\0\1\0",
]
PATCHES = ImageConfig(shortest=14, longest=42, grid=3, max_pixels=10**5)


def saved(form: str) -> bytes:
    file = io.BytesIO()
    noise(64, 64).save(file, form)
    return file.getvalue()


FILES = {form: saved(form) for form in FORMATS}


@st.composite
def damaged_files(draw) -> bytes:
    """A real file with some bytes changed, then perhaps cut or continued."""
    content = bytearray(FILES[draw(st.sampled_from(FORMATS))])
    near_the_start = st.integers(0, min(len(content) - 1, 200))
    for _ in range(draw(st.integers(0, 6))):
        content[draw(near_the_start | st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    end = draw(st.just(len(content)) | st.integers(0, len(content)))
    return bytes(content[:end]) + draw(st.binary(max_size=8))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300)
@given(damaged_files() | st.builds(bytes.__add__, st.sampled_from(MAGIC), st.binary(max_size=300)))
def test_image_bytes(content):
    for config in (PATCHES, PATCHES.model_copy(update={"resize": "fast"})):
        with contextlib.suppress(ImageError):
            patches = image_patches(content, config, split=False, name="photo")
            assert patches[0].pixels_PC.shape == (len(patches[0].positions_P), 588)
            assert patches[0].positions_P.max() < 9


words = st.text(max_size=12) | st.text(st.characters(categories=["Co", "Cn"]), max_size=3)
tokens = st.sampled_from(
    ["<image>", "<end_of_utterance>", "<fake_token_around_image>", "\ue0000\ue001", "{{ 1 }}", " "]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
picture = st.just(noise(20, 30)) | st.just(saved("PNG"))
parts = (
    words
    | tokens
    | st.fixed_dictionaries({"type": st.just("text"), "text": words | tokens})
    | st.fixed_dictionaries({"type": st.just("image"), "image": picture})
)
bad_parts = (
    junk
    | st.just("half a character: \ud83c")
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "image", "image_url", "video"])},
        optional=dict.fromkeys(("text", "image", "url", "path", "base64", "image_url"), junk),
    )
)
roles = st.sampled_from(["user", "assistant", "system"])
messages = st.fixed_dictionaries({"role": roles, "content": words | st.lists(parts, max_size=5)})
bad_messages = junk | st.fixed_dictionaries(
    {"role": roles | junk, "content": junk | st.lists(parts | bad_parts, max_size=3)}
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=st.lists(messages, max_size=4), generate=st.booleans(), split=st.booleans())
def test_every_conversation_is_rendered_and_packed(processor, conversation, generate, split):
    sample = Sample.from_messages(conversation)
    rendered = processor.render(sample, add_generation_prompt=generate, split=split)
    batch = processor.pack([rendered])
    assert len(batch.visual_positions_V) == len(sample.images) * processor.connector.latents * (5 if split else 1)
    if sample.is_chat and all(message["content"] != [] for message in conversation):  # upstream's needs a first part
        jinja = dataclasses.replace(processor, template=JinjaTemplate(IDEFICS2_TEMPLATE, processor.tokenizer))
        again = jinja.render(sample, add_generation_prompt=generate, split=split)
        assert again.tokens_T.tolist() == rendered.tokens_T.tolist()
        assert again.loss_mask_T.tolist() == rendered.loss_mask_T.tolist()


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(conversation=junk | st.lists(messages | bad_messages, max_size=3))
def test_ill_formed_conversations_are_refused(processor, conversation):
    with contextlib.suppress(LorgnetteError):
        batch = processor([Sample.from_messages(conversation)])
        assert batch.documents.total == len(batch.tokens_T)


FRAGMENTS = [
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "m.content",
    "messages",
    "|trim",
    "|upper",
    "|join('<image>')",
    "|replace('a', m.content)",
    ".split('a')[0]",
    "[1:]",
    " ~ ",
    " + ",
    " * 9",
    " * 10**9",
    "{% for x in range(99999) %}",
    "{% endfor %}",
    "{% if ",
    "{% endif %}",
    "{% set ns = namespace(a=m.content) %}",
    "{% generation %}",
    "{% endgeneration %}",
    "'%s'|format(m.content)",
    "{% macro f(a) %}",
    "{% endmacro %}",
    "|tojson",
    "<image>",
    "</s>",
    "|list",
    ".__class__",
    "[m.content]",
    "{{ m.content|upper }}",
    "{{ message.content|trim|replace('a', '<image>') }}",
    "{{ bos_token ~ messages|length }}",
    "\ue0009\ue001",
]


def mutated(source: str, draw: random.Random) -> str:
    """The template with a few pieces put in, taken out or moved."""
    for _ in range(draw.choice([1, 1, 2, 4])):
        at, length = draw.randrange(len(source) + 1), draw.randint(0, 20)
        kind = draw.random()
        piece = draw.choice(FRAGMENTS) if kind < 0.6 else source[at : at + length] if kind < 0.8 else ""
        to = draw.randrange(len(source) + 1)
        source = source[:to] + piece + source[to + (length if kind >= 0.8 else 0) :]
    return source


@pytest.mark.filterwarnings("ignore")  # of Python's compiler, about what a template came to be
def test_mutated_chat_templates(tokenizer):
    """Each writes the contents and the images that there are, or is refused; a typed special token stays text."""
    draw, written = random.Random(5), 0
    question = [{"type": "image", "image": noise(9, 9)}, {"type": "text", "text": " <image>a</s> b "}]
    sample = Sample.from_messages([{"role": "user", "content": question}, {"role": "assistant", "content": "c a"}])
    sources = [*STRING_SHAPES.values(), *PART_SHAPES.values(), IDEFICS2_TEMPLATE]
    for _ in range(300):
        template = JinjaTemplate(mutated(draw.choice(sources), draw), tokenizer)
        with contextlib.suppress(CheckpointError):
            pieces = template.pieces(sample, add_generation_prompt=draw.random() < 0.5)
            written += 1
            assert [piece for piece in pieces if isinstance(piece, Image)] == list(sample.images)
    assert 20 < written < 290


FIELDS = ["size", "do_image_splitting", "image_mean", "image_std", "image_seq_len", "image_processor", "chat_template"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return old_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@settings(max_examples=80)
@given(
    file=st.sampled_from(["processor_config.json", "preprocessor_config.json", "config.json", "lorgnette.json"]),
    values=st.dictionaries(st.sampled_from([*FIELDS, "images", "special", "vision_config"]), junk),
)
def test_checkpoint_folders(folder, file, values):
    before = (folder / file).read_bytes() if (folder / file).exists() else None
    (folder / file).write_text(json.dumps(values, default=str))
    try:
        with contextlib.suppress(CheckpointError):
            assert Processor.load(folder).images.patch > 0
    finally:
        (folder / file).unlink()
        if before is not None:
            (folder / file).write_bytes(before)


@settings(max_examples=60)
@given(
    at=st.integers(0, 10**6),
    junk=st.binary(max_size=4),
    name=st.sampled_from(["tokenizer.json", "tokenizer_config.json"]),
)
def test_damaged_tokenizers(folder, at, junk, name):
    content = (folder / name).read_bytes()
    at %= len(content)
    (folder / name).write_bytes(content[:at] + junk + content[at + 1 :])
    try:
        with contextlib.suppress(CheckpointError):
            assert Processor.load(folder).tokenizer.vocabulary > 0
    finally:
        (folder / name).write_bytes(content)
