"""`hybridbatch prepare`: turns built-in sources and the user's files into one data folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hybridbatch
from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import clear_leftovers, sha256_file
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.data.choice import (
    at_commits,
    choose_sources,
    default_name,
    named_sources,
    own_data,
    single_languages,
)
from hybridbatch.data.filters.decontamination import Findings, LeakFinder, finder, summary
from hybridbatch.data.filters.evaluation_texts import Checks, choose_checks
from hybridbatch.data.filters.language_id import LanguageCheck
from hybridbatch.data.filters.quality import Quality
from hybridbatch.data.needs import Needs, needs_of
from hybridbatch.data.selection import LanguageFilter, Selection, selected_rows
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.source import Source, SourceContext
from hybridbatch.data.sources.registry import source
from hybridbatch.data.stages import Stage
from hybridbatch.data.store.reader import REMOVED, Store
from hybridbatch.data.store.writer import add_sums, write_store

_NEWER = {
    "columns",
    "language",
    "encoding",
    "max_bad_share",
    "test_share",
    "source_languages",
    "record_share",
}
SHOWN_REASONS, SHOWN_EXAMPLES = 5, 3  # of the rows left out; the manifest lists more


def prepare(config: PrepareConfig, report: Reporter = SILENT) -> Path:
    """Build the data folder that `config` describes, unless it exists already; returns its path.

    Nothing half-written is left.

    Raises:
        ConfigError: A source or language is unknown, or a filter leaves nothing.
        DataError: Data cannot be used.
        OutputError: The folder cannot be written.
    """
    chosen = choose_sources(config.sources, own_data(config))
    keeps = LanguageFilter(config.languages)
    context = SourceContext(config.data_root, config.seed, keeps, report=report)
    context = at_commits(context, chosen, config.revision)
    checks = choose_checks(config.decontaminate, config.data_root)
    single = single_languages(config, chosen)
    stages = text_stages(config, report, chosen)
    provenance = describe(config, chosen, context, checks, stages)
    folder = config.out or Path("data") / default_name(chosen)
    if _is_there(folder, provenance, report):
        clear_leftovers(folder)
        report.note(
            f"{folder}: was prepared before from the same data with the same settings; there"
            " is nothing to do"
        )
        return folder
    selection = Selection(config.limit, config.record_share, keeps, single)
    _tell_needs(needs_of(config, chosen, selection, context, folder), report)
    leak_finder, found = checker(checks, context), Findings()
    manifest = write_store(
        folder,
        selected_rows(chosen, selection, context, leak_finder, found, stages.values()),
        provenance=provenance,
        leaking=found,
        outcomes=lambda: {name: stage.as_json() for name, stage in stages.items()},
        validation_share=config.validation_share,
        test_share=config.test_share,
        seed=config.seed,
        equal_queries=config.equal_queries,
        own=frozenset(one.name for one in chosen if one.own),
        strict=config.strict,
        report=report,
    )
    for stage in stages.values():
        stage.tell(report)
    _tell(folder, manifest, report)
    if config.test_share:
        _tell_test_split(config.test_share, manifest["splits"], report)
    return folder


def plan(config: PrepareConfig) -> Needs:
    """What `prepare` would download and write; it downloads and writes nothing.

    Raises:
        ConfigError: A source or language is unknown.
        DataError: The user's files cannot be used.
    """
    chosen = choose_sources(config.sources, own_data(config))
    selection = Selection(
        config.limit,
        config.record_share,
        LanguageFilter(config.languages),
        single_languages(config, chosen),
    )
    named_sources("translate_sources", config.translate_sources, chosen)
    context = SourceContext(config.data_root, config.seed, revisions=config.revision)
    folder = config.out or Path("data") / default_name(chosen)
    return needs_of(config, chosen, selection, context, folder)


def _tell_needs(needs: Needs, report: Reporter) -> None:
    if needs.is_large:
        report.note(needs.sentence())
    if warning := needs.warning():
        report.warn(warning)


def text_stages(
    config: PrepareConfig, report: Reporter, chosen: Sequence[Source]
) -> dict[str, Stage]:
    """The stages for the rows of a source, in order, by their names in the manifest.

    Errors are those of `named_sources` and `open_translation`.
    """
    stages: dict[str, Stage] = {"quality": Quality(config)}
    if config.check_language:
        stages["language_check"] = LanguageCheck()
    if config.translate_to:
        from hybridbatch.data.translation.open import open_translation

        only = named_sources("translate_sources", config.translate_sources, chosen)
        stages["translation"] = open_translation(config, report, only)
    return stages


def checker(checks: Checks, context: SourceContext) -> LeakFinder | None:
    """The finder of the evaluation texts of `checks`; None if there are none.

    Errors are those of `finder`.
    """
    if checks.absent:
        context.report.note(
            f"the data was not checked against the evaluation tasks {', '.join(checks.absent)},"
            " because they are not on this machine; before you score on one of them, name the"
            " folder that holds them with --data-root"
        )
    return finder(checks, context.data_root, report=context.report) if checks.names else None


def describe(
    config: PrepareConfig,
    chosen: Sequence[Source],
    context: SourceContext,
    checks: Checks,
    stages: Mapping[str, Stage],
) -> dict[str, Any]:
    """The provenance of the data, as JSON: equal provenance gives equal rows.

    Raises:
        DataError: The files of a source do not exist.
    """
    settings = config.model_dump(
        mode="json", include={"languages", "limit", "validation_share", "seed", "strict"}
    )
    # Newer settings are left out at their defaults, so that provenance equals that of older data.
    settings |= config.model_dump(mode="json", include=_NEWER, exclude_defaults=True)
    if config.equal_queries != "together":
        settings["equal_queries"] = config.equal_queries
    provenance = {
        "hybridbatch": hybridbatch.__version__,
        "settings": settings,
        "sources": [_origin(one, context) for one in chosen],
        "decontamination": checks.as_json(),
    }
    for name, stage in stages.items():
        if described := stage.describe():
            provenance[name] = described
    return provenance


def _origin(one: Source, context: SourceContext) -> dict[str, Any]:
    """The origin of a source, and the checksums of the files that it reads."""
    origin: dict[str, Any] = {
        "name": one.name,
        "title": one.title,
        "licence": one.licence,
        "url": one.url,
        "revision": one.revision,
    }
    if one.commit:
        origin["commit"] = context.revisions[one.name]
    origin["files"] = []
    for path in one.inputs(context):
        name = Path(path.parent.name, path.name).as_posix()
        origin["files"].append({"file": name, "sha256": sha256_file(path)})
    return origin


def _is_there(folder: Path, provenance: dict[str, Any], report: Reporter) -> bool:
    """Whether complete and undamaged prepared data of this provenance is at `folder`."""
    if not (folder / "manifest.json").is_file():
        return False
    try:
        store = Store.open(folder)
        there = store.manifest["provenance"]
        same = {name: value for name, value in there.items() if name != REMOVED} == provenance
        if same:
            store.verify()
    except DataError as error:
        report.warn(f"{error}. The data is prepared again")
        return False
    if same and not store.has_checksums and os.access(folder, os.W_OK):
        add_sums(store)
        report.note(f"{folder}: was prepared without checksums; they were added now")
    return same


def _tell(folder: Path, manifest: dict[str, Any], report: Reporter) -> None:
    """Report counts by source and in total, and what was left out and why."""
    splits = manifest["splits"]
    for name in manifest["sources"]:
        counts = [counted["counts"].get(name, {}) for counted in splits.values()]
        languages = {language for one in counts for language in one}
        report.note(
            f"{name}: {sum(sum(one.values()) for one in counts):,} rows in {len(languages)}"
            " languages"
        )
    if manifest["dropped"]["rows"]:
        report.warn(_dropped_rows(manifest["dropped"]))
    removed = manifest["provenance"][REMOVED]
    if removed["records"]:
        report.warn(f"{summary(removed)} and were left out. Examples in manifest.json")
    parts = ", ".join(f"{split} {counted['records']:,}" for split, counted in splits.items())
    rows = sum(counted["rows"] for counted in splits.values())
    report.note(
        f"{folder}: {rows:,} rows in {len(manifest['languages'])} languages; records: {parts}"
    )


def _tell_test_split(share: float, splits: Mapping[str, Any], report: Reporter) -> None:
    """Warn if a share for testing gave no test split, or no training records are left."""
    if "test" not in splits:
        records = sum(counted["records"] for counted in splits.values())
        report.warn(
            f"--test-share {share:g} of {records:,} records gives no test record, so there is no"
            " test split; give a larger share (records that share a text stay together)"
        )
    elif "train" not in splits:
        report.warn(
            "no record is left to train on, because the rest are test records by their split column"
            " or by the names of the files; rename the files if this is wrong"
        )


def _dropped_rows(dropped: Mapping[str, Any]) -> str:
    """The most frequent reasons for rows left out, and the first of these rows."""
    reasons = sorted(dropped["reasons"].items(), key=lambda item: -item[1])
    shown = [f"{count:,} x {reason}" for reason, count in reasons[:SHOWN_REASONS]]
    if len(reasons) > SHOWN_REASONS:
        shown.append(f"{len(reasons) - SHOWN_REASONS} more reasons")
    examples = [
        f"{bad['file']}:{bad['line']}: {bad['field']}: {bad['reason']}"
        for bad in dropped["examples"][:SHOWN_EXAMPLES]
    ]
    return (
        f"{dropped['rows']:,} rows left out: {'; '.join(shown)}. First: {'; '.join(examples)}."
        " More in manifest.json"
    )


def unprepared(data: str, data_root: Path | None) -> Needs | None:
    """What `ensure_prepared` would need, if it had to download something."""
    if "/" in data or any((Path(place, data)).exists() for place in (".", "data")):
        return None
    source(data)
    needs = plan(PrepareConfig(sources=(data,), data_root=data_root))
    return needs if needs.absent or needs.unknown else None


def ensure_prepared(
    data: str, data_root: Path | None, report: Reporter, elsewhere: Path | None = None
) -> Path:
    """The prepared folder that `data` names; a built-in source is prepared first if necessary.

    A built-in source is prepared into data/NAME, unless this folder exists. Errors of `prepare`
    pass through.

    Args:
        elsewhere: where to prepare it instead.

    Raises:
        ConfigError: `data` names neither a folder nor a source.
    """
    for folder in (Path(data), Path("data") / data):
        if (folder / "manifest.json").is_file():
            if not Store.open(folder).has_checksums:
                report.note(
                    f"{folder}: has no checksums, so damage would go unnoticed; run"
                    " `hybridbatch prepare` with the same settings to add them"
                )
            return folder
    if Path(data).is_dir():
        Store.open(Path(data))  # raises an error that says what is wrong
    if Path(data).is_file():
        raise ConfigError(
            f"data = {data!r}: is not prepared yet; run `hybridbatch prepare {data}` and give"
            " the folder that it writes"
        )
    if "/" in data:
        raise ConfigError(
            f"data = {data!r}: no such folder; give a folder that `hybridbatch prepare`"
            " wrote, or a built-in source"
        )
    source(data)
    report.note(f"data {data}: does not exist yet, and is prepared now")
    return prepare(PrepareConfig(sources=(data,), out=elsewhere, data_root=data_root), report)
