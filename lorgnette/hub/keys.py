"""Tables of every key in a checkpoint's settings files: obeyed, refused, warned about, or without effect.

A test compares the tables with the keys that transformers 4.40 to 5.23 write. An unknown key is warned about once.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers

from lorgnette.errors import CheckpointError
from lorgnette.inputs.generation_rules import UNSUPPORTED
from lorgnette.inputs.tokenizer_files import failure_of_tokenizers, read_json
from lorgnette.untrusted import quoted

log = logging.getLogger("lorgnette")


@dataclass(frozen=True)
class Unobeyed:
    """A key that is not obeyed: its values without effect, and advice for any other value."""

    neutral: tuple[Any, ...]
    advice: str


@dataclass(frozen=True)
class Section:
    """The keys of one file, or of one group in it. A value of null counts as missing."""

    obeyed: Mapping[str, str]
    """Key -> the module that obeys it or refuses its value."""
    irrelevant: Mapping[str, str] = field(default_factory=dict)
    """Key -> the reason why it cannot change an answer."""
    refused: Mapping[str, Unobeyed] = field(default_factory=dict)
    said: Mapping[str, Unobeyed] = field(default_factory=dict)
    """Keys that change answers in transformers but not here: a warning names them."""

    @property
    def known(self) -> set[str]:
        return {*self.obeyed, *self.irrelevant, *self.refused, *self.said}


def keys(names: str, what: str) -> dict[str, str]:
    """A table of several keys with one value. names: keys, separated by spaces."""
    return dict.fromkeys(names.split(), what)


def unless(advice: str, **neutral: Any) -> dict[str, Unobeyed]:
    """A table of keys that are not obeyed. neutral: for each key its value without effect, or a tuple of several."""
    return {key: Unobeyed(value if isinstance(value, tuple) else (value,), advice) for key, value in neutral.items()}


CONFIG_MAP, DECODER_MAP, LOAD, TOKENIZER = (
    *("hub/config_map.py", "hub/decoders/decoder_map.py", "hub/load.py"),
    "inputs/tokenizer.py",
)
GEMMA_MAP, ROTARY = "hub/decoders/gemma_settings.py", "hub/decoders/rotary_settings.py"
LLAVA_MAP, LLAVA_FILES = "hub/formats/llava.py", "inputs/processors/llava_files.py"
PICTURES, RULES = "inputs/preprocessor.py", "inputs/generation_rules.py"
RUNNING = "how transformers runs the model, not what it computes"
TRAINING = "used in training from scratch only"
_ORIGIN = "where the file comes from"

COMMON = {
    **keys("_name_or_path _commit_hash transformers_version architectures finetuning_task", _ORIGIN),
    **keys("use_cache torchscript use_bfloat16 tf_legacy_loss chunk_size_feed_forward return_dict", RUNNING),
    **keys("output_attentions output_hidden_states attn_implementation _attn_implementation", RUNNING),
    **keys("_attn_implementation_internal _attn_implementation_autoset _experts_implementation", RUNNING),
    **keys("initializer_range initializer_factor attention_dropout", TRAINING),
    **keys("id2label label2id problem_type task_specific_params", "of classification heads, which are not read"),
    **keys("pad_token_id bos_token_id sep_token_id decoder_start_token_id prefix", "nothing is padded, and the"
            " tokenizer's own files say which tokens these are"),
    **keys("tokenizer_class cross_attention_hidden_size tie_encoder_decoder is_decoder", "of other models"),
}  # fmt: skip
"""Keys of any config.json of transformers without an effect here."""
OTHER_MODEL = "the model is of another kind; lorgnette has no such layers"
NOT_OURS = {
    **unless(OTHER_MODEL, is_encoder_decoder=False, add_cross_attention=False),
    **unless("attention heads are missing; save the model whole", pruned_heads={}),
    **unless(
        "the weights are quantised; load the checkpoint they were made from", quantization_config={}, quantization={}
    ),
}
IN_CONFIG = unless(
    "it is obeyed in generation_config.json only; move it there",
    max_length=20, min_length=0, do_sample=False, temperature=1.0, top_k=50, top_p=1.0, repetition_penalty=1.0,
    no_repeat_ngram_size=0, bad_words_ids=None, forced_bos_token_id=None, forced_eos_token_id=None,
    suppress_tokens=None, begin_suppress_tokens=None, max_new_tokens=None, min_new_tokens=None, stop_strings=None,
)  # fmt: skip
"""Keys of generation that old versions wrote into config.json, with the defaults that they wrote."""
CODE = unless("code that comes with a checkpoint is never run; the files are read as model_type says", auto_map={})
NO_BEAMS = "lorgnette draws one answer token by token, and refuses to answer unless a temperature is given"
DECODING = {
    **keys("length_penalty early_stopping", "of beam search"),
    **keys("is_assistant num_assistant_tokens num_assistant_tokens_schedule assistant_confidence_threshold", RUNNING),
    **keys("assistant_early_exit assistant_lookbehind target_lookbehind assistant_ensemble_weight", RUNNING),
    **keys("speculation_type prompt_lookup_num_tokens max_matching_ngram_size use_mtp", RUNNING),
    **keys("output_scores output_logits return_dict_in_generate low_memory renormalize_logits", RUNNING),
    **keys("prefill_chunk_size cache_implementation cache_config max_cache_len", RUNNING),
    **keys("compile_config disable_compile continuous_batching_config return_legacy_cache", RUNNING),
    "_from_model_config": _ORIGIN,
    **keys("transformers_version _commit_hash", _ORIGIN),
}
BEAMS = unless(NO_BEAMS, **UNSUPPORTED)
OLD_CONFIG = IN_CONFIG | BEAMS | unless("it is obeyed in generation_config.json only; move it there", min_p=0.0)
_SIZES = keys("hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act model_type", CONFIG_MAP)

WHOLE = Section(
    obeyed=keys("model_type image_token_id tie_word_embeddings text_config vision_config perceiver_config", CONFIG_MAP)
    | {"eos_token_id": RULES, **keys("dtype torch_dtype lorgnette", LOAD)},
    irrelevant=COMMON | DECODING | {"is_composition": _ORIGIN},
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
TEXT = Section(
    obeyed=dict.fromkeys(_SIZES, DECODER_MAP)
    | keys("vocab_size num_key_value_heads head_dim rms_norm_eps max_position_embeddings sliding_window", DECODER_MAP)
    | keys("rope_theta rope_scaling rope_parameters original_max_position_embeddings partial_rotary_factor", ROTARY)
    | keys("tie_word_embeddings attention_bias mlp_bias", DECODER_MAP)
    | keys("use_sliding_window max_window_layers layer_types no_rope_layers no_rope_layer_interval", DECODER_MAP)
    | keys("hidden_activation use_bidirectional_attention query_pre_attn_scalar sliding_window_pattern", GEMMA_MAP)
    | keys("attn_logit_softcapping final_logit_softcapping rope_local_base_freq", GEMMA_MAP)
    | {"eos_token_id": RULES, **keys("dtype torch_dtype lorgnette", LOAD)},
    irrelevant=COMMON
    | DECODING
    | {"pretraining_tp": "the same product in several parts", "attention_probs_dropout_prob": TRAINING}
    | keys("resid_pdrop embd_pdrop", TRAINING)
    | {"_sliding_window_pattern": "layer_types says it"},
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
VISION = Section(
    obeyed=_SIZES | keys("num_channels image_size patch_size layer_norm_eps", CONFIG_MAP),
    irrelevant=COMMON
    | DECODING
    | keys("dtype torch_dtype", "the whole's type counts")
    | keys("vision_use_head projection_dim projection_size", "of the head that pools an image to one vector")
    | keys("dropout", TRAINING)
    | keys("tie_word_embeddings eos_token_id", "the encoder has no words")
    | keys("base_config_key lorgnette", _ORIGIN),
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
ENCODER_FAMILIES = "hub/encoders/encoder_families.py"
NAFLEX = Section(
    obeyed={**VISION.obeyed, **keys("num_patches", ENCODER_FAMILIES)},
    irrelevant=VISION.irrelevant,
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
DINOV2 = Section(
    obeyed={**VISION.obeyed, **keys("mlp_ratio use_swiglu_ffn qkv_bias", ENCODER_FAMILIES)},
    irrelevant={**VISION.irrelevant}
    | keys("layerscale_value drop_path_rate hidden_dropout_prob attention_probs_dropout_prob use_mask_token", TRAINING)
    | keys("out_features out_indices stage_names apply_layernorm reshape_hidden_states", "of detectors built on it"),
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
TIMM = Section(
    obeyed=keys("architecture model_args pretrained_cfg", ENCODER_FAMILIES),
    irrelevant=keys("num_classes num_features global_pool", "of the head that pools an image to one vector"),
    said=CODE,
)
SIGLIP = Section(
    obeyed=keys("model_type vision_config", ENCODER_FAMILIES),
    irrelevant=COMMON
    | DECODING
    | keys("text_config text_config_dict vision_config_dict projection_dim", "its text model is not used")
    | keys("logit_scale_init_value", TRAINING)
    | keys("dtype torch_dtype", "a join says its own type")
    | keys("tie_word_embeddings eos_token_id", "the encoder has no words"),
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
PERCEIVER = Section(
    obeyed=keys("resampler_n_latents resampler_depth resampler_n_heads resampler_head_dim", CONFIG_MAP)
    | keys("num_key_value_heads hidden_act hidden_size rms_norm_eps", CONFIG_MAP),
    irrelevant=COMMON
    | DECODING
    | keys("model_type base_config_key", _ORIGIN)
    | keys("dtype torch_dtype", "the whole's type counts")
    | keys("tie_word_embeddings eos_token_id", "the connector has no words"),
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
GENERATION = Section(
    obeyed=keys("eos_token_id bad_words_ids suppress_tokens begin_suppress_tokens forced_bos_token_id", RULES)
    | keys("forced_eos_token_id repetition_penalty no_repeat_ngram_size min_length min_new_tokens", RULES)
    | keys("stop_strings do_sample temperature top_k top_p min_p max_new_tokens max_length", RULES),
    irrelevant=DECODING
    | keys("pad_token_id bos_token_id decoder_start_token_id", "nothing is padded, and prompts come from the template")
    | keys("use_cache output_attentions output_hidden_states", RUNNING),
    said=BEAMS,
)
PROCESSOR = Section(
    obeyed=keys("image_seq_len chat_template image_processor", "inputs/processor.py"),
    irrelevant=keys("processor_class transformers_version", _ORIGIN)
    | keys("tokenizer image_token_id", "the tokenizer's own files say it"),
    said=CODE,
)
IMAGES = Section(
    obeyed=keys("image_processor_type do_resize size resample do_rescale rescale_factor do_normalize", PICTURES)
    | keys("image_mean image_std do_image_splitting", PICTURES),
    irrelevant=keys("processor_class feature_extractor_type transformers_version", _ORIGIN)
    | {"do_convert_rgb": "every image is made RGB; without, upstream fails on others"}
    | {"do_pad": "nothing is padded; without, upstream takes one size only"}
    | keys("_valid_processor_keys valid_processor_keys return_tensors data_format input_data_format device", RUNNING)
    | keys("disable_grouping backend use_fast", RUNNING)
    | keys("crop_size do_center_crop max_num_patches patch_size", "Idefics2's class does not read it; those of vision"
            " encoders do, and default_images of hub/join.py obeys it")
    | keys("default_to_square pad_size size_divisor return_row_col_info", "Idefics2's class does not read it")
    | keys("max_image_size image_seq_length image_seq_len video_sampling", "of Idefics3's class"),
    said=CODE,
)  # fmt: skip
WORDS = Section(
    obeyed=keys("bos_token eos_token unk_token pad_token sep_token cls_token mask_token", TOKENIZER)
    | keys("additional_special_tokens extra_special_tokens tokenizer_class add_prefix_space legacy", TOKENIZER)
    | keys("chat_template", "inputs/processor.py")
    | keys("image_token image_boundary_token", TOKENIZER),
    irrelevant=keys("model_max_length max_len padding_side truncation_side", "nothing is padded or cut")
    | keys("max_length pad_to_multiple_of pad_token_type_id stride truncation_strategy padding", "nothing is padded or"
            " cut")
    | keys("processor_class name_or_path tokenizer_file vocab_file merges_file special_tokens_map_file", _ORIGIN)
    | keys("_commit_hash transformers_version is_local backend tokenizer_type spm_file full_tokenizer_file", _ORIGIN)
    | keys("add_bos_token add_eos_token split_special_tokens add_special_tokens", "tokenizer.json says what surrounds a"
            " text")
    | keys("errors use_default_system_prompt sp_model_kwargs spaces_between_special_tokens from_slow", "of the slow"
            " classes")
    | keys("added_tokens_decoder vocab_size model_input_names model_specific_special_tokens", "tokenizer.json says it")
    | keys("clean_up_tokenization_spaces", "decoded text keeps its spaces as the tokenizer gives them")
    | keys("do_lower_case use_fast trim_offsets response_schema local_files_only", "tokenizer.json says it"),
    said=CODE,
)  # fmt: skip
SPECIAL = Section(
    obeyed=keys("bos_token eos_token unk_token pad_token sep_token cls_token mask_token", TOKENIZER)
    | keys("additional_special_tokens extra_special_tokens image_token image_boundary_token", TOKENIZER)
)
TOKENIZER_JSON = Section(
    obeyed=keys("added_tokens normalizer pre_tokenizer post_processor decoder model", TOKENIZER),
    irrelevant={"version": _ORIGIN, **keys("truncation padding", "no text is cut or padded")},
)
COMPONENTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
"""Parts of tokenizer.json that the tokenizers library reads by itself, silently ignoring keys that it does not know."""
SUBWORDS = Section(
    obeyed=keys("type vocab merges unk_token unk_id continuing_subword_prefix end_of_word_suffix fuse_unk", TOKENIZER)
    | keys("byte_fallback ignore_merges max_input_chars_per_word", TOKENIZER),
    irrelevant={"cache_capacity": RUNNING},
    said=unless("equal texts get equal ids here", dropout=(None, 0)),
)
"""Keys of the group `model` of tokenizer.json."""
ADDED = Section(keys("id content single_word lstrip rstrip normalized special", TOKENIZER))
"""Keys of each entry of `added_tokens` in tokenizer.json."""

WHOLE_LLAVA = Section(
    obeyed=keys("model_type image_token_index image_token_id tie_word_embeddings text_config vision_config", LLAVA_MAP)
    | keys("projector_hidden_act multimodal_projector_bias vision_feature_layer", LLAVA_MAP)
    | {"vision_feature_select_strategy": LLAVA_MAP, "eos_token_id": RULES, **keys("dtype torch_dtype lorgnette", LOAD)},
    irrelevant=COMMON
    | DECODING
    | {"image_seq_length": "slots follow from image_size and patch_size, in transformers too"}
    | {"ignore_index": TRAINING, "vocab_size": "the decoder's own counts", "is_composition": _ORIGIN},
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
LLAVA_VISION = Section(
    obeyed={**VISION.obeyed, "model_type": LLAVA_MAP},
    irrelevant={**VISION.irrelevant, "vocab_size": "the encoder has no words"},
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
LLAVA_PROCESSOR = Section(
    obeyed=keys("patch_size vision_feature_select_strategy num_additional_image_tokens image_token", LLAVA_FILES)
    | keys("chat_template image_processor", "inputs/processor.py"),
    irrelevant=PROCESSOR.irrelevant,
    said=CODE,
)
LLAVA_IMAGES = Section(
    obeyed=keys("image_processor_type size do_center_crop crop_size do_resize resample do_rescale", PICTURES)
    | keys("rescale_factor do_normalize image_mean image_std", PICTURES),
    irrelevant=keys("processor_class feature_extractor_type transformers_version", _ORIGIN)
    | {"do_convert_rgb": "every image is made RGB; without, upstream fails on others"}
    | keys("_valid_processor_keys valid_processor_keys return_tensors data_format input_data_format device", RUNNING)
    | keys("disable_grouping backend use_fast default_to_square", RUNNING)
    | keys("image_seq_length image_seq_len", "slots follow from image_size and patch_size"),
    refused=unless("images are made square by a crop or by stretching; leave it out", do_pad=False, pad_size=None),
    said=CODE,
)
KEY_GROUPS = {"text_config": TEXT, "vision_config": VISION, "perceiver_config": PERCEIVER}


@dataclass(frozen=True)
class FormatSections:
    """Sections of the files of a whole model, in one of the forms of transformers."""

    whole: Section
    groups: Mapping[str, Section]
    processor: Section
    images: Section


IDEFICS2_SECTIONS = FormatSections(WHOLE, KEY_GROUPS, PROCESSOR, IMAGES)
LLAVA_SECTIONS = FormatSections(
    WHOLE_LLAVA, {"text_config": TEXT, "vision_config": LLAVA_VISION}, LLAVA_PROCESSOR, LLAVA_IMAGES
)


def check_keys(
    folder: Path, model: Section | None = None, form: FormatSections = IDEFICS2_SECTIONS, besides: Collection[str] = ()
) -> None:
    """Check every settings file of a checkpoint against the tables; warn once about each unknown key.

    model: section for config.json, if the folder holds a single backbone; form: those of a whole model.
    besides: keys of config.json that are obeyed elsewhere.
    Raises: CheckpointError naming the file, the key and what to do.
    """
    config = _values(folder / "config.json")
    for name, group in form.groups.items():
        inner = config.get(name)
        if isinstance(inner, dict) and model is None:
            check_section(group, inner, f"{folder / 'config.json'}: {name}")
    config = {key: value for key, value in config.items() if key not in besides}
    if config.get("model_type") != "lorgnette" and config:
        check_section(model or form.whole, config, str(folder / "config.json"))
    for name, section in (
        ("generation_config.json", GENERATION),
        ("processor_config.json", form.processor),
        ("preprocessor_config.json", form.images),
        ("tokenizer_config.json", WORDS),
        ("special_tokens_map.json", SPECIAL),
    ):
        check_section(section, _values(folder / name), str(folder / name))
    nested = _values(folder / "processor_config.json").get("image_processor")
    if isinstance(nested, dict):
        check_section(form.images, nested, f"{folder / 'processor_config.json'}: image_processor")


def check_tokenizer(folder: Path) -> None:
    """Check tokenizer.json against the tables, and its components against the keys that the tokenizers library reads.

    Raises: CheckpointError if the library cannot read them.
    """
    file = folder / "tokenizer.json"
    values = _values(file)
    check_section(TOKENIZER_JSON, values, str(file))
    if isinstance(values.get("model"), dict):
        check_section(SUBWORDS, values["model"], f"{file}: model")
    for token in values.get("added_tokens") or []:
        check_section(ADDED, token if isinstance(token, dict) else {}, f"{file}: added_tokens")
    given = {name: values.get(name) for name in COMPONENTS}
    empty = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
    try:
        kept = json.loads(tokenizers.Tokenizer.from_str(json.dumps(empty | given)).to_str())
    except BaseException as error:
        raise failure_of_tokenizers(error, f"{file}: cannot be read as a tokenizer") from None
    for name, value in given.items():
        for key in _lost(value, kept[name]):
            warn_once(f"{file}: {name}: {quoted(key, 60)} is a key that tokenizers does not know; it is not obeyed")


def _lost(given: Any, kept: Any) -> list[str]:
    """Keys of nested value `given` that are missing in `kept`."""
    if isinstance(given, dict) and isinstance(kept, dict):
        lost = [key for key in given if key not in kept and given[key] is not None]
        return lost + [one for key in given.keys() & kept.keys() for one in _lost(given[key], kept[key])]
    if isinstance(given, list) and isinstance(kept, list):
        return [one for pair in zip(given, kept, strict=False) for one in _lost(*pair)]
    return []


def check_section(section: Section, values: Mapping[str, Any], where: str) -> None:
    """Check one group of settings against its section. Raises: CheckpointError for a key that is refused."""
    for key, value in values.items():
        if value is None or key in section.obeyed or key in section.irrelevant:
            continue
        if key in section.refused and value not in section.refused[key].neutral:
            raise CheckpointError(f"{where}: {key} is {quoted(value, 60)}: {section.refused[key].advice}")
        if key in section.said and value not in section.said[key].neutral:
            warn_once(f"{where}: {key} is {quoted(value, 60)}, which is not obeyed: {section.said[key].advice}")
        if key not in section.known:
            warn_once(f"{where}: {quoted(key, 60)} is a key that lorgnette does not know; it is not obeyed")


@functools.lru_cache(maxsize=4096)
def warn_once(text: str) -> None:
    """Log a warning once for each text."""
    log.warning("%s", text)


def _values(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
