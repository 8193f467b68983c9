"""Compiled decode steps compute what prepared and plain layers do, for every decoder, fusion and cache."""

from __future__ import annotations

import copy
import os
import platform
import shutil

import pytest
import torch
from torch import nn

from lorgnette.errors import SettingsError
from lorgnette.hub.export import export
from lorgnette.hub.load import load
from lorgnette.infer.engine.engine import Engine
from lorgnette.infer.generate import generate
from lorgnette.infer.generation_config import GenerationConfig
from lorgnette.model.inference.c_library import c_library, find_compiler
from lorgnette.model.inference.compiled import compile_decoder
from lorgnette.model.inference.compiled_layers import PRODUCTS, SOURCE, PackedProduct
from lorgnette.model.inference.prepared_layers import prepare
from lorgnette.model.inference.quantised import quantise
from lorgnette.model.ops.int8_product import Int8Product, plain_int8_product
from lorgnette.model.vlm import VLM
from tests.hub.tiny import SAMPLES, tiny_processor
from tests.hub.tiny import tiny_model as whole_model
from tests.infer.engine.driving import answers, finish, request
from tests.model.choices import FUSIONS
from tests.model.test_prepared import DECODERS, DOCUMENTS, logits

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="this computer has no C compiler"
)

WIDTHS = {
    "a head of 64": {"head_width": 64, "width": 64},
    "a head of 128": {"head_width": 128, "heads": 2, "kv_heads": 1, "width": 64},
    "five heads share one": {"head_width": 20, "heads": 5, "kv_heads": 1, "width": 60},
    "odd sizes": {"head_width": 6, "heads": 3, "kv_heads": 1, "width": 30, "mlp_width": 171, "attention_bias": True},
    "several panels": {"width": 64, "mlp_width": 100, "attention_bias": True},
}


def compiled(model: VLM) -> VLM:
    compile_decoder(model.language)
    assert prepare(model.language)
    assert model.language.prepared.steps
    return model


@pytest.mark.parametrize("quantised", [False, True], ids=["float32", "int8"])
@pytest.mark.parametrize("language", (DECODERS | WIDTHS).values(), ids=DECODERS | WIDTHS)
def test_every_decoder_is_as_its_other_layers(tiny, language: dict, quantised: bool) -> None:
    config = tiny.config(language=language)
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    if quantised:
        quantise(model.language, "int8")
    plain = logits(model, batch)
    fast = logits(compiled(model), batch)
    close = {"atol": 2e-2, "rtol": 2e-2} if quantised else {"atol": 2e-5, "rtol": 2e-5}
    torch.testing.assert_close(fast, plain, **close)


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the flags are those of x86")
@pytest.mark.parametrize("flags", ["-mno-avx512vnni", "-mno-avx512bw", "-mno-avx512f", "-mno-avx2", "-mno-avx"])
@pytest.mark.parametrize("quantised", [False, True], ids=["float32", "int8"])
def test_processors_with_fewer_instructions_compute_the_same(tiny, monkeypatch, flags: str, quantised: bool) -> None:
    config = tiny.config(language=WIDTHS["odd sizes"])
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    if quantised:
        quantise(model.language, "int8")
    plain = logits(model, batch)
    monkeypatch.setenv("CC", f"{find_compiler()[0]} {flags}")
    c_library.cache_clear()
    try:
        fast = logits(compiled(model), batch)
    finally:
        c_library.cache_clear()
    close = {"atol": 2e-2, "rtol": 2e-2} if quantised else {"atol": 2e-5, "rtol": 2e-5}
    torch.testing.assert_close(fast, plain, **close)


@pytest.mark.parametrize("fusion", [one for name, one in FUSIONS.items() if name != "autoregressive"])
def test_cross_attention_stands_between_compiled_layers(tiny, fusion: dict) -> None:
    config = tiny.config(fusion=fusion)
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    plain = logits(model, batch)
    torch.testing.assert_close(logits(compiled(model), batch), plain, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("quantised", [False, True], ids=["float32", "int8"])
def test_answers_of_the_engine_are_those_of_generate(quantised: bool) -> None:
    plain, model, processor = whole_model(seed=1), whole_model(seed=1), tiny_processor()
    if quantised:
        quantise(plain.language, "int8")
        quantise(model.language, "int8")
    settings = GenerationConfig(max_tokens=8)
    expected = [generate(plain, processor, [sample], settings)[0].tokens for sample in SAMPLES]
    compiled(model)
    assert [one.tokens for one in generate(model, processor, SAMPLES, settings)] == expected
    engine = Engine(model, processor)
    for number, sample in enumerate(SAMPLES):
        engine.add(request(number, sample))
    found = answers(finish(engine))
    assert [found[str(number), 0].tokens for number in range(len(SAMPLES))] == expected


@torch.no_grad()
@pytest.mark.parametrize("quantised", [False, True], ids=["float32", "int8"])
def test_a_row_is_the_same_to_the_last_bit_whatever_stands_beside_it_and_by_any_threads(tiny, quantised: bool) -> None:
    """Through one layer: what stands before it, the prompt, is by kernels that do not promise that."""
    config = tiny.config(language={"layers": 1, "head_width": 16, "mlp_width": 171, "attention_bias": True})
    model = tiny.model(config)
    if quantised:
        quantise(model.language, "int8")
    step, tables = compiled(model).language.prepared.steps[0], torch.randn(2, ROWS * 48, 2, 16)
    rows = torch.randn(ROWS, config.language.width)

    def through(some: list[int], threads: int = 1) -> torch.Tensor:
        before = torch.get_num_threads()
        try:
            torch.set_num_threads(threads)
            return step(rows[some], Tables(tables.clone(), some))
        finally:
            torch.set_num_threads(before)

    whole = through([*range(ROWS)])
    for some in ([3], [0, 7], [1, 2, 5], [4, 5, 6, 7, 0], [*range(9, ROWS)], [*range(ROWS)][::-1]):
        assert torch.equal(through(some), whole[some])
    for threads in (2, 3):
        assert torch.equal(through([*range(ROWS)], threads), whole)
        assert torch.equal(through([3], threads), whole[[3]])
    rows[4, 5] = torch.nan
    others = [row for row in range(ROWS) if row != 4]
    found = through([*range(ROWS)])
    assert found[4].isnan().all()
    assert torch.equal(found[others], whole[others])


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (16, 4), (64, 64), (70, 33), (150, 171)])
def test_packed_products_are_those_of_integers(rows: int, width: int, bias: bool) -> None:
    torch.manual_seed(rows)
    linear, sizes = nn.Linear(width, rows, bias=bias), torch.logspace(-4, 4, 70)[:, None]
    product = PackedProduct(Int8Product(linear))
    x, more = torch.randn(70, width) * sizes, torch.randn(70, rows)
    x[7], x[9, 0] = 0, torch.nan
    found, others = product(x), [row for row in range(70) if row != 9]
    expected = plain_int8_product(x, linear.weight, product.levels) + (linear.bias if bias else 0)
    assert found[9].isnan().all()
    assert torch.equal(found[7], linear.bias if bias else torch.zeros(rows))
    step = x.abs().amax(-1, keepdim=True) / product.levels * linear.weight.abs().amax(-1)
    near = (found - expected).abs() <= 1.01 * step + 1e-6  # a number may be rounded to the other side of a half
    assert near[others].all()
    torch.testing.assert_close(product.plus(x, more)[others], (found + more)[others])
    assert torch.equal(torch.cat([product(row[None]) for row in x])[others], found[others])
    torch.set_num_threads(2)
    try:
        assert torch.equal(product(x)[others], found[others])
    finally:
        torch.set_num_threads(1)


def test_a_compiled_model_holds_its_integers_once(tiny) -> None:
    model = tiny.model(tiny.config())
    quantise(model.language, "int8")
    compiled(model)
    products = [getattr(layer.prepared, name) for layer in model.language.layers for name in PRODUCTS]
    assert all(isinstance(one, PackedProduct) for one in products)
    compiled(model)  # again
    copied = copy.deepcopy(model)
    assert prepare(copied.language)
    theirs = copied.language.layers[0].prepared.qkv
    assert theirs.packed.data_ptr() != products[0].packed.data_ptr()
    assert torch.equal(theirs.packed, products[0].packed)


ROWS = 23
"""Rows of whole blocks and of each remainder."""


class Tables:
    """A pass over documents of 1, 3, 5 ... tokens, of whose cache all slots are filled; also its own cache."""

    rows_T, rotary, local_rotary = None, (torch.ones(ROWS, 1, 16), torch.zeros(ROWS, 1, 16)), None

    def __init__(self, tables: torch.Tensor, some: list[int]) -> None:
        from lorgnette.model.context import DecodeRows

        self.cache, self.held = self, tables
        self.decode_rows = DecodeRows([48 * row for row in some], [2 * row + 1 for row in some])

    def tables(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.held[0], self.held[1]


def test_what_changes_the_weights_changes_the_steps(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    compiled(model)
    first = model.language.prepared
    with torch.no_grad():
        for parameter in model.parameters():  # as an optimizer does
            parameter.add_(0.03)
    assert prepare(model.language)
    assert model.language.prepared is first
    fast = logits(model, batch)
    norm = model.language.layers[1].mlp_norm
    norm.weight = nn.Parameter(2 * norm.weight.detach())
    assert prepare(model.language)
    other = logits(model, batch)
    assert model.language.prepared is not first
    model.language.prepared = None
    torch.testing.assert_close(other, logits(model, batch), atol=2e-5, rtol=2e-5)
    assert not torch.allclose(other[1], fast[1])


def test_copies_are_compiled_too_and_moved_models_refused(tiny) -> None:
    config = tiny.config()
    model, batch = tiny.model(config), tiny.batch(config, DOCUMENTS)
    compiled(model)
    copied = copy.deepcopy(model)
    assert prepare(copied.language)
    torch.testing.assert_close(logits(copied, batch), logits(model, batch), atol=0, rtol=0)
    with pytest.raises(SettingsError, match=r"compile: is for float32 on the CPU, not dtype torch\.bfloat16"):
        model.to(torch.bfloat16)


def test_it_is_loaded_and_what_cannot_be_is_refused(tmp_path, monkeypatch) -> None:
    export(whole_model(seed=1), tiny_processor(), tmp_path / "model")
    model, processor = load(tmp_path / "model", compile=True, quantize="int8")
    assert model.language.compiled
    assert len(generate(model, processor, SAMPLES, GenerationConfig(max_tokens=3))) == len(SAMPLES)
    half, _ = load(tmp_path / "model", dtype="bfloat16")
    export(half, processor, tmp_path / "half")
    assert load(tmp_path / "half", compile=True)[0].dtype == torch.float32
    for options, message in (
        ({"dtype": "bfloat16"}, r"compile: .* not dtype torch\.bfloat16"),
        ({"device": "meta"}, "compile: .* not device meta"),
    ):
        with pytest.raises(SettingsError, match=message):
            load(tmp_path / "model", compile=True, **options)
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    with pytest.raises(SettingsError, match=r"needs a C compiler, and CC is no-such-compiler -O1 .* leave out"):
        find_compiler()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(SettingsError, match="needs a C compiler, and cc, gcc and clang are not"):
        find_compiler()


def test_a_library_is_made_once_and_a_failure_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = tmp_path / "two.c"
    source.write_text("int two(void) { return 2; }")
    assert c_library(source).two() == 2
    c_library.cache_clear()
    (made,) = (tmp_path / "lorgnette/compiled").iterdir()
    before = made.stat().st_mtime_ns
    assert c_library(source).two() == 2
    assert made.stat().st_mtime_ns == before
    wrong = tmp_path / "wrong.c"
    wrong.write_text("int two(void) { return")
    with pytest.raises(SettingsError, match=r"compile: .* cannot compile wrong\.c: "):
        c_library(wrong)


def test_the_source_is_in_the_package() -> None:
    assert SOURCE.is_file()
