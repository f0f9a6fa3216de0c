"""Commands about evaluation: eval, compare, figures, cache."""

from pathlib import Path
from typing import Annotated

import typer

from hybridbatch.cli import console
from hybridbatch.cli.base import EVALUATION, DryRun, command, reporter
from hybridbatch.cli.options import number_option
from hybridbatch.scoring.settings import EvalConfig


@command(
    EVALUATION,
    EvalConfig,
    {"model": "MODEL"},
    name="eval",
    examples=[
        "hybridbatch eval experiments/first --tasks atlas",
        "hybridbatch eval bm25 --tasks my-task --languages low-resource --json",
        "hybridbatch eval --list",
    ],
)
def evaluate(
    config: EvalConfig,
    dry_run: DryRun = False,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in tasks.")] = False,
) -> None:
    """Score an encoder on every language pair and on the multilingual pool."""
    if list_:
        from hybridbatch.data.tasks.registry import describe_tasks

        return console.table(
            describe_tasks(config.data_root),
            title="Built-in tasks; besides, mteb's by name and folders of your own",
        )
    if dry_run:
        from hybridbatch.scoring.evaluate import plan

        return console.table(plan(config), title=f"To score with {config.model}")
    from hybridbatch.scoring.documents import read_evaluation
    from hybridbatch.scoring.evaluate import SECOND, leads
    from hybridbatch.scoring.evaluate import evaluate as run
    from hybridbatch.scoring.summary import official_rows, summary_rows

    folder = run(config, reporter())
    if not leads(config):
        return
    result = read_evaluation(folder)
    if result["tasks"]:
        console.table(
            summary_rows(result),
            title="mAP by setting, and rank distance, macro-averaged over languages",
        )
    if result["official"]:
        console.table(official_rows(result), title="mteb tasks", name="official")
    if result.get("left_out"):
        console.table(result["left_out"], title="mteb tasks without a score", name="left_out")
    if config.rerank:
        reranked = read_evaluation(folder / SECOND)
        title = f"The same after reranking by {config.rerank}"
        console.table(summary_rows(reranked), title=title, name="reranked")
    console.path(folder)


@command(
    EVALUATION,
    examples=[
        "hybridbatch compare experiments/eval-hybrid experiments/eval-mono",
        "hybridbatch compare h-13,h-14 m-13,m-14 --metric ndcg@10 --out comparison.svg",
    ],
)
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Evaluation folders; write the seeds of one arm as A1,A2."
        ),
    ],
    metric: Annotated[
        str, typer.Option(help="Metric to compare, such as mAP, ndcg@10 or rank_distance.")
    ] = "mAP",
    seed: Annotated[
        int, number_option(int, "Seed of the randomisation test and the bootstrap.")
    ] = 13,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to which the comparison is also written: .svg or .png (a figure), .md,"
            " else JSON."
        ),
    ] = None,
) -> None:
    """Test which of several evaluations is better, question by question."""
    from hybridbatch.scoring.compare import compare as run
    from hybridbatch.scoring.compare import write

    folders = []
    for group in runs:
        folders.append([Path(part) for part in group.split(",")])
    result = run(folders, metric, seed=seed)
    shown = (
        "task",
        "setting",
        "run_a",
        "run_b",
        "questions",
        "mean_a",
        "mean_b",
        "difference",
        "low",
        "high",
        "p_holm",
        "effect_size",
    )
    rows = []
    for row in result["rows"]:
        rows.append({name: row[name] for name in shown})
    console.table(
        rows,
        title=f"Comparison by {metric}",
        caption="difference: mean a - mean b, with its 95 % interval from low to high; p holm:"
        " below 0.05 is significant",
    )
    console.lines(result["summaries"])
    if out:
        write(result, out)
        console.path(out)


@command(
    EVALUATION,
    examples=[
        "hybridbatch figures experiments/first-eval",
        "hybridbatch figures experiments/*-eval --metric ndcg@10",
    ],
)
def figures(
    runs: Annotated[list[Path], typer.Argument(metavar="EVAL...", help="Evaluation folders.")],
    metric: Annotated[
        str, typer.Option(help="Metric that the heat map of language pairs shows.")
    ] = "mAP",
) -> None:
    """Draw heat maps of language pairs and language bias as SVG and PNG, in EVAL/figures."""
    from hybridbatch.scoring.figures import draw

    for folder in runs:
        console.lines([str(path) for path in draw(folder, metric, reporter())])


@command(EVALUATION, examples=["hybridbatch cache", "hybridbatch cache --prune 20"])
def cache(
    prune: Annotated[
        float | None,
        number_option(
            float,
            "Remove the embeddings unused for longest until the cache has at most this size.",
            metavar="GB",
        ),
    ] = None,
) -> None:
    """Show the stored embeddings, and remove old ones."""
    from datetime import UTC, datetime

    from hybridbatch.search import embeddings

    if prune is not None:
        dropped = embeddings.prune(max_bytes=int(prune * 1e9))
        console.lines(
            [
                f"dropped {space.model} ({space.side}), {space.bytes / 1e6:,.0f} MB"
                for space in dropped
            ]
        )
    rows = [
        {
            "model": space.model,
            "fingerprint": space.fingerprint[:12],
            "side": space.side,
            "precision": space.precision,
            "vectors": space.vectors,
            "MB": round(space.bytes / 1e6),
            "last used": datetime.fromtimestamp(space.last_used, UTC).strftime(
                "%Y-%m-%d %H:%M"
            ),
        }
        for space in embeddings.list_spaces()
    ]
    console.table(rows, title=f"Stored embeddings in {embeddings.default_folder()}")
