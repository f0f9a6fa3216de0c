"""Commands about data: prepare, mine, inspect, audit, languages."""

from pathlib import Path
from typing import Annotated

import typer

from hybridbatch.cli import console
from hybridbatch.cli.base import DATA, DataRoot, DryRun, Languages, Tasks, command, reporter
from hybridbatch.cli.completion import languages as language_names
from hybridbatch.cli.completion import of
from hybridbatch.cli.options import number_option
from hybridbatch.data.settings import MineConfig, PrepareConfig


@command(
    DATA,
    PrepareConfig,
    {"sources": "SOURCE"},
    examples=[
        "hybridbatch prepare atlas",
        "hybridbatch prepare my-questions.tsv --languages swh,eng --out data/mine",
        "hybridbatch prepare --list",
    ],
)
def prepare(
    config: PrepareConfig,
    dry_run: DryRun = False,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in sources.")] = False,
) -> None:
    """Build training data from built-in sources or your own parallel files."""
    if list_:
        from hybridbatch.data.sources.registry import catalogue

        return console.table(catalogue(config.data_root), title="Built-in sources")
    if dry_run:
        from hybridbatch.data.needs import needs_table
        from hybridbatch.data.prepare import plan

        needs = plan(config)
        console.table(needs_table(needs), title=f"To prepare in {needs.folder}")
        console.lines([line for line in (needs.sentence(), needs.warning()) if line])
        return
    from hybridbatch.data.prepare import prepare as run

    console.path(run(config, reporter()))


@command(
    DATA,
    MineConfig,
    {"data": "DATA"},
    examples=[
        "hybridbatch mine data/atlas --negatives 5",
        "hybridbatch mine data/mine --method dense --model experiments/first --out data/mined",
    ],
)
def mine(config: MineConfig) -> None:
    """Find hard negatives for prepared data, by BM25 or with an encoder."""
    from hybridbatch.data.mine import mine as run

    console.path(run(config, reporter()))


@command(
    DATA,
    examples=[
        "hybridbatch inspect data/atlas",
        "hybridbatch inspect data/mine --records 5 --languages swh,eng --json",
    ],
)
def inspect(
    data: Annotated[Path, typer.Argument(help="Prepared data folder.")],
    records: Annotated[int, number_option(int, "Number of sample records to show.")] = 3,
    languages: Languages = "all",
) -> None:
    """Show what prepared data holds, what was left out and why, and sample parallel records."""
    from hybridbatch.data import inspection
    from hybridbatch.data.store.reader import Store

    found = inspection.describe(Store.open(data), records=records, languages=languages)
    if console.mode.json:
        return console.json(found)
    console.table(inspection.source_table(found), title=f"{data}: rows by source")
    console.lines([f"fingerprint {found['fingerprint']}", *inspection.origins(found)])
    console.table(
        inspection.language_table(found),
        title=f"Rows by language, {found['languages']} languages",
    )
    console.table(
        inspection.dropped_table(found),
        title=_counted("Rows left out", found["dropped"]["rows"]),
    )
    if "quality" in found:
        console.table(inspection.quality_table(found), title=inspection.quality_title(found))
    console.table(
        inspection.removed_table(found),
        title=_counted("Records left out for evaluation texts", found["removed"]["records"]),
    )
    for name in ("language_check", "translation"):
        if name in found:
            console.document({name: found[name]})
    for sample in found["samples"]:
        console.table(
            inspection.sample_table(sample),
            title=f"{sample['source']}, record {sample['record']}",
        )


def _counted(what: str, count: int) -> str:
    """The title of a table that may be empty."""
    return f"{what}: {count:,}" if count else what


@command(
    DATA,
    examples=[
        "hybridbatch audit data/mine",
        "hybridbatch audit data/mine xquad-r belebele-sib --out audit.json",
    ],
)
def audit(
    data: Annotated[Path, typer.Argument(help="Prepared data folder.")],
    tasks: Tasks = None,
    data_root: DataRoot = None,
    languages: Languages = "all",
    out: Annotated[
        Path | None, typer.Option(help="File to which the report is also written, as JSON.")
    ] = None,
) -> None:
    """Report exact and near copies of evaluation texts in prepared data, without changing it."""
    from hybridbatch.common.files import write_json
    from hybridbatch.data.filters.decontamination import audit as run
    from hybridbatch.data.filters.decontamination import summary

    result = run(
        data, tasks or ("all",), data_root=data_root, languages=languages, report=reporter()
    )
    console.table(result["found"]["counts"], title=f"Evaluation texts in {data}")
    console.document({"examples": result["found"]["examples"]})
    console.lines([summary(result["found"])])
    if out:
        write_json(out, result)
        console.path(out)


@command(
    DATA,
    examples=[
        "hybridbatch languages low-resource",
        "hybridbatch languages script:Arab,-arb --of data/atlas --json",
    ],
)
def languages(
    group: Annotated[
        str,
        typer.Argument(
            metavar="[GROUP]",
            help="Languages to show: ids, groups and exclusions, such as 'low-resource,-swh'."
            " [all]",
            show_default=False,
            autocompletion=of(language_names),
        ),
    ] = "all",
    of: Annotated[
        Path | None, typer.Option(help="Show only the languages of this prepared data folder.")
    ] = None,
) -> None:
    """List the languages of a group."""
    from hybridbatch.common.languages import describe_group

    available = None
    if of:
        from hybridbatch.data.store.reader import Store

        available = Store.open(of).languages
    console.table(describe_group(group, available=available), title=f"Languages: {group}")
