"""The page docs/debias.md, carried out: every command and every line of Python on it works, with a
tiny encoder instead of the default one.
"""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from hybridbatch.cli import console
from hybridbatch.cli.app import app
from hybridbatch.common.errors import ConfigError, HybridBatchError
from hybridbatch.common.files import read_json
from hybridbatch.debias.methods import unit_rows
from hybridbatch.debias.vectors_file import FACTS, TENSORS, read_vectors
from hybridbatch.model import Encoder

PAGE = Path(__file__).parents[2] / "docs" / "debias.md"
WORDS = {
    "eng": ["river", "stone", "bread", "window", "letter", "morning", "garden", "bottle"],
    "swh": ["mto", "jiwe", "mkate", "dirisha", "barua", "asubuhi", "bustani", "chupa"],
    "amh": ["wenz", "dengay", "dabo", "meskot", "debdabe", "tewat", "atikilt", "termus"],
}
COUNT = 24


def write_collection(folder: Path) -> None:
    """The files that the page speaks of, for one user's collection in three languages."""
    rows, codes = [], []
    for language, words in WORDS.items():
        (folder / "my-task" / language / "qrels").mkdir(parents=True)
        corpus, queries = [], []
        for number in range(COUNT):
            chosen = [words[(number + step) % len(words)] for step in (0, 1, 3, 6)]
            corpus.append({"_id": f"d{number}", "text": f"{' '.join(chosen)} {number}"})
            queries.append({"_id": f"q{number}", "text": f"{' '.join(chosen[:2])} {number}"})
        rows += [
            {"id": f"{language}-{r['_id']}", "text": r["text"], "lang": language}
            for r in corpus
        ]
        codes += [language] * COUNT
        inside = folder / "my-task" / language
        write_lines(inside / "corpus.jsonl", corpus)
        write_lines(inside / "queries.jsonl", queries)
        judged = "\n".join(f"q{number}\td{number}\t1" for number in range(COUNT))
        (inside / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
        for name, texts in (("texts", corpus), ("questions", queries)):
            (folder / name).mkdir(exist_ok=True)
            (folder / name / f"{language}.txt").write_text("\n".join(r["text"] for r in texts))
    write_lines(folder / "corpus.jsonl", rows)
    write_lines(folder / "mine.jsonl", [
        {"id": f"r{n}", "query": f"{WORDS[lang][n % 8]} {n}", "passage": f"about {WORDS[lang][n % 8]} and {n}",
         "lang": lang} for n in range(40) for lang in WORDS
    ])  # fmt: skip
    stored = np.random.default_rng(5).normal(size=(len(rows), 384))
    write_index(folder, unit_rows(stored).astype(np.float32), codes)


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


def write_index(folder: Path, stored: np.ndarray, codes: list[str]) -> None:
    """The same vectors in every form."""
    np.save(folder / "corpus.npy", stored)
    stored.astype(np.float16).tofile(folder / "corpus.f16")
    table = pa.table(
        {"embedding": pa.array(stored.tolist(), pa.list_(pa.float32())), "lang": codes}
    )
    pq.write_table(table, folder / "corpus.parquet")
    index = faiss.IndexFlatIP(stored.shape[1])
    index.add(stored)
    faiss.write_index(index, str(folder / "corpus.faiss"))
    (folder / "ids.txt").write_text("\n".join(codes))


def invoke(*words: object):
    console.reset()
    return CliRunner().invoke(app, [str(word) for word in words])


def succeed(*words: object):
    done = invoke(*words)
    assert done.exit_code == 0, f"{words}: {done.output}{done.exception}"
    return done


@pytest.fixture(scope="module")
def collection(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("collection")
    write_collection(folder)
    return folder


def test_every_command_and_line_of_the_page_works(
    tiny_model, collection, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(collection)
    succeed("prepare", "mine.jsonl", "--out", "data/mine")
    page = PAGE.read_text(encoding="utf-8")
    run = []
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if not words or "..." in words:
                continue
            assert words.pop(0) == "hybridbatch", line
            words = [str(tiny_model) if word == "e5-small-q4" else word for word in words]
            if (
                words[0] == "audit-bias"
            ):  # on the collection, which is smaller than the built-in task
                words = ["audit-bias", str(tiny_model), "--task", "my-task"]
            if words[0] == "train":
                words += ["--model", str(tiny_model), "--steps", "2", "--batch-size", "4"]
                words += ["--out", "run"]
            done = succeed(*words)
            run.append(words[0])
            if words[0] == "audit-bias":
                assert "3 languages on my-task" in done.output
    assert set(run) == {"audit-bias", "debias", "search", "eval", "train"}
    for name in ("corpus-debiased.npy", "corpus-debiased.parquet", "corpus-debiased.faiss"):
        assert Path(name).is_file()
        assert (Path(f"{name}.language_vectors") / FACTS).is_file()
    languages = [
        json.loads(line)["lang"] for line in Path("corpus.jsonl").read_text().splitlines()
    ]
    encoder = Encoder.load(str(tiny_model))
    from sentence_transformers import SentenceTransformer

    given = {
        "SentenceTransformer": SentenceTransformer,
        "query_vectors": encoder.encode(["mto jiwe"], "query"),
        "passage_vectors": encoder.encode(["mto"] * len(languages), "passage"),
        "languages": languages,
    }
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), given)
    assert given["queries"].shape == (1, encoder.dimension)
    vectors = read_vectors(Path("vectors"))
    model = SentenceTransformer("model", device="cpu", trust_remote_code=True)
    made = model.encode(["mto jiwe"], prompt_name="query-swh")
    own = encoder.encode(["mto jiwe"], "query", precision="fp32")
    of_model = read_vectors(Path("model"))
    np.testing.assert_allclose(made, of_model.apply(own, "query", "swh"), atol=2e-5)
    assert set(vectors.languages) == set(WORDS)


def test_training_estimates_the_vectors_of_the_model_that_it_made(
    tiny_model, collection, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    data, run, corpus = tmp_path / "data", tmp_path / "run", collection / "corpus.jsonl"
    succeed("prepare", collection / "mine.jsonl", "--out", data)
    train = ["train", "--data", data, "--model", tiny_model, "--steps", 2, "--batch-size", 4]
    done = succeed(*train, "--out", run, "--debias-text", corpus)
    assert str(run / "language_vectors") in done.output
    vectors = read_vectors(run / "language_vectors")
    encoder = Encoder.load(str(run))
    vectors.require_model(encoder.fingerprint(), "the run")
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    for language in WORDS:
        texts = [row["text"] for row in rows if row["lang"] == language]
        mean = encoder.encode(texts, "passage", precision="fp32").mean(axis=0)
        found = vectors.sides["passage"].offsets[language]
        assert np.linalg.norm(found - mean) < 0.2 * np.linalg.norm(mean)
    task = collection / "my-task"
    succeed(
        "eval",
        run,
        "--tasks",
        task,
        "--debias",
        run / "language_vectors",
        "--out",
        tmp_path / "e",
    )
    facts = read_json(tmp_path / "e" / "eval.json")["model"]["debias"]
    assert facts["sha256"] == vectors.facts["sha256"]
    # a text that does not exist is met before the training
    missing = invoke(*train, "--out", tmp_path / "other", "--debias-text", tmp_path / "none")
    assert isinstance(missing.exception, ConfigError)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / TENSORS).write_bytes((f / TENSORS).read_bytes()[:-1]), "sha256"),
        (lambda f: (f / FACTS).write_text("{}"), "description of language vectors"),
        (lambda f: (f / FACTS).write_text((f / FACTS).read_text()[:-40]), "JSON"),
        (lambda f: (f / TENSORS).unlink(), "does not exist"),
    ],
)  # fmt: skip
def test_damaged_vectors_are_one_line_in_every_command(
    tiny_model, collection, tmp_path, monkeypatch, damage, said
) -> None:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    folder, out = tmp_path / "vectors", tmp_path / "out"
    succeed("debias", tiny_model, "--text", collection / "corpus.jsonl", "--out", folder)
    damage(folder)
    asked = ("--debias", folder)
    for words in (
        ("eval", tiny_model, "--tasks", collection / "my-task", *asked, "--out", out),
        ("search", tiny_model, collection / "corpus.jsonl", "--query", "mto", *asked),
        ("audit-bias", tiny_model, "--task", collection / "my-task", *asked, "--out", out),
        ("debias", "--vectors", collection / "corpus.npy", "--languages", collection / "ids.txt",
         *asked, "--out", tmp_path / "new.npy"),
    ):  # fmt: skip
        done = invoke(*words)
        assert isinstance(done.exception, HybridBatchError), words
        assert said in str(done.exception)
        assert "\n" not in str(done.exception)
        assert str(folder) in str(done.exception)
    assert not out.exists()
    assert not (tmp_path / "new.npy").exists()


def test_a_mistake_is_one_line_and_exit_status_2(collection, tmp_path) -> None:
    command = [sys.executable, "-m", "hybridbatch", "debias", "--vectors", "corpus.npy"]
    lines = tmp_path / "ids.txt"
    lines.write_text("swh\n")
    done = subprocess.run(
        [*command, "--languages", str(lines)], cwd=collection, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "has 1 lines, but there are 72 vectors" in done.stderr.replace("\n", " ")
