"""Comparison of a device in bf16 with the CPU in float32: attention, cached decode, losses, gradients.

    python -m benchmarks.gpu.correct [--device cuda]

Both sides have the same weights, rounded to bf16 before, so that the arithmetic alone differs. An error is the norm of
the difference over the norm of what is right. One rounding to bf16 is off by up to 2^-9 = 0.2 %; the tolerances leave
room for as many as lie one after the other, and are far below what a wrong mask, position or slot causes.
Exit code 1 if anything is off.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu import common
from lorgnette.model.batch import Batch, SequenceLengths
from lorgnette.model.config import VLMConfig
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.ops import attention as attending
from lorgnette.model.ops.loss import linear_losses
from lorgnette.model.vlm import VLM

Check = Callable[[str], dict[str, float]]
"""From a device to the error of each thing compared."""
TOLERANCES = {"attention": 0.01, "logits": 0.03, "decode": 0.03, "losses": 0.01, "gradients": 0.05}
"""The largest error of each check."""

DOCUMENTS: list[tuple[list[common.Shape], int]] = [([(3, 5)], 9), ([], 17), ([(8, 8), (5, 2)], 4), ([(4, 4)], 1)]
SPANS = {
    "unequal": (SequenceLengths((70, 1, 33, 128)), SequenceLengths((70, 1, 33, 128))),
    "equal": (SequenceLengths((64, 64, 64)), SequenceLengths((64, 64, 64))),
    "cached": (SequenceLengths((1, 7, 2)), SequenceLengths((40, 7, 130))),
}
"""Queries and keys."""


def error(found: Tensor, right: Tensor) -> float:
    """The norm of the difference, relative. Not a number counts as infinitely wrong."""
    value = float((found.detach().cpu().float() - right.detach().float()).norm() / right.detach().float().norm())
    return value if value == value else float("inf")


def models(device: str, window: int | None = 20) -> tuple[VLM, VLM]:
    """The tiny model in bf16 on the device, and in float32 on the CPU."""
    config: VLMConfig = common.MODELS["tiny"]
    language = config.language.model_copy(update={"sliding_window": window})
    fast = common.random_model(config.model_copy(update={"language": language}), "cpu", torch.bfloat16)
    slow = copy.deepcopy(fast).float()
    return fast.to(device).eval(), slow.eval()


def attention(device: str) -> dict[str, float]:
    """Forward and backward, by span lengths, head sharing and mask, against one dense mask."""
    found = {}
    for name, (queries, keys) in SPANS.items():
        for causal, window in ((False, None), (True, None), (True, 16)):
            generator = torch.Generator().manual_seed(0)
            sizes = (queries.total, 4, 32), (keys.total, 2, 32), (keys.total, 2, 32)
            half = [torch.randn(size, generator=generator).bfloat16() for size in sizes]
            right = [tensor.float().requires_grad_() for tensor in half]
            tried = [tensor.to(device).requires_grad_() for tensor in half]
            grad = torch.randn(sizes[0], generator=generator).bfloat16()
            slow = attending.dense_attention(*right, queries, keys, causal=causal, window=window)
            fast = attending.attention(*tried, queries, keys, causal=causal, window=window)
            slow.backward(grad.float())
            fast.backward(grad.to(device))
            pairs = zip("qkv", tried, right, strict=True)
            what = f"{name}, {'causal' if causal else 'all'}, window {window}"
            found[what] = error(fast, slow)
            found |= {f"{what}, grad {letter}": error(one.grad, two.grad) for letter, one, two in pairs}
    return found


@torch.no_grad()
def logits(device: str) -> dict[str, float]:
    """Of every token of packed documents with and without images, with and without a window."""
    found = {}
    for window in (None, 20):
        fast, slow = models(device, window)
        batch = common.make_batch(slow.config, DOCUMENTS)
        found[f"window {window}"] = error(fast(batch.to(device)).logits, slow(batch).logits)
    return found


@torch.no_grad()
def decode(device: str) -> dict[str, float]:
    """Difference of each decode step from the cache and a full forward pass; two documents leave on the way."""
    fast, slow = models(device)
    full = common.make_batch(slow.config, [(images, words + 6) for images, words in DOCUMENTS])
    right = slow(full).logits.split(full.documents.lengths)
    texts = full.tokens_T.split(full.documents.lengths)
    cache, live, found = KVCache(slow.config, reserve=2), [0, 1, 2, 3], {}
    last = fast(shortened(full, 6).to(device), output="last", cache=cache).logits
    for step in range(6):
        found[f"step {step}"] = error(last, torch.stack([right[row][step - 7] for row in live]))
        if step == 3:
            live = [2, 0]
            cache.keep(live)
        tokens = torch.stack([texts[row][step - 6] for row in live]).to(device)
        last = fast(cache.next(tokens), output="last", cache=cache).logits
    return found


def shortened(batch: Batch, by: int) -> Batch:
    """Each document without its last tokens, which are words."""
    lengths = torch.tensor(batch.documents.lengths)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    kept = batch.positions_T < (lengths - by)[owner]
    tokens_T = batch.tokens_T[kept]
    fields = {name: value for name, value in vars(batch).items() if name in Batch.__dataclass_fields__}
    return Batch(
        **fields
        | {
            "tokens_T": tokens_T,
            "targets_T": batch.targets_T[kept],
            "positions_T": batch.positions_T[kept],
            "documents": SequenceLengths(tuple((lengths - by).tolist())),
            "visual_positions_V": batch.visual_positions_V - by * owner[batch.visual_positions_V],
        }
    )


def losses(device: str) -> dict[str, float]:
    """Of each row and their sum, with what the sum's gradient is, chunk by chunk against all logits at once."""
    generator = torch.Generator().manual_seed(0)
    hidden, table, extra = (torch.randn(rows, 64, generator=generator).bfloat16() / 4 for rows in (50, 61, 3))
    targets = torch.randint(0, 64, (50,), generator=generator)
    right = [tensor.float().requires_grad_() for tensor in (hidden, table, extra)]
    tried = [tensor.to(device).requires_grad_() for tensor in (hidden, table, extra)]
    slow = F.cross_entropy(right[0] @ torch.cat(right[1:]).T, targets, reduction="none")
    total, rows = linear_losses(tried[0], tuple(tried[1:]), targets.to(device), 16)
    slow.sum().backward()
    total.backward()
    found = {"sum": error(total, slow.sum()), "rows": error(rows, slow)}
    names = zip(("hidden", "table", "extra"), tried, right, strict=True)
    return found | {f"grad {name}": error(one.grad, two.grad) for name, one, two in names}


def gradients(device: str) -> dict[str, float]:
    """Of every part of the model, all its parameters together, by the loss over packed documents."""
    fast, slow = models(device)
    batch = common.make_batch(slow.config, DOCUMENTS)
    found = {}
    for model, given in ((fast.train(), batch.to(device)), (slow.train(), batch)):
        out = model(given, output="loss")
        (out.loss_sum / batch.supervised_tokens).backward()
    for part, parameters in slow.parts().items():
        tried = torch.cat([p.grad.cpu().float().flatten() for p in fast.parts()[part]])
        found[part] = error(tried, torch.cat([p.grad.flatten() for p in parameters]))
    return found


CHECKS: dict[str, Check] = {
    "attention": attention,
    "logits": logits,
    "decode": decode,
    "losses": losses,
    "gradients": gradients,
}


def off(name: str, device: str) -> dict[str, float]:
    """Errors larger than the check's tolerance."""
    return {what: value for what, value in CHECKS[name](device).items() if not value <= TOLERANCES[name]}


def main(arguments: Sequence[str] | None = None) -> dict[str, object]:
    parser = common.parser(__doc__)
    parser.set_defaults(size="tiny")
    options = parser.parse_args(arguments)
    figures: dict[str, object] = {}
    for name, check in CHECKS.items():
        found = check(options.device)
        worst = max(found, key=found.__getitem__)
        figures[name] = {
            "error": float(f"{found[worst]:.3g}"),
            "tolerance": TOLERANCES[name],
            "holds": found[worst] <= TOLERANCES[name],
            "compared": len(found),
            "worst": worst,
        }
    figures["correct"] = all(one["holds"] for one in figures.values() if isinstance(one, dict))
    return common.write_row("gpu_correct", figures, options)


if __name__ == "__main__":
    sys.exit(0 if main()["correct"] else 1)
