"""Options of every verb that opens a model: its name, adapters, device and type of weights."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from lorgnette.errors import SettingsError
from lorgnette.untrusted import quoted

if TYPE_CHECKING:
    from lorgnette.hub.load_settings import LoadSettings
    from lorgnette.inputs.processor import Processor
    from lorgnette.model.vlm import VLM

_DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
_DTYPES = ("auto", "float32", "bfloat16", "float16")

AdapterOption = Annotated[
    str | None, typer.Option("--adapter", help="Folder or hub id of PEFT's adapters, to be merged into the model.")
]
KeepAdapterOption = Annotated[
    bool, typer.Option("--keep-adapter", help="Keep adapters beside the weights, which are then not changed.")
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="Device: cpu, cuda, cuda:N or mps; auto takes a GPU where there is one.")
]
DtypeOption = Annotated[
    str, typer.Option("--dtype", help="Type of the weights: float32, bfloat16 or float16; auto keeps what is stored.")
]
QuantizeOption = Annotated[
    str | None, typer.Option("--quantize", help="Round the decoder's weights, for a faster CPU: int8.")
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile decode steps by the computer's C compiler, for a faster CPU.")
]


@dataclass(frozen=True)
class ModelOptions:
    """A model as the command line names it, with how to open it."""

    model: str
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quantize: str | None = None
    keep_adapter: bool = False
    compile: bool = False

    def found(self) -> ModelOptions:
        """The same with the model's folder, fetched if it is a hub id; torch is not imported.

        Raises: SettingsError for a device or type that is none, CheckpointError for a model that is not there.
        """
        from lorgnette.cli.arguments import find_model

        check_words(self.device, self.dtype)
        return replace(self, model=find_model(self.model, self.adapter))

    @property
    def chosen_dtype(self) -> dict[str, str]:
        """The type of the weights where it is not the stored one: answers depend on it."""
        return {} if self.dtype == "auto" else {"dtype": self.dtype}

    def digest(self) -> str:
        """The digest of the model's files, with what is merged into them and what they are rounded to."""
        return self.settings().digest()

    def load(self) -> tuple[VLM, Processor]:
        """Open it. Raises: CheckpointError, also for a device that is not here."""
        return self.settings().open()

    def settings(self) -> LoadSettings:
        """The same as settings, which others are told."""
        from lorgnette.hub.load_settings import LoadSettings

        return LoadSettings(**asdict(self))


def check_words(device: str, dtype: str) -> None:
    """Check the words of --device and --dtype, before torch says what is there. Raises: SettingsError listing them."""
    if not _DEVICES.fullmatch(device):
        raise SettingsError(f"--device {quoted(device, 60)}: use one of auto, cpu, cuda, cuda:N, mps")
    if dtype not in _DTYPES:
        raise SettingsError(f"--dtype {quoted(dtype, 60)}: use one of {', '.join(_DTYPES)}")


def training_settings(device: str, dtype: str) -> list[str]:
    """Settings of a run that --device and --dtype stand for. Raises: SettingsError for what training cannot use."""
    if dtype == "float16":
        raise SettingsError("--dtype float16: training computes in float32 or bfloat16, which need no loss scaling")
    kind = device.partition(":")[0]
    if kind != device:
        raise SettingsError(f"--device {device}: choose the GPU by CUDA_VISIBLE_DEVICES, and say --device cuda")
    precision = {"float32": ["precision=fp32"], "bfloat16": ["precision=bf16"]}.get(dtype, [])
    return [*([] if device == "auto" else [f"device={device}"]), *precision]
