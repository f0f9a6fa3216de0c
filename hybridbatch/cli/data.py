"""Commands about data: prepare, mine, inspect, audit, languages."""

from pathlib import Path
from typing import Annotated

import typer

from hybridbatch.cli import console
from hybridbatch.cli.base import DATA, DataRoot, command, reporter
from hybridbatch.data.settings import MineConfig, PrepareConfig


@command(DATA, PrepareConfig, {"sources": "SOURCE"})
def prepare(
    config: PrepareConfig,
    list_: Annotated[bool, typer.Option("--list", help="List the built-in sources.")] = False,
) -> None:
    """Build training data from built-in sources or your own parallel files."""
    if list_:
        from hybridbatch.data.sources.registry import catalogue

        return console.table(catalogue(), title="Built-in sources")
    from hybridbatch.data.prepare import prepare as run

    console.out.print(str(run(config, reporter())), highlight=False)


@command(DATA, MineConfig, {"data": "DATA"})
def mine(config: MineConfig) -> None:
    """Find hard negatives for prepared data, by BM25 or with an encoder."""
    from hybridbatch.data.mine import mine as run

    console.out.print(str(run(config, reporter())), highlight=False)


@command(DATA)
def inspect(
    data: Annotated[Path, typer.Argument(help="Prepared data folder.")],
    records: Annotated[int, typer.Option(help="Sample records to show.")] = 3,
    languages: Annotated[str, typer.Option(help="Languages of the samples.")] = "all",
    json_: Annotated[bool, typer.Option("--json", help="All of it as JSON.")] = False,
) -> None:
    """Show what is in prepared data, what was left out and why, and sample parallel records side by
    side.
    """
    from hybridbatch.data import inspection
    from hybridbatch.data.store.reader import Store

    found = inspection.describe(Store.open(data), records=records, languages=languages)
    if json_:
        return console.json(found)
    console.table(
        inspection.source_table(found),
        title=f"{data}: rows by source, fingerprint {found['fingerprint']}",
    )
    console.lines(inspection.origins(found))
    console.table(
        inspection.language_table(found), title=f"Rows by language, {found['languages']} languages"
    )
    console.table(
        inspection.dropped_table(found), title=f"Rows left out: {found['dropped']['rows']:,}"
    )
    if "quality" in found:
        console.table(inspection.quality_table(found), title=inspection.quality_title(found))
    console.table(
        inspection.removed_table(found),
        title=f"Evaluation texts, in {found['removed']['records']:,} records left out",
    )
    for name in ("language_check", "translation"):
        if name in found:
            console.document({name: found[name]})
    for sample in found["samples"]:
        console.table(
            inspection.sample_table(sample), title=f"{sample['source']}, record {sample['record']}"
        )


@command(DATA)
def audit(
    data: Annotated[Path, typer.Argument(help="Prepared data folder.")],
    tasks: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TASK...]", help="Evaluation tasks; default: as `prepare` checks."),
    ] = None,
    data_root: DataRoot = None,
    languages: Annotated[str, typer.Option(help="Languages of the tasks to look at.")] = "all",
    out: Annotated[Path | None, typer.Option(help="Also write the report there, as JSON.")] = None,
) -> None:
    """Report evaluation texts in prepared data, exact and nearly so, without changing it."""
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
        console.out.print(str(out), highlight=False)


@command(DATA)
def languages(
    group: Annotated[
        str, typer.Argument(help="Ids, groups and exclusions, such as 'low-resource,-swh'.")
    ] = "all",
    of: Annotated[
        Path | None, typer.Option(help="Only languages of this prepared data folder.")
    ] = None,
) -> None:
    """List the languages of a group."""
    from hybridbatch.common.languages import describe_group

    available = None
    if of:
        from hybridbatch.data.store.reader import Store

        available = Store.open(of).languages
    console.table(describe_group(group, available=available), title=f"Languages: {group}")
