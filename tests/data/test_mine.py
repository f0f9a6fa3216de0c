"""Mining of hard negatives against a brute-force reference of search and filters, and what a mined
store holds.
"""

import math
import os
import signal
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hybridbatch.cli.app import app
from hybridbatch.common.errors import ConfigError, Interrupted, OutputError
from hybridbatch.common.progress import SILENT
from hybridbatch.common.records import Row
from hybridbatch.common.settings import build
from hybridbatch.data import mine as mining
from hybridbatch.data.hard_negatives import DenseCorpus
from hybridbatch.data.mine import MINED, OUTCOME, mine
from hybridbatch.data.settings import MineConfig
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.search.faiss_index import Tuning
from hybridbatch.training.inputs import Inputs
from hybridbatch.training.settings import TrainConfig
from tests.helpers.recording import RecordingReporter
from tests.helpers.trainers import child_processes

LANGUAGES = ("eng", "swh", "yor")
SUFFIX = {"eng": "", "swh": "wa", "yor": "lo"}
K1, B = 0.9, 0.4


def make_rows(records: int = 36, seed: int = 1) -> list[Row]:
    """Records of two sources with few different words, so that all ties and false negatives occur.

    Some share a passage, up to case, or a question; some rows lack a side; some have negatives.
    """
    rng = np.random.default_rng(seed)
    words = [a + b for a in "bdgklmnr" for b in ("a", "e", "o")]
    rows: list[Row] = []
    for number in range(records):
        source = "alpha" if number % 3 else "beta"
        query, passage = rng.choice(words, 3), rng.choice(words, int(rng.integers(4, 9)))
        for language in LANGUAGES[: 3 if number % 4 else 2]:
            end = SUFFIX[language]
            query_text, passage_text = (
                " ".join(w + end for w in part) for part in (query, passage)
            )
            if number in (5, 6):
                passage_text = rows[0].passage.upper() if language == "eng" else passage_text
            if number in (9, 12):
                query_text = next(
                    row.query
                    for row in rows
                    if row.record_id == "r2" and row.language == language
                )
            rows.append(
                Row(
                    source,
                    f"r{number}",
                    language,
                    None if (number, language) in ((7, "eng"), (8, "swh")) else query_text,
                    None if (number, language) in ((10, "swh"), (11, "eng")) else passage_text,
                    (f"given {number} {language}",) if number % 2 else (),
                    "validation" if number % 6 == 5 else "train",
                )
            )
    return rows


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mine") / "toy"
    write_store(
        folder, make_rows(), provenance={"sources": [{"name": "alpha", "licence": "CC0-1.0"}]}
    )
    return folder


def run(data: Path, out: Path, **changes) -> Store:
    return Store.open(mine(build(MineConfig, None, {"data": str(data), "out": out, **changes})))


def rows_of(store: Store, split: str) -> list[Row]:
    return store.rows(split, np.arange(store.index(split).rows))


def normal(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def bm25(passages: list[str]):
    """(score function, base of scores) over lists of words, by the formula."""
    texts = [passage.casefold().split() for passage in passages]
    mean = sum(map(len, texts)) / len(texts)

    def score(query: str, number: int) -> float:
        total = 0.0
        for word in query.casefold().split():
            df = sum(word in text for text in texts)
            tf = texts[number].count(word)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            total += idf * tf / (tf + K1 * (1 - B + B * len(texts[number]) / mean))
        return total

    return score, lambda query: 0.0


def dense(model: str):
    """The same by cosine, with the query's mean over the passages as the base."""
    encoder = Encoder.load(model)
    encode = cache(lambda query: encoder.encode([query], "query", precision="fp32")[0])
    embedded = cache(lambda passages: encoder.encode(passages, "passage", precision="fp32"))

    def over(passages: list[str]):
        vectors = embedded(tuple(passages))

        return (
            lambda query, number: float(encode(query) @ vectors[number]),
            cache(lambda query: float((vectors @ encode(query)).mean())),
        )

    return over


def groups(rows: list[Row]) -> dict[tuple[str, str], int]:
    """Connected components of records over equal passages, by repeated relabelling."""
    label = {
        key: number
        for number, key in enumerate(dict.fromkeys((row.source, row.record_id) for row in rows))
    }
    by_text = defaultdict(set)
    for row in rows:
        if row.passage:
            by_text[normal(row.passage)].add((row.source, row.record_id))
    changed = True
    while changed:
        changed = False
        for keys in by_text.values():
            least = min(label[key] for key in keys)
            for key in keys:
                changed |= label[key] != least
                label[key] = least
    return label


def expected(
    rows: list[Row], scorer, config: MineConfig
) -> tuple[dict[tuple[str, str, str], list[str]], Counter]:
    """Texts of the negatives of every row, and how many found passages each reason removed. All by
    loops.
    """
    group = groups(rows)
    asks = defaultdict(set)  # question -> groups of the records that have it
    for row in rows:
        if row.query:
            asks[normal(row.query)].add(group[row.source, row.record_id])
    found: dict = {}
    counts: Counter = Counter()
    for row in rows:
        corpus: dict[str, Row] = {}
        for other in rows:
            same = config.corpus == "language" or other.source == row.source
            if other.language == row.language and same and other.passage:
                corpus.setdefault(normal(other.passage), other)
        passages = list(corpus.values())
        if config.query_languages == "own":
            queries = [row.query] if row.query else []
        else:
            queries = [
                one.query
                for one in rows
                if (one.source, one.record_id) == (row.source, row.record_id) and one.query
            ]
        if not passages or not queries:
            found[row.source, row.record_id, row.language] = []
            continue
        score, base = scorer([one.passage for one in passages])
        best: dict[int, tuple[float, float]] = {}
        for query in queries:
            all_scores = [score(query, number) for number in range(len(passages))]
            below = base(query) if config.share_of == "height" else 0.0
            order = sorted(
                range(len(passages)),
                key=lambda number: (-np.float32(all_scores[number]), number),
            )
            for number in order[: config.depth]:
                height = all_scores[number] - below
                known = best.get(number, (-math.inf, -math.inf))
                best[number] = max(known[0], height), max(known[1], all_scores[number])
        positive = None
        if row.passage:
            mine_ = list(corpus).index(normal(row.passage))
            positive = max(
                score(q, mine_) - (base(q) if config.share_of == "height" else 0.0)
                for q in queries
            )
        kept, unknown = [], 0
        for number in sorted(best, key=lambda n: (-np.float32(best[n][0]), n)):
            height, top = best[number]
            theirs = group[passages[number].source, passages[number].record_id]
            if theirs == group[row.source, row.record_id]:
                counts["same record or passage"] += 1
                continue
            if any(theirs in asks[normal(query)] for query in queries):
                counts["same question"] += 1
                continue
            unknown += 1
            if unknown <= config.skip_first:
                counts["among the first ranks"] += 1
            elif config.method == "bm25" and top == 0:
                counts["no word in common"] += 1
            elif (
                config.positive_share is not None
                and positive is not None
                and height >= min(config.positive_share * positive, positive)
            ):
                counts["too close to the positive (share)"] += 1
            elif (
                config.positive_margin is not None
                and positive is not None
                and height >= (positive - config.positive_margin)
            ):
                counts["too close to the positive (margin)"] += 1
            elif positive is None and (
                config.positive_share is not None or config.positive_margin is not None
            ):
                counts["no positive to compare with"] += 1
            elif config.max_score is not None and top >= config.max_score:
                counts["above the greatest score"] += 1
            else:
                kept.append(passages[number].passage)
        found[row.source, row.record_id, row.language] = kept[: config.negatives]
    return found, counts


def check(data: Path, out: Path, scorer, **changes) -> Counter:
    """Compare with the reference in both splits; returns the counts of the reference."""
    config = build(MineConfig, None, {"data": str(data), "out": out, **changes})
    before, after = Store.open(data), run(data, out, **changes)
    after.verify()
    total: Counter = Counter()
    for split in before.splits:
        rows = rows_of(before, split)
        wanted, counts = expected(rows, scorer, config)
        mined = rows_of(after, split)
        assert [(r.source, r.record_id, r.language, r.query, r.passage) for r in mined] == [
            (r.source, r.record_id, r.language, r.query, r.passage) for r in rows
        ]
        for row in mined:
            assert list(row.negatives) == wanted[row.source, row.record_id, row.language], row
        reported: Counter = Counter()
        for one in after.manifest["provenance"][MINED][-1][OUTCOME][split].values():
            reported.update(one["removed"])
        assert reported == counts
        total.update(counts)
    return total


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"corpus": "language", "depth": 9, "skip_first": 1},
        {"positive_share": "none", "negatives": 2, "max_score": 2.0},
        {"positive_share": "none", "positive_margin": 0.7},
        {"positive_share": 0.9, "positive_margin": 1.5},
    ],
)
def test_bm25_finds_what_brute_force_finds(data, tmp_path, changes):
    counts = check(data, tmp_path / "out", bm25, **changes)
    assert counts["same record or passage"] > 0
    assert counts["same question"] > 0
    assert not {"skip_first"} & changes.keys() or counts["among the first ranks"] > 0
    assert "max_score" not in changes or counts["above the greatest score"] > 0
    assert "positive_margin" not in changes or counts["too close to the positive (margin)"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"query_languages": "all", "depth": 11},
        {
            "query_languages": "all",
            "share_of": "score",
            "positive_share": 0.99,
            "corpus": "language",
        },
    ],
)
def test_an_encoder_finds_what_brute_force_finds(data, tmp_path, tiny_model, changes):
    counts = check(
        data, tmp_path / "out", dense(str(tiny_model)), method="dense", model=str(tiny_model), precision="fp32",
        cache=tmp_path / "cache", **changes,
    )  # fmt: skip
    assert counts["too close to the positive (share)"] > 0


@pytest.mark.parametrize("index", ["ivf", "ivfpq"])
def test_an_approximate_index_gives_passages_of_other_records(
    data, tmp_path, tiny_model, index
):
    store = run(data, tmp_path / "out", method="dense", model=str(tiny_model), index=index, cache=tmp_path / "cache",
                corpus="language")  # fmt: skip
    rows = rows_of(store, "train")
    group = groups(rows)
    by_text = {
        (row.language, row.passage): group[row.source, row.record_id]
        for row in rows
        if row.passage
    }
    assert sum(len(row.negatives) for row in rows) > len(rows)
    for row in rows:
        theirs = {by_text[row.language, text] for text in row.negatives}
        assert len(row.negatives) == len(set(map(normal, row.negatives)))
        assert group[row.source, row.record_id] not in theirs


def test_the_recall_of_an_approximate_index_is_measured_on_a_random_sample_told_and_kept(
    tmp_path, tiny_model, monkeypatch
):
    asked = []
    tune = DenseCorpus.tune

    def recorded(self, queries, *arguments):
        asked.extend(queries)
        return tune(self, queries, *arguments)

    monkeypatch.setattr(DenseCorpus, "tune", recorded)
    rows = [row for row in make_rows(400) if row.language == "eng"]
    write_store(tmp_path / "data", rows, provenance={})
    report = RecordingReporter()
    settings = {
        "data": str(tmp_path / "data"), "out": tmp_path / "out", "method": "dense", "model": str(tiny_model),
        "cache": tmp_path / "cache", "index": "ivf", "recall": 0.9, "corpus": "language",
    }  # fmt: skip
    store = Store.open(mine(build(MineConfig, None, settings), report))
    mined = store.manifest["provenance"][MINED][-1]
    assert mined["recall"] == 0.9
    tuning = mined[OUTCOME]["train"]["eng"]["tuning"]["all"]
    assert tuning["wanted"] == 0.9 <= tuning["recall"]
    assert tuning["queries"] == 200
    assert any(note.startswith("train in eng (all): ivf visits") for note in report.notes)
    of_train = [row.query for row in rows if row.split == "train" and row.query]
    places = [of_train.index(query) for query in asked[:200]]
    assert max(places) > 250  # not the first 200


def test_a_recall_that_an_index_does_not_reach_is_warned_of(tmp_path, tiny_model, monkeypatch):
    missed = Tuning("ivf", 3, 3, 0.95, 0.5, 200)
    monkeypatch.setattr(DenseCorpus, "tune", lambda *arguments: missed)
    write_store(tmp_path / "data", make_rows(), provenance={})
    report = RecordingReporter()
    settings = {
        "data": str(tmp_path / "data"), "out": tmp_path / "out", "method": "dense", "model": str(tiny_model),
        "cache": tmp_path / "cache", "index": "ivf", "languages": "eng",
    }  # fmt: skip
    mine(build(MineConfig, None, settings), report)
    expected = f"train in eng (beta): {missed.sentence()}"
    assert expected in report.warnings
    assert "less than 0.95 wanted" in expected


def test_given_negatives_stay_where_they_are_wanted(data, tmp_path):
    given = {
        (r.source, r.record_id, r.language): r.negatives
        for r in rows_of(Store.open(data), "train")
    }
    plain = {
        (r.source, r.record_id, r.language): r.negatives
        for r in rows_of(run(data, tmp_path / "plain"), "train")
    }
    store = run(data, tmp_path / "kept", keep_given=True, languages="eng,swh")
    index = store.index("train")
    for number, row in enumerate(rows_of(store, "train")):
        key = row.source, row.record_id, row.language
        assert row.negatives == given[key] + (plain[key] if row.language != "yor" else ())
        groups = store.negative_groups("train", np.array([number]))[0]
        of_text = {}
        for other, its in enumerate(rows_of(store, "train")):
            of_text[its.passage] = int(index.group[index.record_of(np.array(other))])
        assert groups.tolist() == [-1] * len(given[key]) + [
            of_text[t] for t in row.negatives[len(given[key]) :]
        ]
    again = Store.open(mine(build(MineConfig, None, {"data": str(store.folder), "out": tmp_path / "twice",
                                                     "keep_given": True, "languages": "yor"})))  # fmt: skip
    for before, after in zip(rows_of(store, "train"), rows_of(again, "train"), strict=True):
        if before.language != "yor":
            assert after.negatives == before.negatives
    rows = np.arange(index.rows)[index.language != 2]
    for before, after in zip(
        store.negative_groups("train", rows), again.negative_groups("train", rows), strict=True
    ):
        assert before.tolist() == after.tolist()
    assert len(again.manifest["provenance"][MINED]) == 2


def test_training_knows_which_pairs_mined_negatives_answer(data, tmp_path, tiny_model):
    out = run(data, tmp_path / "mined").folder
    config = TrainConfig(
        data=str(out), model=str(tiny_model), hard_negatives=3, steps=12, batch_size=6, mix=0
    )
    inputs = Inputs.plan(config, Store.open(out), SILENT)
    encoder = Encoder.load(str(tiny_model))
    batches = inputs.batches(encoder, config, SILENT)
    rows = rows_of(inputs.store, "train")
    answered = 0
    # records that share a query or a passage are of one group
    group = inputs.index.group[inputs.index.record_of(np.arange(len(rows)))].tolist()
    for step in range(len(batches)):
        batch = batches[step]
        pairs = inputs.schedule.passage_row[step].tolist()
        groups = {group[row]: number for number, row in enumerate(pairs)}
        of_tokens = {}  # tokens of a passage -> the pairs of groups that have it
        for row, one in zip(rows, group, strict=True):
            if row.passage and one in groups:
                tokens = encoder.tokenise([row.passage], "passage")[0].tobytes()
                of_tokens.setdefault(tokens, set()).add(groups[one])
        for number in range(6, len(batch.passages)):
            able = of_tokens.get(batch.passages[number].tobytes(), {-1})
            assert batch.answers[number] in able
            answered += able != {-1}
    assert answered > 0


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def killed(data: str, out: str, saves: int) -> None:
    """Mine, and kill this process after some languages are saved."""
    save = mining._save

    def then_die(*arguments) -> None:
        nonlocal saves
        save(*arguments)
        saves -= 1
        if not saves:
            os.kill(os.getpid(), signal.SIGKILL)

    mining._save = then_die
    mine(build(MineConfig, None, {"data": data, "out": out}))


def test_a_killed_run_goes_on_and_gives_the_same_bytes(data, tmp_path, monkeypatch):
    before = content(data)
    whole = content(run(data, tmp_path / "whole").folder)
    child = child_processes().Process(target=killed, args=(str(data), str(tmp_path / "cut"), 4))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert not (tmp_path / "cut").exists()
    saved = []
    monkeypatch.setattr(
        mining,
        "_save",
        lambda path, part, save=mining._save: (saved.append(path), save(path, part)),
    )
    assert content(run(data, tmp_path / "cut").folder) == whole
    assert len(saved) == 2 * len(LANGUAGES) - 4
    assert content(data) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "whole"]
    run(data, tmp_path / "cut")
    assert len(saved) == 2


def test_work_that_was_killed_before_it_was_cleared_is_cleared_by_the_next_run(
    data, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(mining.shutil, "rmtree", lambda *_, **__: None)
        run(data, tmp_path / "out")
    assert len(list(tmp_path.glob(".out.*.mining"))) == 1
    run(data, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_of_two_identical_runs_at_once_one_waits(data, tmp_path, monkeypatch):
    whole = content(run(data, tmp_path / "whole").folder)
    waits = threading.Event()
    report = RecordingReporter()
    report.note = lambda text: waits.set() if "waiting for it" in text else None
    config = build(MineConfig, None, {"data": str(data), "out": tmp_path / "both"})
    save = mining._save

    def save_late(*arguments) -> None:
        assert waits.wait(60)
        save(*arguments)

    monkeypatch.setattr(mining, "_save", save_late)
    with ThreadPoolExecutor(2) as pool:
        folders = [each.result() for each in [pool.submit(mine, config, report) for _ in "ab"]]
    assert folders == [tmp_path / "both"] * 2
    assert content(tmp_path / "both") == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both", "whole"]


def test_a_stop_by_the_user_says_how_to_go_on(data, tmp_path, monkeypatch):
    def stop(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mining, "_save", stop)
    with pytest.raises(Interrupted, match="run the same command to go on"):
        run(data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_work_is_said(data, tmp_path):
    with pytest.raises(ConfigError, match="query_languages 'all' needs --method dense"):
        build(MineConfig, None, {"query_languages": "all"})
    with pytest.raises(OutputError, match="holds the data to mine itself"):
        run(data, data)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="holds something other than prepared data"):
        run(data, tmp_path / "taken")
    with pytest.raises(ConfigError, match="xyzzy"):
        run(data, tmp_path / "out", languages="xyzzy")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("mix", [0, 0.5, 1])
def test_mined_data_trains_from_the_command_line(data, tmp_path, tiny_model, mix):
    runner, out = CliRunner(), tmp_path / "mined"
    result = runner.invoke(
        app, ["mine", str(data), "--out", str(out), "--negatives", "3"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert result.stdout.strip().endswith("mined")
    options = {"data": out, "model": tiny_model, "mix": mix, "hard-negatives": 2, "steps": 2, "batch-size": 4,
               "negatives-language": "both", "out": tmp_path / "run", "precision": "fp32"}  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    result = runner.invoke(app, ["train", *words], catch_exceptions=False)
    assert result.exit_code == 0
    assert (tmp_path / "run" / "train.json").is_file()


def test_long_mining_is_announced(data, tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr("hybridbatch.data.mine.LONG", 0.0)
    report = RecordingReporter()
    settings = {"data": str(data), "out": tmp_path / "out", "method": "dense"}
    settings |= {"model": str(tiny_model), "cache": tmp_path / "cache"}
    mine(build(MineConfig, None, settings), report)
    assert any("mining train takes about" in note for note in report.notes)
