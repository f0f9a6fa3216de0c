"""`inspect`: what it tells of a store, as JSON and as tables that a terminal can show."""

import json
import re
from pathlib import Path

import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.languages import known_languages
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.inspection import (
    SHOWN_LANGUAGES,
    describe,
    dropped_table,
    language_table,
    origins,
    removed_table,
    sample_table,
    source_table,
)
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from tests.cli.test_cli import hybridbatch
from tests.data.test_decontaminate import PLANTED, task, write_training  # noqa: F401


@pytest.fixture
def made(tmp_path: Path, task: Path) -> Path:  # noqa: F811
    """Thirty clean records in three languages, four leaking ones, and two lines that are no
    records.
    """
    mine = write_training(tmp_path / "mine.jsonl", PLANTED)
    mine.write_text(mine.read_text() + "\n{\n[]\n")
    return prepare(
        PrepareConfig(sources=(str(mine),), out=tmp_path / "data", decontaminate=(str(task),))
    )


def test_it_tells_what_is_there_and_what_was_left_out(made: Path):
    found = describe(Store.open(made), records=2, languages="eng,swh")
    (line,) = source_table(found)
    assert line == {
        "source": "mine",
        "train": 84,
        "validation": 6,
        "languages": 3,
        "leaking": 4,
    }
    assert origins(found) == ["mine: licence yours to know"]
    assert language_table(found) == [
        {"language": code, "train": 28, "validation": 2} for code in ("deu", "eng", "swh")
    ]
    assert dropped_table(found) == [
        {
            "reason": "line: malformed JSON (Expecting property name enclosed in double quotes)",
            "rows": 1,
        },
        {"reason": "line: must be a JSON object, not a list", "rows": 1},
    ]
    assert removed_table(found) == [
        {
            "task": "exam",
            "kind": "passage",
            "match": "exact",
            "languages": 1,
            "evaluation texts": 1,
        },
        {
            "task": "exam",
            "kind": "passage",
            "match": "near",
            "languages": 1,
            "evaluation texts": 1,
        },
        {
            "task": "exam",
            "kind": "query",
            "match": "exact",
            "languages": 1,
            "evaluation texts": 1,
        },
    ]
    assert len(found["samples"]) == 2
    for sample in found["samples"]:
        assert [line["language"] for line in sample_table(sample)] == ["eng", "swh"]
    with pytest.raises(ConfigError):
        describe(Store.open(made), languages="klingon")


def test_the_terminal_shows_it_and_json_is_all_of_it(made: Path):
    shown = hybridbatch("inspect", made, "--records", "1")
    assert shown.returncode == 0, shown.stderr
    for part in (
        "mine",
        "84",
        "malformed JSON",
        "exam",
        "left out for evaluation texts: 4",
        "fingerprint",
    ):
        assert part in shown.stdout
    whole = hybridbatch("inspect", made, "--json")
    assert json.loads(whole.stdout) == describe(Store.open(made))


def test_the_manifest_of_all_local_sources_is_what_its_page_says():
    folder = Path(__file__).parents[2] / "experiments" / "data"
    raw, page = (folder / "manifest.json").read_text(), (folder / "README.md").read_text()
    manifest = json.loads(raw)
    rows = sum(split["rows"] for split in manifest["splits"].values())
    assert rows >= 300_000
    assert len(manifest["languages"]) >= 90
    assert f"**{rows:,} rows in {len(manifest['languages'])} languages**" in page
    assert manifest["fingerprint"] in page
    assert all(
        f"| `{name}` |" in page and licence in page
        for name, licence in manifest["licences"].items()
    )
    assert (
        f"{manifest['provenance']['removed']['records']} records that hold evaluation texts"
        in page
    )
    assert not re.search(
        r'"(/|~|[A-Z]:\\\\)', raw
    )  # no path of the machine that it was made on


def test_many_languages_and_long_texts_are_cut(tmp_path: Path):
    codes = known_languages()[: SHOWN_LANGUAGES + 5]
    rows: list[Row | BadRow] = [Row("s", "r", code, "query", "word " * 500) for code in codes]
    rows.append(Row("s", "other", codes[0], "query", "passage"))
    write_store(tmp_path / "data", rows, provenance={}, validation_share=0)
    found = describe(Store.open(tmp_path / "data"), records=1)
    lines = language_table(found)
    assert len(lines) == SHOWN_LANGUAGES + 1
    assert lines[0] == {"language": codes[0], "train": 2}
    assert lines[-1] == {"language": "5 more", "train": 5}
    assert removed_table(found) == dropped_table(found) == []
    assert origins(found) == ["s: licence not known"]
    (sample,) = found["samples"]
    assert len(sample["texts"]) == len(codes)
    assert all(
        len(line["passage"]) < 250 and line["passage"].endswith("…")
        for line in sample_table(sample)
    )
