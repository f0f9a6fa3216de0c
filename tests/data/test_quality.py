"""Quality of texts: markup, too long rows and duplicates, counted by source, and mended or left out
when told to.
"""

import html
import json
import random
import unicodedata
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import read_json, write_json
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.filters import decontamination as decontaminate
from hybridbatch.data.filters.markup import without_markup
from hybridbatch.data.filters.quality import HashSet, Quality
from hybridbatch.data.inspection import describe, quality_table, quality_title
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store.reader import Store
from tests.cli.test_cli import hybridbatch
from tests.helpers.recording import RecordingReporter


@pytest.mark.parametrize(
    "text",
    ["5 < 6 > 4", "a <b and c> d", "x<b>y", "List<String> of <unk>", "x[[1]] [[ -f y ]] [[1, 2], [3, 4]]", "f[x](y) [1] (2)",
     "AT&T, R&D; ?a=1&copy=2 &nosuch;", "I <3 you </3", "how to use <script> well", "#include <time.h>", "<me@host.org>",
     "<!-- open", "", "ጤና ይስጥልኝ"],
)  # fmt: skip
def test_what_only_looks_like_markup_stays(text):
    assert without_markup(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a &gt; b &amp;gt; c &amp;amp;#62; d", "a > b > c > d"),
        ("R&amp;D &#x1F600; caf&eacute;", "R&D \U0001f600 café"),
        ("&lt;p&gt;one&lt;br/&gt;two&amp;lt;/p&amp;gt;", " one two "),
        ("H<sub>2</sub>O is <a href='/w?a=1&amp;b=2' class=x>w<B>a</B>ter</a>", "H2O is water"),
        ("one<p>two<seg id=\"3\">three</seg><!-- four > --><doc>five</doc>", "one two three five "),
        ("x<script type='a'>if (a < b) { c('</b>') }</script> y <style>p {}</style>z", "x y z"),
        ("<?xml version='1.0'?><!DOCTYPE html><![CDATA[1 < 2]]>", " 1 < 2"),
        ("[[Nairobi]] in [[Kenya|the land]], [[File:a.jpg|thumb|a caption]]", "Nairobi in the land, a caption"),
        ("see ![plan](/a.png) [here](https://e.org/x_(y) \"t\") or [http://e.org our page]", "see plan here or our page"),
    ],
)  # fmt: skip
def test_markup_goes_and_the_text_stays(text, plain):
    assert without_markup(text) == plain
    assert without_markup(plain) == plain


class Reader(HTMLParser):
    """The text of a page, as the standard library sees it."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.text += " "

    def handle_endtag(self, tag: str) -> None:
        self.text += " "


def random_page(rng: random.Random, depth: int = 0) -> str:
    parts = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(4 if depth < 3 else 2)
        if kind < 2:
            parts.append(
                html.escape(rng.choice(["5 < 6", "x & y", "ዓለም", '"so"', "a>b", "plain words"]))
            )
        else:
            name = rng.choice(["p", "div", "h1", "ul", "table", "section"])
            attributes = rng.choice(["", ' class="a b"', " id=x3", " title='a &gt; b' lang=sw"])
            inside = random_page(rng, depth + 1)
            parts.append(
                rng.choice(
                    [
                        f"<{name}{attributes}>{inside}</{name}>",
                        f"{inside}<br/>",
                        f"{inside}<hr>",
                    ]
                )
            )
    return " ".join(parts)


def test_well_formed_pages_read_as_the_standard_library_reads_them():
    rng = random.Random(3)
    for _ in range(300):
        page, reader = random_page(rng), Reader()
        reader.feed(page)
        reader.close()
        assert without_markup(page).split() == reader.text.split(), page


def test_a_set_of_hashes_is_a_set():
    rng, ours, reference = np.random.default_rng(0), HashSet(), set()
    for _ in range(200):
        asked = np.unique(rng.integers(0, 3000, rng.integers(0, 40)).astype(np.uint64))
        expected = np.array([value in reference for value in asked.tolist()], bool)
        np.testing.assert_array_equal(ours.contains(asked), expected)
        ours.add(asked[~expected])
        reference |= set(asked.tolist())
    lengths = [len(run) for run in ours._runs]
    assert sum(lengths) == len(reference)
    assert all(longer > 2 * shorter for longer, shorter in pairwise(lengths))


def random_rows(rng: random.Random, source: str) -> list[Row | BadRow]:
    def text(kind: str) -> str | None:
        one = rng.choice([None, *(f"{kind} é{number}" for number in range(4))])
        if one is None:
            return None
        one = rng.choice(
            [
                one,
                one.upper(),
                one.replace(" ", " \t "),
                unicodedata.normalize("NFD", one),
                f" {one}\x00",
            ]
        )
        return rng.choice([one, one, f"<p>{one}</p>", f"{one} but longer"])

    made: list[Row | BadRow] = [BadRow("f", 1, "query", "missing")]
    for number in range(rng.randint(0, 60)):
        negatives = tuple(filter(None, (text("no") for _ in range(rng.randint(0, 2)))))
        made.append(
            Row(
                source,
                str(number),
                rng.choice(["eng", "swh"]),
                text("query"),
                text("passage"),
                negatives,
            )
        )
    return made


def reference(
    by_source: dict[str, list[Row | BadRow]], settings: dict
) -> tuple[list[Row | BadRow], dict]:
    """Row after row, with sets of strings; texts of `random_rows` alone."""
    kept: list[Row | BadRow] = []
    counts: dict[str, Counter[str]] = {}
    before: set[tuple[str, ...]] = set()

    def clean(text: str | None) -> str:
        return unicodedata.normalize("NFC", (text or "").replace("\x00", "")).strip()

    for name, rows in by_source.items():
        here: set[tuple[str, ...]] = set()
        for row in rows:
            if isinstance(row, BadRow):
                kept.append(row)
                continue
            count = counts.setdefault(name, Counter())
            texts = [row.query, row.passage, *row.negatives]
            count["markup"] += any("<p>" in text for text in texts if text)
            if settings["markup"] == "remove":
                texts = [text and text.replace("<p>", "").replace("</p>", "") for text in texts]
            limit = settings["max_characters"] or 10**9
            long = next(
                (
                    side
                    for side, text in zip(("query", "passage"), texts, strict=False)
                    if len(clean(text)) > limit
                ),
                None,
            )
            if long:
                count["too_long"] += 1
                place = f"source {name}, record {row.record_id!r}, language {row.language}"
                kept.append(BadRow(place, 0, long, f"longer than {limit} characters"))
                continue
            if texts[0] and texts[1]:
                key = (
                    row.language,
                    *(" ".join(clean(text).casefold().split()) for text in texts[:2]),
                )
                verdict = "within" if key in here else "across" if key in before else None
                here.add(key)
                if verdict:
                    count[verdict] += 1
                    if settings["duplicates"] == "remove":
                        continue
            negatives = tuple(text for text in texts[2:] if len(clean(text)) <= limit)
            kept.append(Row(name, row.record_id, row.language, texts[0], texts[1], negatives))
        before |= here
    return kept, counts


def same(row: Row | BadRow) -> object:
    """What a row says, whatever the white space, which markup that goes may change."""
    if isinstance(row, BadRow):
        return row
    texts = (row.query, row.passage, *row.negatives)
    return (
        row.source,
        row.record_id,
        row.language,
        *(text and text.replace("\x00", "").split() for text in texts),
    )


@pytest.mark.parametrize("batch_rows", [1, 7, 20_000])
@pytest.mark.parametrize(
    "settings",
    [
        {"markup": "keep", "max_characters": None, "duplicates": "keep"},
        {"markup": "remove", "max_characters": None, "duplicates": "remove"},
        {"markup": "keep", "max_characters": 12, "duplicates": "remove"},
        {"markup": "remove", "max_characters": 12, "duplicates": "keep"},
    ],
)
def test_counts_and_rows_are_those_of_brute_force(settings, batch_rows, monkeypatch):
    monkeypatch.setattr(decontaminate, "BATCH_ROWS", batch_rows)
    seen: Counter[str] = Counter()
    for seed in range(40):
        rng = random.Random(seed)
        by_source = {name: random_rows(rng, name) for name in ("b", "a", "c")}
        quality = Quality(PrepareConfig(**settings))
        found = [row for rows in by_source.values() for row in quality.rows(iter(rows))]
        expected, counts = reference(by_source, settings)
        assert list(map(same, found)) == list(map(same, expected))
        if settings["markup"] == settings["duplicates"] == "keep":
            assert found == [row for rows in by_source.values() for row in rows]
        told = quality.as_json()
        assert told["settings"] == settings
        for name, count in counts.items():
            seen.update(count)
            assert told["markup"][name] == count["markup"]
            assert told["too_long"][name] == count["too_long"]
            assert told["duplicates"][name] == {
                "within": count["within"],
                "across": count["across"],
            }
    wanted = {"markup", "within", "across"} | (
        {"too_long"} if settings["max_characters"] else set()
    )
    assert all(seen[name] > 20 for name in wanted)


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    rows = [
        {"id": f"r{n}", "lang": "en", "query": query, "passage": passage}
        for n, (query, passage) in enumerate(pairs)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    one = [
        ("Who?", "Nobody &amp;gt; me"),
        ("who? ", "NOBODY &amp;gt; me"),
        ("<br/>", "Empty without it"),
        ("Where?", "There"),
    ]
    two = [("WHERE?", "There"), ("When?", "Then " * 30), ("What?", "That")]
    return write(tmp_path / "one.jsonl", one), write(tmp_path / "two.jsonl", two)


def test_prepare_counts_without_changing_and_acts_when_told(tmp_path, files):
    settings = {
        "sources": tuple(map(str, files)),
        "decontaminate": ("none",),
        "validation_share": 0,
    }
    told = RecordingReporter()
    kept = prepare(PrepareConfig(**settings, out=tmp_path / "kept"), told)
    manifest = read_json(kept / "manifest.json")
    assert manifest["splits"]["train"]["rows"] == 7
    assert "quality" not in manifest["provenance"]
    assert manifest["quality"] == {
        "settings": {"markup": "keep", "max_characters": None, "duplicates": "keep"},
        "markup": {"one": 3, "two": 0},
        "too_long": {"one": 0, "two": 0},
        "duplicates": {"one": {"within": 1, "across": 0}, "two": {"within": 0, "across": 1}},
    }
    assert any("3 rows with markup (kept" in note for note in told.notes)
    assert any(
        "1 rows repeat an earlier" in note
        and "1 rows repeat a row of an earlier source" in note
        for note in told.notes
    )

    acts = {"markup": "remove", "max_characters": 100, "duplicates": "remove"}
    mended = prepare(PrepareConfig(**settings, **acts, out=tmp_path / "mended"))
    manifest = read_json(mended / "manifest.json")
    store = Store.open(mended)
    assert manifest["provenance"]["quality"] == acts
    assert manifest["dropped"]["reasons"] == {
        "passage: longer than 100 characters": 1, "query: nothing but markup": 1,
    }  # fmt: skip
    texts = {
        (row.source, row.query, row.passage)
        for row in store.rows("train", np.arange(store.index("train").rows))
    }
    assert texts == {
        ("one", "Who?", "Nobody > me"),
        ("one", "Where?", "There"),
        ("two", "What?", "That"),
    }
    assert quality_table(describe(store)) == [
        {
            "source": "one",
            "markup": 3,
            "too long": 0,
            "duplicates within": 1,
            "duplicates across": 0,
        },
        {
            "source": "two",
            "markup": 0,
            "too long": 1,
            "duplicates within": 0,
            "duplicates across": 1,
        },
    ]
    assert (
        quality_title(describe(store))
        == "Rows as read, markup removed, max characters 100, duplicates removed"
    )
    shown = hybridbatch("inspect", mended)
    assert shown.returncode == 0, shown.stderr
    assert "duplicates across" in shown.stdout


def test_data_of_before_is_known_for_the_same_and_shown_without_counts(tmp_path, files):
    wanted = PrepareConfig(
        sources=(str(files[0]),), decontaminate=("none",), out=tmp_path / "data"
    )
    path, told = prepare(wanted) / "manifest.json", RecordingReporter()
    manifest = read_json(path)
    del manifest["quality"]
    write_json(path, manifest)
    prepare(wanted, told)
    assert any("nothing to do" in note for note in told.notes)
    assert quality_table(describe(Store.open(tmp_path / "data"))) == []


def test_strict_stops_at_a_row_that_is_too_long(tmp_path, files):
    with pytest.raises(
        DataError, match=r"record 'r1', language eng: passage: longer than 100 characters"
    ):
        prepare(
            PrepareConfig(
                sources=(str(files[1]),), out=tmp_path / "data", max_characters=100, strict=True
            )
        )
    assert not (tmp_path / "data").exists()
    with pytest.raises(ValueError, match="max_characters"):
        PrepareConfig(max_characters=0)
