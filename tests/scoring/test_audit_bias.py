"""An audit of vectors whose bias is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.debias.methods import unit_rows
from hybridbatch.scoring.audit_bias import AS_IS, CENTRED, LEXICAL, PAGE, RESULT, audit
from hybridbatch.scoring.audit_settings import AuditConfig

COUNT, WIDTH = 40, 24
LANGUAGES = ("deu", "eng", "swh")


def write_task(folder: Path, count: int = COUNT) -> Path:
    for name in LANGUAGES:
        (folder / name / "qrels").mkdir(parents=True)
        rows = [{"_id": f"d{row}", "text": f"{name} passage {row}"} for row in range(count)]
        asked = [{"_id": f"q{row}", "text": f"{name} question {row}"} for row in range(count)]
        for kind, lines in (("corpus", rows), ("queries", asked)):
            (folder / name / f"{kind}.jsonl").write_text("\n".join(map(json.dumps, lines)))
        judged = "\n".join(f"q{row}\td{row}\t1" for row in range(count))
        (folder / name / "qrels" / "test.tsv").write_text(
            f"query-id\tcorpus-id\tscore\n{judged}"
        )
    return folder


def write_vectors(folder: Path, away: float) -> Path:
    """German and English lie together, Swahili `away` from them, on both sides."""
    rng = np.random.default_rng(3)
    topic = rng.normal(size=(COUNT, WIDTH))
    shift = away * rng.normal(size=WIDTH)
    folder.mkdir()
    for name in LANGUAGES:
        for kind in ("corpus", "queries"):
            rows = (
                topic + 0.4 * rng.normal(size=(COUNT, WIDTH)) + (shift if name == "swh" else 0)
            )
            np.save(folder / f"{kind}.{name}.npy", unit_rows(rows).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    return write_task(tmp_path_factory.mktemp("audit") / "task")


def test_the_hidden_language_is_named_and_centring_mends_it(tmp_path, task):
    vectors = write_vectors(tmp_path / "biased", 4.0)
    config = AuditConfig(vectors=vectors, task=str(task), out=tmp_path / "out")
    folder, result = audit(config)
    rows = {row["language"]: row for row in result["by_language"]}
    assert rows["swh"][AS_IS]["hidden"]
    assert not rows["deu"][AS_IS]["hidden"]
    assert not rows["swh"][CENTRED]["hidden"]
    assert "hides 1 of 3 languages on task: swh; centring mends it" in result["answer"]
    lines = result["lines"]
    assert lines[CENTRED]["rank_distance"]["mean"] < lines[AS_IS]["rank_distance"]["mean"]
    assert (
        lines[CENTRED]["average_precision"]["mean"] > lines[AS_IS]["average_precision"]["mean"]
    )
    assert lines[AS_IS]["tlr@20"]["low"] <= lines[AS_IS]["tlr@20"]["mean"]
    assert set(lines) == {AS_IS, CENTRED, LEXICAL}
    assert json.loads((folder / RESULT).read_text())["answer"] == result["answer"]
    text = (folder / PAGE).read_text()
    assert "Swahili (swh)" in text
    assert "http" not in text


def test_gaps_are_those_of_the_ranks(tmp_path, task):
    """TLR@20 of Swahili, by hand: German and English queries, ranks in the pool of all."""
    vectors = write_vectors(tmp_path / "biased", 1.0)
    _, result = audit(AuditConfig(vectors=vectors, task=str(task), out=tmp_path / "out"))
    corpus = np.concatenate([np.load(vectors / f"corpus.{name}.npy") for name in LANGUAGES])
    found = []
    for name in ("deu", "eng"):
        scores = np.load(vectors / f"queries.{name}.npy") @ corpus.T
        own = scores[np.arange(COUNT), 2 * COUNT + np.arange(COUNT)]
        found.append((scores > own[:, None]).sum(axis=1) < 20)
    (row,) = [row for row in result["by_language"] if row["language"] == "swh"]
    assert row[AS_IS]["tlr@20"]["mean"] == pytest.approx(np.mean(found))


def test_a_fair_model_hides_nobody(tmp_path, task):
    vectors = write_vectors(tmp_path / "fair", 0.0)
    _, result = audit(AuditConfig(vectors=vectors, task=str(task), out=tmp_path / "out"))
    assert "hides none of 3 languages" in result["answer"]


def test_two_languages_have_measures_but_none_is_told_hidden_or_fair(tmp_path, task):
    vectors = write_vectors(tmp_path / "biased", 4.0)
    config = AuditConfig(
        vectors=vectors, task=str(task), languages="eng,swh", out=tmp_path / "out"
    )
    folder, result = audit(config)
    assert "which of 2 languages is hidden cannot be told" in result["answer"]
    assert "TLR@20" in result["answer"]
    for row in result["by_language"]:
        assert row[AS_IS]["tlr@20"]["mean"] < row[CENTRED]["tlr@20"]["mean"]
        assert "gap" not in row[AS_IS]
        assert "hidden" not in row[AS_IS]
    assert "Swahili (swh)" in (folder / PAGE).read_text()


def test_a_model_is_audited_like_vectors(tiny_model, tmp_path, task):
    config = AuditConfig(
        model=str(tiny_model), task=str(task), out=tmp_path / "out", cache=tmp_path / "cache"
    )
    _, result = audit(config)
    assert result["model"]["fingerprint"]
    assert len(result["by_language"]) == 3


def test_what_cannot_be_audited_is_refused(tmp_path, task):
    vectors = write_vectors(tmp_path / "short", 0.0)
    np.save(vectors / "corpus.deu.npy", np.ones((3, WIDTH), dtype=np.float32))
    with pytest.raises(DataError, match="has 3 vectors, but the task has 40"):
        audit(AuditConfig(vectors=vectors, task=str(task), out=tmp_path / "out"))
    with pytest.raises(ConfigError, match="two languages"):
        audit(
            AuditConfig(vectors=vectors, task=str(task), languages="deu", out=tmp_path / "out")
        )
    for name in LANGUAGES:
        for kind in ("corpus", "queries"):
            np.save(vectors / f"{kind}.{name}.npy", np.ones((1, WIDTH), dtype=np.float32))
    one = write_task(tmp_path / "one", 1)
    with pytest.raises(ConfigError, match=r"one: has one passage .* --debias"):
        audit(AuditConfig(vectors=vectors, task=str(one), out=tmp_path / "out"))
    with pytest.raises(DataError, match="does not exist"):
        audit(AuditConfig(vectors=tmp_path / "no", task=str(task), out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()
