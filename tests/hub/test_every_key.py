"""Every key of the tables is changed: one that is obeyed changes the model's answer or is refused by name, one without
an effect changes nothing, here and in transformers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lorgnette.errors import LorgnetteError
from lorgnette.hub import keys
from lorgnette.hub.load import load
from lorgnette.infer.generate import generate
from lorgnette.infer.sampling import GenerationConfig
from tests.hub.conftest import write_upstream
from tests.hub.tiny import SAMPLES, tiny_config

PLACES: dict[str, tuple[str, str, keys.Section]] = {
    "config": ("config.json", "", keys.WHOLE),
    "text_config": ("config.json", "text_config", keys.TEXT),
    "vision_config": ("config.json", "vision_config", keys.VISION),
    "perceiver_config": ("config.json", "perceiver_config", keys.PERCEIVER),
    "generation_config": ("generation_config.json", "", keys.GENERATION),
    "processor_config": ("processor_config.json", "", keys.PROCESSOR),
    "image_processor": ("processor_config.json", "image_processor", keys.IMAGES),
    "tokenizer_config": ("tokenizer_config.json", "", keys.WORDS),
}
OTHER: dict[str, Any] = {
    "model_type": "other", "image_token_id": 5, "text_config": 3, "vision_config": 3,
    "perceiver_config": 3, "eos_token_id": None, "hidden_act": "relu", "layer_norm_eps": 0.1, "rms_norm_eps": 0.1,
    "vocab_size": 310, "max_position_embeddings": 8, "sliding_window": 2,
    "rope_scaling": {"type": "linear", "factor": 3.0}, "rope_parameters": {"rope_type": "default", "rope_theta": 70.0},
    "partial_rotary_factor": 0.5, "attention_bias": True, "mlp_bias": True, "image_size": 56, "patch_size": 7,
    "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None, "forced_eos_token_id": 77,
    "repetition_penalty": 1.9, "no_repeat_ngram_size": 1, "stop_strings": None,
    "do_sample": True, "max_new_tokens": 2, "max_length": 160, "image_seq_len": 3, "chat_template": "{{ messages }}",
    "image_processor": {"image_processor_type": "Other"}, "image_processor_type": "Other", "do_resize": False,
    "size": {"shortest_edge": 14, "longest_edge": 42}, "resample": 3, "do_rescale": False, "rescale_factor": 0.01,
    "do_normalize": False, "image_mean": 0.1, "image_std": 0.1, "do_image_splitting": True, "bos_token": "<zzz>",
    "eos_token": "<zzz>", "lorgnette": 3, "num_channels": 4,
}  # fmt: skip
"""For keys that are obeyed: a plausible other value; None for one that follows from the answer, see `other_value`."""
ELSEWHERE: dict[str, str] = {
    "original_max_position_embeddings": "of rope types that have one; test_config_map.py",
    "use_sliding_window": "of Qwen's decoders; test_config_map.py",
    "max_window_layers": "of Qwen's decoders; test_config_map.py",
    "layer_types": "of Qwen's decoders; test_config_map.py",
    **dict.fromkeys(["hidden_activation", "use_bidirectional_attention"], "of Gemma's decoders; test_config_map.py"),
    **dict.fromkeys(["query_pre_attn_scalar", "sliding_window_pattern"], "of Gemma 2 and 3; test_config_map.py"),
    **dict.fromkeys(["attn_logit_softcapping", "final_logit_softcapping"], "of Gemma 2 and 3; test_config_map.py"),
    "rope_local_base_freq": "of Gemma 3's decoder; test_config_map.py",
    **dict.fromkeys(["no_rope_layers", "no_rope_layer_interval"], "of SmolLM3's decoder; test_config_map.py"),
    "dtype": "of weights in several types; test_weights.py",
    "torch_dtype": "of weights in several types; test_weights.py",
    "tie_word_embeddings": "of weights with one table; test_weights.py",
    "rope_theta": "where no rope_parameters are; test_config_map.py",
    **dict.fromkeys(["min_length", "min_new_tokens"], "of answers that end; test_obeyed.py"),
    "tokenizer_class": "of files that leave out tokens; test_tokenizer_files.py",
    "forced_bos_token_id": "of prompts of one token; test_obeyed.py",
    **dict.fromkeys(["temperature", "top_k", "top_p", "min_p"], "of sampling; test_obeyed.py"),
    **dict.fromkeys(["add_prefix_space", "legacy"], "of LlamaTokenizer; test_tokenizer_files.py"),
    **dict.fromkeys(["unk_token", "pad_token", "sep_token", "cls_token", "mask_token"], "test_tokenizer_files.py"),
    **dict.fromkeys(["additional_special_tokens", "extra_special_tokens"], "test_tokenizer_files.py"),
    **dict.fromkeys(["image_token", "image_boundary_token"], "test_tokenizer_files.py"),
}
"""Keys that are obeyed in other circumstances than these, and the tests that hold them."""
PARTS_OF = {"text_config": ("lorgnette",), "vision_config": ("model_type",)}
"""Keys that the tables list for a backbone by itself; of the whole's parts transformers does not read them either."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose two tables are equal, so that each says all."""
    return write_upstream(tmp_path_factory.mktemp("keys") / "base", tiny_config())


def changed(folder: Path, into: Path, place: str, values: dict[str, Any]) -> Path:
    file, group, _ = PLACES[place]
    shutil.copytree(folder, into)
    read = json.loads((into / file).read_text()) if (into / file).is_file() else {}
    (read[group] if group else read).update(values)
    (into / file).write_text(json.dumps(read))
    if "chat_template" in values:
        (into / "chat_template.jinja").unlink()
    return into


def answer(folder: Path) -> tuple[Any, ...]:
    """All that a model does with a prompt: ids, scores, and a drawn answer."""
    model, processor = load(folder)
    settings = GenerationConfig(seed=3) if processor.generation.max_new_tokens else GenerationConfig(max_tokens=12)
    batch = processor(SAMPLES[2:3], split=processor.images.split)
    scores = model(batch).logits
    settings = GenerationConfig() if processor.generation.max_length else settings
    [said] = generate(model, processor, SAMPLES[2], settings)
    return batch.tokens_T.tolist(), scores.tolist(), said.tokens, said.finish, processor.tokenizer.named_tokens


@pytest.fixture(scope="module")
def before(folder: Path) -> tuple[Any, ...]:
    return answer(folder)


def other_value(key: str, said: tuple[int, ...], folder: Path) -> Any:
    if OTHER.get(key) is not None:
        return OTHER[key]
    text = load(folder)[1].tokenizer.decode(list(said))
    follows = {"bad_words_ids": [[said[0]]], "suppress_tokens": [said[0]], "begin_suppress_tokens": [said[0]]}
    follows |= {"eos_token_id": said[0], "stop_strings": [text[len(text) // 2]]}
    return follows.get(key, 3)  # of sizes: one that no tensor has


OBEYED = [
    (place, key)
    for place, (_, _, section) in PLACES.items()
    for key in section.obeyed
    if key not in ELSEWHERE and key not in PARTS_OF.get(place, ())
]


@pytest.mark.parametrize(("place", "key"), OBEYED, ids=[f"{place}-{key}" for place, key in OBEYED])
def test_a_key_that_is_obeyed_changes_the_answer_or_is_refused(
    folder: Path, before: tuple[Any, ...], tmp_path: Path, place: str, key: str
) -> None:
    value = other_value(key, before[2], folder)
    try:
        after = answer(changed(folder, tmp_path / "changed", place, {key: value}))
    except LorgnetteError as error:
        assert str(error)
        return
    assert after != before, f"{key} of {place} is ignored"


ODD = {"transformers_version": "1.2.3", "_name_or_path": "x/y", "attention_dropout": 0.5, "initializer_range": 0.5}
BREAKS_UPSTREAM = keys.keys(
    "attn_implementation _attn_implementation _attn_implementation_internal _experts_implementation tokenizer_class "
    "_attn_implementation_autoset use_cache return_dict output_attentions output_hidden_states is_decoder "
    "chunk_size_feed_forward tie_encoder_decoder torchscript label2id id2label problem_type dtype torch_dtype "
    "model_type base_config_key is_composition architectures cross_attention_hidden_size",
    "another value is an error there, or how the model runs",
)


@pytest.mark.parametrize("place", ["config", "text_config", "vision_config", "perceiver_config"])
def test_keys_without_an_effect_change_nothing_here_and_there(
    folder: Path, before: tuple[Any, ...], tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = PLACES[place][2].irrelevant
    odd = {key: ODD.get(key, 1) for key in wanted}
    keys.warn_once.cache_clear()
    assert answer(changed(folder, tmp_path / "all", place, odd)) == before
    assert not caplog.text
    some = {key: value for key, value in odd.items() if key not in BREAKS_UPSTREAM and key not in keys.DECODING}
    there = changed(folder, tmp_path / "some", place, some)
    batch = load(folder)[1](SAMPLES[1:2])
    scores = []
    for source in (folder, there):
        model = transformers.Idefics2ForConditionalGeneration.from_pretrained(source).eval()
        with torch.no_grad():
            scores.append(model(input_ids=batch.tokens_T[None]).logits)
    assert torch.equal(*scores)


@pytest.mark.parametrize("place", ["generation_config", "processor_config", "image_processor", "tokenizer_config"])
def test_keys_of_other_files_without_an_effect_change_nothing(
    folder: Path, before: tuple[Any, ...], tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {key: ODD.get(key, 1) for key in PLACES[place][2].irrelevant if key != "added_tokens_decoder"}
    keys.warn_once.cache_clear()
    assert answer(changed(folder, tmp_path / "all", place, odd)) == before
    assert not caplog.text
