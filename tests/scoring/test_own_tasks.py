"""BEIR folders as they are found, and prepared data, scored by BM25: the numbers are trec_eval's."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import read_json
from hybridbatch.common.records import Row
from hybridbatch.data.store.writer import write_store
from hybridbatch.data.tasks.judgements import read_judgements
from hybridbatch.data.tasks.registry import load_task
from hybridbatch.scoring.evaluate import evaluate
from hybridbatch.scoring.settings import EvalConfig
from tests.helpers.recording import RecordingReporter

PASSAGES = {
    "d1": "The old mill stands by the river.",
    "d2": "The harvest begins in late summer.",
    "d3": "A caretaker rings the bell at noon.",
    "d4": "The new bridge is made of steel.",
}
QUERIES = {
    "q1": "where is the old mill",
    "q2": "when is the harvest",
    "q3": "who rings the bell",
}
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\nq3\td3\t1\n"


def write_task(
    folder: Path,
    *,
    passages: dict[str, str] = PASSAGES,
    queries: dict[str, str] = QUERIES,
    qrels: str = QRELS,
    file: str = "qrels/test.tsv",
    language: str = "en",
) -> Path:
    place = folder / language
    (place / file).parent.mkdir(parents=True)
    (place / file).write_text(qrels)
    for name, texts in (("corpus", passages), ("queries", queries)):
        rows = [{"_id": key, "title": "", "text": text} for key, text in texts.items()]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def scored(folder: Path, **settings: Any) -> tuple[dict[str, Any], list[str]]:
    """The monolingual means of a task in English, and what was told."""
    report = RecordingReporter()
    config = EvalConfig(
        model="bm25", tasks=(str(folder),), out=folder.parent / "out", **settings
    )
    (task,) = read_json(evaluate(config, report) / "eval.json")["tasks"]
    return task, report.warnings


def mean(task: dict[str, Any], metric: str = "mAP", setting: str = "monolingual") -> float:
    return task["settings"][setting]["metrics"][metric]


@pytest.mark.parametrize(
    ("qrels", "file"),
    [
        ("q1 0 d1 1\nq2 0 d2 1\nq3 0 d3 1\n", "qrels/test.tsv"),
        ("q1\t0\td1\t1\nq2\t0\td2\t1\nq3\t0\td3\t1\n", "qrels/test.txt"),
        ("q1\td1\t1\nq2\td2\t1\nq3\td3\t1\n", "qrels/test.tsv"),
        ("query_id doc_id relevance\nq1 d1 1\nq2 d2 1\nq3 d3 1\n", "qrels/test.tsv"),
        ("corpus-id\tquery-id\tscore\nd1\tq1\t1\nd2\tq2\t1\nd3\tq3\t1\n", "qrels/test.tsv"),
        ("qid\tQ0\tdocno\trel\nq1\t0\td1\t1\nq2\t0\td2\t1.0\nq3\t0\td3\t1\n", "qrels.tsv"),
        (QRELS + "q1\td1\t1\n\n", "qrels/test.tsv"),
        (QRELS, "qrels/dev.tsv"),
    ],
)
def test_qrels_in_every_way_of_writing_them(tmp_path, qrels, file):
    task, told = scored(write_task(tmp_path / "task", qrels=qrels, file=file))
    assert mean(task) == 1.0
    assert len(told) == ("dev" in file)


def test_a_grade_of_hundreds_of_digits_is_told_with_its_line(tmp_path):
    path = tmp_path / "qrels.jsonl"
    path.write_text('{"query_id": "q1", "doc_id": "d1", "rel": ' + "9" * 400 + "}\n")
    with pytest.raises(DataError, match=r"qrels\.jsonl:1: relevance .* is not between"):
        list(read_judgements(path))


def test_the_split_of_a_folder_can_be_named(tmp_path):
    folder = write_task(tmp_path / "task")
    (folder / "en" / "qrels" / "dev.tsv").write_text(QRELS.replace("q1\td1", "q1\td4"))
    assert load_task(f"{folder}:dev").qrels["eng"]["q1"] == {"d4": 1}
    assert load_task(str(folder)).qrels["eng"]["q1"] == {"d1": 1}


def test_judged_passages_that_are_not_there_count_and_are_never_found(tmp_path):
    folder = write_task(tmp_path / "task", qrels=QRELS + "q2\td99\t1\n")
    task, told = scored(folder)
    run = {"q2": {"d2": 2.0, "d1": 1.0, "d3": 0.5, "d4": 0.1}}
    wanted = {"map", "ndcg_cut_10", "recall_10", "recip_rank"}
    expected = pytrec_eval.RelevanceEvaluator({"q2": {"d2": 1, "d99": 1}}, wanted).evaluate(run)
    assert expected["q2"]["map"] == 0.5
    assert mean(task) == pytest.approx((2 + expected["q2"]["map"]) / 3)
    assert mean(task, "ndcg@10") == pytest.approx((2 + expected["q2"]["ndcg_cut_10"]) / 3)
    assert mean(task, "recall@10") == pytest.approx((2 + expected["q2"]["recall_10"]) / 3)
    assert "1 passage ids that are not in the corpus (first: 'd99')" in told[0]


def test_a_query_whose_answer_is_not_there_scores_nothing(tmp_path):
    qrels = QRELS.replace("q2\td2", "q2\td99")
    task, _ = scored(write_task(tmp_path / "task", qrels=qrels))
    assert mean(task) == pytest.approx(2 / 3, abs=1e-15)
    assert mean(task, "MRR") == pytest.approx(2 / 3, abs=1e-15)


def test_an_empty_passage_ranks_somewhere(tmp_path, tiny_model):
    folder = write_task(tmp_path / "task", passages=PASSAGES | {"d4": ""})
    assert mean(scored(folder)[0]) == 1.0
    config = EvalConfig(model=str(tiny_model), tasks=(str(folder),), out=tmp_path / "tiny",
                        cache=tmp_path / "cache", device="cpu")  # fmt: skip
    (task,) = read_json(evaluate(config) / "eval.json")["tasks"]
    assert 0 < mean(task) <= 1


def test_queries_without_judgements_are_left_out_and_counted(tmp_path):
    queries = QUERIES | {"q4": "what is made of steel"}
    task, told = scored(
        write_task(tmp_path / "task", queries=queries, qrels=QRELS + "q4\td4\t0\n")
    )
    assert mean(task) == 1.0
    assert task["counts"]["queries"] == {"eng": 3}
    assert "1 of 4 queries have no relevant passage and are left out (first: 'q4')" in told[0]
    assert task["notes"] == told


def test_the_passage_with_the_query_s_id_is_ignored_if_asked(tmp_path):
    passages = PASSAGES | {"q1": QUERIES["q1"]}
    folder = write_task(tmp_path / "task", passages=passages)
    assert mean(scored(folder)[0]) == pytest.approx((0.5 + 1 + 1) / 3)
    assert mean(scored(folder, ignore_identical_ids=True)[0]) == 1.0


def test_identical_ids_are_ignored_in_rankings_and_searches_alike(tmp_path, tiny_model):
    passages = {f"q{n}": f"text number {n} of the corpus" for n in range(1, 30)}
    queries = {f"q{n}": f"text number {n}" for n in range(1, 10)}
    qrels = "".join(f"q{n} 0 q{n + 9} 1\n" for n in range(1, 10)) + "q1 0 q1 1\n"
    folder = write_task(tmp_path / "task", passages=passages, queries=queries, qrels=qrels)
    found = []
    for index in ("auto", "exact"):
        config = EvalConfig(model=str(tiny_model), tasks=(str(folder),), out=tmp_path / index,
                            index=index, depth=28, cutoffs=(1, 10), ignore_identical_ids=True,
                            cache=tmp_path / "cache", device="cpu")  # fmt: skip
        (task,) = read_json(evaluate(config) / "eval.json")["tasks"]
        found.append([mean(task, name) for name in ("ndcg@10", "recall@10")])
    assert found[0] == pytest.approx(found[1])

    def embed(texts: Any, side: str) -> np.ndarray:
        numbers = [int(text.split()[2]) for text in texts]
        return np.array([[np.cos(n / 9), np.sin(n / 9)] for n in numbers])

    (scores,) = rankings_of(load_task(str(folder)), embed)
    run = {}
    for query, vector in zip(queries, embed(list(queries.values()), "query"), strict=True):
        every = zip(passages, embed(list(passages.values()), "passage") @ vector, strict=True)
        run[query] = {key: float(np.float32(score)) for key, score in every if key != query}
    judged: dict[str, dict[str, int]] = {}
    for query, passage, grade in read_judgements(folder / "en" / "qrels" / "test.tsv"):
        judged.setdefault(query, {})[passage] = grade
    expected = pytrec_eval.RelevanceEvaluator(judged, {"map"}).evaluate(run)
    assert scores.metrics["average_precision"] == pytest.approx(
        [expected[query]["map"] for query in scores.query_ids], abs=1e-6
    )


def rankings_of(task: Any, embed: Any) -> list[Any]:
    from hybridbatch.scoring.full_ranking import score_rankings
    from hybridbatch.scoring.rankers import EmbeddingRanker

    ranker = EmbeddingRanker(task, embed, "cpu")
    return list(score_rankings(task, ranker, cutoffs=(1,), ignore_identical=True))


def test_empty_passages_are_counted(tmp_path):
    folder = write_task(tmp_path / "task", passages=PASSAGES | {"d5": "", "d6": " "})
    (note,) = load_task(str(folder)).notes
    assert "2 of 6 passages of eng are empty" in note


def test_a_corpus_whose_texts_have_another_key_is_refused(tmp_path):
    folder = write_task(tmp_path / "task")
    (folder / "en" / "corpus.jsonl").write_text('{"_id": "d1", "contents": "The old mill."}\n')
    with pytest.raises(DataError, match=r"corpus\.jsonl:1: has no 'text' \(its keys: _id, con"):
        load_task(str(folder))


# Parallel or not


def write_languages(folder: Path, other: dict[str, str], other_queries: dict[str, str]) -> Path:
    english = {f"{n}": "word " * (1 + n * 7 % 23) + f"{n}" for n in range(60)}
    queries = {f"{n}": "ask " * (1 + n * 5 % 13) + f"{n}" for n in range(60)}
    qrels = "".join(f"{n} 0 {n} 1\n" for n in range(60))
    write_task(folder, passages=english, queries=queries, qrels=qrels)
    return write_task(folder, passages=other, queries=other_queries, qrels=qrels, language="sw")


def test_languages_that_share_running_numbers_alone_are_not_scored_together(tmp_path):
    generator = np.random.default_rng(5)
    lengths = generator.integers(1, 25, (2, 60))
    other = {f"{n}": "neno " * int(lengths[0, n]) + f"{n}" for n in range(60)}
    queries = {f"{n}": "uliza " * int(lengths[1, n]) + f"{n}" for n in range(60)}
    folder = write_languages(tmp_path / "task", other, queries)
    with pytest.raises(ConfigError, match=r"share the ids of 120 texts.*--parallel no"):
        load_task(str(folder))
    apart, _ = scored(folder, parallel="no")
    assert set(apart["settings"]) == {"monolingual"}
    together, _ = scored(folder, parallel="yes")
    assert {"monolingual", "cross-lingual", "multilingual"} <= set(together["settings"])


def test_languages_whose_lengths_go_together_are_parallel(tmp_path):
    other = {f"{n}": "maneno " * (1 + n * 7 % 23) + f"{n}" for n in range(60)}
    queries = {f"{n}": "uliza " * (1 + n * 5 % 13) + f"{n}" for n in range(60)}
    task = load_task(str(write_languages(tmp_path / "task", other, queries)))
    assert task.parallel
    assert task.notes == ()


def write_flat(folder: Path, other: dict[str, str]) -> Path:
    """Questions with ids of their own, passages that are numbered alike, and shared judgements."""
    english = {f"{n}": "word " * (1 + n * 7 % 23) + f"{n}" for n in range(60)}
    folder.mkdir()
    judged = []
    for code, passages in (("en", english), ("sw", other)):
        queries = {f"{code}-{n}": f"ask {n}" for n in range(60)}
        judged += [{"query_id": key, "doc_id": key[3:], "rel": 1} for key in queries]
        for kind, texts in (("queries", queries), ("corpus", passages)):
            rows = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
            (folder / f"{kind}.{code}.jsonl").write_text("\n".join(rows))
    (folder / "qrels.jsonl").write_text("\n".join(map(json.dumps, judged)))
    return folder


def test_passages_that_share_running_numbers_alone_are_not_scored_together(tmp_path):
    lengths = np.random.default_rng(5).integers(1, 25, 60)
    other = {f"{n}": "neno " * int(lengths[n]) + f"{n}" for n in range(60)}
    folder = write_flat(tmp_path / "task", other)
    with pytest.raises(ConfigError, match=r"share the ids of 60 texts.*--parallel no"):
        load_task(str(folder))
    assert not load_task(str(folder), parallel="no").parallel
    alike = {f"{n}": "maneno " * (1 + n * 7 % 23) + f"{n}" for n in range(60)}
    assert load_task(str(write_flat(tmp_path / "alike", alike))).notes == ()


def test_prepared_rows_of_the_user_are_checked_and_those_of_built_in_sources_are_not(tmp_path):
    lengths = np.random.default_rng(5).integers(1, 25, (2, 60, 2))
    for source in ("mine", "ntrex"):
        rows = []
        for at, code in enumerate(("eng", "swh")):
            for n in range(60):
                query, passage = (f"{code} {n} " + "word " * size for size in lengths[at, n])
                rows.append(Row(source, f"{n}", code, query, passage, (), "test"))
        write_store(tmp_path / source, rows, provenance={})
    with pytest.raises(ConfigError, match=r"share the ids of 120 texts.*--parallel no"):
        load_task(str(tmp_path / "mine"))
    assert load_task(str(tmp_path / "ntrex")).parallel
    for source in ("mine", "ntrex"):
        assert not load_task(str(tmp_path / source), parallel="no").parallel


def test_texts_of_one_length_are_told_to_have_no_check(tmp_path):
    texts = {f"{n}": f"same length {n:02}" for n in range(60)}
    qrels = "".join(f"{n} 0 {n} 1\n" for n in range(60))
    for code in ("en", "sw"):
        write_task(tmp_path / "task", passages=texts, queries=texts, qrels=qrels, language=code)
    (note,) = load_task(str(tmp_path / "task")).notes
    assert "the lengths of the 120 texts of eng and swh with equal ids hardly differ" in note


def test_too_few_texts_to_check_are_told(tmp_path):
    folder = write_task(tmp_path / "task")
    write_task(folder, language="sw")
    assert "give --parallel no" in load_task(str(folder)).notes[0]
    assert load_task(str(folder), parallel="yes").notes == ()


# Prepared data


def test_the_test_split_of_prepared_data_is_a_task(tmp_path):
    def row(record: str, language: str, query: str, passage: str | None, split: str) -> Row:
        return Row("mine", record, language, query, passage, (), split)  # type: ignore[arg-type]

    rows = [
        row("a", "eng", "where is the mill", "The mill is by the river.", "test"),
        row("a", "swh", "kinu kiko wapi", "Kinu kiko mtoni.", "test"),
        row("a#2", "eng", "where is the mill", "Go north.", "test"),
        row("a#2", "swh", "kinu kiko wapi", None, "test"),
        row("b", "eng", "when is the harvest", "In summer.", "test"),
        row("c", "eng", "when do we reap", "In summer.", "test"),
        row("d", "eng", "who", "Nobody.", "train"),
    ]
    write_store(tmp_path / "mine", rows, provenance={})
    task = load_task(str(tmp_path / "mine"))
    assert set(task.queries["eng"].texts) == {
        "where is the mill", "when is the harvest", "when do we reap",
    }  # fmt: skip
    assert set(task.corpus["eng"].texts) == {
        "The mill is by the river.", "Go north.", "In summer.",
    }  # fmt: skip
    text_of = {
        name: dict(zip(texts.ids, texts.texts, strict=True))
        for name, texts in task.corpus.items()
    }
    answers = {}
    for key, query in zip(task.queries["eng"].ids, task.queries["eng"].texts, strict=True):
        answers[query] = {text_of["eng"][passage] for passage in task.qrels["eng"][key]}
    assert answers == {
        "where is the mill": {"The mill is by the river.", "Go north."},
        "when is the harvest": {"In summer."},
        "when do we reap": {"In summer."},
    }
    (swahili,) = task.queries["swh"].ids
    assert swahili in task.qrels["eng"]
    assert {text_of["swh"][passage] for passage in task.qrels["swh"][swahili]} == {
        "Kinu kiko mtoni.",
    }  # fmt: skip
    with pytest.raises(DataError, match="no validation split; it has train, test"):
        load_task(f"{tmp_path / 'mine'}:validation")
    config = EvalConfig(model="bm25", tasks=(str(tmp_path / "mine"),), out=tmp_path / "out")
    (scores,) = read_json(evaluate(config) / "eval.json")["tasks"]
    assert set(scores["settings"]) == {"monolingual", "cross-lingual", "multilingual"}
