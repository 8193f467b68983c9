"""Advice beside click's own messages: the setting that an unknown option stands for, the value that an option takes."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class AdvisedGroup(TyperGroup):
    """Command group that says what to do where click says only what was wrong with an option."""

    _verb: Any = None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        found = super().resolve_command(ctx, args)
        self._verb = found[1]
        return found

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(getattr(error, "option_name", None), str):
                advise(error, self._verb or self)
            raise


def advise(error: Any, verb: Any) -> None:
    """Add what to do to click's message about an option of a verb, in place."""
    known = next((one for one in verb.params if error.option_name in one.opts), None)
    if known is not None and error.message.endswith("requires an argument."):
        about = getattr(known, "help", None) or ""
        error.message = f"{error.message[:-1]}: {error.option_name} {known.name.upper()}. {about}".rstrip()
    takes_settings = any(one.name in ("override", "data") for one in verb.params)
    if known is None and takes_settings and ";" not in error.message:
        error.message += _setting_meant(error.option_name.lstrip("-").replace("-", "_"))


def _setting_meant(name: str) -> str:
    """The setting that the name of an unknown option stands for; empty if it is not known."""
    from lorgnette.hints import KNOWN_ELSEWHERE, hint, paths
    from lorgnette.run import Run

    meant = hint(Run, [Run], [name]) if name in KNOWN_ELSEWHERE else f"'{name}'" if name in paths(Run) else ""
    named = meant.split("'")[1:2]
    return "".join(f"; settings are written without dashes: {one}=VALUE" for one in named)
