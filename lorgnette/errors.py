"""The errors lorgnette raises on purpose: one sentence that says what was wrong, where, and what to do."""

from __future__ import annotations


class LorgnetteError(Exception):
    """Base of every error that is the input's fault and not lorgnette's. The command line shows no traceback then."""

    status = 1
    """The exit status of a command that it ends."""
    alike = False
    """True if every process of a training run raises the error: only rank 0 prints it then."""


class SettingsError(LorgnetteError):
    """A setting is unknown, has the wrong type, or contradicts another one."""


class DataError(LorgnetteError):
    """A sample, row or folder of data cannot be used."""


class ImageError(DataError):
    """An image cannot be read: truncated, not an image, or too large to open safely."""


class PromptTooLong(DataError):
    """A prompt has more tokens than the model has positions, or the engine memory."""


class CheckpointError(LorgnetteError):
    """A checkpoint folder is incomplete, mis-shaped, or of an unknown family."""


def is_fault(error: BaseException) -> bool:
    """Return whether an error says that input is bad, rather than that the program is to end.

    Extensions in Rust report their own failures, of any input, by a PanicException, which is no Exception.
    """
    return isinstance(error, Exception) or type(error).__module__.startswith("pyo3")
