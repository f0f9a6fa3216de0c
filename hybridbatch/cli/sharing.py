"""Commands that publish or convert a trained model: push, export."""

from pathlib import Path
from typing import Annotated

import typer

from hybridbatch.cli import console
from hybridbatch.cli.base import SHARING, command, reporter
from hybridbatch.common.errors import ConfigError


@command(
    SHARING,
    examples=[
        "hybridbatch push experiments/first my-name/my-encoder",
        (
            "hybridbatch push experiments/first my-name/my-encoder --public --eval"
            " experiments/first-eval"
        ),
    ],
)
def push(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training.")],
    repository: Annotated[
        str, typer.Argument(metavar="REPO", help="Repository on the hub, as OWNER/NAME.")
    ],
    eval_: Annotated[
        list[Path] | None,
        typer.Option(
            "--eval",
            metavar="PATH",
            help="Evaluation whose scores the model card shows; can be repeated.",
        ),
    ] = None,
    public: Annotated[
        bool,
        typer.Option("--public", help="Make a new repository public, or push to one that is."),
    ] = False,
    message: Annotated[str, typer.Option(help="Message of the commit.")] = "Add the model",
) -> None:
    """Upload a trained model with its model card to the Hugging Face hub."""
    from huggingface_hub.utils import disable_progress_bars

    from hybridbatch.training.sharing import push as run_push

    if console.mode.quiet or not console.err.is_terminal:
        disable_progress_bars()
    address = run_push(
        run,
        repository,
        evaluations=eval_ or (),
        private=not public,
        message=message,
        report=reporter(),
    )
    console.lines([address], name="commit")


@command(
    SHARING,
    examples=[
        "hybridbatch export experiments/first --onnx",
        "hybridbatch export experiments/first --onnx --out encoder.onnx",
    ],
)
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training, or of a model.")],
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Write ONNX; the vectors are checked to 1e-4.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: onnx/model.onnx in the model.")
    ] = None,
) -> None:
    """Write a trained model in another format."""
    if not onnx:
        raise ConfigError("export: no format is given; add --onnx")
    from hybridbatch.training.sharing import export_onnx

    console.path(export_onnx(run, out, reporter()))
