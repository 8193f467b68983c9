"""From the bytes of a JPEG to what a model takes, one thread: lorgnette beside transformers' Idefics2 image processors.

    python benchmarks/preprocess.py [--rounds 15] [--note "..."]

Pictures are mosaics of a public-domain photograph that matplotlib ships, in ten shapes as the web has them and one as a
phone takes them. All sides take turns on each picture. A side's time for it is the processor time of its thread, the
best of all rounds: on a quiet machine the time on the clock, on a shared one that without what others took. A row goes
to `benchmarks/results/preprocess.jsonl`. Its figures, in milliseconds for a picture of the web:

    decode        Pillow's JPEG decoder alone: the floor
    exact, fast   ours to patches, by `resize: exact` (bit-equal to upstream's PIL backend) and `resize: fast`
    fast_float    as fast, and normalised to float32, which our vision encoder does itself
    default, pil  upstream's default backend (torchvision if it can be imported, else PIL) and its PIL backend
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import PIL.Image
import torch
from model_step import conditions

from lorgnette.inputs.config import ImageConfig
from lorgnette.inputs.image import image_patches

MEAN = STD = (0.5, 0.5, 0.5)
EXACT, FAST = ImageConfig(), ImageConfig(resize="fast")
PHONE = (4032, 3024)


def web_shapes() -> list[tuple[int, int]]:
    """Ten widths and heights, drawn as those of `model_step.py` are."""
    draw = random.Random(0)
    shapes = []
    for _ in range(10):
        side, aspect = draw.lognormvariate(6.55, 0.4), draw.lognormvariate(0.2, 0.35)
        shapes.append((round(side * aspect**0.5), round(side / aspect**0.5)))
    return shapes


def jpeg(width: int, height: int) -> bytes:
    """The photograph, repeated at its own scale until the picture is full."""
    photograph = PIL.Image.open(Path(matplotlib.get_data_path(), "sample_data", "grace_hopper.jpg")).convert("RGB")
    picture = PIL.Image.new("RGB", (width, height))
    for left in range(0, width, photograph.width):
        for top in range(0, height, photograph.height):
            picture.paste(photograph, (left, top))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return file.getvalue()


def upstream() -> tuple[str, dict[str, Callable[[bytes], object]]]:
    """The name of upstream's default backend here, and both of its backends."""
    name = "pil"
    if importlib.util.find_spec("torchvision"):
        # torchvision may be built for another torch; its resizing needs none of the operators that are then missing.
        operators = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            operators.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        name = "torchvision"
    from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

    options = {"image_mean": MEAN, "image_std": STD}
    processors = {"pil": Idefics2ImageProcessorPil(**options)}
    if name == "torchvision":
        from transformers.models.idefics2.image_processing_idefics2 import Idefics2ImageProcessor

        processors = {"default": Idefics2ImageProcessor(**options)} | processors

    def side(processor: Callable[..., object]) -> Callable[[bytes], object]:
        return lambda content: processor([[PIL.Image.open(io.BytesIO(content))]], return_tensors="pt")

    sides = {key: side(processor) for key, processor in processors.items()}
    return name, {"default": sides.get("default", sides["pil"]), "pil": sides["pil"]}


def decode(content: bytes) -> None:
    PIL.Image.open(io.BytesIO(content)).load()


def exact(content: bytes) -> np.ndarray:
    return image_patches(content, EXACT, split=False)[0].pixels_PC


def fast(content: bytes) -> np.ndarray:
    return image_patches(content, FAST, split=False)[0].pixels_PC


def fast_float(content: bytes) -> torch.Tensor:
    return torch.from_numpy(fast(content)).float().div_(127.5).sub_(1)


def best(sides: dict[str, Callable[[bytes], object]], pictures: list[bytes], rounds: int) -> dict[str, list[float]]:
    """The best time of each side for each picture, in milliseconds."""
    times = {name: [float("inf")] * len(pictures) for name in sides}
    for _ in range(rounds):
        for number, picture in enumerate(pictures):
            for name, side in sides.items():
                start = time.thread_time()
                side(picture)
                times[name][number] = min(times[name][number], 1e3 * (time.thread_time() - start))
    return times


def difference(pictures: list[bytes]) -> dict[str, float]:
    """Difference of `fast` from `exact`: the share of values that differ, and by how many grey levels at most."""
    gaps = np.concatenate([np.abs(exact(one).astype(int) - fast(one)).ravel() for one in pictures])
    return {"share": round(float((gaps > 0).mean()), 5), "most": int(gaps.max()), "mean": round(float(gaps.mean()), 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backend, theirs = upstream()
    sides = {"decode": decode, "exact": exact, "fast": fast, "fast_float": fast_float} | theirs
    web, phone = [jpeg(*shape) for shape in web_shapes()], [jpeg(*PHONE)]
    figures = {name: round(sum(times) / len(web), 2) for name, times in best(sides, web, options.rounds).items()}
    photo = {name: round(times[0], 1) for name, times in best(sides, phone, max(1, options.rounds // 3)).items()}
    row: dict[str, object] = {"benchmark": "preprocess", "backend": backend, "pictures": len(web), "ms": figures}
    row["speedup"] = {name: round(figures["default"] / figures[name], 2) for name in ("exact", "fast", "fast_float")}
    row["speedup_over_pil"] = {
        name: round(figures["pil"] / figures[name], 2) for name in ("exact", "fast", "fast_float")
    }
    row |= {"phone_ms": photo, "fast_differs": difference(web), "fast_differs_phone": difference(phone)}
    row |= conditions(options.note)
    row["versions"] = {**row["versions"], "pillow": PIL.__version__, "numpy": np.__version__}  # type: ignore[dict-item]
    print(json.dumps(row, indent=1))
    with (Path(__file__).parent / "results" / "preprocess.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
