"""Language identification, and `prepare --check-language`."""

import gzip
import json
from pathlib import Path

import pytest

from hybridbatch.common.files import read_json
from hybridbatch.common.languages import canonical
from hybridbatch.common.records import BadRow, Row
from hybridbatch.data.filters.language_id import LanguageCheck, identifier, long_enough
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store.reader import Store
from tests.helpers.recording import RecordingReporter

TEXTS = {
    "eng": "Many animals live in this large forest, and in winter it is very cold there.",
    "swh": "Wanyama wengi wanaishi katika msitu huu mkubwa, na wakati wa baridi kuna baridi sana.",
    "amh": "በዚህ ትልቅ ጫካ ውስጥ ብዙ እንስሳት ይኖራሉ፣ በክረምትም በጣም ቀዝቃዛ ነው።",
    "yor": "Ọpọlọpọ awọn ẹranko ni wọn n gbe inu igbo nla yii, o si tutu pupọ ni igba otutu.",
    "zho": "许多动物生活在这片大森林里，冬天那里非常寒冷。",
    "srp": "Много животиња живи у овој великој шуми, а зими је тамо веома хладно.",
}


def test_languages_are_told_apart_under_their_canonical_ids():
    found, scores = identifier().identify(list(TEXTS.values()))
    assert found == list(TEXTS)
    assert scores.shape == (6,)
    assert (scores > 0.7).all()
    assert identifier().identify(["2024-10-05 14:33:21 0x7f3a9b2c 00:1a:2b"])[0] == ["und"]


def test_what_cannot_be_judged_is_not_judged():
    judge = identifier()
    assert judge.is_wrong(TEXTS["eng"], "swh") is True
    assert judge.is_wrong(TEXTS["swh"], "swh") is False
    assert judge.is_wrong("Nairobi?", "eng") is None  # a name is in every language
    assert judge.is_wrong(TEXTS["eng"], "kab-Arab") is None
    assert judge.is_wrong(TEXTS["zho"], "yue") is None
    assert [long_enough("a" * length) for length in (39, 40)] == [False, True]
    assert [long_enough("ን" * length) for length in (13, 14)] == [False, True]
    assert not long_enough("1, 2, 3! " * 20)


def test_the_check_counts_by_source_and_language():
    check = LanguageCheck()
    rows = [
        Row("a", "1", "swh", TEXTS["swh"], TEXTS["eng"]),
        Row("a", "2", "swh", TEXTS["swh"], "Ndiyo."),
        Row("a", "3", "tzm", TEXTS["eng"], None),
        BadRow("f", 1, "query", "missing"),
    ]
    first, *others = check.rows(rows)
    assert isinstance(first, BadRow)
    assert (first.field, first.reason) == ("passage", "wrong language in swh")
    assert "looks like eng" in first.file
    assert others == rows[1:]
    assert check.as_json()["counts"] == [
        {"source": "a", "language": "swh", "judged": 3, "wrong": 1, "not_judged": 1},
        {"source": "a", "language": "tzm", "judged": 0, "wrong": 0, "not_judged": 1},
    ]


def test_prepare_leaves_rows_in_the_wrong_language_out_only_when_told(tmp_path: Path):
    mine = tmp_path / "mine.jsonl"
    lines = [
        ("r1", "en", TEXTS["eng"]),
        ("r1", "sw", TEXTS["yor"]),
        ("r2", "en", TEXTS["eng"]),
        ("r2", "sw", TEXTS["swh"]),
    ]
    rows = [
        {"id": key, "lang": code, "query": text, "passage": text + " !"}
        for key, code, text in lines
    ]
    mine.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"sources": (str(mine),), "decontaminate": ("none",), "validation_share": 0}
    plain = prepare(PrepareConfig(**settings, out=tmp_path / "plain"))
    told = RecordingReporter()
    checked = prepare(
        PrepareConfig(**settings, out=tmp_path / "checked", check_language=True), told
    )
    assert Store.open(plain).index("train").rows == 4
    assert "language_check" not in read_json(plain / "manifest.json")
    manifest = read_json(checked / "manifest.json")
    assert manifest["splits"]["train"]["counts"] == {"mine": {"eng": 2, "swh": 1}}
    assert manifest["dropped"]["reasons"] == {"query: wrong language in swh": 1}
    assert manifest["language_check"]["counts"][1] == {
        "source": "mine", "language": "swh", "judged": 3, "wrong": 1, "not_judged": 0,
    }  # fmt: skip
    assert any("7 texts judged, 1 of them in the wrong language" in note for note in told.notes)


@pytest.mark.slow
def test_good_text_in_many_languages_is_seldom_taken_for_wrong(real_data: Path):
    judge, judged, wrong = identifier(), 0, 0
    for path in sorted((real_data / "ntrex").glob("*.jsonl.gz")):
        with gzip.open(path) as lines:
            rows = [json.loads(line) for line, _ in zip(lines, range(100), strict=False)]
        code = canonical(rows[0]["lang"])
        if code == "nso":  # most of it is taken for Southern Sotho, unlike that of SIB-200
            continue
        verdicts = [judge.is_wrong(row["text"], code) for row in rows]
        judged += sum(verdict is not None for verdict in verdicts)
        wrong += sum(verdict is True for verdict in verdicts)
    assert judged > 5000
    assert wrong < judged / 500
