"""Small data sets in the layouts of mteb's tasks, so that a whole benchmark runs on a mirror."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.hub_layouts import parquet, write

Table = tuple[tuple[str, str], list[dict[str, Any]]]  # (configuration, split), rows
Tables = dict[tuple[str, str], list[dict[str, Any]]]  # rows by configuration and split
ROWS = 24  # of a table
SYLLABLES = (
    "ba",
    "ke",
    "lo",
    "mi",
    "nu",
    "ra",
    "se",
    "ti",
    "vo",
    "wa",
    "zu",
    "cha",
    "the",
    "ous",
)
# Columns before the task's own `dataset_transform`, where they differ from what it evaluates.
CLASSES: Mapping[str, tuple[str, str]] = {
    "SIB200Classification": ("text", "category"),
    "SIB200ClusteringS2S": ("text", "category"),
    "SIB200Classification.v2": ("text", "category"),
    "MasakhaNEWSClassification": ("text", "category"),
    "SouthAfricanLangClassification": (" text", "lang_id"),
    "MalayalamNewsClassification": ("headings", "label"),
    "SanskritShlokasClassification": ("Sloka", "Class"),
}
TOPICS = ("travel", "politics", "science")


def text(language: str, number: int, topic: int = 0) -> str:
    """A sentence of made words that hang on all three, so that few cosines are nearly equal."""
    own = np.random.default_rng([number, *language.encode()])
    words = ["".join(own.choice(SYLLABLES, 3)) for _ in range(5)]
    common = [
        "".join(np.random.default_rng([topic, step]).choice(SYLLABLES, 3)) for step in range(3)
    ]
    return f"{language} {' '.join(common)} {' '.join(words)}"


def write_task(datasets: Path, task: Any) -> None:
    """The data set of a task of mteb, with `ROWS` rows in every subset and split."""
    tables = dict(_of_kind(task.metadata.type)(task))
    if getattr(task, "fast_loading", False):
        tables = _together(tables)
    write_tables(datasets / task.metadata.dataset["path"], tables)


def _together(tables: Tables) -> Tables:
    """All subsets in one configuration, with the subset in a column."""
    joined: Tables = {}
    for (subset, split), rows in tables.items():
        joined.setdefault(("default", split), []).extend(
            {**row, "lang": subset} for row in rows
        )
    return joined


def write_tables(folder: Path, tables: Tables) -> None:
    """Parquet files, with a card that names the file of every configuration and split."""
    files: dict[str, bytes | str] = {}
    lines = ["---", "configs:"]
    for config in dict.fromkeys(config for config, _ in tables):
        lines += [f"- config_name: {config}", "  data_files:"]
        for (own, split), rows in tables.items():
            if own == config:
                name = f"{config}/{split}-00000-of-00001.parquet"
                files[name] = parquet(rows)
                lines += [f"  - split: {split}", f"    path: {name}"]
    files["README.md"] = "\n".join([*lines, "---", "# A data set", ""])
    write(folder, files)


def _of_kind(kind: str) -> Any:
    return {
        "BitextMining": _bitext,
        "Classification": _classes,
        "MultilabelClassification": _several_labels,
        "Clustering": _clusters,
        "PairClassification": _pairs,
        "STS": _similar,
        "Retrieval": _retrieval,
        "Reranking": _retrieval,
        "InstructionReranking": _instructions,
    }[kind]


def _subsets(task: Any) -> Sequence[str]:
    return task.hf_subsets if task.metadata.is_multilingual else ["default"]


def _bitext(task: Any) -> Iterator[Table]:
    split = task.eval_splits[0]
    if getattr(task, "parallel_subsets", False):
        columns = sorted({code for pair in task.hf_subsets for code in pair.split("-")})
        yield (
            ("default", split),
            [{code: text(code, row) for code in columns} for row in range(ROWS)],
        )
        return
    for subset in _subsets(task):
        names = ("sentence1", "sentence2")
        config = subset
        if task.metadata.name == "BibleNLPBitextMining":
            config = task._transform_lang_name_hf(subset)
            names = tuple(config.split("-"))
        rows = [{name: text(name, row) for name in names} for row in range(ROWS)]
        yield (config, split), rows


def _classes(task: Any) -> Iterator[Table]:
    words, label = CLASSES.get(
        task.metadata.name, (task.input_column_name, task.label_column_name)
    )
    splits = dict.fromkeys(["train", *task.eval_splits])
    if task.metadata.name == "SIB200ClusteringS2S":
        splits = dict.fromkeys(("train", "validation", "test"))
    for subset in _subsets(task):
        for split in splits:
            rows: list[dict[str, Any]] = []
            for row in range(3 * ROWS):
                topic = row % 3
                made = {words: text(f"{subset} {split}", row, topic)}
                rows.append(made | {label: TOPICS[topic] if label == "category" else topic})
                if "sib200" in task.metadata.dataset["path"]:
                    rows[-1]["index_id"] = row
            yield (subset, split), rows


def _several_labels(task: Any) -> Iterator[Table]:
    for subset in _subsets(task):
        for split in dict.fromkeys(["train", *task.eval_splits]):
            rows = []
            for row in range(3 * ROWS):
                topic = row % 3
                labels = [topic] if row % 2 else [topic, (topic + 1) % 3]
                words = text(f"{subset} {split}", row, topic)
                rows.append({task.input_column_name: words, task.label_column_name: labels})
            yield (subset, split), rows


def _clusters(task: Any) -> Iterator[Table]:
    if task.metadata.name in CLASSES:
        yield from _classes(task)
        return
    words, labels = task.input_column_name, task.label_column_name
    legacy = any(one.__name__ == "AbsTaskClusteringLegacy" for one in type(task).__mro__)
    for subset in _subsets(task):
        for split in task.eval_splits:
            rows = [(text(subset, row, row % 3), row % 3) for row in range(ROWS)]
            if legacy:
                texts, classes = (list(column) for column in zip(*rows, strict=True))
                yield (subset, split), [{words: texts, labels: classes}]
            else:
                yield (subset, split), [{words: one, labels: topic} for one, topic in rows]


def _pairs(task: Any) -> Iterator[Table]:
    one, other, label = (
        task.input1_column_name,
        task.input2_column_name,
        task.label_column_name,
    )
    entailed, contradicted = 1, 0
    if task.metadata.name == "XNLI":  # 0 is entailment, 1 neutral, 2 contradiction
        one, other, label, entailed, contradicted = "premise", "hypothesis", "label", 0, 2
    for subset in _subsets(task):
        for split in task.eval_splits:
            rows = []
            for row in range(ROWS):
                same = row % 2 == 0
                second = text(subset, row if same else row + 100, 0 if same else row)
                rows.append(
                    {
                        one: text(subset, row),
                        other: second,
                        label: entailed if same else contradicted,
                    }
                )
            yield (subset, split), rows


def _similar(task: Any) -> Iterator[Table]:
    one, other = task.column_names
    for subset in _subsets(task):
        for split in task.eval_splits:
            rows = []
            for row in range(ROWS):
                second = text(subset, row + row % 5, row % 5)
                rows.append({one: text(subset, row), other: second, "score": 5.0 - row % 5})
            yield (subset, split), rows


def _retrieval(task: Any) -> Iterator[Table]:
    if task.metadata.name == "BelebeleRetrieval":
        yield from _belebele(task)
        return
    for subset in _subsets(task):
        prefix = "" if subset == "default" else f"{subset}-"
        for split in task.eval_splits:
            # Mr. TyDi's corpora have a split of their own.
            whole = "train" if task.metadata.name == "MrTidyRetrieval" else split
            yield (
                (f"{prefix}corpus", whole),
                [
                    {"_id": f"d{row}", "title": "", "text": text(subset, row)}
                    for row in range(ROWS)
                ],
            )
            yield (
                (f"{prefix}queries", split),
                [
                    {"_id": f"q{row}", "text": f"which is {text(subset, row)}"}
                    for row in range(8)
                ],
            )
            judged = [
                {"query-id": f"q{row}", "corpus-id": f"d{row + step}", "score": 1}
                for row in range(8)
                for step in range(2)
            ]
            yield (f"{prefix}qrels" if prefix else "default", split), judged
            if task.metadata.type == "Reranking":
                listed = [f"d{row}" for row in range(12)]
                ranked = [{"query-id": f"q{row}", "corpus-ids": listed} for row in range(8)]
                yield (f"{prefix}top_ranked", split), ranked


def _belebele(task: Any) -> Iterator[Table]:
    codes = {code for pair in task.metadata.eval_langs.values() for code in pair}
    for code in sorted(codes):
        rows = []
        for row in range(8):
            rows.append(
                {
                    "link": f"https://a.example/{row}",
                    "flores_passage": text(code, row),
                    "question": f"which is {text(code, row)}",
                }
            )
        yield (code.replace("-", "_"), "test"), rows


def _instructions(task: Any) -> Iterator[Table]:
    """Queries with an instruction and its changed form (FollowIR's layout)."""
    split = task.eval_splits[0]
    yield (
        ("corpus", split),
        [{"_id": f"d{row}", "title": "", "text": text("eng", row)} for row in range(ROWS)],
    )
    names = [f"q{row}-{form}" for row in range(6) for form in ("og", "changed")]
    yield ("queries", split), [{"_id": name, "text": f"which is {name}"} for name in names]
    yield (
        ("instruction", split),
        [{"query-id": name, "instruction": f"relevant is {name}"} for name in names],
    )
    judged, changed, ranked = [], [], []
    for row in range(6):
        for form in ("og", "changed"):
            for step in range(2 if form == "og" else 1):
                document = f"d{row + step}"
                judged.append({"query-id": f"q{row}-{form}", "corpus-id": document, "score": 1})
            listed = [f"d{one}" for one in range(12)]
            ranked.append({"query-id": f"q{row}-{form}", "corpus-ids": listed})
        changed.append({"query-id": f"q{row}", "corpus-ids": [f"d{row + 1}"]})
    yield ("default", split), judged
    yield ("top_ranked", split), ranked
    yield ("qrel_diff", "qrel_diff"), changed
