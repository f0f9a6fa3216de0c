"""The tutorial's FAQ: its commands, on its 60 lines."""

from pathlib import Path

import numpy as np

from hybridbatch.common.files import read_json
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store.reader import Store
from hybridbatch.scoring.evaluate import evaluate
from hybridbatch.scoring.settings import EvalConfig

FAQ = Path(__file__).parents[2] / "docs" / "tutorial" / "faq.csv"


def test_own_data_gets_an_own_answer(tmp_path):
    config = PrepareConfig(
        sources=(str(FAQ),), test_share=0.25, decontaminate=("none",), out=tmp_path / "faq"
    )
    store = Store.open(prepare(config))
    assert store.languages == ("eng", "swh")
    records = {split: made["records"] for split, made in store.manifest["splits"].items()}
    assert records == {"train": 21, "validation": 1, "test": 8}
    test = store.index("test")
    assert np.bincount(test.language).tolist() == [8, 8]
    folder = evaluate(
        EvalConfig(model="bm25", tasks=(str(tmp_path / "faq"),), out=tmp_path / "e")
    )
    (task,) = read_json(folder / "eval.json")["tasks"]
    assert set(task["settings"]) == {"monolingual", "cross-lingual", "multilingual"}
    assert task["counts"]["queries"] == task["counts"]["passages"] == {"eng": 8, "swh": 8}
    found = {setting: made["metrics"]["mAP"] for setting, made in task["settings"].items()}
    # equal words find answers within a language, and hardly across two
    assert found["monolingual"] > found["cross-lingual"]


def test_a_test_share_takes_whole_groups_and_the_same_share_of_every_language(tmp_path):
    lines = ["record_id,language,query,passage"]
    for number in range(300):
        codes = ("en", "sw") if number % 3 else ("en",) if number % 2 else ("yo",)
        for code in codes:
            lines.append(
                f"r{number},{code},question {number // 2} in {code},answer {number} {code}"
            )
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    config = PrepareConfig(
        sources=(str(tmp_path / "mine.csv"),), test_share=0.2, decontaminate=("none",),
        out=tmp_path / "out",
    )  # fmt: skip
    store = Store.open(prepare(config))
    rows = {
        split: np.bincount(store.index(split).language, minlength=3) for split in store.splits
    }
    share = rows["test"] / sum(rows.values())
    assert np.abs(share - 0.2).max() < 0.05, dict(zip(store.languages, share, strict=True))
    groups = [set(store.index(split).group.tolist()) for split in store.splits]
    assert not groups[0] & groups[1]
    assert not groups[0] & groups[2]
    assert not groups[1] & groups[2]
