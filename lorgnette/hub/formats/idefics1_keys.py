"""Tables of the keys of an Idefics1 checkpoint: obeyed, refused, warned about, or without effect."""

from __future__ import annotations

from lorgnette.hub.keys import (
    CODE,
    COMMON,
    DECODING,
    NOT_OURS,
    OLD_CONFIG,
    PERCEIVER,
    PICTURES,
    PROCESSOR,
    RULES,
    RUNNING,
    TRAINING,
    VISION,
    FormatSections,
    Section,
    keys,
)

IDEFICS1_MAP = "hub/formats/idefics1.py"
NOT_READ = "no class of transformers reads it"

WHOLE_IDEFICS1 = Section(
    obeyed=keys("model_type vocab_size additional_vocab_size hidden_size intermediate_size hidden_act", IDEFICS1_MAP)
    | keys("num_hidden_layers num_attention_heads rms_norm_eps max_position_embeddings", IDEFICS1_MAP)
    | keys("rope_theta rope_scaling rope_parameters tie_word_embeddings", IDEFICS1_MAP)
    | keys("cross_layer_interval qk_layer_norms alpha_type alpha_initializer use_resampler", IDEFICS1_MAP)
    | keys("vision_config perceiver_config", IDEFICS1_MAP)
    | {"eos_token_id": RULES, **keys("dtype torch_dtype lorgnette", "hub/load.py")},
    irrelevant=COMMON
    | DECODING
    | keys("alphas_initializer_range dropout freeze_text_layers freeze_text_module_exceptions", TRAINING)
    | keys("freeze_lm_head freeze_vision_layers freeze_vision_module_exceptions", TRAINING)
    | keys("cross_layer_activation_function max_sequence_length word_embed_proj_dim is_composition", NOT_READ),
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
IDEFICS1_VISION = Section(
    obeyed={**VISION.obeyed, "embed_dim": IDEFICS1_MAP},
    irrelevant={**VISION.irrelevant, **keys("vision_model_name vision_model_params", NOT_READ)},
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
IDEFICS1_PERCEIVER = Section(
    obeyed=keys("resampler_n_latents resampler_depth resampler_n_heads resampler_head_dim", IDEFICS1_MAP)
    | keys("qk_layer_norms_perceiver", IDEFICS1_MAP),
    irrelevant={**PERCEIVER.irrelevant, "use_resampler": "the whole's counts, in transformers too"},
    refused=NOT_OURS,
    said=CODE | OLD_CONFIG,
)
IDEFICS1_IMAGES = Section(
    obeyed=keys("image_processor_type size image_size do_resize resample do_rescale rescale_factor", PICTURES)
    | keys("do_normalize image_mean image_std", PICTURES),
    irrelevant=keys("processor_class feature_extractor_type transformers_version", "where the file comes from")
    | {"do_convert_rgb": "every image is made RGB", "image_num_channels": "an image has three"}
    | keys("_valid_processor_keys valid_processor_keys return_tensors data_format input_data_format device", RUNNING)
    | keys("disable_grouping backend use_fast default_to_square do_center_crop crop_size do_pad pad_size", NOT_READ),
    said=CODE,
)
IDEFICS1_PROCESSOR = Section(
    obeyed=keys("chat_template image_processor", "inputs/processor.py"),
    irrelevant={**PROCESSOR.irrelevant}
    | {"image_size": "that of the image processor counts", "image_seq_len": "an image has one slot"}
    | keys("add_end_of_utterance_token add_eos_token", "the chat template says what ends a turn"),
    said=CODE,
)
IDEFICS1_SECTIONS = FormatSections(
    WHOLE_IDEFICS1,
    {"vision_config": IDEFICS1_VISION, "perceiver_config": IDEFICS1_PERCEIVER},
    IDEFICS1_PROCESSOR,
    IDEFICS1_IMAGES,
)
