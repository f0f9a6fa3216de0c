"""The second stage: windows and answers by hand, cross-encoders against sentence-transformers,
evaluations end to end.
"""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from hybridbatch.common.errors import ModelError
from hybridbatch.common.files import read_json
from hybridbatch.scoring.averages import POOL
from hybridbatch.scoring.compare import compare
from hybridbatch.scoring.evaluate import evaluate, plan
from hybridbatch.scoring.ranks import Ranks
from hybridbatch.scoring.reranking import lists
from hybridbatch.scoring.reranking.models import ListwiseReranker, load_reranker
from hybridbatch.scoring.reranking.stage import reorder
from hybridbatch.scoring.settings import EvalConfig
from tests.helpers.tiny import tiny_tokenizer, write_tiny_model
from tests.scoring.test_evaluate import config_for, write_folder

CPU = torch.device("cpu")


def write_model(
    folder: Path, kind, family: str, *, template: str | None = None, **sizes
) -> Path:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.model_max_length = min(
        tokenizer.model_max_length, sizes["max_position_embeddings"] - 2
    )
    config = AutoConfig.for_model(
        family, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        vocab_size=len(tokenizer), pad_token_id=1, bos_token_id=0, eos_token_id=2, **sizes,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = kind.from_config(config)
    for name, weight in model.named_parameters():
        if "classifier" in name and weight.dim() == 2:
            torch.nn.init.normal_(weight, std=1.0, generator=torch.Generator().manual_seed(1))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rerankers") / "cross"
    return write_model(
        folder,
        AutoModelForSequenceClassification,
        "xlm-roberta",
        num_labels=1,
        max_position_embeddings=66,
    )


@pytest.fixture(scope="module")
def language_model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rerankers") / "lm"
    return write_model(
        folder,
        AutoModelForCausalLM,
        "llama",
        num_key_value_heads=4,
        max_position_embeddings=8192,
    )


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (5, [(0, 5)]),
        (20, [(0, 20)]),
        (40, [(20, 40), (10, 30), (0, 20)]),
        (25, [(5, 25), (0, 15)]),
        (33, [(13, 33), (3, 23), (0, 13)]),
    ],
)
def test_windows_slide_from_the_last_passage_to_the_first(count, expected):
    assert lists.windows(count) == expected


@pytest.mark.parametrize(
    ("answer", "order", "well_formed"),
    [
        ("[3] > [1] > [2] > [4]", [2, 0, 1, 3], True),
        ("Sure! [4]>[2]", [3, 1, 0, 2], False),  # the missing follow in their order
        ("[2] > [2] > [9] > [0] > [1]", [1, 0, 2, 3], False),
        ("3, 1, 2, 4", [2, 0, 1, 3], True),  # without brackets
        ("<think>[1] > [2]? no</think> [4] > [3] > [2] > [1]", [3, 2, 1, 0], True),
        (
            "In 1984 [2] > [1] > [3] > [4]",
            [1, 0, 2, 3],
            True,
        ),  # bracketed numbers win over others
        ("I cannot rank these.", [0, 1, 2, 3], False),
        ("", [0, 1, 2, 3], False),
    ],
)
def test_an_answer_is_read_and_repaired(answer, order, well_formed):
    assert lists.read_answer(answer, 4) == (order, well_formed)


def test_passages_below_the_depth_keep_their_ranks():
    ranked = Ranks(
        np.array([[1, 5, 3], [2, 9, 0]]),
        np.ones((2, 3), np.int64),
        np.arange(3),
        np.array([[7, 8, 9], [4, 5, 6]]),
    )
    moved = reorder(ranked, np.array([[2, 0, 1], [1, 2, 0]]))
    assert moved.ranks.tolist() == [[2, 5, 1], [1, 9, 0]]
    assert moved.top.tolist() == [[9, 7, 8], [5, 6, 4]]


def test_a_cross_encoder_scores_as_sentence_transformers_does(cross_encoder):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    rng = np.random.default_rng(0)
    pairs = [
        tuple("".join(rng.choice(list("ab cd ef"), rng.integers(3, n))) for n in (20, 150))
        for _ in range(40)
    ]
    theirs = sentence_transformers.CrossEncoder(
        str(cross_encoder), device="cpu", activation_fn=torch.nn.Identity()
    )
    expected = theirs.predict(pairs)
    ours = load_reranker(str(cross_encoder), device=CPU, precision="fp32")
    assert ours.kind == "cross-encoder"
    assert ours.score(pairs) == pytest.approx(expected, abs=2e-6)
    assert np.ptp(expected) > 0.01


def test_a_cross_encoder_reads_a_pair_once_and_orders_each_ranking(cross_encoder):
    reranker = load_reranker(str(cross_encoder), device=CPU, precision="fp32")
    queries, passages = ["where", "who"], [f"passage number {i * i}" for i in range(6)]
    tops = {"a": np.array([[0, 1, 2], [-1, -1, -1]]), "b": np.array([[2, 1, 5], [3, 4, 0]])}
    orders = reranker.orders(queries, tops, passages)
    assert reranker.facts()["pairs"] == 7
    for name, top in tops.items():
        for query, rows, order in zip(queries, top, orders[name], strict=True):
            if rows[0] < 0:
                assert order.tolist() == [0, 1, 2]
                continue
            scores = reranker.score([(query, passages[row]) for row in rows])
            assert order.tolist() == sorted(
                range(3), key=lambda i, scores=scores: (-scores[i], i)
            )


def by_relevance(prompts):
    """A perfect reader: the number in a passage says how relevant it is."""
    answers = []
    for text in prompts:
        shown = re.findall(r"^\[(\d+)\] worth (\d+)", text, re.MULTILINE)
        answers.append(
            " > ".join(f"[{n}]" for n, _ in sorted(shown, key=lambda pair: -int(pair[1])))
        )
    return answers


def test_the_best_of_the_first_passages_slide_to_the_top(language_model):
    reranker = load_reranker(str(language_model), device=CPU, precision="fp32")
    assert isinstance(reranker, ListwiseReranker)
    reranker._generate = by_relevance
    rng = np.random.default_rng(2)
    worth = rng.permutation(100)
    passages = [f"worth {n}" for n in worth]
    top = np.stack([rng.permutation(100)[:45], np.full(45, -1)])
    order = reranker.orders(["q", "unjudged"], {"pool": top}, passages)["pool"]
    assert sorted(order[0].tolist()) == list(range(45))
    best = sorted((worth[row] for row in top[0]), reverse=True)
    assert [worth[row] for row in top[0][order[0]]][:10] == best[:10]
    assert order[1].tolist() == list(range(45))
    assert (reranker.windows, reranker.malformed) == (4, 0)


def test_malformed_answers_are_counted_and_change_nothing_they_do_not_say(language_model):
    reranker = load_reranker(str(language_model), device=CPU, precision="fp32")
    reranker._generate = lambda prompts: ["[2]", "no idea", "[3] > [1] > [2]"][: len(prompts)]
    tops = {name: np.array([[0, 1, 2]]) for name in "abc"}
    orders = reranker.orders(["q"], tops, ["x", "y", "z"])
    assert {name: order[0].tolist() for name, order in orders.items()} == {
        "a": [1, 0, 2],
        "b": [0, 1, 2],
        "c": [2, 0, 1],
    }
    facts = reranker.facts()
    assert (facts["windows"], facts["malformed"], facts["unread"]) == (3, 2, 1)


def test_a_language_model_is_asked_with_its_template_and_within_its_positions(tmp_path):
    template = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}{% endfor %}<s>answer:"
    folder = write_model(
        tmp_path / "chat", AutoModelForCausalLM, "llama", num_key_value_heads=4, max_position_embeddings=2600,
        template=template,
    )  # fmt: skip
    reranker = load_reranker(str(folder), device=CPU, precision="fp32")
    seen = []

    def spy(prompts):
        seen.extend(prompts)
        return ListwiseReranker._answers(reranker, prompts)

    reranker._generate = spy
    long = [f"{i} " + "zz qq " * 200 for i in range(25)]
    order = reranker.orders(["why " * 300], {"pool": np.arange(25)[None]}, long)["pool"][0]
    assert sorted(order.tolist()) == list(range(25))
    assert all(text.startswith("<s>user: ") and text.endswith("<s>answer:") for text in seen)
    lengths = [
        len(ids) for ids in reranker._tokenizer(seen, add_special_tokens=False)["input_ids"]
    ]
    assert max(lengths) + reranker._new_tokens <= 2600
    assert reranker.windows == 2
    with pytest.raises(ModelError, match="too few for lists of 20"):
        load_reranker(
            str(write_model(tmp_path / "short", AutoModelForCausalLM, "llama", num_key_value_heads=4, max_position_embeddings=512)),
            device=CPU, precision="fp32",
        )  # fmt: skip


def test_batches_of_prompts_give_the_answers_of_single_ones(language_model):
    reranker = load_reranker(str(language_model), device=CPU, precision="fp32")
    prompts = ["abc " * n for n in (3, 30, 9)]
    assert reranker._answers(prompts) == [reranker._answers([text])[0] for text in prompts]


def test_what_is_no_reranker_is_refused(tiny_model, tmp_path):
    with pytest.raises(ModelError, match="BertModel"):
        load_reranker(str(tiny_model), device=CPU, precision="fp32")
    two = write_model(
        tmp_path / "two",
        AutoModelForSequenceClassification,
        "xlm-roberta",
        num_labels=2,
        max_position_embeddings=66,
    )
    with pytest.raises(ModelError, match="gives 2 numbers"):
        load_reranker(str(two), device=CPU, precision="fp32")
    with pytest.raises(ModelError, match="no such folder"):
        load_reranker(str(tmp_path / "absent"), device=CPU, precision="fp32")


class Notes:
    """A reporter that keeps what it is told."""

    def __init__(self):
        from hybridbatch.common.progress import SILENT

        self.notes, self.warn, self.bar = [], SILENT.warn, SILENT.bar

    def note(self, text):
        self.notes.append(text)


def test_an_evaluation_with_a_second_stage(tiny_model, cross_encoder, tmp_path):
    task = write_folder(tmp_path / "mine")
    config = config_for(
        tiny_model, tmp_path, task, rerank=str(cross_encoder), rerank_depth=5, cutoffs=(1, 5, 6)
    )
    notes = Notes()
    folder = evaluate(config, notes)
    first, second = (
        read_json(folder / "eval.json"),
        read_json(folder / "reranked" / "eval.json"),
    )
    # 3 languages x 6 queries x 4 rankings x 5
    assert any("at most 360 pairs" in note for note in notes.notes)
    assert "reranker" not in first["model"]
    assert second["model"]["reranker"] | {"fingerprint": ""} == {
        "name": str(cross_encoder), "kind": "cross-encoder", "depth": 5, "pairs": second["model"]["reranker"]["pairs"],
        "fingerprint": "",
    }  # fmt: skip
    before, after = (
        pq.read_table(path / "per_query.parquet").to_pylist()
        for path in (folder, folder / "reranked")
    )
    keys = ("task", "setting", "query_language", "corpus_language", "query_id")
    assert [[row[key] for key in keys] for row in before] == [
        [row[key] for key in keys] for row in after
    ]
    assert any(
        a["average_precision"] != b["average_precision"]
        for a, b in zip(before, after, strict=True)
    )
    for a, b in zip(before, after, strict=True):  # the first five stay the first five
        assert a["recall@5"] == b["recall@5"]
        assert a["recall@6"] == b["recall@6"]
        if a["recall@5"] == 0:
            assert a["average_precision"] == b["average_precision"]
    assert {
        row["setting"] for row in compare([folder, folder / "reranked"], draws=50)["rows"]
    } == {
        "monolingual",
        "cross-lingual",
        "multilingual",
    }


def test_a_reranked_cell_equals_scoring_every_passage(tiny_model, cross_encoder, tmp_path):
    """With the depth of the whole corpus, only the cross-encoder decides."""
    task = write_folder(tmp_path / "mine", ("en", "sw"))
    folder = evaluate(
        config_for(tiny_model, tmp_path, task, rerank=str(cross_encoder), rerank_depth=100)
    )
    reranker = load_reranker(str(cross_encoder), device=CPU, precision="fp32")

    def texts(language, name):
        rows = map(json.loads, (task / language / f"{name}.jsonl").read_text().splitlines())
        return {row["_id"]: row["text"] for row in rows}

    for row in pq.read_table(folder / "reranked" / "per_query.parquet").to_pylist():
        query = texts({"eng": "en", "swh": "sw"}[row["query_language"]], "queries")[
            row["query_id"]
        ]
        if row["corpus_language"] == POOL:
            continue
        corpus = texts({"eng": "en", "swh": "sw"}[row["corpus_language"]], "corpus")
        scores = dict(
            zip(
                corpus, reranker.score([(query, text) for text in corpus.values()]), strict=True
            )
        )
        relevant = "d" + row["query_id"][1:]
        rank = 1 + sum(score > scores[relevant] for score in scores.values())
        assert row["reciprocal_rank"] == pytest.approx(1 / rank)


def test_bm25_and_chance_are_evaluated_and_compared_like_encoders(tiny_model, tmp_path):
    task = write_folder(tmp_path / "mine")
    runs = {}
    for model in (str(tiny_model), "bm25", "random"):
        name = Path(model).name
        config = EvalConfig(
            model=model,
            tasks=(str(task),),
            out=tmp_path / name,
            cache=tmp_path / "cache",
            device="cpu",
            precision="fp32",
        )
        runs[name] = evaluate(config)
    for name, folder in runs.items():
        facts = read_json(folder / "eval.json")
        assert set(facts["tasks"][0]["settings"]) == {
            "monolingual",
            "cross-lingual",
            "multilingual",
        }
        assert len(facts["model"]["fingerprint"]) >= 16, name
    bm25 = read_json(runs["bm25"] / "eval.json")
    assert bm25["model"]["precision"] is None
    assert (
        bm25["tasks"][0]["settings"]["monolingual"]["metrics"]["MRR"] > 0.5
    )  # numbers are shared
    assert len(compare(list(runs.values()), draws=50)["rows"]) == 9
    again = EvalConfig(
        model="random",
        tasks=(str(task),),
        out=tmp_path / "again",
        cache=tmp_path / "c2",
        device="cpu",
    )
    assert (evaluate(again) / "per_query.parquet").read_bytes() == (
        runs["random"] / "per_query.parquet"
    ).read_bytes()


def test_the_plan_counts_what_a_second_stage_reads(tmp_path):
    task = write_folder(tmp_path / "mine")
    rows = plan(EvalConfig(tasks=(str(task),), rerank="some/model", rerank_depth=5))
    assert rows[0]["to rerank"] == 3 * 6 * 4 * 5
    assert "to rerank" not in plan(EvalConfig(tasks=(str(task),)))[0]


def test_bm25_has_no_embeddings_for_mteb():
    from hybridbatch.common.errors import ConfigError

    with pytest.raises(ConfigError, match="bm25 has no embeddings"):
        plan(EvalConfig(model="bm25", tasks=("XQuADRetrieval",)))


def test_other_encoders_stand_beside_it(tmp_path):
    """LaBSE's shape: first token, a dense layer with tanh; sentence-transformers itself says what
    is right.
    """
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from hybridbatch.model import Encoder
    from hybridbatch.model.head import Dense, write_head

    folder = write_tiny_model(tmp_path / "labse")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        head = torch.nn.Sequential(Dense(torch.nn.Linear(32, 32), torch.nn.Tanh()))
    write_head(folder, head)
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(
        2,
        {
            "idx": 2,
            "name": "2",
            "path": "2_Dense",
            "type": "sentence_transformers.models.Dense",
        },
    )
    modules[3] |= {"idx": 3, "name": "3", "path": "3_Normalize"}
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {
                "word_embedding_dimension": 32,
                "pooling_mode_cls_token": True,
                "pooling_mode_mean_tokens": False,
            }
        )
    )
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps(
            {
                "prompts": {"query": "query: ", "passage": "passage: "},
                "similarity_fn_name": "cosine",
            }
        )
    )
    texts = ["wo ist das", "it is there", "4 lakes"]
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    ours = Encoder.load(str(folder))
    for side in ("query", "passage"):
        expected = theirs.encode(texts, prompt_name=side)
        assert ours.encode(texts, side, precision="fp32") == pytest.approx(expected, abs=1e-5)
