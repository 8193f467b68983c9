"""The command line. Each verb imports what it needs when it is called, so that `--help` is instant."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Build vision-language models: join a vision encoder to a language model, train, measure and use the result.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Model = Annotated[str, typer.Option("--model", help="Folder of a model (or of a run), or a hub id.")]


def main() -> None:
    """Run the command line; a lorgnette error is one sentence on stderr and exit status 1."""
    from lorgnette.errors import LorgnetteError

    try:
        app()
    except LorgnetteError as error:
        typer.secho(f"lorgnette: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the run is written.")] = Path("runs/demo"),
    recipe: Annotated[str, typer.Option(help="Recipe to run, by name or path.")] = "demo",
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
) -> None:
    """Build a small VLM from drawings and show that it sees: before, after, and blind."""
    from lorgnette.demo.demo import run_demo

    run_demo(folder, recipe, override or [])


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe, by name or path.")],
    override: Annotated[list[str] | None, typer.Argument(help="Settings to change, as stages.0.lr=1e-4.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where the run is written; runs/NAME by default.")] = None,
) -> None:
    """Train a recipe's stages, and export the model to FOLDER/model. The same command goes on after a stop."""
    from rich.console import Console

    from lorgnette.hub.export import export
    from lorgnette.run import Run, find_recipe
    from lorgnette.train.loop import Trainer

    console = Console()
    run = Run.load(find_recipe(recipe), override or [])
    trainer = Trainer(run, folder or Path("runs") / run.name, console)
    model = trainer.train()
    export(model, trainer.processor, trainer.folder / "model")
    console.print(f"Trained. Talk to it: lorgnette chat --model {trainer.folder}", highlight=False)


if __name__ == "__main__":
    main()
