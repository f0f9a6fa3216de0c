"""Data sets made of the files of their public homes, in each one's own layout."""

import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import Row
from hybridbatch.data.download import web as download
from hybridbatch.data.formats.retrieval_sets import titled
from hybridbatch.data.formats.tables import RowProblem, read_records
from hybridbatch.data.homes import aligned, bible, home, retrieval
from hybridbatch.data.homes.registry import HOMES
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.registry import catalogue, source
from hybridbatch.data.store.reader import Store
from hybridbatch.data.tasks import catalogue as tasks
from hybridbatch.data.tasks.catalogue import CATALOGUE
from hybridbatch.data.tasks.registry import describe_tasks, load_task
from hybridbatch.scoring.evaluate import plan
from hybridbatch.scoring.settings import EvalConfig

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
                name.replace("__", "/") + (".tmx" if text.startswith("<?xml") else ".jsonl"),
                text,
            )
    return held.getvalue()


NTREX, TICO19, MKQA_MIA = (
    HOMES[name].repositories[0] for name in ("ntrex", "tico19", "mkqa-mia")
)
SIB, ITEMS = HOMES["sib200"].repositories[0], HOMES["belebele-sib"].repositories[0]
AFRIQA, EXAMS = HOMES["afriqa"].repositories[0], HOMES["exams"].repositories[0]
SENTENCES = {
    "eng_Latn": {
        7: "Crops feed people.",
        3: 'Farmers call it "work", mostly.',
        9: "Not of it.",
    },
    "swh_Latn": {7: "Mazao  hulisha watu.", 3: "Wakulima huiita kazi.", 9: "Si yake."},
}


def jsonl(*records: dict) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def packed(**members: bytes) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def sib_files() -> dict[str, bytes]:
    files = {}
    for language, sentences in SENTENCES.items():
        for split, numbers in (("train", (7, 9)), ("dev", (3,)), ("test", ())):
            lines = [f"{number}\tscience\t{quoted(sentences[number])}\n" for number in numbers]
            text = "index_id\tcategory\ttext\n" + "".join(lines)
            files[f"data/annotated/{language}/{split}.tsv"] = text.encode()
    return files


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if '"' in text else text


def question(number: int, language: str, answer: str, stem: str = "What?") -> dict:
    choices = [{"label": "A", "text": answer}, {"label": "B", "text": "another thing"}]
    info = {"language": language, "grade": 9, "subject": "Biology"}
    stated = {"stem": stem, "choices": choices}
    return {"id": f"q{number}", "question": stated, "answerKey": "A", "info": info}


PASSAGE = {"text": 'Farmers call it ""work"", mostly. Crops feed people.',
           "items": [{"question": "What  do crops do?"}, {"question": "Who works?"}]}  # fmt: skip
FILES = {
    NTREX.address("DOCUMENT_IDS.tsv"): b"bbc.1\nbbc.1\nbbc.1\ncnn.2\ncnn.2\n",
    NTREX.address("NTREX-128/newstest2019-src.eng.txt"): "\ufeffA headline here\nThe first line\nThe second  line\n"
    "Another headline\nIts only line\n".encode(),
    NTREX.address("NTREX-128/newstest2019-ref.swa.txt"): "Kichwa cha habari\nMstari wa kwanza\nMstari\xa0wa pili\n"
    "Kichwa kingine\nMstari wake mmoja\n".encode(),
    TICO19.address("data/TM/all.en-sw.tmx.zip"): zipped(tm=TMX.format("A sentence", "Sentensi")),
    MKQA_MIA.address("data/eval/mkqa_dev.zip"): zipped(
        **{
            "mkqa_dev__mkqa-en": '{"id": "-7_en", "lang": "en", "question": "who  sang it", "answers": ["x"]}\n',
            "mkqa_dev__mkqa-zh_cn": '{"id": "-7_zh_cn", "lang": "zh_cn", "question": "谁唱的", "answers": ["x"]}\n',
        }
    ),
    SIB.archive: packed(**{f"sib-200-{SIB.commit}/{name}": text for name, text in sib_files().items()}),
    ITEMS.address("data/belebele/eng_Latn.jsonl"): jsonl(PASSAGE, {"text": "Other words.", "items": []}),
    ITEMS.address("data/belebele/deu_Latn.jsonl"): jsonl(
        {"text": "Bauern", "items": [{"question": "Was?"}, {"question": "Wer?"}]}, {"text": "X", "items": []}
    ),
    EXAMS.address("data/exams/parallel_questions.jsonl"): jsonl({"q1": ["q2"]}, {"q2": ["q1", "q5"]}),
    **{
        EXAMS.address(f"data/exams/multilingual/{split}.jsonl.tar.gz"): packed(**{f"{split}.jsonl": jsonl(*records)})
        for split, records in (
            ("train", [question(1, "Croatian", "an enzyme"), question(4, "Polish", "alone")]),
            ("dev", [question(2, "Serbian", "enzim  ovaj"), question(5, "Italian", "x", stem="")]),
            ("test", []),
        )
    },
}  # fmt: skip


def afriqa_files() -> dict[str, bytes]:
    """Two languages, with all that the real files have: a question without a gold passage, a gold
    passage without text, one of another question, an empty question.
    """
    files = {}
    for language, pivot in (("hau", "en"), ("wol", "fr")):
        for split in ("train", "dev"):
            asked = [
                {"id": n, "question": text, "translated_question": f"pivot {text}"}
                for n, text in enumerate(["first?", "second?", "third?", " ", "fifth?"])
            ]
            place = f"data/queries/{language}/queries.afriqa.{language}.{pivot}.{split}.json"
            files[AFRIQA.address(place)] = jsonl(*asked)
            gold = [
                {
                    "id": "0",
                    "question_lang": "first?",
                    "title": "T",
                    "context": f"The  {split} text.",
                },
                {"id": "1", "question_lang": "second?", "title": "T", "context": None},
                {
                    "id": "2",
                    "question_lang": "another?",
                    "title": "T",
                    "context": "Of another.",
                },
            ]
            name = f"gold_span_passages.afriqa.{language}.{pivot}.{split}.json"
            files[AFRIQA.address(f"data/gold_passages/{language}/{name}")] = jsonl(*gold)
    return files


def line(code: str, number: int) -> str:
    """A line that is long enough for a pair, with a number of its own."""
    return f"{code} sentence number {number} " + "and so on " * (number % 5 + 1)


def other_homes() -> dict[str, bytes]:
    """The files of the homes that only the server's test reads, small, in each one's layout."""
    amqa, tydi, xquad, laser, lafand = (
        HOMES[name].repositories[0]
        for name in ("amharic-qa", "tydi-goldp", "xquad-ro", "tatoeba", "lafand-mt")
    )
    files: dict[str, bytes] = {}
    for split in ("train", "dev", "test"):
        paragraph = {"context": f"የ {split}  ጽሑፍ", "document_id": 1,
                     "qas": [{"id": 7, "question": f"{split} ምንድን ነው?", "answers": []}]}  # fmt: skip
        held = {"data": [{"paragraphs": paragraph if split == "dev" else [paragraph]}]}
        files[amqa.address(f"{split}_data.json")] = json.dumps(held).encode()
    for name in ("english", "korean", "swahili"):
        files[tydi.address(f"language_data/{name}/{name}_tydiqa_train.json")] = squad(name)
    files[xquad.address("xquad.ro.json")] = squad("romanian")
    for code in ("swh", "amh"):
        place = f"data/tatoeba/v1/tatoeba.{code}-eng"
        for side in (code, "eng"):
            text = "".join(f"{line(side, number)}\n" for number in range(3))
            files[laser.address(f"{place}.{side}")] = text.encode()
    pairs = "".join(f"{line('eng', n)}\t{line('swa', n)}\n" for n in range(8))
    for split in ("test", "dev"):
        table = f"eng\tswa\n{pairs}\t\n{pairs}"
        files[lafand.address(f"data/doc_level_tsv/eng-swa/{split}.tsv")] = table.encode()
    for split in ("test", "dev", "train"):
        for side in ("en", "hau"):
            text = "".join(f"{line(f'{split} {side}', number)}\n" for number in range(3))
            place = f"data/text_files/en-hau/{split}.{side}"
            files[lafand.address(place)] = text.encode()
    return files | bible_files() | story_files()


def squad(name: str) -> bytes:
    asked = [{"id": f"{name}-{n}", "question": f"{name} question {n}?"} for n in range(3)]
    article = {"title": name, "paragraphs": [{"context": f"{name}  text", "qas": asked}]}
    return json.dumps({"data": [article]}).encode()


def bible_files() -> dict[str, bytes]:
    corpus, king_james = HOMES["bible"].repositories
    verses = [{"verse": str(n), "text": line("King", n)} for n in range(1, 9)]
    files: dict[str, bytes] = {}
    for name in bible.BOOKS.values():
        chapters = {"book": name, "chapters": [{"chapter": "1", "verses": verses}]}
        files[king_james.address(f"{name}.json")] = json.dumps(chapters).encode()
    told = "".join(
        f'<seg id="b.MAT.1.{n}" type="verse">\n{line("Mstari", n)}\n</seg>' for n in range(1, 9)
    )
    text = f"<cesDoc><text><body><div>{told}</div></body></text></cesDoc>"
    files[corpus.address("bibles/Swahili-NT.xml")] = text.encode()
    return files


def story_files() -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for repository, codes in zip(
        HOMES["stories"].repositories,
        [("en", "sw"), ("tr",), ("en", "te"), ("zu",)],
        strict=True,
    ):
        members = {}
        for code in codes:
            pages = "".join(f"##\n{line(code, number)}\n\n" for number in range(8))
            text = f"# A title in {code}\n\n{pages}##\n* License: [CC-BY]\n* Text: A\n"
            folder = f"{repository.name.rpartition('/')[2]}-{repository.commit}"
            members[f"{folder}/{code}/0001_a-title.md"] = text.encode()
        files[repository.archive] = packed(**members)
    return files


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of the homes; those asked for are written where a download would leave them. The
    homes here are smaller than the real ones, so their checksum is not asked for.
    """
    files = FILES | afriqa_files() | other_homes()

    def web_file(address: str) -> Path:
        path = tmp_path / "web" / str(list(files).index(address)) / address.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[address])
        return path

    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(home, "web_file", web_file)
    monkeypatch.setattr(aligned, "NTREX_LANGUAGES", ("eng", "swa"))
    monkeypatch.setattr(aligned, "TICO19_LANGUAGES", ("sw",))
    monkeypatch.setattr(aligned, "TATOEBA", ["swh", "amh"])
    monkeypatch.setattr(aligned, "DOCUMENTS", (("en", "swa"),))
    monkeypatch.setattr(aligned, "SENTENCES", (("en", "hau"),))
    monkeypatch.setattr(bible, "BIBLES", {"swh": "Swahili-NT"})
    monkeypatch.setattr(retrieval, "PIVOTS", {"hau": "en", "wol": "fr"})
    expected = {one.folder: one.sha256 for one in HOMES.values()}
    monkeypatch.setattr(home, "content_hash", lambda folder: expected[folder_of(folder)])
    return files


def folder_of(folder: Path) -> str:
    """Of which home a temporary folder is."""
    return next(name for name in sorted(HOMES, key=len, reverse=True) if name in folder.name)


def records(name: str, file: str) -> list[dict]:
    path = HOMES[name].obtain() / f"{file}.jsonl.gz"
    return [record for _, record in read_records(path, path.name)]


def lines(name: str, code: str) -> list[tuple]:
    return [(record["doc"], record["pos"], record["text"]) for record in records(name, code)]


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
def test_sources_without_a_local_copy_read_what_was_rebuilt(
    web, name: str, languages: set[str]
):
    rows = [row for row in source(name).rows(SourceContext()) if isinstance(row, Row)]
    assert {row.language for row in rows} == languages
    web.clear()  # rebuilt once
    assert [row for row in source(name).rows(SourceContext()) if isinstance(row, Row)] == rows


def test_a_local_copy_comes_first(web, tmp_path: Path):
    (tmp_path / "root" / "ntrex").mkdir(parents=True)
    with pytest.raises(DataError, match=r"root/ntrex: no file \*.jsonl.gz; get it from"):
        list(source("ntrex").rows(SourceContext(tmp_path / "root")))


def test_a_file_with_a_line_missing_is_refused_and_leaves_nothing(web, tmp_path: Path):
    address = NTREX.address("NTREX-128/newstest2019-ref.swa.txt")
    web[address] = web[address].partition(b"\n")[2]
    with pytest.raises(
        DataError, match=r"ref.swa.txt: .*has 4 lines, but DOCUMENT_IDS.tsv has 5.*; delete"
    ):
        HOMES["ntrex"].obtain()
    assert not list((tmp_path / "cache" / "sources").iterdir())


def test_a_damaged_zip_is_named(web):
    address = TICO19.address("data/TM/all.en-sw.tmx.zip")
    web[address] = FILES[address][:-40]
    with pytest.raises(DataError, match="not a zip with one TMX file"):
        HOMES["tico19"].obtain()


GOLD = "data/gold_passages/hau/gold_span_passages.afriqa.hau.en.train.json"
MEMORY = '<tmx><tu tuid="{}"><seg>a</seg>{}</tu></tmx>'
VERSE = '{"chapters": [{"chapter": "1", "verses": [{"verse": "x", "text": "a"}]}]}'
DAMAGES = [
    ("afriqa", GOLD, '{"id": "1"}\n', ":1: has no 'context'"),
    ("afriqa", GOLD, '\n[1, 2]\n', ":2: does not have the expected form"),
    ("afriqa", GOLD, '{"id": 1, "title": "", "context": 2}\n', ":1: .*context must be text"),
    ("afriqa", GOLD, '{"id": ', ":1: malformed JSON"),
    ("amharic-qa", "train_data.json", "[]", ": does not have the expected form"),
    ("amharic-qa", "train_data.json", '{"data": [{}]}', ": article 1: has no 'paragraphs'"),
    ("xquad-ro", "xquad.ro.json", '{"data": [{"paragraphs": [{}]}]}', "article 1: has no 'cont"),
    ("exams", "data/exams/parallel_questions.jsonl", "[1]\n", ":1: does not have the expected"),
    ("ntrex", "NTREX-128/newstest2019-ref.swa.txt", b"\xff", ": is not valid UTF-8 at byte 0"),
    ("tatoeba", "data/tatoeba/v1/tatoeba.swh-eng.eng", "a\n", ".eng: .*has 1 lines, but swh has 3"),
    ("bible", "Genesis.json", VERSE, ": chapter 1: .*'x'"),
    ("bible", "bibles/Swahili-NT.xml", '<a><seg id="b.MAT"/></a>', ": seg 1: does not have the"),
    ("bible", "bibles/Swahili-NT.xml", "<a><seg/></a>", ": seg 1: has no 'id'"),
    ("tico19", "data/TM/all.en-sw.tmx.zip", zipped(a="<?xml version='1.0'?>" + MEMORY.format("d:1", "")),
     ": unit 1: does not have the expected form"),
    ("tico19", "data/TM/all.en-sw.tmx.zip", zipped(a="<?xml version='1.0'?>" + MEMORY.format("d", "<seg/>")),
     ": unit 1: .*tuid must be DOCUMENT:NUMBER"),
    ("mkqa-mia", "data/eval/mkqa_dev.zip", zipped(mkqa_dev__mkqa_en='{"question": "q"}'), "holds no file"),
    ("mkqa-mia", "data/eval/mkqa_dev.zip", zipped(**{"mkqa_dev__mkqa-en": '{"question": "q"}'}),
     "mkqa-en.jsonl, line 1: has no 'id'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "content", "message"), DAMAGES)
def test_damaged_files_of_a_home_are_named_with_place_and_mend(
    web, tmp_path: Path, name: str, file: str, content: str | bytes, message: str
):
    home_of = HOMES[name]
    (address,) = [one.address(file) for one in home_of.repositories if one.address(file) in web]
    web[address] = content.encode() if isinstance(content, str) else content
    with pytest.raises(DataError, match=message) as raised:
        home_of.obtain()
    assert "delete" in str(raised.value)
    assert str(tmp_path) in str(raised.value)


def test_a_damaged_line_of_a_clone_is_named_with_its_commit(web, tmp_path: Path):
    place = "sib-200/data/annotated/eng_Latn/train.tsv"
    write(tmp_path / place, b"index_id\tcategory\ttext\n1\tscience\n")
    with pytest.raises(DataError, match=rf"{place}:2: .*2 columns, .*checkout -f {SIB.commit}"):
        HOMES["sib200"].obtain(tmp_path)


def test_a_damaged_line_of_an_archive_is_named(web):
    name = f"sib-200-{SIB.commit}/data/annotated/eng_Latn/dev.tsv"
    web[SIB.archive] = packed(**{name: b"index_id\tcategory\ttext\nx\tscience\ttext\n"})
    with pytest.raises(DataError, match=r"\(data/annotated/eng_Latn/dev.tsv\):2: .*; delete"):
        HOMES["sib200"].obtain()


@pytest.mark.parametrize(
    ("record", "message"),
    [({"id": "q1"}, ":1: has no 'question'"), (question(1, "Klingon", "x"), "'Klingon'")],
)
def test_a_damaged_record_of_exams_is_named(web, record: dict, message: str):
    address = EXAMS.address("data/exams/multilingual/train.jsonl.tar.gz")
    web[address] = packed(**{"train.jsonl": jsonl(record)})
    with pytest.raises(DataError, match=f"{message}.*; delete"):
        HOMES["exams"].obtain()


def test_afriqa_has_the_questions_and_gold_passages_of_train_and_dev(web):
    queries = records("afriqa", "queries.hau")
    assert [(one["id"], one["split"]) for one in queries[:3]] == [
        ("afriqa-hau-train-0", "train"), ("afriqa-hau-train-1", "train"), ("afriqa-hau-train-2", "train")
    ]  # fmt: skip
    assert len(queries) == 8  # without the empty ones
    assert [bool(one["doc_id"]) for one in queries] == [True, False, False, False] * 2
    assert [one["text"] for one in records("afriqa", "corpus.en")] == [
        "The train text.",
        "The dev text.",
    ]
    assert not (HOMES["afriqa"].obtain() / "qrels.wol.jsonl.gz").exists()
    rows = [row for row in source("afriqa").rows(SourceContext()) if isinstance(row, Row)]
    assert {row.language for row in rows} == {"hau", "eng"}


def test_belebele_sib_joins_the_sentences_of_a_passage_in_its_order(web):
    english, swahili = (
        records("belebele-sib", "corpus.eng_Latn"),
        records("belebele-sib", "corpus.swh_Latn"),
    )
    assert [one["text"] for one in english] == [
        'Farmers call it "work", mostly. Crops feed people.'
    ]
    assert [one["text"] for one in swahili] == ["Wakulima huiita kazi. Mazao hulisha watu."]
    assert [one["text"] for one in records("belebele-sib", "queries.de")] == ["Was?", "Wer?"]
    assert records("belebele-sib", "qrels")[1] == {
        "query_id": "bel-000-q1",
        "doc_id": "bel-000",
        "rel": 1,
    }


def test_exams_joins_what_is_parallel_through_a_third(web):
    rows = records("exams", "questions")
    assert [(row["id"], row["lang"], row["split"], row["group"]) for row in rows] == [
        ("q1", "hr", "train", "g0"), ("q2", "sr", "dev", "g0")
    ]  # fmt: skip
    assert rows[1]["answer"] == "enzim ovaj"


def test_bible_leaves_out_what_is_numbered_in_another_way():
    english = {n: "x" * (10 * n) for n in range(1, 9)}
    assert bible._go_along({n: "y" * (9 * n) for n in range(1, 9)}, english)
    assert not bible._go_along({n: "y" * (90 - 9 * n) for n in range(1, 9)}, english)


def test_a_folder_with_names_of_a_clone_is_not_taken_for_one(tmp_path: Path):
    for name in ("sw", "tr", "te", "zu"):
        (tmp_path / name).mkdir()
    (tmp_path / "train_data.json").touch()
    assert not HOMES["stories"].cloned(tmp_path)
    assert not HOMES["amharic-qa"].cloned(tmp_path)


@pytest.mark.parametrize("name", ["NTREX", "ntrex", "."])
def test_a_clone_serves_as_well(web, tmp_path: Path, name: str):
    root = tmp_path / "root"
    (root / name).mkdir(parents=True)
    (root / name / "README.md").touch()
    for address, content in list(web.items()):
        path = address.removeprefix(NTREX.address(""))
        if path != address:
            (root / name / path).parent.mkdir(parents=True, exist_ok=True)
            (root / name / path).write_bytes(content)
            del web[address]
    rows = [row for row in source("ntrex").rows(SourceContext(root)) if isinstance(row, Row)]
    assert {row.language for row in rows} == {"eng", "swh"}


def test_other_content_than_expected_is_refused(
    web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(home, "content_hash", lambda folder: "0" * 64)
    with pytest.raises(
        DataError, match=r"afriqa: what was made of github.com/masakhane-io/afriqa @ 5c29"
    ):
        HOMES["afriqa"].obtain()
    assert not list((tmp_path / "cache" / "sources").iterdir())


def test_the_checksum_is_of_names_and_contents(tmp_path: Path):
    for folder, packed_twice in (("one", False), ("two", True)):
        (tmp_path / folder).mkdir()
        for name in ("b", "a"):
            home.write(tmp_path / folder / f"{name}.jsonl.gz", [{"id": name}])
        if packed_twice:
            home.write(tmp_path / folder / "b.jsonl.gz", [{"id": "b"}])
    assert home.content_hash(tmp_path / "one") == home.content_hash(tmp_path / "two")
    home.write(tmp_path / "two" / "b.jsonl.gz", [{"id": "c"}])
    assert home.content_hash(tmp_path / "one") != home.content_hash(tmp_path / "two")


def test_every_task_and_source_is_here_or_says_how_much_it_downloads(web):
    for row in [*describe_tasks(), *catalogue()]:
        assert row["data"].startswith(("here", "to download", "to get")), row
    for name, task in CATALOGUE.items():
        assert task.fetch or task.hub or (task.folder or name) in HOMES
    assert all(len(one.sha256) == 64 and one.megabytes > 0 for one in HOMES.values())
    HOMES["ntrex"].obtain()
    (row,) = [row for row in describe_tasks() if row["task"] == "ntrex"]
    assert row["data"] == "here"


def test_a_task_is_made_of_its_home(web, monkeypatch: pytest.MonkeyPatch):
    small = replace(CATALOGUE["belebele-sib"], queries=2, passages=1)
    monkeypatch.setitem(CATALOGUE, "belebele-sib", small)  # type: ignore[index]
    task = load_task("belebele-sib", languages="all")
    assert set(task.corpus) == {"eng", "swh"}
    assert task.qrels["swh"]["bel-000-q1"] == {"bel-000": 1}


def test_a_dry_run_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> Path:
        raise AssertionError("a dry run downloads nothing")

    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    for place in ("data.homes.home.web_file", "data.tasks.lareqa.web_file"):
        monkeypatch.setattr(f"hybridbatch.{place}", refuse)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    tasks = ("atlas", "xquad-r", "miracl", "belebele", "afriqa", "belebele-sib")
    rows = {row["task"]: row for row in plan(EvalConfig(tasks=tasks, languages="swh,eng"))}
    assert rows["atlas"]["data"] == "here"
    assert rows["miracl"]["passages"] == 131_924 + 32_893_221
    assert rows["afriqa"]["data"] == "to download: 7.0 MB"
    assert not (tmp_path / "cache").exists()


def test_a_passage_without_text_keeps_its_title():
    for passage in ({"text": " "}, {"text": None}, {}):
        assert titled({"title": "Ziwa", **passage}) == "Ziwa"
    assert titled({"title": "Ziwa", "text": "Maji."}) == "Ziwa Maji."
    with pytest.raises(RowProblem):
        titled({"title": "", "text": ""})


def test_sources_are_found_under_the_names_of_papers():
    assert source("mr-tydi") is source("mrtydi")
    assert source("Mr.TyDi") is source("mrtydi")


@pytest.fixture
def server(web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the homes on a web server of this machine, for the unmodified downloader; gives
    a folder that holds the same files as clones.
    """
    monkeypatch.setattr(home, "web_file", download.web_file)
    units = "".join(
        f'<tu tuid="Doc:{n}"><tuv xml:lang="en"><seg>{line("en", n)}</seg></tuv>'
        f'<tuv xml:lang="sw"><seg>{line("sw", n)}</seg></tuv></tu>'
        for n in range(8)
    )
    memory = f'<?xml version="1.0"?><tmx version="1.4"><body>{units}</body></tmx>'
    web[TICO19.address("data/TM/all.en-sw.tmx.zip")] = zipped(tm=memory)
    asked = jsonl(question(1, "Croatian", "an enzyme"), question(2, "Serbian", "enzim"))
    for split, content in (("train", asked), ("dev", b"")):
        place = f"data/exams/multilingual/{split}.jsonl.tar.gz"
        web[EXAMS.address(place)] = packed(**{f"{split}.jsonl": content})
    clones = tmp_path / "clones"
    for address, content in web.items():
        place = tmp_path / "served" / address.partition("://")[2]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        if address.startswith(home.RAW):
            _, name, _, path = address.removeprefix(f"{home.RAW}/").split("/", 3)
            write(clones / name / path, content)
        else:
            repository = address.split("/")[4]
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                for member in archive:
                    file = archive.extractfile(member)
                    assert file is not None
                    write(clones / repository / member.name.partition("/")[2], file.read())
    handler = partial(SilentHandler, directory=str(tmp_path / "served"))
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    for name in ("RAW", "ARCHIVES"):
        host = getattr(home, name).partition("://")[2]
        monkeypatch.setattr(home, name, f"http://127.0.0.1:{running.server_port}/{host}")
    yield clones
    running.shutdown()
    running.server_close()
    thread.join()


class SilentHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


SOURCES = (
    "afriqa",
    "afriqa-questions",
    "amqa",
    "bible",
    "exams",
    "lafand-mt",
    "mkqa",
    "ntrex",
    "stories",
    "tico19",
    "tydi",
)
TASKS = ("amqa", "belebele-sib", "ntrex", "sib200", "tatoeba", "tydi", "xquad-ro")


def test_downloads_from_a_server_and_clones_give_the_same_fingerprints(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every source and task of these homes, each from an empty cache."""
    uncounted = {
        name: replace(one, queries=None, passages=None) for name, one in CATALOGUE.items()
    }
    monkeypatch.setattr(tasks, "CATALOGUE", uncounted)
    found: dict[str, dict[str, str]] = {}
    for way, root in (("web", None), ("clone", server)):
        monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / f"cache-{way}"))
        own = found.setdefault(way, {})
        for name in SOURCES:
            settings = PrepareConfig(
                sources=(name,),
                out=tmp_path / way / name,
                data_root=root,
                decontaminate=("none",),
                validation_share=0,
            )
            own[f"source {name}"] = Store.open(prepare(settings)).fingerprint
        for name in TASKS:
            own[f"task {name}"] = load_task(name, data_root=root).provenance["fingerprint"]
    assert found["web"] == found["clone"]
    assert len(set(found["web"].values())) == len(SOURCES) + len(TASKS)
    assert list((tmp_path / "cache-web" / "downloads").rglob("mkqa_dev.zip"))
    assert not (tmp_path / "cache-clone" / "downloads").exists()
    assert {
        path.name.rsplit("-", 2)[0] for path in (tmp_path / "cache-web" / "sources").iterdir()
    } == set(HOMES)
