"""`prepare`: what is chosen, kept, dropped, written, reused; and that mistakes leave nothing
half-written.
"""

import gzip
import json
import os
from collections import defaultdict
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet as pq
import pytest

from hybridbatch.common.errors import ConfigError, DataError, OutputError
from hybridbatch.common.files import read_json
from hybridbatch.data.choice import choose_sources, default_name
from hybridbatch.data.prepare import LanguageFilter, prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.sources.registry import sources
from hybridbatch.data.store.reader import Store
from tests.helpers.recording import RecordingReporter

CODES = ("en", "sw", "yo", "am")


def write_mine(
    path: Path, records: int = 40, codes: tuple[str, ...] = CODES, extra: str = ""
) -> Path:
    lines = [
        {
            "id": f"r{number}",
            "lang": code,
            "query": f"Question {number} in {code}?",
            "passage": f"Answer {number} {code}",
        }
        for number in range(records)
        for code in codes
    ]
    path.write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + extra, encoding="utf-8"
    )
    return path


def config(folder: Path, *entries: object, **settings) -> PrepareConfig:
    return PrepareConfig(sources=tuple(map(str, entries)), out=folder / "data", **settings)


def everything(folder: Path) -> dict[tuple[str, str], dict[str, tuple]]:
    """(source, record id) -> language -> (split, query, passage)."""
    store, found = Store.open(folder), defaultdict(dict)
    for split in store.splits:
        for row in store.rows(split, range(store.index(split).rows)):
            found[row.source, row.record_id][row.language] = (row.split, row.query, row.passage)
    return dict(found)


def test_the_users_rows_come_out_as_they_went_in(tmp_path):
    folder = prepare(
        config(tmp_path, write_mine(tmp_path / "mine.jsonl"), validation_share=0.25)
    )
    found = everything(folder)
    assert folder == tmp_path / "data"
    assert len(found) == 40
    for (name, record_id), versions in found.items():
        assert name == "mine"
        assert set(versions) == {"eng", "swh", "yor", "amh"}
        assert len({split for split, _, _ in versions.values()}) == 1
        assert versions["swh"][1:] == (
            f"Question {record_id[1:]} in sw?",
            f"Answer {record_id[1:]} sw",
        )
    assert sum(versions["eng"][0] == "validation" for versions in found.values()) == 10


def packed_zst(path: Path) -> None:
    path.write_bytes(pa.compress(path.read_bytes(), "zstd", asbytes=True))


def as_parquet(path: Path) -> None:
    pq.write_table(pa.json.read_json(path), path)


def as_tmx(path: Path) -> None:
    units = "".join(
        f'<tu><tuv xml:lang="en"><seg>The line {letter * 9} of a long story</seg></tuv></tu>'
        for letter in "abcdefgh"
    )
    path.write_text(f"<tmx><body>{units}</body></tmx>")


@pytest.mark.parametrize(
    ("suffix", "convert"),
    [(".jsonl.zst", packed_zst), (".parquet", as_parquet), (".tmx", as_tmx)],
)
def test_files_and_folders_whose_names_are_not_utf_8_are_read(tmp_path, suffix, convert):
    mine = write_mine(tmp_path / "mine.jsonl")
    convert(mine)
    odd = tmp_path / os.fsdecode(b"n\xff" + suffix.encode())
    try:
        mine.rename(odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    folder = prepare(config(tmp_path, odd, decontaminate=("none",)))
    rows = everything(folder)
    assert {name for name, _ in rows} == {"n?"}
    assert everything(folder.rename(tmp_path / os.fsdecode(b"d\xff"))) == rows


def test_languages_are_filtered_and_a_limit_keeps_whole_records_nested(tmp_path):
    mine = write_mine(tmp_path / "mine.jsonl")
    found = {}
    for limit in (5, 12):
        folder = prepare(
            config(tmp_path / str(limit), mine, languages="low-resource,-yo", limit=limit)
        )
        found[limit] = everything(folder)
        assert len(found[limit]) == limit
        assert {code for versions in found[limit].values() for code in versions} == {
            "swh",
            "amh",
        }
        assert all(len(versions) == 2 for versions in found[limit].values())
    assert set(found[5]) < set(found[12])
    other = everything(prepare(config(tmp_path / "seed", mine, limit=5, seed=14)))
    assert set(other) != set(found[5])


def test_a_share_keeps_whole_records_and_is_nested(tmp_path):
    mine = write_mine(tmp_path / "mine.jsonl", records=2000, codes=("en", "sw"))
    found = {}
    for share in (0.01, 0.2, 0.4):
        settings = config(tmp_path, mine, record_share=share, decontaminate=("none",))
        found[share] = everything(prepare(settings))
    assert len(found[0.01]) == 200  # the least number of records
    assert 330 < len(found[0.2]) < 470
    assert set(found[0.01]) < set(found[0.2]) < set(found[0.4])
    assert all(set(versions) == {"eng", "swh"} for versions in found[0.2].values())


def test_single_sources_have_fewer_languages(tmp_path):
    ours = write_mine(tmp_path / "ours.jsonl", records=5)
    theirs = write_mine(tmp_path / "theirs.jsonl", records=5)
    narrow = {"theirs": "eng;swh"}
    settings = config(
        tmp_path, ours, theirs, languages="-amh", source_languages=narrow, validation_share=0.0
    )
    found = everything(prepare(settings))
    assert set(found["ours", "r1"]) == {"eng", "swh", "yor"}
    assert set(found["theirs", "r1"]) == {"eng", "swh"}
    with pytest.raises(ConfigError, match="'other' is none of the sources"):
        prepare(settings.model_copy(update={"source_languages": {"other": "eng"}}))
    with pytest.raises(ConfigError, match="fra"):
        prepare(settings.model_copy(update={"source_languages": {"ours": "eng,fra"}}))


def test_a_limit_and_a_share_exclude_each_other():
    with pytest.raises(ValueError, match="exclude each other"):
        PrepareConfig(limit=5, record_share=0.5)


def test_the_same_data_and_settings_are_not_prepared_twice(tmp_path):
    mine, notes = write_mine(tmp_path / "mine.jsonl"), RecordingReporter()
    wanted = config(tmp_path, mine)
    manifest = prepare(wanted) / "manifest.json"
    before = manifest.stat().st_mtime_ns
    prepare(wanted, notes)
    assert manifest.stat().st_mtime_ns == before
    assert any("nothing to do" in note for note in notes.notes)
    write_mine(mine, records=41)
    prepare(wanted)
    assert len(everything(tmp_path / "data")) == 41
    prepare(config(tmp_path, mine, languages="en,sw"))
    assert Store.open(tmp_path / "data").languages == ("eng", "swh")


def test_provenance_says_where_everything_comes_from_and_names_no_folder_of_this_machine(
    tmp_path,
):
    mine = write_mine(tmp_path / "mine.jsonl")
    text = (prepare(config(tmp_path, mine)) / "manifest.json").read_text()
    assert str(tmp_path) not in text
    provenance = json.loads(text)["provenance"]
    (one,) = provenance["sources"]
    import hashlib

    assert one["name"] == "mine"
    assert one["files"][0]["sha256"] == hashlib.sha256(mine.read_bytes()).hexdigest()
    assert provenance["settings"]["seed"] == 13


BAD = '{"id": "x"\n{"id": "y", "lang": "en", "query": 3, "passage": "P"}\n{"id": "z", "lang": "qqqq", "query": "Q", "passage": "P"}\n'


def test_bad_rows_are_counted_by_reason_and_listed_with_their_place(tmp_path):
    mine, notes = write_mine(tmp_path / "mine.jsonl", extra=BAD), RecordingReporter()
    folder = prepare(config(tmp_path, mine), notes)
    assert len(everything(folder)) == 40
    told = "\n".join(notes.warnings)
    for part in (
        "mine.jsonl:161",
        "malformed JSON",
        "mine.jsonl:162",
        "query",
        "must be text",
        "unknown language 'qqqq'",
    ):
        assert part in told
    assert any(
        "160 rows" in note and "4 languages" in note and str(folder) in note
        for note in notes.notes
    )


def test_strict_stops_at_the_first_bad_row_and_writes_nothing(tmp_path):
    mine = write_mine(tmp_path / "mine.jsonl", extra=BAD)
    with pytest.raises(DataError, match=r"mine\.jsonl:161: "):
        prepare(config(tmp_path, mine, strict=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.jsonl"]


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"languages": "klingonese"}, ConfigError, "unknown language or group 'klingonese'"),
        ({"languages": "en,fr"}, ConfigError, "'fr' .* is not in this data"),
        ({"languages": "high-resource,-en"}, ConfigError, "none of the 4 available languages"),
        ({"languages": "en,-en"}, ConfigError, "languages = 'en,-en'"),
    ],
)
def test_a_language_filter_that_cannot_be_met_leaves_the_old_data_alone(
    tmp_path, settings, error, told
):
    mine = write_mine(tmp_path / "mine.jsonl")
    prepare(config(tmp_path, mine))
    before = {
        path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()
    }
    with pytest.raises(error, match=told):
        prepare(config(tmp_path, mine, **settings))
    assert {
        path: path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file()
    } == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "mine.jsonl"]


def test_a_damaged_file_and_a_duplicate_stop_with_one_line_and_nothing_written(tmp_path):
    raw = gzip.compress(write_mine(tmp_path / "mine.jsonl", records=3000).read_bytes())
    (tmp_path / "cut.jsonl.gz").write_bytes(raw[: len(raw) // 2])
    write_mine(
        tmp_path / "twice.jsonl",
        extra='{"id": "r3", "lang": "eng", "query": "Q", "passage": "P"}\n',
    )
    for name, told in {
        "cut.jsonl.gz": r"cut\.jsonl\.gz: is truncated or damaged after line \d+",
        "twice.jsonl": r"twice\.jsonl:161: record 'r3' in language 'eng' is already at .*twice\.jsonl:13",
    }.items():
        with pytest.raises(DataError, match=told) as caught:
            prepare(config(tmp_path, tmp_path / name))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "data").exists()


def test_a_folder_that_is_no_prepared_data_is_not_replaced(tmp_path):
    mine = write_mine(tmp_path / "mine.jsonl")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="data"):
        prepare(config(tmp_path, mine))
    assert (tmp_path / "data" / "thesis.tex").read_text() == "years of work"


def test_data_whose_manifest_is_lost_is_prepared_again(tmp_path):
    wanted = config(tmp_path, write_mine(tmp_path / "mine.jsonl"), decontaminate=("none",))
    folder = prepare(wanted)
    rows = everything(folder)
    (folder / "manifest.json").unlink()
    assert everything(prepare(wanted)) == rows


def test_sources_are_found_by_name_or_path(tmp_path, monkeypatch):
    mine = write_mine(tmp_path / "mine.jsonl")
    chosen = choose_sources(["ntrex", str(mine)])
    assert [one.name for one in chosen] == ["ntrex", "mine"]
    assert default_name(chosen) == "ntrex+mine"
    assert len(default_name(sources() * 3)) < 80
    for entries, error, told in [
        (["ntrx"], ConfigError, r"unknown source 'ntrx' \(did you mean ntrex"),
        (["mine.tsv"], DataError, "mine.tsv: no such file or folder"),
        (["some/folder/in"], DataError, "some/folder/in: no such file or folder"),
        (["atlas", "atlas"], ConfigError, "two sources are called 'atlas'"),
        ([], ConfigError, "none is given"),
    ]:
        with pytest.raises(error, match=told):
            choose_sources(entries)


def test_a_language_in_another_script_is_matched_by_groups_and_by_name():
    keeps = LanguageFilter("script:Arab,hin-Latn,swh-Arab")
    assert [keeps(code) for code in ("ace-Arab", "arb", "hin-Latn", "hin", "swh-Arab", "swh")] == [
        True, True, True, False, True, False,
    ]  # fmt: skip
    keeps.check()


# small files
QUICK = ("afriqa", "afriqa-questions", "tydi", "amqa", "mkqa", "exams", "squadshifts")


def test_real_sources_together(real_data, tmp_path):
    settings = {
        "limit": 15,
        "decontaminate": ("none",),
    }  # to stay quick: indexing all tasks takes a quarter of a minute
    folder = prepare(
        PrepareConfig(sources=QUICK, data_root=real_data, out=tmp_path / "data", **settings)
    )
    found = everything(folder)
    assert {name for name, _ in found} == set(QUICK)
    for name in QUICK:
        assert 0 < sum(source == name for source, _ in found) <= 15
    splits = {
        split
        for (name, _), versions in found.items()
        if name == "squadshifts"
        for split, *_ in versions.values()
    }
    assert splits == {"validation"}
    assert read_json(folder / "manifest.json")["provenance"]["settings"]["limit"] == 15
    assert str(real_data) not in (folder / "manifest.json").read_text()


@pytest.mark.slow
def test_all_real_files_make_300_000_rows_in_90_languages(real_data, tmp_path):
    names = [known.name for known in sources() if known.name != "atlas"]
    manifest = read_json(
        prepare(PrepareConfig(sources=names, data_root=real_data, out=tmp_path / "data"))
        / "manifest.json"
    )
    assert sum(split["rows"] for split in manifest["splits"].values()) >= 300_000
    assert len(manifest["languages"]) >= 90
    assert manifest["sources"] == sorted(names)
