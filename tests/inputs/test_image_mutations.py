"""Damaged images of every format, the same in every run: used or refused by name, in little memory and time."""

from __future__ import annotations

import contextlib
import functools
import io
import random
import subprocess
import sys
import warnings

import PIL.Image

from lorgnette.errors import ImageError
from lorgnette.eval.image_checks import check_image
from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import image_patches
from lorgnette.inputs.image_io import image_size, open_rgba
from lorgnette.report.thumbnails import thumbnail
from tests.inputs.conftest import noise
from tests.inputs.image_files import icns, ico, png, saved, tiff

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P",),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"),
    "BMP": ("1", "L", "P", "RGB"),
    "PPM": ("1", "L", "RGB", "F"),
    "ICO": ("RGBA",),
    "TGA": ("L", "LA", "P", "RGB", "RGBA"),
    "PCX": ("1", "L", "P", "RGB"),
    "SGI": ("L", "RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA"),
    "JPEG2000": ("L", "RGB", "RGBA"),
    "DDS": ("L", "LA", "RGB", "RGBA"),
    "MPO": ("RGB",),
}
COUNT, MOST_SECONDS, MOST_MIB = 300, 60, 300
LIMITED = ImageConfig(shortest=14, longest=42, grid=3, max_pixels=10**6)


@functools.cache
def originals() -> list[bytes]:
    files = [
        saved(noise(32, 32).convert("L" if mode == "I;16" else mode).convert(mode), form)
        for form, modes in MODES.items()
        for mode in modes
    ]
    packed = saved(noise(32, 32), "TIFF", compression="tiff_lzw"), saved(noise(32, 32), "TIFF", compression="jpeg")
    made = ico(png(16, 16, 8, 6)), icns(png(16, 16, 8, 6)), tiff(8, 8, 16, 0, bytes(128))
    return [*files, *packed, *made, saved(noise(32, 32), "JPEG", progressive=True), b"P3 4 4 255\n" + b"9 " * 48]


def mutated(count: int, seed: int) -> list[bytes]:
    """Files with some bytes changed, mostly near the start, some cut off, doubled, or with a part of another."""
    draw, files = random.Random(seed), originals()
    found = []
    for number in range(count):
        content = bytearray(files[number % len(files)])
        for _ in range(draw.randint(1, 6)):
            place = draw.randrange(min(len(content), draw.choice((32, 128, len(content)))))
            content[place] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
        way = draw.randrange(6)
        if way == 0:
            del content[draw.randrange(len(content)) :]
        elif way == 1:
            other, place = draw.choice(files), draw.randrange(len(content))
            content[place : place + 64] = other[place : place + 64]
        found.append(bytes(content))
    return found


def hammer(count: int, seed: int) -> int:
    """Open every damaged file in every way; how many could be used. Whatever else is raised ends this."""
    warnings.simplefilter("ignore")
    used = 0
    for content in mutated(count, seed):
        for work in (
            lambda file: image_patches(file, LIMITED, split=True, name="photo"),
            lambda file: image_patches(file, LIMITED.model_copy(update={"resize": "fast"}), split=False, name="photo"),
            check_image,
            thumbnail,
            image_size,
            open_rgba,
        ):
            with contextlib.suppress(ImageError):
                work(content)
                used += 1
    return used


WORK = f"""
import resource, time
from tests.inputs.test_image_mutations import hammer
hammer(60, seed=1)
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
used = hammer({COUNT}, seed=0)
print(used, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10, time.process_time() - start)
"""


def test_damaged_images_take_little_memory_and_time():
    """In a process of its own: what Pillow allocates is seen in the memory of the whole process alone."""
    done = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    used, mebibytes, seconds = (float(value) for value in done.stdout.split()[-3:])
    assert COUNT / 2 < used < COUNT * 6, "some are used, some refused"
    assert mebibytes < MOST_MIB
    assert seconds < MOST_SECONDS


def test_the_same_files_are_damaged_in_every_run():
    assert mutated(40, seed=3) == mutated(40, seed=3) != mutated(40, seed=4)


def test_an_image_that_somebody_opened_is_used_or_refused_too():
    warnings.simplefilter("ignore")
    opened = []
    for content in mutated(COUNT // 2, seed=5):
        try:
            opened.append(PIL.Image.open(io.BytesIO(content)))
        except Exception:  # Pillow's own, in a call that is not ours
            opened.append(PIL.Image.new("1", (1, 1)))
    for image in opened:
        with contextlib.suppress(ImageError):
            assert image_patches(image, LIMITED, split=False)[0].rows > 0
