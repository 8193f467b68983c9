"""`TrainingBatch`: a batch with the names and origins of its samples, which the model never sees."""

from __future__ import annotations

from dataclasses import dataclass, fields

from lorgnette.model.batch import Batch


@dataclass(frozen=True)
class TrainingBatch(Batch):
    """A pack that is trained on, and what logs and error messages say of it. All empty where nothing is known."""

    names: tuple[str, ...] = ()
    """Name of the sample behind each document, for messages."""
    sources: tuple[str, ...] = ()
    """Source of the sample behind each document, for losses by source."""
    refs: tuple[str, ...] = ()
    """The samples that the plan asked for, in its words: proof of what was trained on."""
    replaced: tuple[str, ...] = ()
    """A sentence for each of them that could not be used: why, and what stands in its place."""

    @classmethod
    def of(cls, batch: Batch, **known: tuple[str, ...]) -> TrainingBatch:
        """The tensors of a batch with what is known of its samples."""
        return cls(**{field.name: getattr(batch, field.name) for field in fields(Batch)}, **known)  # type: ignore[arg-type]

    def name_of(self, document: int) -> str:
        """Name of the sample behind a document; its number where no names are known."""
        return self.names[document] if self.names else f"document {document}"

    def source_of(self, document: int) -> str:
        """Source of the sample behind a document; empty where none is known."""
        return self.sources[document] if self.sources else ""
