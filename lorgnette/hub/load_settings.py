"""A model's folder with how it is opened, as commands hand it to workers and replicas; torch is imported on opening."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lorgnette.settings import Settings

if TYPE_CHECKING:
    from lorgnette.inputs.processor import Processor
    from lorgnette.model.vlm import VLM


class LoadSettings(Settings):
    """Settings of `lorgnette.load`, in words."""

    model: str
    """Folder of the model."""
    adapter: str | None = None
    """Folder of PEFT's adapters."""
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    keep_adapter: bool = False
    """Adapters stay beside the weights; otherwise they are merged."""
    compile: bool = False

    def digest(self) -> str:
        """The digest of the model's files, with what is merged into them and what they are rounded to."""
        from lorgnette.hub.checkpoint_hash import digest_with_adapter

        return digest_with_adapter(self.model, self.adapter, self.quantize, merge=not self.keep_adapter)

    def open(self) -> tuple[VLM, Processor]:
        """Open it. Raises: CheckpointError, also for a device that is not here."""
        from lorgnette.hub.load import load
        from lorgnette.model.ops.device import choose_device

        chosen: dict[str, Any] = {"dtype": self.dtype, "adapter": self.adapter, "merge": not self.keep_adapter}
        chosen |= {"quantize": self.quantize, "compile": self.compile}
        return load(self.model, device=choose_device(self.device), **chosen)
