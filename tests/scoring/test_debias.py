"""Language vectors from texts, and evaluations with them."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import read_json
from hybridbatch.debias import methods
from hybridbatch.debias.vectors_file import FACTS, read_vectors
from hybridbatch.model import Encoder
from hybridbatch.scoring.debias import estimate, texts_by_side
from hybridbatch.scoring.debias_settings import DebiasConfig
from hybridbatch.scoring.debias_texts import read_texts_by_language
from hybridbatch.scoring.evaluate import evaluate
from hybridbatch.scoring.settings import EvalConfig
from tests.helpers.recording import RecordingReporter as Recorder

WORDS = {
    "eng": ["river", "stone", "bread", "window", "letter", "morning", "garden", "bottle"],
    "deu": ["fluss", "stein", "brot", "fenster", "brief", "morgen", "garten", "flasche"],
    "swh": ["mto", "jiwe", "mkate", "dirisha", "barua", "asubuhi", "bustani", "chupa"],
}


def write_task(folder: Path, count: int = 24) -> Path:
    """A BEIR folder in three languages: each passage is four words, each question two of them."""
    for language, words in WORDS.items():
        (folder / language / "qrels").mkdir(parents=True)
        corpus, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
        for number in range(count):
            rng = np.random.default_rng(number)
            chosen = [words[place] for place in rng.integers(0, len(words), 4)]
            corpus.append({"_id": f"d{number}", "text": f"{' '.join(chosen)} {number}"})
            queries.append({"_id": f"q{number}", "text": f"{' '.join(chosen[:2])} {number}"})
            qrels.append(f"q{number}\td{number}\t1")
        for name, rows in (("corpus", corpus), ("queries", queries)):
            lines = "\n".join(json.dumps(row) for row in rows)
            (folder / language / f"{name}.jsonl").write_text(lines)
        (folder / language / "qrels" / "test.tsv").write_text("\n".join(qrels))
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    return write_task(tmp_path_factory.mktemp("task") / "words")


def config(tiny_model: Path, tmp_path: Path, task: Path, **settings) -> DebiasConfig:
    return DebiasConfig(
        model=str(tiny_model),
        text=(str(task),),
        out=tmp_path / "vectors",
        cache=tmp_path / "cache",
        **settings,
    )


def cell(folder: Path, metric: str, query_language: str, corpus_language: str) -> float:
    """A score of one language pair."""
    pairs = read_json(folder / "eval.json")["tasks"][0]["pairs"]
    row = pairs["query_languages"].index(query_language)
    return pairs["metrics"][metric][row][pairs["corpus_languages"].index(corpus_language)]


def test_means_are_those_of_the_encoded_texts(tiny_model, tmp_path, task):
    folder = estimate(config(tiny_model, tmp_path, task, shrink=False, together=False))
    vectors = read_vectors(folder)
    encoder = Encoder.load(str(tiny_model))
    for language in WORDS:
        for side, name in (("passage", "corpus"), ("query", "queries")):
            rows = (task / language / f"{name}.jsonl").read_text().splitlines()
            encoded = encoder.encode([json.loads(row)["text"] for row in rows], side)
            np.testing.assert_allclose(
                vectors.sides[side].offsets[language], encoded.mean(axis=0), atol=1e-5
            )
    facts = read_json(folder / FACTS)
    assert facts["model"]["fingerprint"] == encoder.fingerprint()
    assert facts["method"] == {
        "name": "centre", "scope": "language", "shrink": False, "together": False,
    }  # fmt: skip
    assert facts["texts"]["passage"] == dict.fromkeys(sorted(WORDS), 24)
    assert facts["sources"] == {"passage": "words", "query": "words"}


def test_together_gives_both_sides_one_map_in_which_they_weigh_the_same(
    tiny_model, tmp_path, task
):
    apart = read_vectors(
        estimate(config(tiny_model, tmp_path, task, shrink=False, together=False))
    )
    both = read_vectors(estimate(config(tiny_model, tmp_path, task, shrink=False)))
    assert both.facts["method"]["together"]
    np.testing.assert_array_equal(
        both.sides["query"].offsets["swh"], both.sides["passage"].offsets["swh"]
    )
    half = [apart.sides[side].offsets["swh"] for side in ("query", "passage")]
    np.testing.assert_allclose(
        both.sides["query"].offsets["swh"], np.mean(half, axis=0), atol=1e-6
    )


@pytest.mark.parametrize("method", ["lir", "lsar", "shift", "whiten"])
def test_every_method_can_be_estimated_and_evaluated(tiny_model, tmp_path, task, method):
    folder = estimate(config(tiny_model, tmp_path, task, method=method))
    done = evaluate(
        EvalConfig(
            model=str(tiny_model), tasks=(str(task),), debias=folder, cache=tmp_path / "cache",
            out=tmp_path / "eval",
        )
    )  # fmt: skip
    debias = read_json(done / "eval.json")["model"]["debias"]
    assert debias["method"]["name"] == method


def test_an_evaluation_scores_the_debiased_vectors(tiny_model, tmp_path, task):
    """Against vectors that are turned by hand."""
    folder = estimate(config(tiny_model, tmp_path, task))
    done = evaluate(
        EvalConfig(
            model=str(tiny_model), tasks=(str(task),), debias=folder, cache=tmp_path / "cache",
            out=tmp_path / "eval",
        )
    )  # fmt: skip
    encoder = Encoder.load(str(tiny_model))

    def turned(side: str, name: str, language: str) -> np.ndarray:
        rows = (task / language / f"{name}.jsonl").read_text().splitlines()
        encoded = encoder.encode([json.loads(row)["text"] for row in rows], side)
        offset = read_vectors(folder).sides[side].offsets[language]
        return methods.unit_rows(encoded - offset)

    scores = turned("query", "queries", "deu") @ turned("passage", "corpus", "swh").T
    own = np.diagonal(scores)
    ranks = (scores >= own[:, None]).sum(axis=1)
    assert cell(done, "mAP", "deu", "swh") == pytest.approx((1 / ranks).mean(), abs=1e-6)


@pytest.mark.parametrize("index", ["exact", "flat"])
def test_searching_stored_vectors_gives_the_ranking_of_the_whole(
    tiny_model, tmp_path, task, index
):
    folder = estimate(config(tiny_model, tmp_path, task))
    shared = {
        "model": str(tiny_model), "tasks": (str(task),), "debias": folder,
        "cache": tmp_path / "cache", "cutoffs": (1, 10),
    }  # fmt: skip
    whole = evaluate(EvalConfig(**shared, out=tmp_path / "a"))
    searched = evaluate(EvalConfig(**shared, out=tmp_path / "b", index=index, depth=72))
    for query_language in WORDS:
        for corpus_language in WORDS:
            wanted = cell(whole, "ndcg@10", query_language, corpus_language)
            assert cell(searched, "ndcg@10", query_language, corpus_language) == pytest.approx(
                wanted, abs=1e-6
            )


def test_a_language_without_text_is_told(tiny_model, tmp_path, task):
    for language in ("eng", "deu"):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / f"{language}.txt").write_text("\n".join(WORDS[language]))
    folder = estimate(config(tiny_model, tmp_path, tmp_path / "text"))
    recorder = Recorder()
    evaluate(
        EvalConfig(
            model=str(tiny_model), tasks=(str(task),), debias=folder, cache=tmp_path / "cache",
            out=tmp_path / "eval",
        ),
        recorder,
    )  # fmt: skip
    assert any("no text of swh" in text for text in recorder.warnings)


def test_vectors_of_another_model_and_bm25_are_refused(tiny_model, tmp_path, task):
    folder = estimate(config(tiny_model, tmp_path, task))
    other = {"tasks": (str(task),), "debias": folder, "cache": tmp_path / "cache"}
    with pytest.raises(DataError, match="estimate them with"):
        evaluate(EvalConfig(model=str(tiny_model), query_prompt="ask: ", **other))
    with pytest.raises(ConfigError, match="no embeddings"):
        evaluate(EvalConfig(model="bm25", **other))


@pytest.mark.parametrize("estimated", ["texts", "passages"])
def test_without_queries_their_vectors_are_estimated_from_the_texts(
    tiny_model, tmp_path, estimated
):
    (tmp_path / "text").mkdir()
    for language, words in WORDS.items():
        (tmp_path / "text" / f"{language}.txt").write_text("\n".join(words))
    folder = estimate(
        config(
            tiny_model, tmp_path, tmp_path / "text", query_estimate=estimated, shrink=False,
            together=False,
        )
    )  # fmt: skip
    vectors = read_vectors(folder)
    side = "query" if estimated == "texts" else "passage"
    encoded = Encoder.load(str(tiny_model)).encode(WORDS["swh"], side)
    np.testing.assert_allclose(
        vectors.sides["query"].offsets["swh"], encoded.mean(axis=0), atol=1e-5
    )
    assert vectors.facts["sources"]["query"].startswith("no queries")


def test_a_language_without_queries_lies_as_far_from_its_passages_as_the_others(
    tiny_model, tmp_path, task
):
    """Nothing is encoded for it; other methods encode its passages as queries."""
    for language in ("eng", "deu"):
        lines = (task / language / "queries.jsonl").read_text()
        (tmp_path / "asked").mkdir(exist_ok=True)
        (tmp_path / "asked" / f"{language}.jsonl").write_text(lines)
    given = {"queries": (str(tmp_path / "asked"),), "shrink": False}
    vectors = read_vectors(
        estimate(config(tiny_model, tmp_path, task, **given, together=False))
    )
    query, passage = (vectors.sides[side].offsets for side in ("query", "passage"))
    away = np.mean([query[name] - passage[name] for name in ("eng", "deu")], axis=0)
    np.testing.assert_allclose(query["swh"], passage["swh"] + away, atol=1e-6)
    assert "swh" not in vectors.facts["texts"]["query"]
    assert "swh: passages, moved by the mean difference" in vectors.facts["sources"]["query"]
    assert not vectors.borrowed("query", ["swh"])
    other = read_vectors(estimate(config(tiny_model, tmp_path, task, **given, method="lir")))
    assert "swh: passages, encoded as queries" in other.facts["sources"]["query"]
    assert other.facts["texts"]["query"]["swh"] == 24


def test_texts_are_read_from_every_form(tmp_path, task):
    assert {name: len(texts) for name, texts in read_texts_by_language(task, "query").texts.items()} == {
        "eng": 24, "deu": 24, "swh": 24,
    }  # fmt: skip
    flat = tmp_path / "flat"
    flat.mkdir()
    with gzip.open(flat / "corpus.sw.jsonl.gz", "wt") as file:
        file.write('{"id": 1, "title": "Habari", "text": "za leo"}\n')
    assert read_texts_by_language(flat, "passage").texts == {"swh": ["Habari za leo"]}
    table = tmp_path / "corpus.tsv"
    table.write_text("id\tlang\ttext\n1\tsw\thabari\n2\ten\thello\n3\txx-bad\twhat\n4\ten\t\n")
    recorder = Recorder()
    assert read_texts_by_language(table, "passage", recorder).texts == {
        "swh": ["habari"], "eng": ["hello"],
    }  # fmt: skip
    told = " ".join(recorder.warnings)
    assert "unknown language 'xx-bad' (the first: corpus.tsv:4)" in told
    assert "no text in any of" in told


def test_a_folder_named_by_a_language_holds_texts_of_this_language(tmp_path):
    for name, text in (("eng/a.txt", "hello"), ("eng/b.jsonl", '{"text": "there"}'),
                       ("sw/notes.txt", "habari")):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    texts = {"eng": ["hello", "there"], "swh": ["habari"]}
    assert read_texts_by_language(tmp_path, "passage").texts == texts


def test_a_row_that_is_no_json_is_told_with_its_line(tmp_path):
    file = tmp_path / "eng.jsonl"
    file.write_text('{"text": "a", "lang": "eng"}\n{broken\n')
    recorder = Recorder()
    read_texts_by_language(file, "passage", recorder)
    assert "(the first: eng.jsonl:2)" in " ".join(recorder.warnings)


def test_queries_that_are_not_there_are_named_as_queries(tiny_model, tmp_path, task):
    with pytest.raises(ConfigError, match="queries = 'nope'"):
        texts_by_side(config(tiny_model, tmp_path, task, queries=("nope",)))


def test_a_file_without_languages_is_identified(tmp_path):
    file = tmp_path / "corpus.jsonl"
    texts = [
        "The river runs through the old town and under three bridges.",
        "Der Fluss fließt durch die alte Stadt und unter drei Brücken hindurch.",
        "ok",
    ]
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    recorder = Recorder()
    found = read_texts_by_language(file, "passage", recorder)
    assert found.texts == {"eng": [texts[0]], "deu": [texts[1]]}
    assert "too short" in " ".join(recorder.warnings)
    assert "identified" in " ".join(recorder.notes)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: None, "does not exist"),
        (lambda p: p.mkdir(), "holds no texts"),
        (lambda p: (p.mkdir(), (p / "blorp.txt").write_text("x")), "name it by its language"),
        (lambda p: (p / "blorp").mkdir(parents=True), "holds no texts"),
        (lambda p: ((p / "blorp").mkdir(parents=True), (p / "blorp" / "a.txt").write_text("x")),
         "blorp: unknown language"),
        (lambda p: (p.mkdir(), (p / "en.txt").write_bytes(b"a\n\xff\n")), "en.txt:2: is not valid UTF-8"),
        (lambda p: (p.mkdir(), (p / "en.jsonl").write_text('{"a": 1}\n')), "no text that can be"),
    ],
)  # fmt: skip
def test_unusable_text_is_one_line(tmp_path, make, said):
    make(tmp_path / "text")
    with pytest.raises(DataError, match=said):
        read_texts_by_language(tmp_path / "text", "passage")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "there is nothing to estimate from"),
        ({"text": ("a",), "vectors": "b.npy"}, "give one of them"),
        ({"text": ("a",), "pivot": "nolang"}, "unknown language"),
        ({"text": ("a",), "languages": "ids.txt"}, "--languages goes with --vectors"),
        ({"text": ("a",), "dimension": 5}, "--dimension goes with --vectors"),
        ({"vectors": "b.npy", "queries": ("q",)}, "--queries goes with --text"),
        ({"vectors": "b.npy", "save_model": "m"}, "--save-model goes with --text"),
        ({"vectors": "b.npy", "debias": "v", "method": "lir"}, "not with --debias"),
        ({"text": ("a",), "rank": 9}, "--rank has no effect with --method centre"),
        ({"text": ("a",), "method": "lir", "scope": "global"}, "--scope has no effect"),
        ({"text": ("a",), "alpha": 2}, "--alpha has no effect"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        DebiasConfig(**settings)
