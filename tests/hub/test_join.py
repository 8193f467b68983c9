"""A new model from two backbones: each computes what its own class in transformers does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch import Tensor

from lorgnette.errors import CheckpointError
from lorgnette.hub.export import export
from lorgnette.hub.join import LanguageBackbone, VisionBackbone, build
from lorgnette.hub.load import load
from lorgnette.inputs.config import ImageConfig
from lorgnette.model.batch import SequenceLengths
from lorgnette.model.config import VisionConfig, VLMConfig
from lorgnette.model.configs.connector_config import PerceiverConfig
from lorgnette.model.context import Context
from lorgnette.model.ops.position_tables import resized_slowly
from lorgnette.model.vlm import VLM
from tests.hub.tiny import ROWS, SAMPLES, tiny_tokenizer

CONNECTOR = PerceiverConfig(projection_width=48, latents=4, depth=1, heads=2, head_width=8, kv_heads=1)
IMAGES = ImageConfig(shortest=42, longest=112, patch=14, grid=8)

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
GEMMA = {"num_key_value_heads": 1, "head_dim": 12, "sliding_window": 3}
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 1": ("llama", {}),
    "SmolLM2": ("llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "Llama 3.1": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 5e5,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            }
        },
    ),
    "Mistral": ("mistral", {"num_key_value_heads": 2, "sliding_window": None}),
    "Mistral with a window": ("mistral", {"num_key_value_heads": 2, "sliding_window": 5, "head_dim": 12}),
    "Qwen2.5": ("qwen2", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
    "Qwen3": ("qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
    "SmolLM3": ("smollm3", {"num_key_value_heads": 2, "no_rope_layer_interval": 2, "pad_token_id": None}),
    "Phi-3": ("phi3", {"num_key_value_heads": 2, "pad_token_id": None}),
    "Gemma": ("gemma", {"num_key_value_heads": 1, "head_dim": 12, "tie_word_embeddings": True}),
    "Gemma 2": ("gemma2", GEMMA | {"attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 3}),
    "Gemma 3": ("gemma3_text", GEMMA | {"num_hidden_layers": 7}),
}


def randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter == 1))


def write_decoder(folder: Path, family: str, rest: dict[str, Any], bare: bool = False, rows: int = ROWS - 3) -> Any:
    """A random decoder of transformers, saved with the tokenizer that it has before special tokens are added."""
    classes = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    classes |= {"smollm3": "SmolLM3", "phi3": "Phi3", "gemma": "Gemma", "gemma2": "Gemma2", "gemma3_text": "Gemma3"}
    settings = transformers.AutoConfig.for_model(family, **SIZES | {"vocab_size": rows} | rest)
    model = getattr(transformers, f"{classes[family]}ForCausalLM")(settings).eval()
    randomise(model)
    (model.model if bare else model).save_pretrained(folder)
    tiny_tokenizer().save(folder)
    values = json.loads((folder / "tokenizer.json").read_text())
    values["added_tokens"] = [token for token in values["added_tokens"] if token["id"] < ROWS - 3]
    (folder / "tokenizer.json").write_text(json.dumps(values))
    return model


def write_siglip(folder: Path, whole: bool = False) -> Any:
    vision = {"image_size": 44, "patch_size": 14, **SIZES}  # 44 // 14 = 3 patches a side, as 384 // 14 is 27
    if whole:
        text = SIZES | {"vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
        model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    else:
        model = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**vision))
    randomise(model)
    model.eval().save_pretrained(folder)
    return model.vision_model if whole else model


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    write_siglip(tmp_path / "vision")
    write_decoder(tmp_path / "language", "mistral", {"num_key_value_heads": 2})
    return tmp_path / "vision", tmp_path / "language"


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize(("family", "rest"), DECODERS.values(), ids=DECODERS)
def test_a_decoder_computes_what_transformers_computes(tmp_path: Path, family: str, rest: dict) -> None:
    write_siglip(tmp_path / "vision")
    oracle = write_decoder(tmp_path / "language", family, rest)
    model, processor = build(tmp_path / "vision", tmp_path / "language", connector=CONNECTOR, images=IMAGES)
    batch = processor([sample for sample in SAMPLES if not sample.images])
    assert int(batch.tokens_T.max()) < ROWS  # no image, but an end of utterance
    words = batch.tokens_T.clamp(max=ROWS - 4)  # rows that the oracle has
    ours = language_logits(model, words, batch.documents)[:, : ROWS - 3]
    with torch.no_grad():
        theirs = [oracle(document[None]).logits[0] for document in words.split(list(batch.documents.lengths))]
    assert relative(ours, torch.cat(theirs)) <= 1e-5


FORMS = {
    "as transformers 5 saves it": ("", ""),
    "as it was published": ("language_model.model.", "language_model.lm_head.weight"),
    "as the whole holds it": ("model.language_model.", "lm_head.weight"),
}
"""By form: what stands before the names of the decoder, and the name of its output table."""


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_the_decoder_of_a_gemma3_that_sees(tmp_path: Path, form: str, tied: bool) -> None:
    text = SIZES | {"vocab_size": ROWS - 3, "num_hidden_layers": 7, "tie_word_embeddings": tied} | GEMMA
    text["rope_parameters"] = {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}
    seeing = SIZES | {"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14}
    whole = transformers.Gemma3Config(
        text_config=text, vision_config=seeing, mm_tokens_per_image=4, tie_word_embeddings=tied, image_token_index=5
    )
    oracle = transformers.Gemma3ForConditionalGeneration(whole).eval()
    randomise(oracle)
    oracle.save_pretrained(tmp_path / "language")
    prefix, head = FORMS[form]
    if prefix:
        names = dict(oracle.model.language_model.named_parameters())
        tensors = {prefix + name: tensor.detach().clone() for name, tensor in names.items()}
        tensors |= {} if tied else {head: oracle.lm_head.weight.detach().clone()}
        tensors |= {"vision_tower.vision_model.x": torch.ones(1), "multi_modal_projector.x": torch.ones(1)}
        save_file(tensors, tmp_path / "language" / "model.safetensors", {"format": "pt"})
    tiny_tokenizer().save(tmp_path / "language")
    opened = LanguageBackbone.open(tmp_path / "language")
    assert opened.config.tied_embeddings == tied
    assert (opened.config.global_every, opened.config.rope_scaling["factor"]) == (6, 8.0)
    vision = VisionConfig(layers=1, width=24, heads=2)
    model = VLM(VLMConfig(vision=vision, connector=CONNECTOR, language=opened.config))
    opened.give_to(model)
    words = torch.arange(40) % (ROWS - 10) + 6
    with torch.no_grad():
        theirs = oracle(input_ids=words[None]).logits[0]
    ours = language_logits(model, words, SequenceLengths((40,)))[:, : ROWS - 3]
    assert relative(ours, theirs) <= 1e-5


@torch.no_grad()
def language_logits(model: VLM, tokens_T: Tensor, documents: SequenceLengths) -> Tensor:
    positions_T = torch.cat([torch.arange(length) for length in documents.lengths])
    hidden_TD = model.language(model.language.embedding(tokens_T), Context(positions_T, documents))
    return model.language.head.logits(hidden_TD)


@pytest.mark.parametrize("whole", [False, True])
def test_siglip_computes_what_transformers_computes(tmp_path: Path, whole: bool) -> None:
    oracle = write_siglip(tmp_path / "vision", whole)
    write_decoder(tmp_path / "language", "llama", {})
    native = ImageConfig(shortest=42, longest=42, patch=14, grid=3)
    model, _ = build(tmp_path / "vision", tmp_path / "language", connector=CONNECTOR, images=native)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (2, 3, 42, 42), generator=generator, dtype=torch.uint8)
    patches_PC = F.unfold(images.float(), 14, stride=14).transpose(1, 2).flatten(0, 1).to(torch.uint8)
    with torch.no_grad():
        ours = model.vision(patches_PC, torch.arange(9).repeat(2), ((3, 3), (3, 3)))
        padded = F.pad(images / 127.5 - 1, (0, 2, 0, 2))  # the 44 pixels it was made for
        theirs = oracle(padded).last_hidden_state.flatten(0, 1)
    assert relative(ours, theirs) <= 1e-5


def test_positions_are_interpolated(folders: tuple[Path, Path]) -> None:
    model, _ = build(*folders, connector=CONNECTOR, images=IMAGES)
    stored = VisionBackbone.open(folders[0]).weights.tensor("embeddings.position_embedding.weight")
    ours = model.vision.position_embedding.weight
    assert ours.shape == (64, 32)
    square = stored.T.reshape(1, 32, 3, 3)
    theirs = F.interpolate(square, size=(8, 8), mode="bicubic", align_corners=False)
    torch.testing.assert_close(ours, theirs[0].flatten(1).T)
    same, _ = build(*folders, connector=CONNECTOR, images=ImageConfig(shortest=42, longest=42, patch=14, grid=3))
    assert torch.equal(same.vision.position_embedding.weight, stored)
    torch.testing.assert_close(resized_slowly(torch.ones(9, 4), (70, 70), "bicubic"), torch.ones(4900, 4))


def test_defaults_are_the_papers(folders: tuple[Path, Path]) -> None:
    model, processor = build(*folders)
    assert (model.config.vision.grid, processor.images.shortest, processor.images.longest) == (70, 378, 980)
    assert model.config.connector == PerceiverConfig(projection_width=48)
    assert processor.connector.latents == 64
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_what_is_built_can_be_exported_and_certified(folders: tuple[Path, Path], tmp_path: Path) -> None:
    model, processor = build(*folders, connector=CONNECTOR, images=IMAGES)
    again, _ = load(export(model, processor, tmp_path / "built", verify=True))
    assert again.config == model.config
    assert model.config.language.vocabulary == ROWS - 3
    assert model.config.extra_vocabulary == 3


def test_the_seed_draws_the_connector_alone(folders: tuple[Path, Path]) -> None:
    first, same, other = (
        dict(build(*folders, connector=CONNECTOR, images=IMAGES, seed=seed)[0].named_parameters()) for seed in (1, 1, 2)
    )
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    changed = {name for name, tensor in first.items() if not torch.equal(tensor, other[name])}
    assert changed == {name for name in first if name.startswith("connector.") and not name.endswith("norm.weight")}
    whole = VLM(build(*folders, connector=CONNECTOR, images=IMAGES)[0].config).initialise(1)
    assert torch.equal(first["connector.latents"], whole.get_parameter("connector.latents"))


def test_rows_beyond_the_table(tmp_path: Path) -> None:
    """Spare rows after the tokenizer's (as Qwen has) are used for the special tokens; missing ones are their mean."""
    write_siglip(tmp_path / "vision")
    oracle = write_decoder(tmp_path / "spare", "qwen2", {"num_key_value_heads": 2}, rows=ROWS + 20)
    model, processor = build(tmp_path / "vision", tmp_path / "spare", connector=CONNECTOR, images=IMAGES)
    assert (model.config.language.vocabulary, model.config.extra_vocabulary) == (ROWS - 3, 23)
    stored = oracle.get_input_embeddings().weight
    assert torch.equal(torch.cat(model.language.embedding.tables), stored)
    assert processor.tokenizer.vocabulary == ROWS
    oracle = write_decoder(tmp_path / "exact", "llama", {})
    model, _ = build(tmp_path / "vision", tmp_path / "exact", connector=CONNECTOR, images=IMAGES)
    mean = oracle.lm_head.weight.mean(0).expand(3, -1)
    torch.testing.assert_close(model.language.head.extra, mean)


def test_backbones_give_to_a_model_that_exists(folders: tuple[Path, Path]) -> None:
    built, _ = build(*folders, connector=CONNECTOR, images=IMAGES)
    model = VLM(built.config).initialise(0)
    VisionBackbone.open(folders[0]).give_to(model)
    LanguageBackbone.open(folders[1]).give_to(model)
    for name, tensor in built.named_parameters():
        assert torch.equal(tensor, model.get_parameter(name)), name
    narrow = VLM(built.config.override("language.mlp_width=32", "vision.norm_eps=0.1")).initialise(0)
    with pytest.raises(CheckpointError, match=r"does not fit the model's settings, which say mlp_width 32, there 48"):
        LanguageBackbone.open(folders[1]).give_to(narrow)
    with pytest.raises(CheckpointError, match=r"norm_eps 0.1, there 1e-06"):
        VisionBackbone.open(folders[0]).give_to(narrow)


def test_all_weights_take_the_type_asked_for(folders: tuple[Path, Path]) -> None:
    model, processor = build(*folders, connector=CONNECTOR, images=IMAGES, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(processor(SAMPLES[:1])).logits.isfinite().all()


def test_wrong_folders_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    vision, language = folders
    with pytest.raises(CheckpointError, match="model_type is 'mistral'; as vision encoder lorgnette reads a siglip"):
        build(language, vision)
    with pytest.raises(CheckpointError, match="model_type is 'siglip_vision_model'; known decoders are"):
        build(vision, vision)
    write_decoder(tmp_path / "bare", "llama", {}, bare=True)
    with pytest.raises(CheckpointError, match=r"the checkpoint lacks lm_head.weight$"):
        build(vision, tmp_path / "bare", connector=CONNECTOR, images=IMAGES)
    write_decoder(tmp_path / "tied", "llama", {"tie_word_embeddings": True}, bare=True)
    model, _ = build(vision, tmp_path / "tied", connector=CONNECTOR, images=IMAGES)
    assert model.language.head is model.language.embedding
