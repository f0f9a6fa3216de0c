"""Language bias as an evaluation reports it: equal to a passage-by-passage computation, absent
where undefined.
"""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import kruskal

from hybridbatch.common.records import Task
from hybridbatch.scoring.averages import POOL, language_matrices
from hybridbatch.scoring.columns import FIRST, bias_names
from hybridbatch.scoring.full_ranking import score_task
from hybridbatch.scoring.summary import describe
from tests.scoring.test_evaluate import CUTOFFS, embed, parallel_task, ranking

LANGUAGES = ["eng", "swh", "tha"]
ALWAYS = {
    "rank_distance",
    "same_language_share@10",
    "max_rank",
    *FIRST,
    "complete@100",
    "peer@10",
    "peer@100",
}


def pool_scores(task: Task) -> dict:
    scores = score_task(task, embed, cutoffs=CUTOFFS)
    return {each.query_language: each for each in scores if each.corpus_language == POOL}


def one_by_one(order: list, grades: dict, language: str) -> dict[str, float]:
    """The measures of one query, from its whole ranking."""
    ranks = {passage: rank for rank, passage in enumerate(order, 1) if passage in grades}
    own = [rank for (name, _), rank in ranks.items() if name == language]
    other = [rank for (name, _), rank in ranks.items() if name != language]
    gains = {p: g * (1.0 if p[0] == language else 0.5) for p, g in grades.items()}
    ideal = sum(
        g / np.log2(i + 2) for i, g in enumerate(sorted(gains.values(), reverse=True)[:10])
    )
    found = {
        "max_rank": max(ranks.values()),
        "rank_distance": max(ranks.values()) - min(ranks.values()),
        "same_language_share@10": np.mean([name == language for name, _ in order[:10]]),
        "complete@100": float(max(ranks.values()) <= 100),
    }
    if len(ranks) <= 10:
        found["complete@10"] = float(max(ranks.values()) <= 10)
    if own:
        kind = f"first_{'relevant' if order[0] in grades else 'irrelevant'}_"
        found |= {
            name: float(name == kind + ("same" if order[0][0] == language else "other"))
            for name in FIRST
        }
    if own and other:
        found["lpr"] = float(min(own) < min(other))
        found["lang_ndcg@10"] = (
            sum(gains[p] / np.log2(r + 1) for p, r in ranks.items() if r <= 10) / ideal
        )
    if other:
        found |= {f"tlr@{k}": np.mean([rank <= k for rank in other]) for k in (10, 20, 100)}
    for k in (10, 100):
        p = []
        for level in sorted(set(grades.values())):
            groups = [
                [
                    min(ranks[passage], k + 1)
                    for passage in grades
                    if passage[0] == name and grades[passage] == level
                ]
                for name in LANGUAGES
            ]
            groups = [group for group in groups if group]
            tied = len({rank for group in groups for rank in group}) == 1
            p.append(1.0 if len(groups) < 2 or tied else kruskal(*groups).pvalue)
        found[f"peer@{k}"] = float(np.mean(p))
    return found


def shift(task: Task, language: str, question: int, order: list, target: str) -> float:
    """MLRS: the first ten passages become their translations and are sorted again."""
    query = embed([task.queries[language].texts[question]], "query")[0]
    top = order[:10]
    translated = [(target, passage) for _, passage in top]
    score = {
        (name, passage): float(
            query
            @ embed([task.corpus[name].texts[task.corpus[name].ids.index(passage)]], "passage")[
                0
            ]
        )
        for name, passage in set(translated)
    }
    after = sorted(range(10), key=lambda i: (-score[translated[i]], i))
    risen = sum(max(before - new, 0) for new, before in enumerate(after))
    return 100 * risen / sum(range(10))


def test_every_measure_equals_a_computation_passage_by_passage():
    task = parallel_task()
    for language, scores in pool_scores(task).items():
        assert ALWAYS | {"lpr", "lang_ndcg@10", "mlrs@10"} <= set(scores.metrics)
        first_ten, shifts = Counter(), []
        for row, key in enumerate(scores.query_ids):
            order, grades = ranking(task, language, int(key[1:]), LANGUAGES)
            expected = one_by_one(order, grades, language)
            shifts.append(
                [shift(task, language, int(key[1:]), order, target) for target in LANGUAGES]
            )
            expected["mlrs@10"] = shifts[-1][LANGUAGES.index(language)]
            first_ten.update(name for name, _ in order[:10])
            for name in bias_names(CUTOFFS):
                found = scores.metrics.get(name, np.full(len(scores.query_ids), np.nan))[row]
                assert found == pytest.approx(
                    expected.get(name, np.nan), abs=1e-9, nan_ok=True
                ), (
                    language,
                    key,
                    name,
                )
        shares = scores.by_language["language_distribution@10"]
        assert shares == pytest.approx({name: first_ten[name] / 120 for name in LANGUAGES})
        means = dict(zip(LANGUAGES, np.mean(shifts, axis=0), strict=True))
        assert scores.by_language["mlrs@10"] == pytest.approx(means)


def test_a_measure_that_means_nothing_is_absent_and_never_zero():
    task = parallel_task()
    lone = Task(
        "t", task.queries, task.corpus, {"eng": {f"q{i}": {f"d{i}": 1} for i in range(12)}}
    )
    found = pool_scores(lone)
    assert not {
        "rank_distance",
        "max_rank",
        "complete@100",
        "peer@100",
        "lpr",
        "lang_ndcg@10",
    } & set(found["swh"].metrics)
    assert not set(FIRST) & set(found["swh"].metrics)  # no passage in Swahili is relevant
    assert set(FIRST) <= set(found["eng"].metrics)
    assert "same_language_share@10" in found["swh"].metrics


def test_without_shared_ids_there_are_no_translations_and_no_rank_shift():
    task = parallel_task()
    renamed = {
        name: type(texts)(tuple(f"{name}{id_}" for id_ in texts.ids), texts.texts)
        for name, texts in task.corpus.items()
    }
    qrels = {
        name: {q: {f"{name}{d}": g for d, g in r.items()} for q, r in each.items()}
        for name, each in task.qrels.items()
    }
    for scores in pool_scores(Task("t", task.queries, renamed, qrels)).values():
        assert "mlrs@10" not in scores.metrics
        assert "mlrs@10" not in scores.by_language


def test_an_evaluation_describes_the_bias_by_language_and_group():
    task = parallel_task()
    cells = {
        (s.query_language, s.corpus_language): s
        for s in score_task(task, embed, cutoffs=CUTOFFS)
    }
    part = describe(
        task,
        {pair: s.means() for pair, s in cells.items()},
        ["eng"],
        {pair: s.by_language for pair, s in cells.items()},
    )
    bias = part["bias"][POOL]
    assert (bias["query_languages"], bias["corpus_languages"]) == (LANGUAGES, LANGUAGES)
    assert bias["pool_share"] == pytest.approx([1 / 3] * 3)
    matrix = np.array(bias["measures"]["language_distribution@10"])
    assert matrix.sum(axis=1) == pytest.approx([1, 1, 1])
    assert np.diag(matrix) == pytest.approx(
        [cells[n, POOL].means()["same_language_share@10"] for n in LANGUAGES]
    )
    groups = bias["groups"]["language_distribution@10"]["training"]
    assert groups["pool"] == pytest.approx({"trained": 1 / 3, "zero-shot": 2 / 3})
    assert groups["zero-shot"]["zero-shot"] == pytest.approx(matrix[1:, 1:].sum() / 2)
    assert part["settings"]["multilingual"]["metrics"]["lpr"] == pytest.approx(
        np.mean([cells[n, POOL].means()["lpr"] for n in LANGUAGES])
    )


def test_a_task_without_a_pool_has_no_bias():
    assert language_matrices({("eng", "swh"): {}}, {"swh": 3}, {}) == {}
