"""`hybridbatch inspect`: shows prepared data, the rows left out and why, and sample records."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridbatch.common.languages import resolve
from hybridbatch.common.seeding import stream
from hybridbatch.data.store.reader import REMOVED, Store

SHOWN_LETTERS = 240  # most characters of a sample's text
SHOWN_LANGUAGES = 30
# entries of the manifest that exist only on request
_OUTCOMES = ("quality", "language_check", "translation")
Rows = list[dict[str, Any]]


def describe(
    store: Store, *, records: int = 3, languages: str = "all", seed: int = 0
) -> dict[str, Any]:
    """A description of prepared data for people, as JSON.

    Args:
        records: number of samples; records in the most languages are preferred.
        languages: spec of the languages that samples show.

    Raises:
        ConfigError: A term of `languages` is unknown.
    """
    shown = resolve(languages, store.languages)
    manifest = store.manifest
    provenance = manifest["provenance"]
    told = {one["name"]: one for one in provenance.get("sources", ())}
    nothing_removed = {"records": 0, "sources": {}, "counts": [], "examples": []}
    described = {
        "folder": str(store.folder),
        "hybridbatch": manifest.get("hybridbatch", "unknown"),
        "fingerprint": store.fingerprint,
        "settings": provenance.get("settings", {}),
        "sources": {name: _origin_of(told.get(name, {})) for name in store.sources},
        "languages": len(store.languages),
        "splits": manifest["splits"],
        "dropped": manifest["dropped"],
        "decontamination": provenance.get("decontamination", {}),
        REMOVED: provenance.get(REMOVED, nothing_removed),
    }
    for name in _OUTCOMES:
        if name in manifest:
            described[name] = manifest[name]
    described["samples"] = _samples(store, records, shown, seed)
    return described


def _origin_of(told: dict[str, Any]) -> dict[str, Any]:
    """The part of a source's manifest entry that people want to see."""
    return {key: told[key] for key in ("licence", "url", "revision", "commit") if key in told}


def _samples(store: Store, records: int, languages: Sequence[str], seed: int) -> Rows:
    split = store.splits[0]
    index = store.index(split, languages)
    widths = np.diff(index.record_start)
    order = np.lexsort((stream(seed, "samples").random(index.records), -widths))[:records]
    samples = []
    for record in order.tolist():
        rows = store.rows(
            split,
            index.store_rows(
                np.arange(index.record_start[record], index.record_start[record + 1])
            ),
        )
        texts = {row.language: {"query": row.query, "passage": row.passage} for row in rows}
        samples.append(
            {
                "source": rows[0].source,
                "record": rows[0].record_id,
                "split": split,
                "texts": texts,
            }
        )
    return samples


def source_table(description: dict[str, Any]) -> Rows:
    """A line per source: rows of each split, languages, and records removed for evaluation texts."""
    lines = []
    for name in description["sources"]:
        line: dict[str, Any] = {"source": name}
        languages: set[str] = set()
        for split, counted in description["splits"].items():
            by_language = counted["counts"].get(name, {})
            line[split] = sum(by_language.values())
            languages.update(by_language)
        line["languages"] = len(languages)
        line["leaking"] = description[REMOVED]["sources"].get(name, 0)
        lines.append(line)
    return lines


def origins(description: dict[str, Any]) -> list[str]:
    """The licence, home and revision of each source, one line of text each."""
    lines = []
    for name, told in description["sources"].items():
        parts = [f"{name}: licence {told.get('licence') or 'not known'}"]
        parts += [told[key] for key in ("url", "revision", "commit") if told.get(key)]
        lines.append("; ".join(parts))
    return lines


def language_table(description: dict[str, Any]) -> Rows:
    """Rows by language over all sources, most first.

    Beyond `SHOWN_LANGUAGES` languages, the rest is one line.
    """
    rows: dict[str, dict[str, int]] = {}
    for split, counted in description["splits"].items():
        for by_language in counted["counts"].values():
            for language, count in by_language.items():
                by_split = rows.setdefault(language, dict.fromkeys(description["splits"], 0))
                by_split[split] += count
    ranked = sorted(rows.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    lines = [
        {"language": language, **by_split} for language, by_split in ranked[:SHOWN_LANGUAGES]
    ]
    rest = ranked[SHOWN_LANGUAGES:]
    if rest:
        total = {
            split: sum(by_split[split] for _, by_split in rest)
            for split in description["splits"]
        }
        lines.append({"language": f"{len(rest)} more", **total})
    return lines


def dropped_table(description: dict[str, Any]) -> Rows:
    """Rows that could not be used, by reason, most first."""
    reasons = description["dropped"]["reasons"]
    return [
        {"reason": reason, "rows": count}
        for reason, count in sorted(reasons.items(), key=lambda item: -item[1])
    ]


def quality_table(description: dict[str, Any]) -> Rows:
    """Rows with markup, too long rows and duplicates among the rows as read, by source.

    The table is empty for data that older versions prepared.
    """
    if "quality" not in description:
        return []
    found = description["quality"]
    return [
        {"source": name, "markup": found["markup"][name], "too long": found["too_long"][name],
         "duplicates within": counts["within"], "duplicates across": counts["across"]}
        for name, counts in found["duplicates"].items()
    ]  # fmt: skip


def quality_title(description: dict[str, Any]) -> str:
    """A title that tells how the rows of `quality_table` were handled."""
    done = {"keep": "kept", "remove": "removed", None: "no limit"}
    settings = description["quality"]["settings"].items()
    return ", ".join(
        [
            "Rows as read",
            *(f"{name.replace('_', ' ')} {done.get(value, value)}" for name, value in settings),
        ]
    )


def removed_table(description: dict[str, Any]) -> Rows:
    """The evaluation texts found, by task, kind and match, over all languages."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for one in description[REMOVED]["counts"]:
        key = (one["task"], one["kind"], one["match"])
        line = found.setdefault(key, {"languages": set(), "evaluation_texts": 0})
        line["languages"].add(one["language"])
        line["evaluation_texts"] += one["evaluation_texts"]
    return [
        {"task": task, "kind": kind, "match": match, "languages": len(line["languages"]),
         "evaluation texts": line["evaluation_texts"]}
        for (task, kind, match), line in found.items()
    ]  # fmt: skip


def sample_table(sample: dict[str, Any]) -> Rows:
    """A line per language of a record, query and passage side by side, with long texts cut."""
    lines = []
    for language, texts in sample["texts"].items():
        line: dict[str, Any] = {"language": language}
        line.update((side, _cut(text)) for side, text in texts.items())
        lines.append(line)
    return lines


def _cut(text: str | None) -> str | None:
    return (
        text
        if text is None or len(text) <= SHOWN_LETTERS
        else f"{text[:SHOWN_LETTERS].rstrip()} …"
    )
