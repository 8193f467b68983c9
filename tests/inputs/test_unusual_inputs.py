"""Pictures, texts and old folders that people have met elsewhere as faults, and that are read rightly here."""

from __future__ import annotations

import io
import json

import numpy as np
import PIL.Image
import pytest
from transformers import AutoProcessor
from transformers.image_utils import load_image

from lorgnette.errors import CheckpointError, DataError, ImageError
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import image_patches, open_image, target_size
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.templates.template import JinjaTemplate
from lorgnette.inputs.tokenizer import Tokenizer
from lorgnette.sample import Sample
from tests.inputs.conftest import mistral_like, noise, old_checkpoint


def saved(image: PIL.Image.Image, form: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def oriented(number: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = number
    return exif.tobytes()


def frames(count: int = 3) -> list[PIL.Image.Image]:
    """Fresh ones each time: Pillow keeps an encoder's settings with the image."""
    return [noise(20, 12, seed) for seed in range(count)]


def several(form: str, count: int = 3, **options) -> bytes:
    first, *others = frames(count)
    return saved(first, form, save_all=True, append_images=others, **options)


OPENED = {
    "one pixel": saved(noise(1, 1), "PNG"),
    "a line of 60,000 pixels": saved(PIL.Image.new("RGB", (60_000, 1), "red"), "PNG"),
    "CMYK JPEG": saved(noise(20, 12).convert("CMYK"), "JPEG"),
    "CMYK TIFF": saved(noise(20, 12).convert("CMYK"), "TIFF"),
    "LAB TIFF": saved(PIL.Image.frombytes("LAB", (20, 12), noise(20, 12).tobytes()), "TIFF"),
    "one bit, group 4": saved(noise(20, 12).convert("1"), "TIFF", compression="group4"),
    "MPO": several("MPO"),
    "TIFF of three pages": several("TIFF"),
    "GIF of 300 frames": several("GIF", 300),
    "WebP of three frames": several("WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", OPENED)
def test_pictures_of_unusual_kinds_open_as_upstream_opens_them(kind, tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(OPENED[kind])
    found = open_image(path)
    assert found.mode == "RGB" and np.array_equal(np.asarray(found), np.asarray(load_image(str(path))))
    assert image_patches(path, ImageConfig(shortest=28, longest=56, grid=4), split=False)[0].pixels_PC.any()


EXIF = {
    "blank": (b"Exif\0\0", (20, 12)),
    "doubled": (oriented(6) * 2, (12, 20)),
    "cut": (oriented(6)[:17], (20, 12)),
    "of zeros": (b"Exif\0\0" + bytes(40), (20, 12)),
    "junk": (b"Exif\0\0II*\0" + bytes(range(200)), (20, 12)),
    "no offsets": (b"Exif\0\0MM\0*" + b"\xff" * 30, (20, 12)),
    "orientation 0": (oriented(0), (20, 12)),
    "orientation 9": (oriented(9), (20, 12)),
    "orientation 6": (oriented(6), (12, 20)),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", EXIF)
def test_a_jpeg_opens_whatever_its_exif_holds(kind):
    exif, size = EXIF[kind]
    assert open_image(saved(noise(20, 12), "JPEG", exif=exif)).size == size


NO_IMAGES = {
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><rect width='9' height='9'/></svg>",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
    "PDF": b"%PDF-1.4\n1 0 obj\n<< >>\nendobj\ntrailer\n<< >>\n%%EOF",
    "HTML": b"<!doctype html><html><body>Not found</body></html>",
}


@pytest.mark.parametrize("kind", NO_IMAGES)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_what_is_no_raster_image_is_refused_whatever_it_is_called(kind, name, tmp_path):
    (tmp_path / name).write_bytes(NO_IMAGES[kind])
    with pytest.raises(ImageError, match=rf"{name}\): "):
        open_image(tmp_path / name)


def bomb(form: str, side: int) -> bytes:
    """A small file whose header speaks of many pixels."""
    content = bytearray(saved(PIL.Image.new("L", (16, 16)), form))
    if form == "PNG":
        content[16:24] = side.to_bytes(4, "big") * 2
    elif form == "GIF":
        content[6:10] = side.to_bytes(2, "little") * 2
    else:
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = side.to_bytes(2, "big") * 2
    return bytes(content)


@pytest.mark.parametrize(("form", "side"), [("PNG", 40_000), ("JPEG", 65_500), ("GIF", 65_000)])
def test_a_header_of_too_many_pixels_is_refused_before_decoding(form, side):
    with pytest.raises(ImageError):
        open_image(bomb(form, side))


@pytest.mark.parametrize(
    ("size", "resized"),
    [((980, 653), (980, 653)), ((767, 980), (767, 980)), ((3000, 2000), (980, 653)), ((767 * 3, 980 * 3), (767, 980))],
)
def test_sizes_of_upstreams_own_tests(size, resized):
    assert target_size(*size, ImageConfig(patch=1, grid=980)) == resized


NAMES = [
    "a b.png",
    'it\'s "so".png',
    "two\nlines.png",
    "\U0001f600.png",
    "-dash.png",
    "%41%zz.png",
    "[1].png",
    "ä*?.png",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_of_any_name_opens(name, tmp_path):
    noise(20, 12).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / name)
    sample = Sample.from_messages([{"role": "user", "content": [{"type": "image", "path": str(tmp_path / name)}]}])
    assert open_image(sample.images[0].source).size == (20, 12)


# Texts

TEXTS = [
    "nul \0 inside",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
    "\ufeffmarked",
    "",
    " ",
    "\u202eright to left",
]


@pytest.mark.parametrize("text", TEXTS)
def test_odd_characters_of_a_turn_come_back(processor, text):
    rendered = processor.render(Sample.from_messages([{"role": "user", "content": text}]))
    decoded = processor.tokenizer.decode(rendered.tokens_T, keep_special=True)
    assert decoded == f"<s>User: {text}<end_of_utterance>\n"


def test_half_a_character_is_refused_as_a_text(processor):
    with pytest.raises(DataError):
        processor.render(Sample.from_messages([{"role": "user", "content": "half \ud83c"}]))


LLAMA_2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("template", [LLAMA_2, MISTRAL], ids=["Llama 2", "Mistral"])
def test_a_template_that_writes_the_first_token_writes_it_once(template, tmp_path):
    folder = old_checkpoint(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    (folder / "chat_template.jinja").write_text(template)
    ours, upstream = Processor.load(folder), AutoProcessor.from_pretrained(folder)
    talk = [{"role": "user", "content": "A red ball."}, {"role": "assistant", "content": "Three dogs"}]
    tokens = ours.render(Sample.from_messages(talk)).tokens_T.tolist()
    expected = upstream.tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
    assert tokens == expected and tokens.count(ours.tokenizer.bos) == 1


@pytest.mark.parametrize("place", ["chat_template.jinja", "chat_template.json", "processor_config", "tokenizer_config"])
def test_the_template_of_an_old_folder_is_found_where_upstream_finds_it(place, tmp_path):
    folder = old_checkpoint(tmp_path)
    template = "{% for m in messages %}<s>{{ m.role }}|{{ m.content }}{% endfor %}"
    (folder / "chat_template.jinja").unlink()
    if place.startswith("chat_template"):
        text = template if place.endswith("jinja") else json.dumps({"chat_template": template})
        (folder / place).write_text(text)
    else:
        file = folder / f"{place}.json"
        values = json.loads(file.read_text()) if file.exists() else {"processor_class": "Idefics2Processor"}
        file.write_text(json.dumps(values | {"chat_template": template}))
    found, upstream = Processor.load(folder).template, AutoProcessor.from_pretrained(folder)
    assert isinstance(found, JinjaTemplate) and found.source == template
    assert (upstream.chat_template or upstream.tokenizer.chat_template) == template


@pytest.mark.parametrize("split", [False, True])
def test_the_splitting_of_an_old_folder_is_obeyed(split, tmp_path):
    folder = old_checkpoint(tmp_path, tokenizer_class="PreTrainedTokenizerFast")
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"do_image_splitting": split}))
    talk = [{"role": "user", "content": [{"type": "image", "image": noise(70, 40)}, {"type": "text", "text": "What?"}]}]
    ours, upstream = Processor.load(folder), AutoProcessor.from_pretrained(folder)
    expected = upstream(text=upstream.apply_chat_template(talk), images=[[noise(70, 40)]])["input_ids"][0]
    assert ours.render(Sample.from_messages(talk)).tokens_T.tolist() == expected


@pytest.mark.parametrize("special", [False, True], ids=["ordinary", "special"])
def test_an_image_token_that_is_no_special_token_is_one_here(special, tmp_path):
    mistral_like(tmp_path)
    values = json.loads((tmp_path / "tokenizer.json").read_text())
    number = max(values["model"]["vocab"].values()) + 1
    token = {"id": number, "content": "<image>", "single_word": False, "lstrip": False, "rstrip": False}
    values["added_tokens"].append(token | {"normalized": not special, "special": special})
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.id("<image>") == number
    assert number not in tokenizer.encode("What is an <image> here?"), "what is typed stays text"


ESCAPES = {
    "a class": "{{ ''.__class__.__mro__ }}",
    "globals of a function": "{{ raise_exception.__globals__['jinja2'] }}",
    "globals of a helper": "{{ lipsum.__globals__['os'] }}",
    "an initialiser": "{{ cycler.__init__.__globals__ }}",
    "subclasses": "{{ [].__class__.__base__.__subclasses__() }}",
    "an attribute by a filter": "{{ (messages|attr('__class__')).__mro__ }}",
    "a file": "{% include '/etc/hostname' %}",
    "a changed conversation": "{{ messages.clear() }}",
    "a changed message": "{{ messages[0].update(role='x') }}",
    "endless macros": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a range without end": "{% for i in range(10 ** 9) %}{% endfor %}",
    "blocks without end": "{% if 1 %}" * 3_000,
    "brackets without end": "{{ " + "(" * 5_000 + " }}",
}


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_template_stays_in_its_sandbox(escape, tokenizer):
    talk = Sample.from_messages([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])
    source = "{% for m in messages %}{{ m.content }}{% endfor %}" + ESCAPES[escape]
    with pytest.raises(CheckpointError):
        JinjaTemplate(source, tokenizer).pieces(talk)
