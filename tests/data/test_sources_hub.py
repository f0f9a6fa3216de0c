"""Every source of the hub and the web: its real code, the unmodified clients, a mirror with files
in the true layouts.
"""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridbatch.common.errors import DataError
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.formats.numbered import NumberedLines, integer_rows
from hybridbatch.data.formats.squad import squad_rows
from hybridbatch.data.formats.zipped import zipped_json
from hybridbatch.data.pairs.long_documents import cut, passage_at, passage_with
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.mmarco import by_pair
from hybridbatch.data.sources.registry import source
from tests.helpers.hub_layouts import card, squad, write, zipped

REPOSITORY = Path(__file__).parents[2]
TABLES = ("nq", "yahoo", "wikiqa", "duorc", "tydiqa", "webfaq", "swim-ir", "swim-ir-cross")
SCRIPTS = ("mmarco", "mmarco-triples", "mrtydi", "mfaq", "miracl")
WEB = ("entityquestions", "xor-tydi", "mintaka", "mkqa-full", "squadshifts", "squadshifts-full")
Results = dict[str, dict[str, Any]]


def read(
    url: str, cache: Path, *names: str, environment: dict[str, str] | None = None, **job: Any
) -> Results:
    """The results of `tests.helpers.read_sources` in a process whose hub is at `url`."""
    job = {"sources": names, "web": f"{url}/datasets/web/files/resolve/main", **job}
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.read_sources"],
        input=json.dumps(job),
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(cache), "HYBRIDBATCH_CACHE": str(cache / "own"),
             "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
             **(environment or {})},
        cwd=REPOSITORY, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(
    hub_mirror: ModuleType, small_hub: Path, tmp_path_factory: pytest.TempPathFactory
) -> Results:
    with hub_mirror.HubMirror(small_hub) as url:
        return read(url, tmp_path_factory.mktemp("cache"), *TABLES, *SCRIPTS, *WEB)


def rows(results: Results, name: str) -> list[Row]:
    assert "error" not in results[name], results[name]
    return [
        Row(**{**row, "negatives": tuple(row["negatives"])}) for row in results[name]["rows"]
    ]


def bad(results: Results, name: str) -> list[BadRow]:
    return [BadRow(*fields) for fields in results[name]["bad"]]


def test_no_record_has_two_rows_in_a_language(results: Results):
    for name in (*TABLES, *SCRIPTS, *WEB):
        made = rows(results, name)
        assert made
        assert len({(row.record_id, row.language) for row in made}) == len(made)
        assert {row.source for row in made} == {name}
        assert {row.split for row in made} == {
            "validation" if name.startswith("squadshifts") else "train"
        }


def test_english_tables(results: Results):
    assert rows(results, "nq") == [
        Row("nq", "0:1", "eng", "who wrote it", "The author wrote it."),
        Row("nq", "0:3", "eng", "who wrote it", "The author wrote it."),
    ]
    file = "sentence-transformers/natural-questions/pair/train-00000-of-00001.parquet"
    assert bad(results, "nq") == [BadRow(file, 2, "answer", "empty")]
    assert rows(results, "yahoo") == [
        Row("yahoo", "0:1", "eng", "why?", "because"),
        Row("yahoo", "1:1", "eng", "how?", "slowly"),
    ]
    asked, others = "how are glacier caves formed?", ("A cave in ice.",)
    assert rows(results, "wikiqa") == [
        Row("wikiqa", "Q1", "eng", asked, "By melt water.", others),
        Row("wikiqa", "Q1#2", "eng", asked, "By warm air.", others),
    ]
    (only,) = rows(results, "duorc")
    assert (only.record_id, only.query) == ("d1", "How does Melanie arrive?")
    assert "Melanie arrives by train." in only.passage
    assert "The captain waits." not in only.passage  # the passage is a part of the plot


def test_tables_in_many_languages(results: Results):
    assert rows(results, "tydiqa") == [
        Row(
            "tydiqa", "swahili--12-0", "swh", "Nairobi iko wapi?", "Nairobi Nairobi iko Kenya."
        ),
        Row("tydiqa", "english-9-1", "eng", "Where is it?", "Nairobi It is in Kenya."),
    ]
    assert [(row.line, row.field) for row in bad(results, "tydiqa")] == [(2, "id")]
    assert rows(results, "webfaq") == [
        Row("webfaq", "deu:0:1", "deu", "Was kostet es?", "Nichts."),
        Row("webfaq", "swa:0:1", "swh", "Ni bei gani?", "Bure."),
    ]
    assert [(row.file, row.line) for row in bad(results, "webfaq")] == [
        ("PaDaS-Lab/webfaq/data/swa.jsonl", 2)
    ]
    swim = rows(results, "swim-ir")
    assert len({row.language for row in swim}) == 10
    # two shards
    assert [row.query for row in swim if row.language == "yor"] == ["query yo 0", "query yo 1"]
    assert all(row.passage == "Kenya Kenya is a country." for row in swim)


def test_a_question_and_the_english_passage_that_answers_it_are_rows_of_one_record(
    results: Results,
):
    for name, languages in (("swim-ir-cross", 17), ("xor-tydi", 1)):
        records: dict[str, list[Row]] = defaultdict(list)
        for row in rows(results, name):
            records[row.record_id].append(row)
        for asking, answering in records.values():
            assert asking.passage is None
            assert answering.query is None
            assert answering.language == "eng" != asking.language
        assert len({asking.language for asking, _ in records.values()}) == languages
    assert [row.passage for row in rows(results, "xor-tydi") if row.passage] == [
        "Tokyo is a city.",
        "It is in Japan.",
    ]


def test_mmarco_is_parallel_by_ids_and_takes_its_negatives_from_the_triples(results: Results):
    made = rows(results, "mmarco")
    by_language: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in made:
        by_language[row.language][row.record_id] = row
    assert len(by_language) == 14
    assert by_language["ita"]["7-0"] == Row(
        "mmarco",
        "7-0",
        "ita",
        "it what",
        "it passage 0",
        tuple(f"it passage {n}" for n in (5, 6, 7, 8)),
    )
    # the collection has no passage 99
    assert by_language["vie"]["9-4"].negatives == ("vi passage 6",)
    german = by_language.pop("deu")  # its query 9 and its passage 4 are broken lines
    assert set(german) == {"7-0", "7-1"}
    assert {tuple(records) for records in by_language.values()} == {("7-0", "7-1", "9-4")}
    told = {
        (row.file.rpartition("/")[2], row.line): row.field for row in bad(results, "mmarco")
    }
    assert told == {
        ("triples.train.ids.small.tsv", 9): "positive id",
        ("triples.train.ids.small.tsv", 10): "line",
        ("german_queries.train.tsv", 2): "line",
        ("german_collection.tsv", 5): "text",
        ("german_queries.train.tsv", 0): "query id",
    }
    triples = [row for row in rows(results, "mmarco-triples") if row.language == "eng"]
    assert [row.record_id for row in triples] == [str(number) for number in range(8)]
    assert triples[2] == Row(
        "mmarco-triples", "2", "eng", "en what", "en passage 0", ("en passage 6",)
    )


def test_retrieval_sets_give_titled_passages_and_negatives(results: Results):
    made = rows(results, "mrtydi")
    assert len({row.language for row in made}) == 11
    negatives = tuple(f"Title n{n} Text of n{n}." for n in range(4))
    assert made[:2] == [
        Row("mrtydi", "arb:1", "arb", "arabic question", "Title a Text of a.", negatives),
        Row("mrtydi", "arb:1#2", "arb", "arabic question", "Title b Text of b.", negatives),
    ]
    assert [(row.file, row.line) for row in bad(results, "mrtydi")] == [
        ("castorini/mr-tydi/mrtydi-v1.1-thai/train.jsonl.gz", 3)
    ]
    made = rows(results, "miracl")
    assert len({row.language for row in made}) == 16
    assert made[0] == Row(
        "miracl", "arb:1", "arb", "question ar", "Title a Text of a.", ("Title b Text of b.",)
    )
    assert made[1] == Row(
        "miracl", "arb:1#2", "arb", "question ar", "Title c Text of c.", ("Title b Text of b.",)
    )
    assert {(row.line, row.field) for row in bad(results, "miracl")} == {(2, "query-id")}


def test_only_training_sets_are_read(results: Results):
    for name in ("mfaq", "miracl", "entityquestions", "tydiqa"):
        assert not {"v?", "development"} & {row.query for row in rows(results, name)}
    assert {row.language for row in rows(results, "mfaq")} >= {"eng", "nob", "hrv", "heb"}
    assert len(rows(results, "mfaq")) == 2 * 21
    assert [row.record_id for row in rows(results, "entityquestions")] == ["P19:1"]


def test_files_of_the_web(results: Results):
    assert rows(results, "entityquestions") == [
        Row("entityquestions", "P19:1", "eng", "Where was Ada born?", "London")
    ]
    mintaka = rows(results, "mintaka")
    entity = {row.language: row for row in mintaka if row.record_id == "m1"}
    assert len(entity) == 9
    assert entity["spa"] == Row("mintaka", "m1", "spa", "Übersetzung", "Mount Lucania")
    assert entity["hin"].passage is None  # Wikidata has no Hindi name
    value = [row for row in mintaka if row.record_id == "m2"]
    assert len(value) == 9
    assert all((row.query is None) != (row.passage is None) for row in value)
    assert [row.field for row in bad(results, "mintaka")] == ["answer"]
    questions = rows(results, "mkqa-full")
    assert {row.language for row in questions} == {"arb", "eng", "nob", "zho", "zho-Hant"}
    assert {row.record_id for row in questions} == {"-5"}
    assert [row.record_id for row in rows(results, "squadshifts-full")] == [
        f"5d66-{domain}" for domain in ("new_wiki", "nyt", "amazon_reviews", "reddit")
    ]
    assert [row.record_id for row in rows(results, "squadshifts")] == [
        f"5d66-{domain}" for domain in ("new_wiki", "amazon_reviews", "reddit")
    ]
    assert [row.passage for row in rows(results, "squadshifts")[:2]] == [
        "New Article A new paragraph.",
        "A new paragraph.",
    ]


def test_provenance_tells_a_branch_by_its_commit_and_a_file_of_the_web_by_itself(
    results: Results,
):
    for name in (*TABLES, *SCRIPTS):
        inputs = results[name]["inputs"]
        if source(name).revision == "main":
            (readme,) = inputs
            commit, _, file = readme.partition("/")
            assert file == "README.md"
            assert len(commit) == 40
        else:
            assert len(source(name).revision) == 40
            assert inputs == []
    assert [path.rpartition("/")[2] for path in results["xor-tydi"]["inputs"]] == [
        "tydi_xor_gp.zip"
    ]


def test_faults_of_the_hub_change_nothing(
    hub_mirror: ModuleType, small_hub: Path, results: Results, tmp_path: Path
):
    faults = {"503": 0.15, "429": 0.15, "truncate": 0.15}
    names = (*TABLES, "mmarco", "mrtydi", "miracl", *WEB)
    with hub_mirror.HubMirror(small_hub, faults=faults, seed=3) as url:
        made = read(
            url,
            tmp_path,
            *names,
            pauses=[0] * 12,
            languages=["eng", "deu", "swh", "jpn", "zho"],
        )
    kept = ("eng", "deu", "swh", "jpn", "zho")
    for name in ("nq", "yahoo", "wikiqa", "duorc", "webfaq", "swim-ir", "mmarco", "mrtydi", "miracl", "entityquestions",
                 "squadshifts"):  # fmt: skip
        assert rows(made, name) == [row for row in rows(results, name) if row.language in kept]
    assert rows(made, "xor-tydi") == rows(results, "xor-tydi")


@pytest.mark.parametrize("fault", ["503", "429", "truncate"])
def test_a_fault_that_stays_is_one_line_and_a_later_run_goes_on(
    hub_mirror: ModuleType, small_hub: Path, tmp_path: Path, fault: str
):
    with hub_mirror.HubMirror(small_hub, faults={fault: 1.0}) as url:
        told = read(
            url, tmp_path, "mrtydi", "entityquestions", pauses=[0, 0], languages=["eng"]
        )
    for name, where in (("mrtydi", "castorini/mr-tydi@3506bca8a88cdb49d8d35e954365ca6053e4346a: mrtydi-v1.1-english"),
                        ("entityquestions", "dataset.zip")):  # fmt: skip
        message = told[name]["error"]
        assert message.startswith("DataError: ")
        assert where in message
        assert "run the same command again later" in message
        assert "\n" not in message
        assert fault == "truncate" or f"answering {fault}" in message
    with hub_mirror.HubMirror(small_hub) as url:
        assert len(read(url, tmp_path, "mrtydi", languages=["eng"])["mrtydi"]["rows"]) == 2


def test_what_is_gone_is_told_in_one_line(
    hub_mirror: ModuleType, small_hub: Path, tmp_path: Path
):
    elsewhere = tmp_path / "hub"
    script = {
        "README.md": "# NQ\n",
        "natural-questions.py": "raise SystemExit('run')",
        "data.csv": "a\n1\n",
    }
    write(elsewhere / "datasets/sentence-transformers/natural-questions", script)
    write(
        elsewhere / "datasets/microsoft/wiki_qa",
        {"README.md": card(("default", "test", "other.jsonl")), "other.jsonl": "{}\n"},
    )
    write(elsewhere / "datasets/clips/mfaq", {"README.md": "# MFAQ\n"})
    write(
        elsewhere / "datasets/web/files",
        {"dataset.zip": b"not a zip", "tydi_xor_gp.zip": zipped({"a.json": []})},
    )
    names = (
        "nq",
        "wikiqa",
        "duorc",
        "mfaq",
        "mrtydi",
        "swim-ir",
        "entityquestions",
        "xor-tydi",
        "mintaka",
    )
    with hub_mirror.HubMirror(elsewhere) as url:
        told = read(url, tmp_path / "cache", *names, pauses=[])
    messages = {name: one["error"] for name, one in told.items()}
    assert all(
        message.startswith("DataError: ") and "\n" not in message
        for message in messages.values()
    )
    assert "sentence-transformers/natural-questions@f9e894e1" in messages["nq"]
    assert (
        "microsoft/wiki_qa@3f104672b5de699878fe7907afc486f0de325eb5: configuration 'default'"
        in messages["wikiqa"]
    )
    assert "no such data set there" in messages["duorc"]
    assert "no such file there (404)" in messages["mfaq"]
    assert "no such data set there" in messages["mrtydi"]
    assert "nthakur/swim-ir-monolingual" in messages["swim-ir"]
    assert "dataset.zip: cannot be read as a zip" in messages["entityquestions"]
    assert "so it is not the expected one" in messages["xor-tydi"]
    assert "mintaka_train.json: no such file there (404)" in messages["mintaka"]
    with hub_mirror.HubMirror(small_hub) as url:
        gone = read(
            url,
            tmp_path / "gone",
            "mrtydi",
            "nq",
            revisions={"mrtydi": "refs/pr/9", "nq": "refs/pr/9"},
        )
    assert "castorini/mr-tydi@refs/pr/9" in gone["mrtydi"]["error"]
    assert "revision is gone" in gone["mrtydi"]["error"]
    assert "natural-questions@refs/pr/9" in gone["nq"]["error"]
    assert "revision is gone" in gone["nq"]["error"]


def test_a_second_run_needs_no_network(hub_mirror: ModuleType, small_hub: Path, tmp_path: Path):
    with hub_mirror.HubMirror(small_hub) as url:
        first = read(url, tmp_path, "mrtydi", "entityquestions", languages=["eng"])
    again = read(
        url, tmp_path, "mrtydi", "entityquestions", "mfaq", languages=["eng"], pauses=[]
    )
    assert first["mrtydi"] == again["mrtydi"]
    assert first["entityquestions"] == again["entityquestions"]
    assert "the server cannot be reached" in again["mfaq"]["error"]
    offline = read(
        url, tmp_path, "mfaq", languages=["eng"], environment={"HF_HUB_OFFLINE": "1"}
    )
    assert "HF_HUB_OFFLINE" in offline["mfaq"]["error"]


def test_only_files_of_wanted_languages_are_fetched(
    hub_mirror: ModuleType, small_hub: Path, tmp_path: Path
):
    with hub_mirror.HubMirror(small_hub) as url:
        made = read(
            url, tmp_path, "mmarco", "webfaq", "nq", "xor-tydi", languages=["swh", "fra"]
        )
    assert {row.language for row in rows(made, "mmarco")} == {"fra"}
    assert {row.language for row in rows(made, "webfaq")} == {"swh"}
    assert rows(made, "nq") == rows(made, "xor-tydi") == []
    fetched = {path.name for path in (tmp_path / "hub").rglob("*.tsv")}
    assert {name for name in fetched if "collection" in name} == {"french_collection.tsv"}


def test_newsqa_says_where_to_get_it_and_reads_what_is_made_there(tmp_path: Path):
    for data_root in (None, tmp_path):
        with pytest.raises(DataError) as caught:
            list(source("newsqa").rows(SourceContext(data_root)))
        told = str(caught.value)
        for part in ("https://github.com/Maluuba/newsqa", "newsqa-data-v1.tar.gz", "cnn_stories.tgz", "docker run",
                     "combined-newsqa-data-v1.json", "--data-root"):  # fmt: skip
            assert part in told
        assert "\n" not in told
    text = (
        "NEW DELHI (CNN) -- A court acquitted him. " * 30
        + "The teen was one of 19 victims. "
        + "More. " * 200
    )
    questions = [
        {"q": "How many?", "consensus": {"s": text.index("19"), "e": text.index("19") + 2}},
        {"q": "Bad?", "consensus": {"badQuestion": True}},
        {"q": "None?", "consensus": {"noAnswer": True}},
        {"q": "Outside?", "consensus": {"s": 10**6, "e": 10**6 + 1}},
    ]
    story = {
        "storyId": "./cnn/stories/42.story",
        "text": text,
        "type": "dev",
        "questions": questions,
    }
    whole = json.dumps({"data": [story, "no story"], "version": "1"})
    write(tmp_path / "newsqa", {"combined-newsqa-data-v1.json": whole})
    row, outside, second = source("newsqa").rows(SourceContext(tmp_path))
    assert (row.record_id, row.query, row.split) == (
        "./cnn/stories/42.story:0",
        "How many?",
        "validation",
    )
    assert "one of 19 victims" in row.passage
    assert len(row.passage.split()) < 150
    assert (outside.line, outside.field) == (1, "consensus")
    assert second == BadRow(
        "newsqa/combined-newsqa-data-v1.json", 2, "data", "must be an object"
    )


def test_a_local_copy_of_squadshifts_comes_first(real_data: Path):
    local = [
        row
        for row in source("squadshifts").rows(SourceContext(real_data))
        if isinstance(row, Row)
    ]
    assert len(local) == 13_938
    assert {row.split for row in local} == {"validation"}


@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 2, st.integers(0, 30)), max_size=40),
    st.integers(1, 4),
)
def test_triples_join_to_pairs_as_a_plain_loop_joins_them(
    triples: list[tuple[int, int, int]], kept: int
):
    expected: dict[tuple[int, int], list[int]] = defaultdict(list)
    for query, positive, negative in triples:
        expected[query, positive].append(negative)
    made = by_pair(np.array(triples, np.int32).reshape(-1, 3), kept)
    pairs = list(zip(made.query.tolist(), made.positive.tolist(), strict=True))
    assert pairs == sorted(expected)
    for pair, row in zip(pairs, made.negatives.tolist(), strict=True):
        assert [negative for negative in row if negative >= 0] == expected[pair][:kept]


def test_numbers_are_read_in_blocks_and_bad_lines_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("hybridbatch.data.formats.numbered._BLOCK", 64)
    lines = [f"{n}\t{n * 2}" for n in range(100)]
    lines[40], lines[41], lines[70] = "40", "41\t9999999999", "seventy\t140"
    path = tmp_path / "table.tsv"
    path.write_text("\n".join(lines))  # without a last line end
    table, wrong = integer_rows(path, "table", ("a", "b"))
    assert table.tolist() == [[n, n * 2] for n in range(100) if n not in (40, 41, 70)]
    assert [(row.line, row.field) for row in wrong] == [(41, "line"), (42, "b"), (71, "a")]
    with pytest.raises(DataError, match=r"none\.tsv"):
        integer_rows(tmp_path / "none.tsv", "none", ("a",))


def test_lines_are_found_by_number(tmp_path: Path):
    path = tmp_path / "lines.tsv"
    path.write_bytes(
        "9\tnine\ttabbed\r\n3\tdrei ü\n3\tagain\nx\ttext\n5\t \n".encode()
        + b"6\t\xff\n7\tseven"
    )
    with NumberedLines(path, "lines") as lines:
        found = list(lines.texts(np.array([3, 4, 7, 9, -1, 5])))
        assert [(row.line, row.field) for row in lines.bad] == [
            (4, "id"),
            (5, "text"),
            (6, "text"),
        ]
    assert found == ["drei ü", None, "seven", "nine\ttabbed", None, None]
    path.write_text("")
    with NumberedLines(path, "lines") as lines:
        assert list(lines.texts(np.array([1, 2]))) == [None, None]


@given(st.text(alphabet="ab .!?\n\"'", max_size=400), st.integers(1, 30))
def test_passages_hold_every_word_once_and_in_order(document: str, words: int):
    passages = cut(document, words)
    assert " ".join(body for _, body in passages).split() == document.split()
    assert all(document[start:].lstrip().startswith(body) for start, body in passages)


def test_the_passage_of_an_answer_is_the_one_it_stands_in():
    document = " ".join(f"Sentence {n} tells of the number {n} here." for n in range(100))
    for n in (0, 42, 99):
        assert f"Sentence {n} tells" in passage_at(document, document.index(f"number {n} here"))
    assert passage_at(document, len(document)) is None
    assert "Sentence 42 tells" in passage_with(
        document, ["here"], "what does sentence 42 tell of?"
    )
    assert passage_with(document, ["absent"], "what?") is None


def test_a_zip_is_read_in_place_and_a_damaged_one_is_told(tmp_path: Path):
    path = tmp_path / "inner" / "archive.zip"
    write(
        tmp_path,
        {
            "inner/archive.zip": zipped(
                {
                    "../escaped.json": [1],
                    "/absolute.json": [2],
                    "bad.json": "{",
                    "deep.json": "[" * 100_000,
                }
            )
        },
    )
    contents = {
        match[0]: value
        for match, value in zipped_json(path, re.compile(r".*/(escaped|absolute)\.json"))
    }
    assert contents == {"../escaped.json": [1], "/absolute.json": [2]}
    assert sorted(file.name for file in tmp_path.rglob("*.json")) == []
    for bad in ("bad", "deep"):
        with pytest.raises(DataError, match="not valid JSON"):
            list(zipped_json(path, re.compile(rf"{bad}\.json")))
    path.write_bytes(path.read_bytes()[:80])
    with pytest.raises(DataError, match="delete it and run the same command again"):
        list(zipped_json(path, re.compile(r".*")))


def test_squad_files_of_another_form_give_bad_rows():
    whole = squad(("T", [("context", [{"id": 1}])]))
    whole["data"] += [{"title": "no paragraphs"}, "no article"]
    made = list(
        squad_rows(
            whole,
            "file",
            lambda title, context, record: [Row("s", str(record["id"]), "eng", title, context)],
        )
    )
    assert made[0] == Row("s", "1", "eng", "T", "context")
    assert [(row.line, row.field) for row in made[1:]] == [(2, "paragraphs"), (3, "paragraphs")]
    assert list(squad_rows([], "file", lambda *parts: [])) == [
        BadRow("file", 0, "data", "must be a list of articles")
    ]
