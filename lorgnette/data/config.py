"""Settings of what is trained on: named sources, their weights, and how samples are packed and varied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args

import pydantic

from lorgnette import plugins
from lorgnette.data.record import Record
from lorgnette.settings import STORED, Settings


class FilesConfig(Settings):
    """Settings common to all sources. A source is prepared (indexed) before training."""

    weight: float = pydantic.Field(default=1.0, gt=0)
    """Share of the stage relative to its other sources, in samples, tokens or supervised tokens as the stage says."""
    path: str
    """A file, a folder, a glob, the id of a data set on the hub (`owner/name`, `owner/name@revision`), its split or
    subset alone (`owner/name:train`, `owner/name:ai2d/train`), or a URL that fsspec opens (`hf://datasets/...`)."""
    name: str | None = None
    """Name of the source in reports; its kind and path if not given."""
    opt_out: tuple[str, ...] = ()
    """Files of URLs or SHA-256 hashes, one a line: a row with such an image is refused."""
    decontaminate: tuple[str, ...] = ()
    """Benchmarks: a row with an image of theirs, or one that looks the same, is refused."""
    filters: tuple[str, ...] = ()
    """Dotted names of your functions from a Record to None, or to the reason why it is refused."""
    held_out: str | None = None
    """File of pictures, as `lorgnette tune` writes it: rows that show one of them are set apart; see `part`."""
    part: Literal["train", "held_out"] = "train"
    """Rows that are read where `held_out` names a file: those to train on, or those set apart to be asked about."""
    prepared: str | None = None
    """Folder for what is prepared; None for one beside the source, or in your cache where it cannot be written."""
    image_folder: str | None = None
    """Folder that relative paths of images start from (LLaVA's `--image_folder`), before the folder of the file that
    names them. Only files below the source's own folder, and below this one, are read, symbolic links resolved."""
    allow_outside: bool = False
    """Read whatever file a row or page names, by an absolute path, `..` or a symbolic link: only if you trust it."""
    allow_hosts: tuple[str, ...] = ()
    """Hosts (`name` or `name:port`) whose links are fetched although their addresses are not public."""
    allow_schemes: tuple[str, ...] = ()
    """Schemes that rows may name beside http and https (`s3`, `hf`), opened by fsspec with your credentials."""
    allow_proxy: bool = False
    """Fetch links through the proxy that your environment names; it resolves them, so addresses are not checked."""

    @pydantic.field_validator("allow_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [host for host in hosts if not host or any(sign in host for sign in "/@ *")]:
            raise ValueError(f"{wrong[0]!r} is no host; write a name or an address, as `images.example.org`")
        return tuple(host.lower().rstrip(".") for host in hosts)

    @pydantic.field_validator("allow_schemes")
    @classmethod
    def _schemes(cls, schemes: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [scheme for scheme in schemes if not scheme.isalnum() or scheme.lower() in ("http", "https")]:
            raise ValueError(f"{wrong[0]!r} is no scheme for fsspec; write its name alone, as `s3`")
        return tuple(scheme.lower() for scheme in schemes)

    @pydantic.model_validator(mode="after")
    def _part_of_something(self) -> FilesConfig:
        if self.part == "held_out" and self.held_out is None:
            raise ValueError("part is held_out, but held_out names no file of pictures; give it, or leave part out")
        return self

    @property
    def title(self) -> str:
        kind = getattr(self, "kind", "files")
        return self.name or f"{kind} {self.path}"


class RowsConfig(FilesConfig):
    """Settings common to sources of rows: parquet, Arrow, JSON or JSONL, compressed or not, and images beside them."""


class InterleavedConfig(RowsConfig):
    """Web documents as OBELICS has them: parquet with lists `images` and `texts`, one of the two at each place."""

    kind: Literal["interleaved"] = "interleaved"
    need_both: bool = True
    """Refuse a document without an image or without text."""
    most_images_in_a_row: int | None = pydantic.Field(default=2, ge=1)
    """Refuse a document with more images than this between two texts; None accepts all."""
    drop_lone_last_image: bool = True
    """Drop an image that no text follows."""


class WebpagesConfig(InterleavedConfig):
    """HTML files or WARC archives, read as interleaved documents: main content in reading order."""

    kind: Literal["webpages"] = "webpages"  # type: ignore[assignment]
    alt_text: bool = True
    """Keep an image's alt text beside it."""
    smallest_side: int = pydantic.Field(default=150, ge=1)
    """Leave out images with a shorter side, in pixels (paper, section 4.1)."""
    most_aspect: float = pydantic.Field(default=2.0, gt=1)
    """Leave out images longer than this many times their breadth."""
    most_repeats: int = pydantic.Field(default=2, ge=1)
    """Leave out paragraphs that stand on more pages of their site than this; short ones if on a tenth of them too."""
    most_image_repeats: int = pydantic.Field(default=10, ge=1)
    """Leave out images that stand on more pages than this."""
    fetch: bool = True
    """Fetch images that neither lie beside the pages nor in the same archives, when the source is prepared."""


class PairsConfig(RowsConfig):
    """Images with captions: parquet, WebDataset, or a folder of images with `.txt` beside them or a table of them."""

    kind: Literal["pairs"] = "pairs"
    captions: Literal["alt", "synthetic", "both"] = "both"
    """Captions to train on (Table 6): those found with the image, synthetic ones, or one chosen at random."""
    image_column: str = "image"
    alt_column: str = "alt"
    synthetic_column: str = "caption"


class DocumentsConfig(FilesConfig):
    """PDF files: each page as an image, and its text in reading order."""

    kind: Literal["documents"] = "documents"
    dpi: int = pydantic.Field(default=144, ge=36, le=600)
    grey: bool = False
    shortest_text: int = pydantic.Field(default=20, ge=1)
    """Refuse a page with fewer characters of text."""


class InstructConfig(RowsConfig):
    """Questions and answers as The Cauldron has them: parquet with `images` and `texts` of user and assistant."""

    kind: Literal["instruct"] = "instruct"
    most_turns: int = pydantic.Field(default=7, ge=1)
    """Questions on one image set that a sample holds; the others make samples of their own."""
    shuffle_turns: bool = True
    merge: bool = True
    """Join rows that show the same images into one, as far as they stand in one file."""


class ScenesConfig(RowsConfig):
    """Scenes of built-in drawings, composed when a row is read, with questions about each or its caption."""

    kind: Literal["scenes"] = "scenes"


class ChatConfig(RowsConfig):
    """Conversations in any file of rows: OpenAI, TRL, transformers, LLaVA, LLaMA-Factory, ShareGPT, Alpaca."""

    kind: Literal["chat"] = "chat"


class SourcePlugin(RowsConfig):
    """Base class of sources from other packages (docs/plugins.md): settings, and how a row is read.

    `kind` is the name that was given. Rows are those of parquet files, unless `convert` makes them of others.
    """

    kind: str

    def read(self, row: Mapping[str, Any], name: str) -> Record:
        """Read one row into a record, as a pure function of it. Raises: Refused with a reason."""
        raise TypeError(f"{type(self).__name__} does not read rows")

    def columns(self) -> tuple[str, ...]:
        """Columns that `read` looks at. A file need not have all of them."""
        raise TypeError(f"{type(self).__name__} names no columns")

    def convert(self) -> Iterator[dict[str, Any]] | None:
        """Rows of files that are no parquet, in order, each with the columns of `row_schema`; None to read parquet."""
        return None

    def row_schema(self) -> Any:
        """The `pyarrow.Schema` of the rows that `convert` makes."""
        raise TypeError(f"{type(self).__name__} does not say what its rows are made of")


BuiltInConfig = (
    InterleavedConfig | WebpagesConfig | PairsConfig | DocumentsConfig | InstructConfig | ScenesConfig | ChatConfig
)
BUILT_IN_KINDS = tuple(str(one.model_fields["kind"].default) for one in get_args(BuiltInConfig))
PreparedConfig = BuiltInConfig | SourcePlugin
"""Sources are read from files, and indexed first."""

RETIRED = {
    "captions": '{kind: pairs, path: "builtin:train/pairs", captions: synthetic}',
    "questions": '{kind: scenes, path: "builtin:train/scenes/scene_questions.parquet"}',
    "scenes": '{kind: scenes, path: "builtin:train/scenes"}',
}
"""Kinds whose samples were made on demand, without end, and what takes their place."""


def refuse_former_kinds(value: Any, info: pydantic.ValidationInfo) -> Any:
    """Refuse a former kind; what an earlier version stored of conversations is read. Raises: ValueError, what to write.

    Sources that made their samples on demand are read from files now, and `messages` is called `chat`.
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind == "messages":
        if info.context is not STORED:
            raise ValueError("kind messages is now called chat")
        return {**value, "kind": "chat"}
    if isinstance(kind, str) and kind in RETIRED and not isinstance(value.get("path"), str):
        chosen = "" if kind == "captions" else "; `python -m corpus write` in a checkout writes more of them"
        raise ValueError(
            f"kind {kind} made samples on demand and is read from files now: write {RETIRED[kind]}{chosen}"
        )
    if isinstance(kind, str) and kind not in BUILT_IN_KINDS:
        raise ValueError(f"kind {kind!r:.60} is unknown; use one of {', '.join(BUILT_IN_KINDS)}, or a plug-in")
    return value


SourceConfig = Annotated[
    BuiltInConfig,
    pydantic.Field(discriminator="kind"),
    pydantic.BeforeValidator(refuse_former_kinds),
    pydantic.WrapValidator(plugins.settings_of("sources", SourcePlugin, get_args(BuiltInConfig))),
    pydantic.SerializeAsAny(),
]
"""Settings of a source, by `kind`; one that is none of the built-in ones names a plug-in."""


class PackConfig(Settings):
    """Packs of samples by length: as many as fit, or a number of them."""

    renamed = {"per_step": "packs_per_step"}

    tokens: int = pydantic.Field(default=2048, ge=64)
    """Most tokens in a pack, visual ones included (section 4.1 has sequences of 2,048, 1,536 and 1,024)."""
    patches: int = pydantic.Field(default=48_000, ge=64)
    """Most patches in a pack: what bounds memory when images are large. Where patches fill packs, tokens go unused."""
    samples: int | None = pydantic.Field(default=None, ge=1)
    """Samples in a pack, in the order of the mixture (fewer where these would pass the other limits); None for as many
    as fit, which are then chosen to fill packs best."""
    packs_per_step: int = pydantic.Field(default=8, ge=1)
    """Packs in a step, over all ranks."""


class AugmentConfig(Settings):
    """Random augmentation of a sample, drawn in each epoch from a generator of (seed, sample, epoch)."""

    split: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of samples whose images are shown as four quadrants and the whole (section 3.4: half is enough)."""
    upscale: float = pydantic.Field(default=0.0, ge=0, le=1)
    """Share of images that are enlarged before they are sized, so that small ones are seen large too (stage 2)."""
    most_upscale: float = pydantic.Field(default=4.0, ge=1.5)
    """Enlarged by a factor from 1.5 to this, small factors more often (triangular)."""
    templates: bool = False
    """Word requests of the user that are known (`data.prompts`) in one of their ways, of those that are no longer."""


class LoaderConfig(Settings):
    """Settings of the data loader's workers. They do not change the data or its order."""

    workers: int = pydantic.Field(default=1, ge=0)
    prefetch: int = pydantic.Field(default=4, ge=1)
    """Packs that each worker makes ready ahead."""
