"""Tables of every key in the settings files of an Idefics3, SmolVLM or SmolVLM2; see `lorgnette.hub.keys`."""

from __future__ import annotations

from lorgnette.hub import keys

IDEFICS3_MAP, IDEFICS3_FILES = "hub/formats/idefics3.py", "inputs/processors/idefics3_files.py"
OF_TRAINING_CODE = "of the code that trained it; transformers does not read it"

IDEFICS3_WHOLE = keys.Section(
    obeyed=keys.keys("image_token_id tie_word_embeddings text_config vision_config scale_factor", IDEFICS3_MAP)
    | {"model_type": keys.LOAD, "eos_token_id": keys.RULES, **keys.keys("dtype torch_dtype lorgnette", keys.LOAD)},
    irrelevant=keys.COMMON
    | keys.DECODING
    | {"vocab_size": "the decoder's own counts", "transformers.js_config": keys.RUNNING}
    | {"_pad_token_id": "nothing is padded"}
    | keys.keys("use_reentrant_checkpointing neftune_noise_alpha image_seq_len is_composition", OF_TRAINING_CODE),
    refused=keys.NOT_OURS,
    said=keys.CODE | keys.OLD_CONFIG,
)
IDEFICS3_TEXT = keys.Section(
    obeyed=keys.TEXT.obeyed,
    irrelevant={**keys.TEXT.irrelevant, "transformers.js_config": keys.RUNNING}
    | keys.keys("_flash_attn_2_enabled is_llama_config neftune_noise_alpha perceiver_config", OF_TRAINING_CODE)
    | keys.keys("pixel_shuffle_factor qk_layer_norms rope_interleaved use_resampler", OF_TRAINING_CODE),
    refused=keys.NOT_OURS,
    said=keys.CODE | keys.OLD_CONFIG,
)
IDEFICS3_VISION = keys.Section(
    obeyed=keys.VISION.obeyed,
    irrelevant={**keys.VISION.irrelevant}
    | keys.keys("max_image_size size", "the image processor's own file counts")
    | keys.keys("use_base_siglip", OF_TRAINING_CODE),
    refused=keys.NOT_OURS,
    said=keys.CODE | keys.OLD_CONFIG,
)
IDEFICS3_PROCESSOR = keys.Section(
    obeyed={**keys.PROCESSOR.obeyed, "video_processor": IDEFICS3_FILES},
    irrelevant=keys.PROCESSOR.irrelevant,
    said=keys.CODE,
)
_OTHERWISE = ("max_image_size", "video_sampling", "do_pad")
IDEFICS3_IMAGES = keys.Section(
    obeyed=keys.keys("image_processor_type max_image_size size do_image_splitting do_resize", IDEFICS3_FILES)
    | keys.keys("resample do_rescale rescale_factor do_normalize image_mean image_std", keys.PICTURES)
    | {"video_sampling": IDEFICS3_FILES},
    irrelevant={key: why for key, why in keys.IMAGES.irrelevant.items() if key not in _OTHERWISE}
    | {"do_pad": "every tile has one size, so that nothing is padded"},
    said=keys.CODE,
)
IDEFICS3_SECTIONS = keys.FormatSections(
    IDEFICS3_WHOLE,
    {"text_config": IDEFICS3_TEXT, "vision_config": IDEFICS3_VISION},
    IDEFICS3_PROCESSOR,
    IDEFICS3_IMAGES,
)
