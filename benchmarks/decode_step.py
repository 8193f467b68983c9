"""A decode step at 1, 4 and 16 rows: lorgnette beside transformers' Llama and the bare products of the decoder.

    python benchmarks/decode_step.py [--threads 1] [--repeats 30] [--context 256] [--layers 30] [--profile] [--note ""]
                                      [--rows 1 4 16] [--prompts 256 1024]

The decoder is of SmolLM2-135M's shape (30 layers of 576) with random weights and 4,000 rows of vocabulary, in float32
on the CPU. The sides have the same weights and the same tokens before the step, and choose the likeliest token; the
answers are compared. They run in turn, step by step, in one process, and the medians of processor time are compared:

- `engine`: a whole step of the serving engine, text and scheduling included;
- `model`: `VLM.forward` over a `KVCache`, as in `generate`;
- `transformers`: `LlamaForCausalLM` with its own attention, the faster of its dynamic and its static cache;
- `int8_engine`, `int8_model`: the first two with the decoder's weights rounded to 8-bit integers (`quantize="int8"`);
- `compiled_engine`, `compiled_model`, `compiled_int8_engine`, `compiled_int8_model`: the same four with `compile=True`;
- `products`: each weight of the decoder times its input, and nothing else, as separate matrices in their own layout;
- `int8_products`, `int4_products`: the same weights, those with one input joined, as the 8-bit products of lorgnette,
  and as torch's product with weights of 4 bits in groups of 64 (`_weight_int4pack_mm_for_cpu`, activations in bfloat16,
  for which it is made);
- `reading`: the sum of each weight, which reads all of them once.

Then prompts of 256 and 1024 tokens, by the four forms of the model (`prompts` of the row): `compile` leaves float ones
as they are, and multiplies 8-bit ones by the library.

`--profile` prints the operators of one step of the model by their processor time. A row goes to
`benchmarks/results/decode_step.jsonl`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from generate import words
from model_step import MODEL, conditions
from torch import Tensor, nn

from lorgnette.infer.engine.config import EngineConfig
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.engine.request import Request, SamplingParams
from lorgnette.infer.generate import evaluating
from lorgnette.inputs.processor import Processor
from lorgnette.inputs.tokenizer import train_tokenizer
from lorgnette.model.batch import IGNORE_INDEX, Batch, SequenceLengths
from lorgnette.model.config import VLMConfig
from lorgnette.model.inference.compiled import compile_decoder
from lorgnette.model.inference.prepared_layers import linears_of
from lorgnette.model.inference.quantised import quantise
from lorgnette.model.kv_cache import KVCache
from lorgnette.model.ops.int8_product import Int8Product
from lorgnette.model.vlm import VLM
from lorgnette.sample import Sample, Text, Turn

ROWS = (1, 4, 16)
SHAPE: dict[str, Any] = {
    "family": "llama",
    "vocabulary": MODEL.language.vocabulary,
    "width": 576,
    "heads": 9,
    "kv_heads": 3,
    "head_width": 64,
    "mlp_width": 1536,
    "max_positions": 2048,
    "tied_embeddings": True,
}
Step = Callable[[], list[int]]
"""One decode step; the token that each row chooses."""


def build(layers: int) -> VLM:
    plain = MODEL.plain()
    plain["connector"] |= {"projection_width": 576}
    return VLM(VLMConfig.parse(plain | {"language": SHAPE | {"layers": layers}})).initialise(0).eval()


def documents(rows: int, context: int) -> Tensor:
    """Token ids before the step: rows,context."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(16, SHAPE["vocabulary"], (rows, context), generator=generator)


def prefill_batch(tokens_BT: Tensor) -> Batch:
    rows, context = tokens_BT.shape
    none = torch.empty(0, dtype=torch.int64)
    return Batch(
        tokens_T=tokens_BT.flatten(),
        targets_T=torch.full((tokens_BT.numel(),), IGNORE_INDEX),
        positions_T=torch.arange(context).repeat(rows),
        documents=SequenceLengths((context,) * rows),
        patches_PC=torch.empty(0, MODEL.vision.patch_width, dtype=torch.uint8),
        patch_positions_P=none,
        grids=(),
        visual_positions_V=none,
    )


def of_model(model: VLM, tokens_BT: Tensor, steps: int) -> Step:
    cache = KVCache(model.config, reserve=steps + 1)
    logits_BK = model(prefill_batch(tokens_BT), output="last", cache=cache).logits
    no_images = model.no_visual_tokens()
    tokens_B = logits_BK.argmax(-1)

    def step() -> list[int]:
        nonlocal tokens_B
        logits_BK = model(cache.next(tokens_B), output="last", cache=cache, visual_VD=no_images).logits
        tokens_B = logits_BK.argmax(-1)
        return tokens_B.tolist()

    return step


def of_prompt(model: VLM, tokens_BT: Tensor) -> Step:
    batch = prefill_batch(tokens_BT)
    return lambda: model(batch, output="last", cache=KVCache(model.config, reserve=1)).logits.argmax(-1).tolist()


def of_engine(model: VLM, processor: Processor, rows: int, context: int, steps: int) -> Step:
    """Prompts of text of about so many tokens; the first step has run, so that each later one is of `rows` tokens."""
    config = EngineConfig(kv_bytes=2**30, tokens_per_step=rows * context * 2, answer_room=steps + 2)
    engine = Engine(model, processor, config)
    draw = random.Random(0)
    for number in range(rows):
        text = words(context, seed=draw.randrange(2**30))
        while len(processor.tokenizer.encode(text)) > context:
            text = text.rpartition(" ")[0]
        sample = Sample((Turn("user"), Text(text)))
        engine.add(Request(str(number), sample, SamplingParams(max_tokens=steps + 2, ignore_eos=True)))
    assert len(engine.step()) == rows
    return lambda: [one.token.id for one in engine.step() if one.token is not None]


def of_transformers(model: VLM, tokens_BT: Tensor, steps: int, cache_kind: str) -> Step:
    sys.modules.setdefault("torchvision", None)  # type: ignore[arg-type]  # not needed, and slow or broken to import
    import transformers

    language = model.config.language
    config = transformers.LlamaConfig(
        vocab_size=language.vocabulary,
        hidden_size=language.width,
        intermediate_size=language.mlp_width,
        num_hidden_layers=language.layers,
        num_attention_heads=language.heads,
        num_key_value_heads=language.kv_heads,
        head_dim=language.head_width,
        max_position_embeddings=language.max_positions,
        rms_norm_eps=language.norm_eps,
        rope_theta=language.rope_theta,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        other = transformers.LlamaForCausalLM(config)
    other.load_state_dict(as_llama(model), assign=True, strict=False)
    other.tie_weights()
    other.model.rotary_emb = type(other.model.rotary_emb)(config)
    other.eval()
    rows, context = tokens_BT.shape
    if cache_kind == "static":
        cache = transformers.StaticCache(config, max_cache_len=context + steps + 1)
    else:
        cache = transformers.DynamicCache(config=config)
    mask = torch.ones(rows, context + steps + 1, dtype=torch.int64)
    at = context
    tokens_B = other(tokens_BT, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[:, -1].argmax(-1)

    def step() -> list[int]:
        nonlocal tokens_B, at
        out = other(
            tokens_B[:, None],
            past_key_values=cache,
            attention_mask=mask[:, : at + 1],
            position_ids=torch.full((rows, 1), at),
            use_cache=True,
            logits_to_keep=1,
        )
        tokens_B, at = out.logits[:, -1].argmax(-1), at + 1
        return tokens_B.tolist()

    return step


def as_llama(model: VLM) -> dict[str, Tensor]:
    """The decoder's weights under the names of transformers' Llama; memory is shared."""
    language = model.language
    made = {"model.embed_tokens.weight": language.embedding.table, "model.norm.weight": language.norm.weight}
    names = {
        "attention_norm": "input_layernorm",
        "mlp_norm": "post_attention_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.output": "self_attn.o_proj",
        "mlp.gate": "mlp.gate_proj",
        "mlp.up": "mlp.up_proj",
        "mlp.down": "mlp.down_proj",
    }
    for index, layer in enumerate(language.layers):
        for ours, theirs in names.items():
            made[f"model.layers.{index}.{theirs}.weight"] = layer.get_submodule(ours).weight
    return {name: tensor.detach() for name, tensor in made.items()}


def linear_weights(model: VLM) -> list[Tensor]:
    """Weights of all products of the decoder and of the head, each a tensor of its own."""
    found = [one.weight for one in model.language.layers.modules() if isinstance(one, nn.Linear)]
    return [one.detach() for one in (*found, model.language.head.table)]


def of_products(model: VLM, rows: int) -> Step:
    weights = linear_weights(model)
    inputs = {width: torch.randn(rows, width) for width in {weight.shape[1] for weight in weights}}

    def step() -> list[int]:
        for weight in weights:
            F.linear(inputs[weight.shape[1]], weight)
        return []

    return step


def joined_weights(model: VLM) -> list[tuple[nn.Linear, ...]]:
    """Linear layers of the decoder, those with one input together."""
    return [group for layer in model.language.layers for group in linears_of(layer)]


def of_int8_products(model: VLM, rows: int) -> Step:
    products = [(Int8Product(*group), torch.randn(rows, group[0].in_features)) for group in joined_weights(model)]

    def step() -> list[int]:
        for product, x in products:
            product(x)
        return []

    return step


def of_int4_products(model: VLM, rows: int, group: int = 64) -> Step:
    products = []
    for linears in joined_weights(model):
        weight = torch.cat([one.weight for one in linears]).unflatten(1, (-1, group))
        low = weight.amin(-1)
        steps = (weight.amax(-1) - low) / 15
        rounded = ((weight - low[..., None]) / steps[..., None]).round_().clamp_(0, 15).int().flatten(1)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(rounded, 1)
        scales = torch.stack([steps, low + 8 * steps], -1).transpose(0, 1).contiguous().bfloat16()
        products.append((torch.randn(rows, rounded.shape[1]).bfloat16(), packed, scales))

    def step() -> list[int]:
        for x, packed, scales in products:
            torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed, group, scales)
        return []

    return step


def of_reading(model: VLM) -> Step:
    weights = linear_weights(model)

    def step() -> list[int]:
        for weight in weights:
            weight.sum()
        return []

    return step


def measure(sides: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of each step, the sides in turn: what else the machine does falls on all."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    chosen: dict[str, list[list[int]]] = {name: [] for name in sides}
    for repeat in range(repeats + 2):  # the first two are for warmth
        for name, step in sides.items():
            start = time.process_time()
            chosen[name].append(step())
            if repeat > 1:
                taken[name].append(1000 * (time.process_time() - start))
    if "transformers_dynamic" not in sides:
        return taken
    columns = {name: list(zip(*steps, strict=True)) for name, steps in chosen.items()}
    for name in ("model", "compiled_model"):
        equal = sum(mine == theirs for mine, theirs in zip(columns[name], columns["transformers_dynamic"], strict=True))
        assert 4 * equal >= 3 * len(columns[name]), f"{name} and transformers chose different tokens"  # ties may part
    return taken


def figures(taken: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: round(statistics.median(one), 2) for name, one in taken.items()}
    theirs = min(value for name, value in medians.items() if name.startswith("transformers"))
    ratios = {
        f"{name}_to_products": round(medians[name] / medians["products"], 3) for name in medians if name != "products"
    }
    ours = [name for name in medians if name.endswith(("engine", "model"))]
    faster = {f"{name}_speedup": round(theirs / medians[name], 3) for name in ours}
    return {"step_cpu_ms": medians, **ratios, **faster}


def prompt_figures(models: dict[str, VLM], lengths: list[int], repeats: int) -> list[dict[str, Any]]:
    found = []
    for length in lengths:
        with contextlib.ExitStack() as stack:
            for model in models.values():
                stack.enter_context(evaluating(model))
            taken = measure(
                {f"{name}model": of_prompt(one, documents(1, length)) for name, one in models.items()}, repeats
            )
        medians = {name: round(statistics.median(one), 2) for name, one in taken.items()}
        found.append({"tokens": length, "cpu_ms": medians})
        print(json.dumps(found[-1]), flush=True)
    return found


def profiled(step: Step, steps: int = 10) -> str:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for _ in range(steps):
            step()
    table: str = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40)
    return table


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--context", type=int, default=256, help="tokens before the step")
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS))
    parser.add_argument("--prompts", type=int, nargs="*", default=[256, 1024], help="tokens of prompts")
    parser.add_argument("--profile", action="store_true", help="print the operators of a step, and write no row")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = train_tokenizer([words(20_000, seed=-1)], vocabulary=SHAPE["vocabulary"])
    processor = Processor(tokenizer)
    models = {name: build(options.layers) for name in ("", "int8_", "compiled_", "compiled_int8_")}
    for name, one in models.items():
        if "int8" in name:
            quantise(one.language, "int8")
        if "compiled" in name:
            compile_decoder(one.language)
    model = models[""]
    measured = []
    for rows in options.rows:
        tokens_BT, steps = documents(rows, options.context), options.repeats + 12
        with contextlib.ExitStack() as stack:
            sides: dict[str, Step] = {}
            for name, one in models.items():
                stack.enter_context(evaluating(one))
                sides[f"{name}engine"] = of_engine(one, processor, rows, options.context, steps)
                sides[f"{name}model"] = of_model(one, tokens_BT, steps)
            sides |= {
                "transformers_dynamic": of_transformers(model, tokens_BT, steps, "dynamic"),
                "transformers_static": of_transformers(model, tokens_BT, steps, "static"),
                "products": of_products(model, rows),
                "int8_products": of_int8_products(model, rows),
                "int4_products": of_int4_products(model, rows),
                "reading": of_reading(model),
            }
            if options.profile:
                for name in ("model", "compiled_model", "compiled_int8_model"):
                    print(name, profiled(sides[name]), sep="\n")
                continue
            measured.append({"rows": rows} | figures(measure(sides, options.repeats)))
            print(json.dumps(measured[-1]), flush=True)
    if options.profile:
        return
    row = {
        "benchmark": "decode_step",
        "threads": options.threads,
        "context": options.context,
        "parameters": sum(weight.numel() for weight in linear_weights(model)),
        "repeats": options.repeats,
        "measured": measured,
        "prompts": prompt_figures(models, options.prompts, options.repeats),
    }
    row |= conditions(options.note)
    with (Path(__file__).parent / "results" / "decode_step.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
