"""Types of the rows that converters give, as the hub's datasets have them."""

from __future__ import annotations

import pyarrow as pa

from lorgnette.data.config import PairsConfig

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An image: the bytes of its file, or where it is (a URL, or a path from the file that names it)."""

INTERLEAVED = pa.schema([("images", pa.list_(IMAGE)), ("texts", pa.list_(pa.string()))])
"""Lists of equal length with one of the two at each place."""

WEBPAGES = pa.schema([*INTERLEAVED, ("alts", pa.list_(pa.string())), ("url", pa.string())])
"""The same with the images' alt texts at their places, and the address of the page."""

DOCUMENTS = pa.schema([("image", pa.binary()), ("text", pa.string()), ("name", pa.string()), ("page", pa.int32())])
"""A page with its text."""

INSTRUCT = pa.schema(
    [
        ("images", pa.list_(IMAGE)),
        ("texts", pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string()), ("source", pa.string())]))),
    ]
)
"""Images, and questions with answers about them."""

SCENES = pa.schema(
    [
        ("drawings", pa.list_(pa.string())),
        ("boxes", pa.list_(pa.uint16())),
        ("mirrored", pa.list_(pa.uint8())),
        ("width", pa.uint16()),
        ("height", pa.uint16()),
        ("background", pa.string()),
        INSTRUCT.field("texts"),
        ("caption", pa.string()),
    ]
)
"""Built-in drawings by id, left, top, right and bottom of each in pixels, which of them are mirrored (numbers in
`drawings`), the canvas (its colour as #rrggbb), and questions with answers about the scene, or a caption of it."""

CHAT = pa.schema(
    [
        ("images", pa.list_(IMAGE)),
        (
            "messages",
            pa.list_(
                pa.struct(
                    [
                        ("role", pa.string()),
                        ("content", pa.list_(pa.struct([("type", pa.string()), ("text", pa.string())]))),
                        ("weight", pa.int8()),
                    ]
                )
            ),
        ),
    ]
)
"""A conversation whose parts of type `image` stand for the images, in order. An answer of weight 0 is not learned."""


def pairs(config: PairsConfig) -> pa.Schema:
    """An image and its captions, in the columns that the settings name."""
    captions = dict.fromkeys((config.alt_column, config.synthetic_column), pa.list_(pa.string()))
    return pa.schema({config.image_column: IMAGE, **captions})
