"""Settings of what goes in: how images are sized and split, and which tokens have a special meaning."""

from __future__ import annotations

from typing import Literal

import pydantic

from lorgnette.settings import Settings

FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Resampling filters, each at Pillow's number for it."""
MAX_PIXELS = 40_000_000
"""Pixels of an image that is decoded, if no setting says otherwise: forty times what a model sees of it."""
MOST_PIXELS = 178_956_970
"""Pixels beyond which Pillow itself refuses an image."""
MOST_TILED = 4096
"""Pixels along the long side of an image that is cut in tiles, beyond which upstream shrinks it again."""


class ImageConfig(Settings):
    """Settings of image preprocessing. Defaults are Idefics2's: own aspect ratio, sides between 378 and 980 pixels."""

    policy: Literal["native", "square", "naflex", "tiles"] = "native"
    """`native` keeps the aspect ratio (Table 5). `square` makes `longest` x `longest` of every image, stretched or,
    with `crop_from`, cut from its centre. `naflex` keeps the aspect ratio with as many patches as fit in such a square,
    enlarging small images too (SigLIP 2). `tiles` makes every crop `shortest` x `shortest`: with `split` the long side
    becomes `longest`, a multiple of that, and the image is cut in such tiles, with the whole after them (Idefics3,
    SmolVLM); without, the whole alone is stretched to one."""
    crop_from: pydantic.PositiveInt | None = None
    """Policy `square`: the short side is resized to so many pixels, and the centre cut out (CLIP, DINOv2); None
    stretches (SigLIP, Idefics1)."""
    shortest: int = 378
    longest: int = 980
    patch: int = 14
    grid: int = 70
    positions: Literal["parity", "exact", "interpolated"] = "parity"
    """Position ids of patches: equal to the published classes, or by exact integer arithmetic. `interpolated`: the
    encoder resizes its table to each image, which may have more patches along a side than that."""
    resize: Literal["exact", "fast"] = "exact"
    """`exact`: the pixels of upstream's PIL backend. `fast`: vector instructions, a few pixels a grey level off, and
    large JPEGs decoded at a smaller scale."""
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] = "bilinear"
    """The filter by which images are resized. `resize: fast` does bilinear only, and others as `exact` does."""
    keep_aspect: bool = False
    """Do not distort images thinner than shortest : longest (the published sizes do)."""
    split: bool = False
    """Four quadrants (of policy `tiles`: the tiles) and the whole instead of the whole alone (§3.4). A call can say
    otherwise."""
    multiple: pydantic.PositiveInt = 1
    """Both sides are a multiple of so many patches. A processor sets it to what its connector needs."""
    tag_tokens: tuple[int, int, int, int] = (1, 1, 1, 1)
    """Policy `tiles`: tokens of the longest tag of a tile, of the whole's tag, of a newline and of two newlines. A
    processor sets them to what its tokenizer makes; the plan of packs counts with them."""
    max_pixels: int = MAX_PIXELS
    """Images of more pixels than this are refused before they are decoded. At most 178,956,970, Pillow's own limit."""

    def unlike(self, grid: tuple[int, int] | None) -> str:
        """A sentence of what to set so that every image has this many rows and columns of patches; else empty.

        grid: of a connector that takes no other shape; None for one that takes any.
        """
        if grid is None or (self.policy in ("square", "tiles") and (self.crop_side // self.patch,) * 2 == grid):
            return ""
        return (
            f"every image must have {grid[0]} x {grid[1]} patches; set images.policy to square and images.longest to"
            f" {grid[0] * self.patch}"
        )

    @pydantic.model_validator(mode="after")
    def _sizes_fit(self) -> ImageConfig:
        if not 1 <= self.max_pixels <= MOST_PIXELS:
            raise ValueError(f"max_pixels {self.max_pixels} is not between 1 and {MOST_PIXELS}, where Pillow refuses")
        if self.shortest > self.longest:
            raise ValueError(f"shortest side {self.shortest} exceeds longest side {self.longest}")
        if self.longest < self.patch * self.multiple:
            raise ValueError(f"longest side {self.longest} is less than {self.multiple} patches of {self.patch} pixels")
        if self.shortest < self.patch:
            raise ValueError(f"shortest side {self.shortest} is less than one patch of {self.patch} pixels")
        if self.crop_from is not None and (self.policy != "square" or self.crop_from < self.longest):
            raise ValueError(
                f"crop_from {self.crop_from} needs policy square and a longest side of at most as much; policy is"
                f" {self.policy}, longest {self.longest}"
            )
        if self.policy == "naflex" and self.positions != "interpolated":
            raise ValueError(
                "policy naflex makes images of more patches along a side than a table has; set positions to"
                " interpolated, and model.vision.position_rule to a rule that interpolates"
            )
        if self.policy == "tiles":
            self._check_tiles()
        if self.crop_side > self.patch * self.grid and self.positions != "interpolated":
            name = "longest" if self.policy != "tiles" else "a tile's (shortest)"
            raise ValueError(
                f"{name} side {self.crop_side} exceeds the position table: {self.grid} patches of {self.patch} pixels"
            )
        return self

    def _check_tiles(self) -> None:
        """Raises: ValueError for sides of which upstream's processor makes something else, or fails."""
        if self.longest % self.shortest:
            raise ValueError(
                f"policy tiles: longest {self.longest} is not a multiple of shortest {self.shortest}, the side of a"
                " tile; upstream then counts other tiles than it cuts"
            )
        if self.shortest % (self.patch * self.multiple):
            raise ValueError(
                f"policy tiles: shortest {self.shortest}, the side of a tile, is not a multiple of {self.multiple} x"
                f" {self.patch} pixels, the patches of one visual token; a rest of each tile would be cut"
            )
        if self.longest > MOST_TILED:
            raise ValueError(
                f"policy tiles: longest {self.longest} exceeds the {MOST_TILED} pixels of upstream's limit"
            )

    @property
    def crop_side(self) -> int:
        """The longest side that a crop can have, in pixels: a tile's, or any image's."""
        return self.shortest if self.policy == "tiles" else self.longest

    @property
    def most_tiles(self) -> int:
        """Crops of a square image that is cut in tiles, the whole among them; 1 where images are not."""
        along = self.longest // self.shortest if self.policy == "tiles" and self.split else 1
        return along**2 + (along > 1)

    @property
    def most_patches(self) -> int:
        """Patches of a square image of the longest side: what `naflex` fits every image in."""
        return (self.longest // self.patch) ** 2


class SpecialTokens(Settings):
    """The tokens of Idefics2's protocol. An image is `around`, visual tokens, `around`; neighbours share one."""

    around_image: str = "<fake_token_around_image>"
    """Empty: nothing is around the visual tokens of an image (LLaVA)."""
    image: str = "<image>"
    end_of_utterance: str = "<end_of_utterance>"
    """May be the tokenizer's own end of sequence (LLaVA)."""
    space_after_image: bool = True
    """A word right after an image has a space before it (Idefics2); Idefics1's and LLaVA's have none."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Tokens that an image alone brings about."""
        return (self.around_image, self.image) if self.around_image else (self.image,)

    @property
    def protocol(self) -> tuple[str, ...]:
        """Tokens that a tokenizer must have."""
        return (*self.slots, self.end_of_utterance)
