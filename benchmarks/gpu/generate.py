"""Generation by Idefics2 at 8B with random weights in bf16: decoded tokens a second, and the memory's share in it.

    python -m benchmarks.gpu.generate [--prompts 16] [--tokens 64] [--repeats 3] [--theirs on|off]

A decode step must read the decoder's weights and head once, and every document's keys and values: those bytes over the
step's seconds, over the card's bandwidth, is the share. Prompts have none to three images and texts of unequal length.
transformers runs its own padded batch `generate` with the same weights on the same device; its decode time is that of
all tokens less that of one. Tokens and pixels go in: preprocessing is measured elsewhere. `--size tiny --device cpu`
runs the same code in float32 without a card.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.gpu import common
from lorgnette.hub import config_map, weight_map
from lorgnette.model.batch import Batch
from lorgnette.model.config import VLMConfig
from lorgnette.model.flops import ModelCost
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.vlm import VLM

IMAGES_PER_PROMPT = (1, 0, 2, 1, 1, 3, 1, 0, 1, 0, 1, 1, 0, 1, 1, 0)
Documents = list[tuple[list[common.Shape], int]]


def prompts(size: str, count: int) -> Documents:
    """The images and number of words of each prompt."""
    images = [IMAGES_PER_PROMPT[number % len(IMAGES_PER_PROMPT)] for number in range(count)]
    shapes = iter(common.image_shapes(size, sum(images)))
    longest = 160 if size == "8b" else 12
    return [([next(shapes) for _ in range(many)], 5 + number * 37 % longest) for number, many in enumerate(images)]


@torch.no_grad()
def ours(model: VLM, batch: Batch, tokens: int) -> tuple[Tensor, float, float]:
    """The tokens chosen greedily (B, tokens), and seconds of the prompts and of the decode steps."""
    cache, chosen = KVCache(model.config, reserve=tokens), []
    nothing = torch.empty(0, model.config.language.width, device=batch.device, dtype=model.dtype)

    def prefill() -> None:
        chosen.append(model(batch, output="last", cache=cache).logits.argmax(-1))

    def decode() -> None:
        for _ in range(tokens - 1):
            step = cache.next(chosen[-1])
            chosen.append(model(step, output="last", cache=cache, visual_VD=nothing).logits.argmax(-1))

    device = str(batch.device)
    seconds = common.timed(prefill, device), common.timed(decode, device)
    return torch.stack(chosen, 1), *seconds


def decode_bytes(config: VLMConfig, lengths: Sequence[int], tokens: int, bytes_each: int) -> int:
    """Bytes read by the decode steps after the first token: weights each time, and the keys and values so far."""
    account, language = ModelCost(config), config.language
    embedding = 0 if language.tied_embeddings else (language.vocabulary + config.extra_vocabulary) * language.width
    extra = account.parameters["extra_vocabulary"]
    weights = (account.parameters["language"] + extra - embedding) * bytes_each
    seen = sum(
        min(length + step, window or language.max_positions)
        for window in language.windows
        for length in lengths
        for step in range(1, tokens)
    )
    return (tokens - 1) * weights + account.cache_bytes(seen, bytes_each) // language.layers


def oracle(model: VLM) -> torch.nn.Module:
    """transformers' Idefics2 with the same weights, on the same device."""
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # not needed, and slow or broken to import
    import transformers

    kept = model.connector.latents
    settings = transformers.Idefics2Config(**config_map.write_idefics2(model.config))
    with torch.device(kept.device):
        made = transformers.AutoModelForImageTextToText.from_config(settings, dtype=kept.dtype)
    weights = dict(model.named_parameters())
    made.load_state_dict({rule.theirs: rule.to_theirs(weights) for rule in weight_map.idefics2_rules(model.config)})
    return made.to(kept.device).eval()


def padded(batch: Batch, documents: Documents, config: VLMConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """The batch as transformers takes it: prompts padded to the left, images to the largest sides and number."""
    patch, shapes = config.vision.patch, [shape for images, _ in documents for shape in images]
    most, longest = max(1, *(len(images) for images, _ in documents)), batch.documents.longest
    rows, columns = (max((shape[side] for shape in shapes), default=1) * patch for side in (0, 1))
    tokens = torch.zeros(len(documents), longest, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, piece in enumerate(batch.tokens_T.cpu().split(batch.documents.lengths)):
        tokens[row, longest - len(piece) :], mask[row, longest - len(piece) :] = piece, 1
    pixels = torch.zeros(len(documents), most, 3, rows, columns)
    real = torch.zeros(len(documents), most, rows, columns, dtype=torch.bool)
    places = [(row, number) for row, (images, _) in enumerate(documents) for number in range(len(images))]
    pictures = batch.patches_PC.cpu().split(batch.images.lengths)
    for (row, number), (high, wide), patches in zip(places, shapes, pictures, strict=True):
        pieces = (patches.float() / 255 - 0.5).div(0.5).view(high, wide, 3, patch, patch)
        picture = pieces.permute(2, 0, 3, 1, 4).reshape(3, high * patch, wide * patch)
        pixels[row, number, :, : high * patch, : wide * patch] = picture
        real[row, number, : high * patch, : wide * patch] = True
    inputs = {"input_ids": tokens, "attention_mask": mask, "pixel_attention_mask": real}
    return {name: value.to(batch.device) for name, value in inputs.items()} | {
        "pixel_values": pixels.to(batch.device, dtype)
    }


@torch.no_grad()
def theirs(made: torch.nn.Module, inputs: dict[str, Tensor], tokens: int) -> tuple[Tensor, float, float]:
    """As `ours`, by `generate`."""
    found: list[Tensor] = []

    def run(count: int) -> float:
        how = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "max_new_tokens": count}
        device = str(inputs["input_ids"].device)
        return common.timed(lambda: found.append(made.generate(**inputs, **how)), device)  # type: ignore[operator]

    one, all_of_them = run(1), run(tokens)
    return found[-1][:, inputs["input_ids"].shape[1] :], one, all_of_them - one


def figures_of(runs: list[tuple[Tensor, float, float]], read: int, peak: float | None) -> dict[str, object]:
    """Medians of the repeats of one side."""
    count = runs[0][0].numel()
    prefill, decode = (statistics.median(run[which] for run in runs) for which in (1, 2))
    decoded = count - len(runs[0][0])
    return {
        "prefill_seconds": round(prefill, 5),
        "decode_seconds": round(decode, 5),
        "decode_tokens_per_second": round(decoded / decode, 1),
        "tokens_per_second": round(count / (prefill + decode), 1),
        "bandwidth_share": common.share(read / decode, peak),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    parser = common.parser(__doc__)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--theirs", choices=["on", "off"], help="by default where transformers is installed")
    options = parser.parse_args(arguments)
    if options.tokens < 2:
        parser.error("--tokens must be at least 2: the first comes from the prompt, the others are decoded")
    return common.write_row("gpu_generate", measure(options), options)


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Both sides in turn, after one run of each that is not counted."""
    config = common.MODELS[options.size]
    dtype = torch.bfloat16 if options.device.startswith("cuda") else torch.float32
    model = common.random_model(config, options.device, dtype).eval()
    documents = prompts(options.size, options.prompts)
    batch = common.make_batch(config, documents).to(options.device)
    mine, other = [ours(model, batch, options.tokens)], []
    memory = common.peak_gib(options.device)
    wanted = options.theirs or ("on" if importlib.util.find_spec("transformers") else "off")
    if wanted == "on":
        made, inputs = oracle(model), padded(batch, documents, config, dtype)
        other.append(theirs(made, inputs, options.tokens))
    for _ in range(options.repeats):
        mine.append(ours(model, batch, options.tokens))
        if wanted == "on":
            other.append(theirs(made, inputs, options.tokens))
    read, peak = decode_bytes(config, batch.documents.lengths, options.tokens, dtype.itemsize), common.peaks(options)[1]
    row: dict[str, object] = {
        "prompts": options.prompts,
        "tokens": options.tokens,
        "gb_read": float(f"{read / 1e9:.4g}"),
        "ours": figures_of(mine[1:], read, peak) | {"peak_gib": memory},
    }
    if wanted == "on":
        totals = [statistics.median(prefill + decode for _, prefill, decode in runs[1:]) for runs in (mine, other)]
        row["theirs"] = figures_of(other[1:], read, peak)
        row["speedup"] = round(totals[1] / totals[0], 2)
        row["equal_tokens"] = round(float((mine[-1][0] == other[-1][0]).float().mean()), 4)
    return row


if __name__ == "__main__":
    main()
