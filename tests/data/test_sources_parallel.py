"""Parallel text of OPUS and of translators' tools: told apart, streamed, made into pairs."""

import gzip
from collections import defaultdict
from pathlib import Path

import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.bitext import Bitext, find_bitexts
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.registry import source
from hybridbatch.data.sources.user import user_source
from tests.helpers.recording import RecordingReporter

TMX = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE tmx SYSTEM "tmx14.dtd">
<tmx version="1.4"><header creationtool="x" srclang="en"/><body>
{units}
</body></tmx>
"""


def sentences(language: str, count: int) -> list[str]:
    return [
        f"Sentence number {number} as it is written in {language}." for number in range(count)
    ]


def unit(**texts: str) -> str:
    return (
        "<tu>"
        + "".join(
            f'<tuv xml:lang="{code}"><seg>{text}</seg></tuv>' for code, text in texts.items()
        )
        + "</tu>"
    )


def put_moses(folder: Path, stem: str, *codes: str, count: int = 8) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for code in codes:
        (folder / f"{stem}.{code}").write_text("\n".join(sentences(code, count)) + "\n")


def split(items: list[Row | BadRow]) -> tuple[list[Row], list[BadRow]]:
    good = [item for item in items if isinstance(item, Row)]
    return good, [item for item in items if isinstance(item, BadRow)]


def test_forms_are_told_by_the_names_of_the_files(tmp_path):
    put_moses(tmp_path, "Tanzil.en-sw", "en", "sw")
    put_moses(tmp_path, "Tanzil.en-yo", "en", "yo")
    put_moses(tmp_path, "multi", "en", "am", "zu")
    put_moses(tmp_path, "alone.en-fr", "en")
    (tmp_path / "NLLB.en-ig.tsv.gz").write_bytes(gzip.compress(b"one\totu\n"))
    # a table with a header: aligned lines, wide
    (tmp_path / "mine.en-ig.tsv").write_text("en\tig\none\totu\n")
    put_moses(tmp_path, "notes", "txt", "log", "sh")  # codes of languages, too
    (tmp_path / "memory.tmx").write_text(TMX.format(units=""))
    for other in ("README", "LICENSE.txt", "pairs.jsonl", "pairs.csv", "x.tsv"):
        (tmp_path / other).write_text("")
    assert [
        (found.name, found.kind, found.languages) for found in find_bitexts(tmp_path.iterdir())
    ] == [
        ("NLLB.en-ig", "tsv", ("eng", "ibo")),
        ("Tanzil.en-sw", "moses", ("eng", "swh")),
        ("Tanzil.en-yo", "moses", ("eng", "yor")),
        ("memory", "tmx", ()),
        ("multi", "moses", ("amh", "eng", "zul")),
    ]


def test_other_files_in_a_folder_of_parallel_text_are_named(tmp_path):
    report = RecordingReporter()
    put_moses(tmp_path, "Tanzil.en-sw", "en", "sw")
    (tmp_path / "LICENSE").write_text("")
    assert list(user_source(tmp_path).rows(SourceContext(report=report)))
    assert any("not read: LICENSE" in note for note in report.notes)


def test_documents_pair_neighbouring_lines_alike_in_every_language(tmp_path):
    put_moses(tmp_path / "parallel-documents", "Tanzil.en-sw", "en", "sw", count=10)
    put_moses(tmp_path / "parallel-documents", "Tanzil.en-yo", "en", "yo", count=4)
    good, bad = split(list(source("parallel-documents").rows(SourceContext(tmp_path))))
    assert not bad
    english, swahili = sentences("en", 10), sentences("sw", 10)
    by_record: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in good:
        by_record[row.record_id][row.language] = row
    assert set(by_record) == {f"Tanzil.en-sw:{at}" for at in (0, 3, 4, 7, 8)} | {
        "Tanzil.en-yo:0",
        "Tanzil.en-yo:3",
    }
    pair = by_record["Tanzil.en-sw:7"]
    assert pair["eng"].query == english[7]
    assert pair["eng"].passage == f"{english[5]} {english[6]}"
    assert pair["swh"].passage == f"{swahili[5]} {swahili[6]}"
    only = split(
        list(
            source("parallel-documents").rows(
                SourceContext(tmp_path, keeps=lambda code: code == "yor")
            )
        )
    )[0]
    assert {row.language for row in only} == {"yor"}


def test_sentences_pair_a_line_with_its_translation(tmp_path):
    folder = tmp_path / "parallel-sentences"
    folder.mkdir()
    lines = [f"English line {n}\tLayin Hausa na {n}" for n in range(40)]
    lines += ["Same in both\tsame in  both", "Hm\tAi", "one field"]
    (folder / "CCMatrix.en-ha.tsv").write_text("\n".join(lines) + "\n")
    good, bad = split(list(source("parallel-sentences").rows(SourceContext(tmp_path))))
    assert len(good) == 80
    for row in good:
        assert (row.query is None) != (row.passage is None)
    asking = [row.language for row in good if row.query]
    assert 5 < asking.count("eng") < 35  # which side asks is drawn per record
    assert [(row.line, row.field) for row in bad] == [(41, "text"), (43, "line")]


@pytest.mark.parametrize("encoding", ["GB2312", "Shift_JIS", "foo"])
def test_tmx_in_an_encoding_that_the_parser_does_not_know_is_told(tmp_path, encoding):
    path = tmp_path / "memory.tmx"
    path.write_text(f'<?xml version="1.0" encoding="{encoding}"?><tmx><body></body></tmx>')
    (bitext,) = find_bitexts([path])
    with pytest.raises(DataError, match=r"memory\.tmx: .*; save the file as UTF-8"):
        list(bitext.units())


def test_tmx_with_inline_marks_other_spellings_of_languages_and_missing_variants(tmp_path):
    units = [
        unit(
            **{
                "en-US": f"<bpt i='1'/>Sentence {n}<ph/> of the manual",
                "SW": f"Sentensi {n} ya mwongozo",
            }
        )
        for n in range(4)
    ]
    units += [unit(en="Only in English this time"), unit(en="Some words more", xyzzy="?")]
    (tmp_path / "memory.tmx.gz").write_bytes(
        gzip.compress(TMX.format(units="\n".join(units)).encode())
    )
    (tmp_path / "plain.tmx").write_text(
        TMX.format(units=units[0]).replace("<tmx ", '<tmx xmlns="http://x.example" ')
    )
    packed, plain = find_bitexts(tmp_path.iterdir())
    found = list(packed.units())
    assert found[0] == (1, {"eng": "Sentence 0 of the manual", "swh": "Sentensi 0 ya mwongozo"})
    assert found[4] == (5, {"eng": "Only in English this time"})
    assert (found[5].line, found[5].field) == (6, "xml:lang")
    assert found[6] == (6, {"eng": "Some words more"})
    assert len(list(plain.units())) == 1
    good, _ = split(list(user_source(tmp_path / "memory.tmx.gz").rows(SourceContext())))
    assert {(row.source, row.record_id, row.language) for row in good} == {
        ("memory", f"memory:{at}", code) for at in (0, 3) for code in ("eng", "swh")
    }


def test_bad_lines_are_told_and_blank_ones_left_out(tmp_path):
    (tmp_path / "a.en").write_bytes(b"First line of all\n\nThird \xff line\nFourth line here\n")
    (tmp_path / "a.sw").write_bytes(b"Mstari wa kwanza\nMstari wa pili\nWa tatu\nWa nne hapa\n")
    (bitext,) = find_bitexts(tmp_path.iterdir())
    found = list(bitext.units())
    assert found[0][1].keys() == {"eng", "swh"}
    assert found[1] == (2, {"swh": "Mstari wa pili"})
    assert found[2] == BadRow("a.en", 3, "text", "not valid UTF-8 at byte 7 of the line")
    assert found[3] == (3, {"swh": "Wa tatu"})
    (tmp_path / "b.en-sw.tsv").write_bytes(b"good\tnzuri\nbad \xff\tmbaya\n")
    rows = list(Bitext("b", "tsv", (tmp_path / "b.en-sw.tsv",), ("eng", "swh")).units())
    assert rows[0] == (1, {"eng": "good", "swh": "nzuri"})
    assert (rows[1].line, rows[1].field, rows[1].reason) == (2, "eng", "not valid UTF-8")


def test_files_that_cannot_be_read_stop_with_one_line(tmp_path):
    put_moses(tmp_path, "short", "en", count=5)
    put_moses(tmp_path, "short", "sw", count=4)
    (tmp_path / "cut.tmx").write_text(TMX.format(units=unit(en="One", sw="Moja"))[:-20])
    (tmp_path / "cut2.tmx.gz").write_bytes(
        gzip.compress(TMX.format(units=unit(en="One", sw="Moja")).encode())[:60]
    )
    cut, packed, short = find_bitexts(tmp_path.iterdir())
    for bitext, reason in (
        (short, r"short\.sw: ends before line 5, which short\.en have"),
        (cut, r"cut\.tmx: cannot be read as TMX after unit \d+"),
        (packed, r"cut2\.tmx\.gz: cannot be read as TMX"),
    ):
        with pytest.raises(DataError, match=reason) as caught:
            list(bitext.units())
        assert "\n" not in str(caught.value)
    for name in ("parallel-documents", "parallel-sentences"):
        for root in (None, tmp_path):
            with pytest.raises(DataError, match="holds no parallel text; put Moses files"):
                source(name).inputs(SourceContext(root))


def test_a_long_memory_is_streamed(tmp_path):
    """Not a unit is kept: the peak does not grow with the number of units."""
    import tracemalloc

    def peak(count: int) -> int:
        path = tmp_path / f"{count}.tmx"
        path.write_text(
            TMX.format(
                units="\n".join(
                    unit(en=f"English {n} " * 5, sw=f"Kiswahili {n} " * 5) for n in range(count)
                )
            )
        )
        tracemalloc.start()
        assert sum(1 for _ in Bitext("m", "tmx", (path,)).units()) == count
        reached = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return reached

    peak(10)
    assert peak(4000) < 1.5 * peak(1000)
