"""Retrieval tasks: the three layouts, the catalogue, the choice of languages, and every kind of
broken data.
"""

import gzip
import hashlib
import json
import threading
import unicodedata
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from hybridbatch.common import retries
from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.data.download.web import web_file
from hybridbatch.data.tasks import lareqa
from hybridbatch.data.tasks.catalogue import expected_sizes
from hybridbatch.data.tasks.registry import load_task

QRELS = "query-id\tcorpus-id\tscore\n"


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def write_beir(folder: Path, language: str, *, queries: int = 3, end: str = "") -> Path:
    place = folder / language if language else folder
    write_jsonl(
        place / f"queries.jsonl{end}",
        [{"_id": f"q{i}", "text": f"{language} query {i}"} for i in range(queries)],
    )
    passages = [
        {"_id": f"d{i}", "title": f"T{i}", "text": f"{language} passage {i}"} for i in range(4)
    ]
    write_jsonl(place / f"corpus.jsonl{end}", passages)
    (place / "qrels").mkdir()
    (place / "qrels" / "test.tsv").write_text(
        QRELS + "".join(f"q{i}\td{i}\t1\n" for i in range(queries))
    )
    return place


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    write_beir(tmp_path / "mine", "sw")
    write_beir(tmp_path / "mine", "yo", end=".gz")
    return tmp_path / "mine"


def test_beir_folders_become_one_task_under_canonical_languages(beir):
    task = load_task(str(beir))
    assert set(task.queries) == set(task.corpus) == set(task.qrels) == {"swh", "yor"}
    assert task.corpus["yor"].texts[1] == "T1 yo passage 1"
    assert task.qrels["swh"]["q2"] == {"d2": 1}
    assert task.parallel
    assert load_task(str(beir)).provenance["fingerprint"] == task.provenance["fingerprint"]


def test_texts_are_nfc_at_the_door(beir):
    decomposed = unicodedata.normalize("NFD", "ọ̀rọ̀ é")
    write_jsonl(
        beir / "yo" / "queries.jsonl.gz",
        [{"_id": f"q{i}", "text": decomposed + str(i)} for i in range(3)],
    )
    text = load_task(str(beir)).queries["yor"].texts[0]
    assert text == unicodedata.normalize("NFC", text) != decomposed + "0"


def test_the_fingerprint_follows_the_content(beir):
    before = load_task(str(beir)).provenance["fingerprint"]
    (beir / "sw" / "qrels" / "test.tsv").write_text(QRELS + "q0\td0\t1\nq1\td1\t1\nq2\td2\t2\n")
    assert load_task(str(beir)).provenance["fingerprint"] != before


def test_queries_of_other_splits_are_left_out(beir):
    (beir / "sw" / "qrels" / "test.tsv").write_text(QRELS + "q0\td0\t1\n")
    (beir / "sw" / "qrels" / "train.tsv").write_text(QRELS + "q1\td0\t1\nq2\td1\t1\n")
    (beir / "yo" / "qrels" / "test.tsv").write_text(QRELS + "q0\td0\t1\n")
    task = load_task(str(beir))
    assert task.queries["swh"].ids == task.queries["yor"].ids == ("q0",)


def test_one_beir_folder_needs_its_language_named(tmp_path):
    folder = write_beir(tmp_path / "flat", "")
    assert set(load_task(str(folder), languages="sw").corpus) == {"swh"}
    with pytest.raises(ConfigError, match="--languages"):
        load_task(str(folder))


def test_flat_files_with_shared_and_with_per_language_qrels(tmp_path):
    for language in ("am", "en"):
        write_jsonl(
            tmp_path / f"corpus.{language}.jsonl.gz",
            [{"id": i, "text": f"{language}{i}"} for i in range(3)],
        )
        write_jsonl(
            tmp_path / f"queries.{language}.jsonl",
            [{"id": f"q{i}", "text": f"{language}?{i}"} for i in range(2)],
        )
    judged = [
        {"query_id": "q0", "doc_id": 0, "rel": 1},
        {"query_id": "q1", "doc_id": 2, "rel": 2},
    ]
    write_jsonl(tmp_path / "qrels.jsonl", judged)
    shared = load_task(str(tmp_path))
    assert shared.qrels["amh"] == shared.qrels["eng"] == {"q0": {"0": 1}, "q1": {"2": 2}}
    (tmp_path / "qrels.jsonl").unlink()
    write_jsonl(tmp_path / "qrels.am.jsonl", judged)
    write_jsonl(tmp_path / "qrels.en.jsonl", judged[:1])
    own = load_task(str(tmp_path))
    assert set(own.qrels["amh"]) == {"q0", "q1"}
    assert set(own.qrels["eng"]) == {"q0"}


def test_languages_choose_both_sides_and_a_side_without_them_stays_whole(tmp_path):
    for language in ("am", "yo", "sw"):
        write_jsonl(
            tmp_path / f"corpus.{language}.jsonl",
            [{"id": "d", "text": language}, {"id": "e", "text": "e"}],
        )
    write_jsonl(tmp_path / "queries.en.jsonl", [{"id": "q", "text": "?"}])
    write_jsonl(tmp_path / "qrels.jsonl", [{"query_id": "q", "doc_id": "d", "rel": 1}])
    task = load_task(str(tmp_path), languages="low-resource,-sw")
    assert (set(task.queries), set(task.corpus)) == ({"eng"}, {"amh", "yor"} & set(task.corpus))
    assert "swh" not in task.corpus
    assert not load_task(str(tmp_path), languages="am").parallel
    with pytest.raises(ConfigError, match="'vi'"):
        load_task(str(tmp_path), languages="vi")


BROKEN = {
    "unknown query": (
        "sw/qrels/test.tsv",
        QRELS + "q0\td0\t1\nq1\td1\t1\nq2\td2\t1\nq7\td2\t1\n",
        "'q7'",
    ),
    "judged twice": (
        "sw/qrels/test.tsv",
        QRELS + "q0\td0\t1\nq0\td0\t2\n",
        r"test.tsv:3: passage 'd0' of query 'q0' is judged 2 here and 1 at .*test.tsv:2",
    ),
    "empty corpus": ("sw/corpus.jsonl", "", "corpus.jsonl"),
    "id twice": (
        "sw/corpus.jsonl",
        '{"_id":"d0","text":"x"}\n' * 2,
        r"corpus.jsonl:2: the id 'd0'",
    ),
    "not JSON": ("sw/corpus.jsonl", '{"_id":"d0","text":"x"}\n{"_id"\n', r"corpus.jsonl:2"),
    "not an object": ("sw/queries.jsonl", "[1]\n", r"queries.jsonl:1"),
    "no id": ("sw/queries.jsonl", '{"text":"x"}\n', r"queries.jsonl:1: has no '_id'"),
    "no text": ("sw/queries.jsonl", '{"_id":"q0","text":" "}\n', r"queries.jsonl:1: 'text'"),
    "grade": ("sw/qrels/test.tsv", QRELS + "q0\td0\thigh\n", r"test.tsv:2: relevance 'high'"),
    "columns": ("sw/qrels/test.tsv", QRELS + "q0 d0\n", r"test.tsv:2: has 2 columns"),
    "unknown language": ("klingonese/corpus.jsonl", "", "klingonese"),
    "same language twice": ("swa/corpus.jsonl", "", "swh"),
}


@pytest.mark.parametrize(("file", "content", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_data_is_one_line_that_names_the_place(beir, file, content, message):
    (beir / file).parent.mkdir(exist_ok=True)
    (beir / file).write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        load_task(str(beir))
    assert "\n" not in str(caught.value)
    if "unknown" not in message:
        assert str(beir) in str(caught.value)


def test_a_query_judged_irrelevant_only_is_left_out_and_told(beir):
    for language in ("sw", "yo"):
        (beir / language / "qrels" / "test.tsv").write_text(
            QRELS + "q0\td0\t1\nq1\td1\t0\nq2\td2\t1\n"
        )
    task = load_task(str(beir))
    assert task.queries["swh"].ids == task.queries["yor"].ids == ("q0", "q2")
    assert any("1 of 3 queries have no relevant passage" in note for note in task.notes)


def test_damaged_gzip_is_a_data_error(beir):
    path = beir / "yo" / "corpus.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match=r"corpus\.jsonl\.gz"):
        load_task(str(beir))


def test_unknown_names_offer_the_nearest(tmp_path, monkeypatch):
    def refuse(address: str) -> Path:
        raise DataError(f"{address}: the server cannot be reached")

    monkeypatch.setattr("hybridbatch.data.homes.home.web_file", refuse)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="xquad-r"):
        load_task("xquad")
    with pytest.raises(ConfigError, match="afriqa:test"):
        load_task("afriqa:test", data_root=tmp_path)
    with pytest.raises(DataError, match="--data-root"):
        load_task("sib200", data_root=tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="no retrieval task"):
        load_task(str(tmp_path / "mine"))


def write_lareqa(folder: Path, languages: tuple[str, ...] = ("en", "th")) -> None:
    for language in languages:
        context = f"One {language}. Two here. Three."
        second = context.index("Two")
        paragraph = {
            "context": context,
            "sentence_breaks": [[0, second], [second, len(context)]],
            "qas": [
                {
                    "id": "a",
                    "question": "first?",
                    "answers": [{"answer_start": 0, "text": "One"}],
                },
                {
                    "id": "b",
                    "question": "second?",
                    "answers": [{"answer_start": second, "text": "Two"}],
                },
            ],
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{language}.json").write_text(
            json.dumps({"data": [{"paragraphs": [paragraph]}]})
        )


def test_lareqa_layout_gives_the_sentence_that_holds_the_answer(tmp_path):
    write_lareqa(tmp_path / "xquad-r")
    task = lareqa.read_original(tmp_path / "xquad-r", "xquad-r")
    assert task.corpus["tha"].texts == ("One th.", "Two here. Three.")
    assert task.qrels["eng"] == {"a": {"en-p000-s0": 1}, "b": {"en-p000-s1": 1}}


def test_a_part_of_a_benchmark_does_not_pass_for_it(tmp_path):
    write_lareqa(tmp_path / "xquad-r")
    with pytest.raises(DataError, match="1190 queries"):
        load_task("xquad-r", data_root=tmp_path)


def test_mlqa_r_languages_share_a_part_of_the_questions_and_counts_are_the_published_ones(
    tmp_path,
):
    write_lareqa(tmp_path / "mlqa-r", ("en", "vi"))
    path = tmp_path / "mlqa-r" / "vi.json"
    content = json.loads(path.read_text())
    content["data"][0]["paragraphs"][0]["qas"].pop()
    path.write_text(json.dumps(content))
    task = lareqa.read_original(tmp_path / "mlqa-r", "mlqa-r")
    assert (set(task.qrels["eng"]), set(task.qrels["vie"])) == ({"a", "b"}, {"a"})
    assert (task.queries["eng"].ids, task.queries["vie"].ids) == (("a", "b"), ("a",))
    with pytest.raises(DataError, match="mlqa-r has 1148 queries in eng, not 2"):
        load_task("mlqa-r", data_root=tmp_path)


@pytest.mark.data_set("mlqa-r")
def test_real_mlqa_r_has_its_published_counts(real_data):
    task = load_task("mlqa-r", data_root=real_data)
    sizes = (
        sum(len(texts.ids) for texts in side.values()) for side in (task.queries, task.corpus)
    )
    assert tuple(sizes) == (4199, 20_534)


def test_download_is_checked_retried_and_resumed(tmp_path, monkeypatch):
    revision = "0" * 40
    served = tmp_path / "web" / revision / "xquad-r"
    write_lareqa(served)
    digests = {p.stem: hashlib.sha256(p.read_bytes()).hexdigest() for p in served.iterdir()}
    requests: list[str] = []

    class Flaky(SimpleHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            if len(requests) == 1:
                self.send_error(503)
            else:
                super().do_GET()

        def log_message(self, *args):
            pass

    monkeypatch.setattr(retries, "PAUSES", (0.0,))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Flaky, directory=tmp_path / "web"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    files = lareqa.Files("xquad-r", revision, digests, address)
    folder = files.fetch(tmp_path / "cache")
    assert len(requests) == 3
    assert (folder / "th.json").read_bytes() == (served / "th.json").read_bytes()
    files.fetch(tmp_path / "cache")
    assert len(requests) == 3
    other = lareqa.Files("xquad-r", revision, dict.fromkeys(digests, "0" * 64), address)
    with pytest.raises(DataError, match="differs from the expected content"):
        other.fetch(tmp_path / "other")
    assert not list((tmp_path / "other").glob("*"))
    (tmp_path / "web" / revision / "xquad-r" / "en.json").unlink()
    with pytest.raises(DataError, match=r"no such file there \(404\)"):
        other.fetch(tmp_path / "third")
    server.shutdown()
    server.server_close()


class Dropping(BaseHTTPRequestHandler):
    """Sends a little of what is left and breaks the connection off, as often as it is asked."""

    content = bytes(range(256)) * 100_000
    starts: ClassVar[list[int]] = []

    def do_GET(self):
        asked = self.headers.get("Range", "bytes=0-")
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        self.starts.append(start)
        size = len(self.content)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        self.wfile.write(self.content[start : start + 11_000_000])
        self.close_connection = True

    def log_message(self, *args):
        pass


def test_a_download_goes_on_where_it_broke_off(tmp_path, monkeypatch):
    monkeypatch.setattr(retries, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dropping)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/corpus.bin"
    # What an earlier run, which was killed, has left.
    target = tmp_path / "corpus.bin"
    (tmp_path / ".corpus.bin.part").write_bytes(Dropping.content[:100_000])
    digest = hashlib.sha256(Dropping.content).hexdigest()
    assert web_file(address, digest, target).read_bytes() == Dropping.content
    assert Dropping.starts[0] == 100_000
    assert Dropping.starts == sorted(set(Dropping.starts))
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.bin"]
    server.shutdown()
    server.server_close()


def test_bitext_never_asks_a_language_about_itself(tmp_path):
    for language in ("am", "en"):
        write_jsonl(
            tmp_path / "sib200" / f"{language}.jsonl",
            [{"id": i, "text": f"{language}{i}"} for i in range(1004)],
        )
    task = load_task("sib200", data_root=tmp_path)
    assert task.bitext
    assert not task.parallel
    assert task.qrels["amh"]["7"] == {"7": 1}
    with pytest.raises(ConfigError, match="nothing to search"):
        load_task("sib200", data_root=tmp_path, languages="am")


COUNTS = {  # queries and passages over all languages, from the READMEs of the data sets
    "xquad-r": (11 * 1190, 13_014),
    "xquad-ro": (1190, 240),
    "belebele": (1800, 976),
    "belebele-sib": (586, 205 * 160),
    "amqa": (299, 33),
    "amqa:dev": (600, 57),
    "tydi": (3696 + 1625 + 2755, 3429 + 1269 + 1687),
    "tatoeba": (79_016, 79_016),
}


@pytest.mark.parametrize("name", [name for name in COUNTS if ":" not in name])
def test_counts_are_told_before_the_data_is_here(name):
    known = expected_sizes(name, "all", ())
    told = (known["queries"], known["passages"])
    at_most = {"belebele": (122 * 900, 122 * 488), "tatoeba": (93_000, 93_000)}
    assert told == at_most.get(name, COUNTS[name])


def test_counts_follow_the_languages():
    sizes = expected_sizes("belebele-sib", "eng,swh", ())
    assert sizes == {
        "query languages": 1,
        "corpus languages": 2,
        "queries": 293,
        "passages": 320,
    }
    assert expected_sizes("afriqa", "yor,hau,fra", ())["queries"] == 222
    assert expected_sizes("tatoeba", "eng,swh", ())["passages"] == 1000


@pytest.mark.parametrize("name", COUNTS)
def test_real_data_sets_have_their_published_counts(real_data, name):
    task = load_task(name, data_root=real_data)
    sizes = (
        sum(len(texts.ids) for texts in side.values()) for side in (task.queries, task.corpus)
    )
    assert tuple(sizes) == COUNTS[name]
    assert task.parallel == (name in ("xquad-r", "belebele", "belebele-sib"))


def test_the_atlas_is_a_task_with_splits():
    test, validation = (
        load_task("atlas", languages="en,sw"),
        load_task("atlas:validation", languages="en,sw"),
    )
    assert set(test.queries) == set(test.corpus) == {"eng", "swh"}
    assert test.parallel
    assert set(test.corpus["eng"].ids).isdisjoint(validation.corpus["eng"].ids)
    assert validation.name == "atlas:validation"
    with pytest.raises(ConfigError, match="validation"):
        load_task("atlas:valid")


def test_afriqa_asks_in_african_languages_for_english_or_french_passages(real_data):
    task = load_task("afriqa", data_root=real_data)
    assert set(task.corpus) == {"eng", "fra"}
    assert {"bem", "fon", "hau", "zul"} <= set(task.queries)
    assert not set(task.queries) & set(task.corpus)
    hausa = load_task("afriqa", data_root=real_data, languages="hau")
    assert set(hausa.queries) == {"hau"}
    assert set(hausa.queries["hau"].ids) == {
        q for judged in hausa.qrels.values() for q in judged
    }
