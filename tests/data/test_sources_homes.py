"""Data sets rebuilt from the files of their public homes, in each one's own layout."""

import io
import zipfile
from pathlib import Path

import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import Row
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources import local_copies as homes
from hybridbatch.data.sources.registry import source

TMX = """<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4"><header creationtool="unknown" srclang="en" datatype="text"></header><body>
<tu tuid="Wiki_2:10"><prop type="note">x</prop>
<tuv xml:lang="en">
<seg>{0} the tenth</seg></tuv>
<tuv xml:lang="sw"><seg>{1} ya kumi</seg></tuv></tu>
<tu tuid="Wiki_2:9"><tuv xml:lang="en"><seg>{0} the&#160;ninth</seg></tuv>
<tuv xml:lang="sw"><seg>{1}  ya tisa</seg></tuv></tu>
<tu tuid="CMU_1:1"><tuv xml:lang="en"><seg>{0} the first</seg></tuv>
<tuv xml:lang="sw"><seg>{1} ya kwanza</seg></tuv></tu>
</body></tmx>"""


def zipped(**members: str) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, text in members.items():
            archive.writestr(
                name.replace("__", "/") + (".tmx" if text.startswith("<?xml") else ".jsonl"), text
            )
    return held.getvalue()


FILES = {
    f"{homes.NTREX}/DOCUMENT_IDS.tsv": b"bbc.1\nbbc.1\nbbc.1\ncnn.2\ncnn.2\n",
    f"{homes.NTREX}/NTREX-128/newstest2019-src.eng.txt": "\ufeffA headline here\nThe first line\nThe second  line\n"
    "Another headline\nIts only line\n".encode(),
    f"{homes.NTREX}/NTREX-128/newstest2019-ref.swa.txt": "Kichwa cha habari\nMstari wa kwanza\nMstari\xa0wa pili\n"
    "Kichwa kingine\nMstari wake mmoja\n".encode(),
    f"{homes.TICO19}/all.en-sw.tmx.zip": zipped(tm=TMX.format("A sentence", "Sentensi")),
    homes.MKQA_MIA: zipped(
        **{
            "mkqa_dev__mkqa-en": '{"id": "-7_en", "lang": "en", "question": "who  sang it", "answers": ["x"]}\n',
            "mkqa_dev__mkqa-zh_cn": '{"id": "-7_zh_cn", "lang": "zh_cn", "question": "谁唱的", "answers": ["x"]}\n',
        }
    ),
}


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of the homes; those asked for are written where a download would leave them."""
    files = dict(FILES)

    def web_file(address: str) -> Path:
        path = tmp_path / "web" / str(list(files).index(address))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files[address])
        return path

    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(homes, "web_file", web_file)
    monkeypatch.setattr(homes, "NTREX_LANGUAGES", ("eng", "swa"))
    monkeypatch.setattr(homes, "TICO19_LANGUAGES", ("sw",))
    return files


def lines(name: str, code: str) -> list[tuple]:
    from hybridbatch.data.formats.tables import read_records

    path = homes.rebuilt(name) / f"{code}.jsonl.gz"
    return [
        (record["doc"], record["pos"], record["text"])
        for _, record in read_records(path, path.name)
    ]


def test_lines_of_ntrex_take_their_place_in_their_document(web):
    assert lines("ntrex", "swa") == [
        ("bbc.1", 0, "Kichwa cha habari"), ("bbc.1", 1, "Mstari wa kwanza"), ("bbc.1", 2, "Mstari wa pili"),
        ("cnn.2", 0, "Kichwa kingine"), ("cnn.2", 1, "Mstari wake mmoja"),
    ]  # fmt: skip
    assert lines("ntrex", "eng")[0] == ("bbc.1", 0, "A headline here")
    assert lines("ntrex", "eng")[2] == ("bbc.1", 2, "The second line")


def test_units_of_tico19_are_sorted_by_document_and_number(web):
    assert lines("tico19", "sw") == [
        ("CMU_1", 1, "Sentensi ya kwanza"), ("Wiki_2", 9, "Sentensi ya tisa"), ("Wiki_2", 10, "Sentensi ya kumi")
    ]  # fmt: skip
    assert lines("tico19", "en")[1] == ("Wiki_2", 9, "A sentence the ninth")


@pytest.mark.parametrize(
    ("name", "languages"), [("ntrex", {"eng", "swh"}), ("mkqa", {"eng", "zho"})]
)
def test_sources_without_a_local_copy_read_what_was_rebuilt(web, name: str, languages: set[str]):
    rows = [row for row in source(name).rows(SourceContext()) if isinstance(row, Row)]
    assert {row.language for row in rows} == languages
    web.clear()  # rebuilt once
    assert [row for row in source(name).rows(SourceContext()) if isinstance(row, Row)] == rows


def test_a_local_copy_comes_first(web, tmp_path: Path):
    (tmp_path / "root" / "ntrex").mkdir(parents=True)
    with pytest.raises(DataError, match=r"root/ntrex: no file \*.jsonl.gz; get it from"):
        list(source("ntrex").rows(SourceContext(tmp_path / "root")))


def test_a_file_with_a_line_missing_is_refused_and_leaves_nothing(web, tmp_path: Path):
    address = f"{homes.NTREX}/NTREX-128/newstest2019-ref.swa.txt"
    web[address] = web[address].partition(b"\n")[2]
    with pytest.raises(DataError, match=r"NTREX in swa: 4 lines, but 5 in DOCUMENT_IDS.tsv"):
        homes.rebuilt("ntrex")
    assert not list((tmp_path / "cache" / "sources").iterdir())


def test_a_damaged_zip_is_named(web):
    web[f"{homes.TICO19}/all.en-sw.tmx.zip"] = FILES[f"{homes.TICO19}/all.en-sw.tmx.zip"][:-40]
    with pytest.raises(DataError, match="not a zip with one TMX file"):
        homes.rebuilt("tico19")
