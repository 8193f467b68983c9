"""Settings of the engine: memory in bytes, and work per step."""

from __future__ import annotations

import pydantic

from lorgnette.settings import Settings


class EngineConfig(Settings):
    """Limits of an engine. Memory is fixed at the start; defaults suit a CPU."""

    kv_bytes: pydantic.PositiveInt = 2**30
    """Memory of the KV cache, the cached prefixes of ended requests included."""
    image_kv_bytes: pydantic.PositiveInt | None = None
    """Memory of the keys and values of images, beside `kv_bytes`, for models with cross-attention; None for a quarter
    of `kv_bytes`."""
    image_bytes: pydantic.NonNegativeInt = 2**28
    """Memory of visual tokens that are kept for prompts that show an image again."""
    pixel_bytes: pydantic.PositiveInt = 2**28
    """Memory of decoded images that wait to be encoded, where they are decoded beside the steps."""
    prefix_bytes: pydantic.NonNegativeInt | None = None
    """Part of `kv_bytes` that ended requests may fill as prefixes of later ones; None for all that nobody needs."""
    tokens_per_step: int = pydantic.Field(default=256, ge=16)
    """Tokens computed in a step: one for each running answer, the rest for prompts, in chunks."""
    patches_per_step: pydantic.PositiveInt = 4900
    """Image patches encoded in a step; an image that has more is encoded by itself."""
    max_running: pydantic.PositiveInt = 16
    """Answers that grow side by side."""
    max_waiting: pydantic.PositiveInt = 64
    """Requests that may wait for admission."""
    answer_room: pydantic.PositiveInt = 256
    """Tokens of an answer for which there must be memory at admission; more is taken as needed."""
    block: pydantic.PositiveInt = 16
    """Tokens of a block of the prefix cache: a prefix is reused in whole blocks."""
    queue_seconds: pydantic.PositiveFloat = 60.0
    """A request that has waited longer is given up."""
    fair_seconds: pydantic.PositiveFloat = 10.0
    """A request that has waited longer is admitted before younger ones of other keys, whosever turn it is."""
    weights: str = ""
    """Digest of the weights, with which the hashes of prefixes begin."""
