"""Evaluation: scores equal to brute force and to trec_eval, averages recomputable from the scores
per query.
"""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from hybridbatch.common.errors import ConfigError, DataError, Interrupted
from hybridbatch.common.files import read_json
from hybridbatch.common.records import Task, Texts
from hybridbatch.data.download import sizes
from hybridbatch.scoring import forecast, planning
from hybridbatch.scoring.averages import POOL, grouped, macro_average, setting_of
from hybridbatch.scoring.evaluate import evaluate, plan
from hybridbatch.scoring.full_ranking import score_task
from hybridbatch.scoring.per_query import MEANS, read
from hybridbatch.scoring.planning import trained_languages
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.scoring.summary import summary_rows
from tests.helpers.recording import RecordingReporter

CUTOFFS = (1, 10, 100)
LEVELS = 3  # values per dimension: few, so that scores tie often


def embed(texts, side):
    """Random vectors with many equal scores; equal for equal texts."""
    rows = []
    for text in texts:
        seed = int.from_bytes(hashlib.sha256(f"{side}|{text}".encode()).digest()[:8], "little")
        rows.append(np.random.default_rng(seed).integers(0, LEVELS, 4))
    return np.array(rows, dtype=np.float32)


def parallel_task(
    languages: tuple[str, ...] = ("eng", "swh", "tha"), questions: int = 12, passages: int = 30
) -> Task:
    rng = np.random.default_rng(1)
    queries = {
        lang: Texts(
            tuple(f"q{i}" for i in range(questions)),
            tuple(f"{lang}? {i}" for i in range(questions)),
        )
        for lang in languages
    }
    corpus = {
        lang: Texts(
            tuple(f"d{i}" for i in range(passages)),
            tuple(f"{lang}. {i}" for i in range(passages)),
        )
        for lang in languages
    }
    qrels = {
        lang: {
            f"q{i}": {f"d{j}": int(rng.integers(0, 3)) for j in rng.permutation(passages)[:3]}
            | {f"d{i}": 2}
            for i in range(questions)
        }
        for lang in languages
    }
    qrels.get("tha", {}).pop("q5", None)  # a question without an answer in one language
    return Task("toy", queries, corpus, qrels, provenance={"fingerprint": "f"})


def ranking(
    task: Task, language: str, question: int, corpora: list[str]
) -> tuple[list[tuple[str, str]], dict]:
    """(language, passage id) from first to last, and the grades: all passages sorted one by one."""
    query = embed([task.queries[language].texts[question]], "query")[0]
    scored = []
    for name in corpora:
        vectors = embed(task.corpus[name].texts, "passage")
        scored += [
            (float(query @ v), key, name)
            for key, v in zip(task.corpus[name].ids, vectors, strict=True)
        ]
    scored.sort(reverse=True)
    key = task.queries[language].ids[question]
    grades = {
        (n, d): g
        for n in corpora
        for d, g in task.qrels.get(n, {}).get(key, {}).items()
        if g > 0
    }
    return [(name, passage) for _, passage, name in scored], grades


def brute_force(order: list, grades: dict) -> dict[str, float]:
    hits = [rank for rank, passage in enumerate(order, 1) if passage in grades]
    gains = [
        grades.get(passage, 0) / np.log2(rank + 1) for rank, passage in enumerate(order, 1)
    ]
    ideal = [
        grade / np.log2(rank + 1)
        for rank, grade in enumerate(sorted(grades.values(), reverse=True), 1)
    ]
    return {
        "average_precision": sum(i / rank for i, rank in enumerate(hits, 1)) / len(grades),
        "reciprocal_rank": 1 / hits[0],
        "ndcg@10": sum(gains[:10]) / sum(ideal[:10]),
        **{f"recall@{k}": sum(rank <= k for rank in hits) / len(grades) for k in CUTOFFS},
    }


def test_every_pair_and_the_pool_equal_brute_force_to_1e_9():
    task = parallel_task()
    cells = {
        (s.query_language, s.corpus_language): s
        for s in score_task(task, embed, cutoffs=CUTOFFS)
    }
    assert len(cells) == 3 * 4
    for (language, name), scores in cells.items():
        corpora = list(task.corpus) if name == POOL else [name]
        assert ("q5" in scores.query_ids) == (name != "tha")
        for row, key in enumerate(scores.query_ids):
            order, grades = ranking(task, language, int(key[1:]), corpora)
            expected = brute_force(order, grades)
            if name == POOL:
                ranks = [rank for rank, passage in enumerate(order, 1) if passage in grades]
                expected["rank_distance"] = max(ranks) - min(ranks)
                expected["same_language_share@10"] = np.mean(
                    [n == language for n, _ in order[:10]]
                )
            for metric, value in expected.items():
                assert scores.metrics[metric][row] == pytest.approx(value, abs=1e-9), (
                    language,
                    name,
                    key,
                    metric,
                )


def test_every_pair_and_the_pool_agree_with_trec_eval():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    task = parallel_task()
    measures = {
        "map": "average_precision",
        "recip_rank": "reciprocal_rank",
        "ndcg_cut_10": "ndcg@10",
        "recall_10": "recall@10",
    }
    for scores in score_task(task, embed, cutoffs=CUTOFFS):
        corpora = (
            list(task.corpus) if scores.corpus_language == POOL else [scores.corpus_language]
        )
        qrels, run = {}, {}
        for key in scores.query_ids:
            query = embed([task.queries[scores.query_language].texts[int(key[1:])]], "query")[0]
            run[key], qrels[key] = {}, {}
            for name in corpora:
                vectors = embed(task.corpus[name].texts, "passage")
                run[key] |= {
                    f"{d}\x01{name}": float(query @ v)
                    for d, v in zip(task.corpus[name].ids, vectors, strict=True)
                }
                qrels[key] |= {
                    f"{d}\x01{name}": g for d, g in task.qrels[name].get(key, {}).items()
                }
        theirs = pytrec_eval.RelevanceEvaluator(
            qrels, {"map", "recip_rank", "ndcg_cut.10", "recall.10"}
        ).evaluate(run)
        for row, key in enumerate(scores.query_ids):
            for measure, metric in measures.items():
                assert scores.metrics[metric][row] == pytest.approx(
                    theirs[key][measure], abs=1e-9
                )


def test_all_texts_are_embedded_in_two_calls():
    calls = []
    list(
        score_task(
            parallel_task(),
            lambda texts, side: calls.append(side) or embed(texts, side),
            cutoffs=CUTOFFS,
        )
    )
    assert sorted(calls) == ["passage", "query"]


def test_questions_and_passages_may_be_in_different_languages():
    task = parallel_task(("eng", "swh", "tha", "yor"))
    apart = Task(
        "t",
        {"eng": task.queries["eng"]},
        {n: task.corpus[n] for n in ("swh", "tha")},
        {n: task.qrels[n] for n in ("swh", "tha")},
    )
    cells = {s.corpus_language: s for s in score_task(apart, embed, cutoffs=CUTOFFS)}
    assert set(cells) == {"swh", "tha", POOL}
    assert "same_language_share@10" not in cells[POOL].metrics


def test_bitext_has_cross_lingual_cells_only():
    texts = {lang: Texts(("0", "1"), (f"{lang} a", f"{lang} b")) for lang in ("eng", "swh")}
    task = Task(
        "b",
        texts,
        texts,
        {lang: {k: {k: 1} for k in "01"} for lang in texts},
        parallel=False,
        bitext=True,
    )
    found = {
        (s.query_language, s.corpus_language) for s in score_task(task, embed, cutoffs=CUTOFFS)
    }
    assert found == {("eng", "swh"), ("swh", "eng")}


def test_a_lone_relevant_passage_has_no_rank_distance():
    task = parallel_task(("eng", "swh"))
    lone = Task(
        "t",
        task.queries,
        task.corpus,
        {"eng": {"q0": {"d0": 1}, "q1": {"d1": 1}}, "swh": {"q1": {"d1": 1}}},
    )
    pool = next(
        s for s in score_task(lone, embed, cutoffs=CUTOFFS) if s.corpus_language == POOL
    )
    assert pool.query_ids == ("q0", "q1")
    assert np.isnan(pool.metrics["rank_distance"]).tolist() == [True, False]
    assert pool.means()["rank_distance"] == pool.metrics["rank_distance"][1]


def test_macro_averages_weigh_languages_not_cells():
    cells = {("a", "b"): {"mAP": 1.0}, ("a", "c"): {"mAP": 0.0}, ("b", "c"): {"mAP": 0.2}}
    assert macro_average(cells)["metrics"]["mAP"] == pytest.approx((0.5 + 0.2) / 2)
    assert {
        label: part["cells"]
        for label, part in grouped(cells, {"a": "x", "b": "x", "c": "y"}.get).items()
    } == {
        "x": 1,
        "x-to-y": 2,
    }
    pool = {("a", POOL): {"mAP": 1.0}, ("c", POOL): {"mAP": 0.5}}
    assert {
        label: part["metrics"]["mAP"]
        for label, part in grouped(pool, {"a": "x", "c": "y"}.get).items()
    } == {
        "x": 1.0,
        "y": 0.5,
    }


def write_folder(folder: Path, languages: tuple[str, ...] = ("en", "sw", "de")) -> Path:
    for language in languages:
        place = folder / language
        (place / "qrels").mkdir(parents=True)
        rows = [{"_id": f"q{i}", "text": f"{language} where is {i * 7}"} for i in range(6)]
        (place / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = [{"_id": f"d{i}", "text": f"{language} it is {i * 7} there"} for i in range(9)]
        (place / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (place / "qrels" / "test.tsv").write_text(
            "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(6))
        )
    return folder


@pytest.fixture(scope="module")
def evaluated(tiny_model, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    return evaluate(
        config_for(tiny_model, root, write_folder(root / "mine"), trained_languages="en,de")
    )


def config_for(model: Path, root: Path, task: Path, **settings) -> EvalConfig:
    settings = {
        "out": root / "run",
        "cache": root / "cache",
        "tasks": (str(task),),
        "precision": "fp32",
        **settings,
    }
    return EvalConfig(model=str(model), device="cpu", **settings)


def test_an_evaluation_says_what_was_evaluated(evaluated):
    result = read_json(evaluated / "eval.json")
    assert (result["schema_version"], result["kind"]) == (1, "eval")
    assert result["model"]["trained_languages"] == ["deu", "eng"]
    assert len(result["model"]["fingerprint"]) >= 16
    (task,) = result["tasks"]
    assert task["counts"]["passages"] == {"deu": 9, "eng": 9, "swh": 9}
    assert task["provenance"]["fingerprint"]
    assert set(task["settings"]) == {"monolingual", "cross-lingual", "multilingual"}
    assert {"torch", "python"} <= set(result["versions"])
    assert sorted(p.name for p in evaluated.iterdir()) == ["eval.json", "per_query.parquet"]


def test_all_averages_can_be_recomputed_from_the_scores_per_query(evaluated):
    (task,) = read_json(evaluated / "eval.json")["tasks"]
    table = pq.read_table(evaluated / "per_query.parquet").to_pylist()
    metrics = [name for name in table[0] if "@" in name or name in (*MEANS, "rank_distance")]
    trained = {"eng", "deu"}
    for setting in ("monolingual", "cross-lingual", "multilingual"):
        for group in (
            "all",
            "trained",
            "zero-shot",
            "trained-to-zero-shot",
            "zero-shot-to-trained",
        ):
            cells = defaultdict(list)
            for row in table:
                q, c = row["query_language"], row["corpus_language"]
                assert row["setting"] == setting_of(q, c)
                kinds = [
                    "trained" if lang in trained else "zero-shot"
                    for lang in (q, q if c == "pool" else c)
                ]
                if row["setting"] == setting and group in (
                    "all",
                    kinds[0] if kinds[0] == kinds[1] else "-to-".join(kinds),
                ):
                    cells[q, c].append(row)
            summary = task["settings"][setting]
            part = summary if group == "all" else summary["groups"]["training"].get(group)
            if not cells:
                assert part is None
                continue
            for metric in metrics:
                languages = defaultdict(list)
                for (q, _), rows in cells.items():
                    values = [row[metric] for row in rows if row[metric] is not None]
                    if values:
                        languages[q].append(np.mean(values))
                shown = MEANS.get(metric, metric)
                if languages:
                    expected = np.mean([np.mean(values) for values in languages.values()])
                    assert part["metrics"][shown] == pytest.approx(expected, abs=1e-12)
                else:
                    assert shown not in part["metrics"]


def test_the_pair_matrix_holds_the_mean_of_each_pair(evaluated):
    (task,) = read_json(evaluated / "eval.json")["tasks"]
    pairs = task["pairs"]
    table = read(evaluated, "mAP").to_pylist()
    for i, q in enumerate(pairs["query_languages"]):
        for j, c in enumerate(pairs["corpus_languages"]):
            values = [
                row["value"]
                for row in table
                if (row["query_language"], row["corpus_language"]) == (q, c)
            ]
            assert pairs["metrics"]["mAP"][i][j] == pytest.approx(np.mean(values), abs=1e-12)


def test_the_summary_table_has_the_three_settings_and_the_bias(evaluated):
    rows = summary_rows(read_json(evaluated / "eval.json"))
    assert rows[0]["languages"] == "all"
    assert {"trained", "zero-shot", "trained-to-zero-shot"} <= {
        row["languages"] for row in rows
    }
    assert all(
        0 < rows[0][name] <= 1 for name in ("monolingual", "cross-lingual", "multilingual")
    )
    assert rows[0]["rank distance"] >= 2
    assert len({tuple(row) for row in rows}) == 1


def test_a_second_evaluation_encodes_nothing_and_gives_the_same(
    evaluated, tiny_model, monkeypatch
):
    from hybridbatch.model import Encoder

    def refuse(*args, **kwargs):
        raise AssertionError("encoded again")

    monkeypatch.setattr(Encoder, "encode", refuse)
    root = evaluated.parent
    config = config_for(
        tiny_model, root, root / "mine", trained_languages="en,de", out=root / "again"
    )
    again = read_json(evaluate(config) / "eval.json")
    assert again["tasks"] == read_json(evaluated / "eval.json")["tasks"]


def test_mistakes_leave_the_earlier_evaluation_as_it_was(evaluated, tiny_model, tmp_path):
    before = {path.name: path.read_bytes() for path in evaluated.iterdir()}
    broken = write_folder(tmp_path / "broken")
    (broken / "sw" / "corpus.jsonl").write_text("")
    for settings, error in (
        ({"tasks": (str(broken),)}, DataError),
        ({"languages": "fr"}, ConfigError),
    ):
        with pytest.raises(error):
            evaluate(
                config_for(tiny_model, evaluated.parent, evaluated.parent / "mine", **settings)
            )
    assert {path.name: path.read_bytes() for path in evaluated.iterdir()} == before


def test_an_interruption_leaves_nothing_half_written(tiny_model, tmp_path, monkeypatch):
    from hybridbatch.scoring import evaluate as stage

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "describe", stop)
    with pytest.raises(Interrupted, match="same command"):
        evaluate(config_for(tiny_model, tmp_path, write_folder(tmp_path / "mine")))
    assert list((tmp_path / "run").iterdir()) == []
    assert list((tmp_path / "cache").glob("*/*.keys.npy"))


def test_two_tasks_of_one_name_are_refused(tiny_model, tmp_path):
    folders = [write_folder(tmp_path / part / "mine") for part in "ab"]
    with pytest.raises(ConfigError, match="'mine'"):
        evaluate(config_for(tiny_model, tmp_path, folders[0], tasks=tuple(map(str, folders))))


def test_each_of_several_tasks_is_scored_in_those_of_the_languages_that_it_has(
    tiny_model, tmp_path
):
    one, other = (
        write_folder(tmp_path / "one", ("en", "sw")),
        write_folder(tmp_path / "other", ("en", "de")),
    )

    def config(languages: str, *tasks: Path) -> EvalConfig:
        return config_for(
            tiny_model, tmp_path, one, tasks=tuple(map(str, tasks)), languages=languages
        )

    rows = plan(config("eng,swh,deu", one, other))
    assert [(row["task"], row["query languages"]) for row in rows] == [("one", 2), ("other", 2)]
    result = read_json(evaluate(config("eng,swh", one, other)) / "eval.json")
    spoken = [
        list(task["settings"]["monolingual"]["by_query_language"]) for task in result["tasks"]
    ]
    assert spoken == [["eng", "swh"], ["eng"]]
    for languages, tasks, message in (
        ("eng,fra", (one, other), r"'fra' \(French\) is not in this data, which has 1: eng"),
        ("eng,deu", (one,), r"'deu' \(German\) is not in this data"),
        ("deu", (one, other), "none of the 2 available languages"),
    ):
        with pytest.raises(ConfigError, match=message):
            plan(config(languages, *tasks))


def test_a_plan_says_what_a_task_takes_and_downloads_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sizes, "_listing", lambda name, revision: None)
    here = write_folder(tmp_path / "here", ("en", "sw"))
    names = (str(here), "miracl", "xquad-r")
    rows = plan(config_for(tiny_model, tmp_path, here, tasks=names, languages="all"))
    told = {row["task"]: row for row in rows}
    assert told["here"]["data"] == "here"
    assert told["here"]["time"].endswith(" s")
    assert told["miracl"]["data"] == "to download: 23 GB"
    assert told["miracl"]["passages"] == 106_332_152
    assert told["miracl"]["vectors on disk"] == "14 GB"  # 32 dimensions
    assert told["xquad-r"]["data"] == "to download: 17 MB"
    assert not (tmp_path / "cache").exists()


def test_a_long_evaluation_is_announced(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(planning, "FEW", 0)
    monkeypatch.setattr(forecast, "LONG", 0.0)
    here = write_folder(tmp_path / "here", ("en", "sw"))
    told = RecordingReporter()
    evaluate(config_for(tiny_model, tmp_path, here), told)
    assert any("the evaluation encodes at most" in note for note in told.notes)


def test_trained_languages_come_from_the_settings_or_the_run(tmp_path):
    facts = {"kind": "train", "schema_version": 1, "config": {}}
    trained = json.dumps({**facts, "trained_languages": ["swh", "deu"]})
    (tmp_path / "train.json").write_text(trained)
    assert trained_languages(EvalConfig(model=str(tmp_path))) == ("swh", "deu")
    assert trained_languages(EvalConfig(model=str(tmp_path), trained_languages="en")) == (
        "eng",
    )
    assert trained_languages(EvalConfig(model="e5-small-q4")) == ()
    (tmp_path / "train.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="trained_languages: field required"):
        trained_languages(EvalConfig(model=str(tmp_path)))


def test_reading_scores_names_what_is_wrong(evaluated, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path, "mAP")
    with pytest.raises(DataError, match="recall@10"):
        read(evaluated, "recall@11")
    (tmp_path / "per_query.parquet").write_bytes(
        (evaluated / "per_query.parquet").read_bytes()[:200]
    )
    with pytest.raises(DataError, match="damaged"):
        read(tmp_path, "mAP")


def test_the_pool_of_belebele_sib_has_all_languages(real_data):
    from hybridbatch.data.tasks.registry import load_task

    task = load_task("belebele-sib", data_root=real_data)
    cells = {
        (s.query_language, s.corpus_language): s.means()
        for s in score_task(task, embed, cutoffs=CUTOFFS)
    }
    assert len(cells) == 2 * (205 + 1)
    assert 0 < cells["eng", POOL]["rank_distance"] < 205 * 160
