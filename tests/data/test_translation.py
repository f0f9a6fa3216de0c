"""Translation of training rows: which rows, by which translator, what is left out, and that nothing
is done twice.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from hybridbatch.common.errors import ConfigError, DataError, ModelError, OutputError
from hybridbatch.common.files import read_json
from hybridbatch.common.progress import SILENT
from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.settings import build
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store.reader import Store
from hybridbatch.data.translation import endpoint
from hybridbatch.data.translation.cache import TranslationCache
from hybridbatch.data.translation.faults import fault, repeated
from hybridbatch.data.translation.open import open_translator
from hybridbatch.data.translation.sentences import join, split
from hybridbatch.data.translation.translate_rows import LEFT_OUT, Translation
from hybridbatch.data.translation.translators import Decoding
from tests.data.test_decontaminate import write_task
from tests.helpers.chat_server import ChatServer, chat_server, completion, says
from tests.helpers.recording import RecordingReporter
from tests.helpers.translators import SAYS, write_m2m100, write_nllb

REPOSITORY = Path(__file__).parents[2]
QUESTION = "Which animals live in the large forest that has the number"
ANSWER = "Birds, foxes and many other animals live in the large forest with the number"


@pytest.fixture(scope="module")
def nllb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nllb(tmp_path_factory.mktemp("hub") / "models" / "acme" / "nllb-tiny")


@pytest.fixture(scope="module")
def m2m100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_m2m100(tmp_path_factory.mktemp("m2m") / "m2m100-tiny")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(endpoint, "PAUSES", (0.01,) * 6)
    return tmp_path / "cache"


def write_english(path: Path, records: int = 12) -> Path:
    rows = [
        {
            "id": f"r{number}",
            "lang": "en",
            "query": f"{QUESTION} {number}?",
            "passage": f"{ANSWER} {number}.",
        }
        for number in range(records)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(
    folder: Path, source: Path, translator: object, to: str = "sw,am", **settings: object
) -> PrepareConfig:
    given = {
        "sources": (str(source),),
        "out": folder / "data",
        "translate_to": to,
        "translator": str(translator),
    }
    return build(PrepareConfig, None, {"decontaminate": "none", **given, **settings})


def rows_of(folder: Path) -> dict[tuple[str, str], Row]:
    """By record id and language."""
    store = Store.open(folder)
    rows = [
        row
        for split in store.splits
        for row in store.rows(split, np.arange(store.index(split).rows))
    ]
    return {(row.record_id, row.language): row for row in rows}


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class Shouting:
    """A translator that writes texts in capitals, sentence by sentence, and keeps what it was
    given.
    """

    def __init__(self, languages: str = "eng fra hau swh amh") -> None:
        self.languages = languages.split()
        self.batches_: list[tuple[str, str, list[str]]] = []

    def describe(self) -> dict:
        return {"kind": "test", "name": "shouting"}

    def speaks(self, language: str) -> bool:
        return language in self.languages

    def pieces(self, text: str, language: str) -> list[tuple[str, str]]:
        return split(text, language)

    def batches(self, pieces: list[str], source: str) -> list[list[int]]:
        order = sorted(range(len(pieces)), key=lambda number: -len(pieces[number]))
        return [order[start : start + 2] for start in range(0, len(order), 2)]

    def translate(self, pieces: list[str], source: str, target: str) -> list[str | None]:
        self.batches_.append((source, target, list(pieces)))
        return [
            None if "hopeless" in piece else f"{piece.upper()} {target}" for piece in pieces
        ]


def translated(
    translator: Shouting, rows: list, targets: str = "swh", **settings: object
) -> tuple[list, dict]:
    stage = Translation(
        translator, targets.split(), settings.pop("prefer", ["eng"]), SILENT, **settings
    )
    made = list(stage.rows(rows))
    return made, stage.as_json()


# Which rows
# -----------------------------------------------------------------------------------------------------------


def test_a_record_is_translated_from_english_else_from_the_best_resourced_language_into_what_it_lacks():
    rows = [
        Row("s", "1", "hau", "a b", "c d"),
        Row("s", "1", "eng", "one two", "three", negatives=("no",), split="validation"),
        Row("s", "1", "fra", "un deux", "trois"),
        Row("s", "2", "hau", "tambaya", "amsa"),
        Row("s", "2", "fra", "question", "texte"),
        Row("s", "3", "eng", "there", "already"),
        Row("s", "3", "swh", "tayari", None),
        Row("s", "4", "swh", "asili", "tu"),
        BadRow("f", 3, "query", "missing"),
    ]
    made, outcome = translated(Shouting(), rows)
    assert made[: len(rows)] == rows
    assert made[len(rows) :] == [
        Row("s", "1", "swh", "ONE TWO swh", "THREE swh", (), "validation", "eng"),
        Row("s", "2", "swh", "QUESTION swh", "TEXTE swh", (), "train", "fra"),
    ]
    assert [
        (one["from"], one["rows"], one["texts"], one["kept"]) for one in outcome["counts"]
    ] == [
        ("eng", 1, 2, 2),
        ("fra", 1, 2, 2),
    ]
    preferred, _ = translated(Shouting(), rows, prefer=["hau"])
    assert preferred[len(rows)].translated_from == "hau"


def test_rows_with_both_sides_come_first_and_sides_of_different_rows_are_never_joined():
    rows = [
        Row("s", "1", "eng", "a question", None),
        Row("s", "1", "fra", "une question", "un texte"),
        # as mkqa has them: the other languages hold the same question
        Row("s", "2", "eng", "a question alone", None),
        Row("s", "2", "fra", None, "une question seule"),
    ]
    made, _ = translated(Shouting(), rows)
    assert made[4:] == [
        Row("s", "1", "swh", "UNE QUESTION swh", "UN TEXTE swh", (), "train", "fra"),
        Row("s", "2", "swh", "A QUESTION ALONE swh", None, (), "train", "eng"),
    ]


def test_records_that_the_translator_cannot_read_are_counted_and_unknown_targets_refused():
    rows = [
        Row("s", "1", "deu", "Frage", "Text"),
        Row("s", "2", "eng", "hopeless", "hopeless. Not this"),
    ]
    stage = Translation(Shouting(), ["swh"], ["eng"], SILENT)
    told = RecordingReporter()
    assert list(stage.rows(rows)) == rows
    stage.tell(told)
    assert stage.as_json()["records_without_language_to_translate_from"] == {"s": 1}
    assert stage.as_json()["counts"][0]["unfinished"] == 2
    assert told.notes == ["translated: 0 rows (swh 0)"]
    assert told.warnings == [
        "2 of 2 translated texts were left out: 2 x unfinished. manifest.json has the counts",
        "s: 1 records are in no language that this translator translates from",
    ]
    with pytest.raises(
        ConfigError, match="translate_to = zul: shouting does not translate into Zulu"
    ):
        Translation(Shouting(), ["zul"], ["eng"], SILENT)


def test_a_sentence_is_translated_once_whatever_texts_and_runs_it_is_in(own_cache: Path):
    rows = [
        Row("s", "1", "eng", "First words. Second words.", "Second words.\n\nFirst words."),
        Row("s", "2", "eng", "First words.", "Third words!"),
        Row("s", "2", "amh", "ነው", "ነው"),
    ]
    first = Shouting()
    made, _ = translated(first, rows, "swh amh")
    given = Counter((target, piece) for _, target, pieces in first.batches_ for piece in pieces)
    assert set(given.values()) == {1}
    assert sorted(given) == sorted(
        [("swh", "First words."), ("swh", "Second words."), ("swh", "Third words!"), ("amh", "First words."), ("amh", "Second words.")]
    )  # fmt: skip
    assert made[3].query == "FIRST WORDS. swh SECOND WORDS. swh"
    assert made[3].passage == "SECOND WORDS. swh\n\nFIRST WORDS. swh"
    again = Shouting()
    assert translated(again, rows, "swh amh")[0] == made
    assert again.batches_ == []


def test_what_an_interrupted_run_stored_does_not_change_the_batches_of_the_next(
    monkeypatch, tmp_path: Path
):
    monkeypatch.setattr("hybridbatch.data.translation.translate_rows.CHUNK_TEXTS", 6)
    rows = [
        Row("s", str(number), "eng", f"word {number % 7}" * (number % 5 + 1), f"Text {number}")
        for number in range(20)
    ]
    whole = Shouting()
    expected, _ = translated(whole, rows, "swh amh", folder=tmp_path / "whole")
    done = []
    for stop in (1, 4, 9):

        class Stopping(Shouting):
            def translate(self, *given):
                if len(self.batches_) == stop - len(done):  # noqa: B023
                    raise KeyboardInterrupt
                return super().translate(*given)

        broken = Stopping()
        with pytest.raises(KeyboardInterrupt):
            translated(broken, rows, "swh amh", folder=tmp_path / "parts")
        done += broken.batches_
    last = Shouting()
    assert translated(last, rows, "swh amh", folder=tmp_path / "parts")[0] == expected
    assert done + last.batches_ == whole.batches_


# Sentences, filters, the cache
# ----------------------------------------------------------------------------------------


def test_texts_are_cut_into_sentences_and_put_together():
    text = "Dr. Smith came at 3 p.m. there!  Did he?\n\nYes."
    pieces = split(text, "eng")
    assert pieces == [
        ("Dr. Smith came at 3 p.m. there!", "  "),
        ("Did he?", "\n\n"),
        ("Yes.", ""),
    ]
    assert split("ሰላም ነው። እንዴት ነህ?", "amh") == [("ሰላም ነው።", " "), ("እንዴት ነህ?", "")]
    spaces = [space for _, space in pieces]
    assert join(["A.", "B?", "C."], spaces, "swh") == "A. B?\n\nC."
    assert (
        join(["他来了。", "真的吗？", "是的。"], spaces, "zho") == "他来了。真的吗？\n\n是的。"
    )
    assert join(["A.", "B."], ["", ""], "eng") == "A. B."


ENGLISH = "The museum is open every day except Monday, and children under twelve may enter it for free."
SWAHILI = "Makumbusho hufunguliwa kila siku isipokuwa Jumatatu, na watoto wa chini ya miaka kumi na miwili huingia bure."


@pytest.mark.parametrize(
    ("source", "translation", "target", "expected"),
    [
        (ENGLISH, SWAHILI, "swh", None),
        (ENGLISH, "", "swh", "empty"),
        (ENGLISH, " ... !", "swh", "empty"),
        (ENGLISH, ENGLISH.upper() + "!", "swh", "copy"),
        ("Mount Kenya", "Mount Kenya", "swh", None),
        (ENGLISH, "Ndiyo.", "swh", "length"),
        ("Why?", "Kwa nini?", "swh", None),
        (ENGLISH, SWAHILI * 3, "swh", "length"),
        (ENGLISH, "博物馆除星期一外每天开放，十二岁以下儿童免费入场。", "zho", None),
        (ENGLISH, "Makumbusho hufunguliwa " + "kila siku na " * 8, "swh", "repetition"),
        (ENGLISH, "Das Museum ist außer montags täglich geöffnet, und Kinder unter zwölf haben freien Eintritt.", "swh",
         "wrong_language"),
        ("no, " * 20 + "he said", "la, " * 20 + "alisema", "swh", None),
    ],
)  # fmt: skip
def test_faults_of_translations_are_told_apart(
    source: str, translation: str, target: str, expected: str | None
):
    assert fault(source, translation, "eng", target) == expected


def test_the_share_of_repeated_sequences_by_hand():
    assert repeated("abcdefghijklmnopq") == 0  # 8 sequences of 10, all different
    assert repeated("ab" * 10) == pytest.approx(1 - 2 / 11)
    assert repeated("a" * 16) == 0  # too short to judge


def test_a_damaged_or_unwritable_cache_is_one_line(tmp_path: Path):
    cache = TranslationCache({"name": "x"}, tmp_path)
    cache.put({"a": "b", "c": None}, "eng", "swh")
    assert TranslationCache({"name": "x"}, tmp_path).get(["a", "c", "d"], "eng", "swh") == {
        "a": "b",
        "c": None,
    }
    assert cache.get(["a"], "eng", "amh") == {}
    assert TranslationCache({"name": "y"}, tmp_path).get(["a"], "eng", "swh") == {}
    cache.path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(DataError, match="damaged"):
        TranslationCache({"name": "x"}, tmp_path)
    cache.path.unlink()
    cache.path.mkdir()
    with pytest.raises(OutputError, match="cannot be used"):
        TranslationCache({"name": "x"}, tmp_path)


# Models on this machine
# -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["nllb", "m2m100"])
def test_translations_are_those_of_the_library_one_sentence_at_a_time(
    family: str, request: pytest.FixtureRequest
):
    folder = request.getfixturevalue(family)
    translator = open_translator(
        str(folder), Decoding(beams=2, batch_tokens=64, precision="fp32"), SILENT
    )
    codes = {"nllb": ("eng_Latn", "swh_Latn", "amh_Ethi"), "m2m100": ("en", "sw", "am")}[family]
    tokenizer = AutoTokenizer.from_pretrained(folder, src_lang=codes[0])
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    texts = [
        "Many animals",
        "forest large this in live animals",
        "our country of forest Many Many live",
        "in",
        "live live",
    ]
    numbers = [number for batch in translator.batches(texts, "eng") for number in batch]
    assert sorted(numbers) == list(range(len(texts)))
    lengths = [len(tokenizer(texts[number])["input_ids"]) for number in numbers]
    assert lengths == sorted(lengths, reverse=True)
    for language, code in zip(("swh", "amh"), codes[1:], strict=True):
        first = tokenizer.convert_tokens_to_ids(code if family == "nllb" else f"__{code}__")
        expected = []
        for text in texts:
            given = tokenizer(text, return_tensors="pt")
            limit = 3 * max(lengths) + 16
            with torch.no_grad():
                ids = model.generate(
                    **given,
                    forced_bos_token_id=first,
                    num_beams=2,
                    do_sample=False,
                    max_new_tokens=limit,
                )
            expected.append(
                tokenizer.decode(ids[0, 2:], skip_special_tokens=True).strip()
                if 2 in ids[0, 2:]
                else None
            )
        assert translator.translate(texts, "eng", language) == expected
        assert SAYS[language] in expected
    assert translator.translate(["large " * 600], "eng", "swh") == [None]
    assert not translator.speaks("kua")


def test_a_hub_model_translates_through_the_command_line(
    nllb: Path, hub_mirror: ModuleType, tmp_path: Path, own_cache: Path
):
    mine = write_english(tmp_path / "mine.jsonl")
    command = [sys.executable, "-m", "hybridbatch", "prepare", str(mine), "--translate-to", "sw,am", "--translator",
               "acme/nllb-tiny", "--beams", "1", "--decontaminate", "none", "--out", str(tmp_path / "data")]  # fmt: skip
    with hub_mirror.HubMirror(nllb.parents[2]) as url:
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1",
                       "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip
        done = subprocess.run(
            command,
            env=environment,
            cwd=REPOSITORY,
            text=True,
            capture_output=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "translated: 24 rows (amh 12, swh 12)" in done.stderr
    rows = rows_of(tmp_path / "data")
    assert len(rows) == 36
    assert rows["r3", "swh"] == Row(
        "mine", "r3", "swh", SAYS["swh"], SAYS["swh"], (), rows["r3", "eng"].split, "eng"
    )
    assert rows["r3", "eng"].translated_from is None
    cause = read_json(tmp_path / "data" / "manifest.json")["provenance"]["translation"]
    assert len(cause["translator"].pop("revision")) == 40
    assert (
        cause["translator"].items()
        >= {"kind": "seq2seq", "name": "acme/nllb-tiny", "beams": 1}.items()
    )
    assert (cause["to"], cause["prefer"]) == (["swh", "amh"], ["eng"])


def test_what_is_no_translator_is_refused_in_one_line(
    tiny_model: Path, nllb: Path, tmp_path: Path, server: ChatServer
):
    mine = write_english(tmp_path / "mine.jsonl")
    for name, to, error, told in (
        (tiny_model, "sw", ModelError, "no language tokens of NLLB-200 or M2M-100"),
        (tmp_path / "absent", "sw", ModelError, "no such folder"),
        (
            nllb,
            "sw,zu",
            ConfigError,
            "translate_to = zul: nllb-tiny does not translate into Zulu",
        ),
        (nllb, "sw,klingonese", DataError, "unknown language 'klingonese'"),
        (server.address, "sw", ConfigError, "names no model"),
        (f"{server.address} x#m", "sw", ConfigError, "its address cannot be read"),
    ):
        with pytest.raises(error, match=told):
            prepare(config(tmp_path, mine, name, to))
    for alone in ({"translate_to": "sw"}, {"translator": "x"}):
        with pytest.raises(ConfigError, match="translate_to and translator go together"):
            build(PrepareConfig, None, alone)
    assert not (tmp_path / "data").exists()


# An endpoint
# ----------------------------------------------------------------------------------------------------------


def test_an_endpoint_translates_whole_texts_and_the_key_comes_from_the_environment(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HYBRIDBATCH_TRANSLATOR_KEY", "secret")
    told = RecordingReporter()
    folder = prepare(
        config(
            tmp_path, write_english(tmp_path / "mine.jsonl"), f"{server.address}/#some/model"
        ),
        told,
    )
    rows = rows_of(folder)
    assert len(rows) == 36
    assert rows["r5", "swh"].query == says(f"{QUESTION} 5?", "Swahili")
    assert rows["r5", "amh"].passage == says(f"{ANSWER} 5.", "Amharic")
    assert set(server.keys) == {"Bearer secret"}
    assert len(server.asked) == 48
    (body,) = [
        body for body in server.bodies if body["messages"][1]["content"] == f"{QUESTION} 5?"
    ][:1]
    assert (body["model"], body["temperature"]) == ("some/model", 0)
    assert "from English to Swahili, written in Latn" in body["messages"][0]["content"]
    assert "secret" not in (folder / "manifest.json").read_text()
    assert "translated: 24 rows (amh 12, swh 12)" in told.notes
    store = Store.open(folder)
    assert store.manifest["translation"]["counts"][1] == {
        "source": "mine", "from": "eng", "to": "swh", "rows": 12, "texts": 24, "kept": 24, "language_not_judged": 0,
        **dict.fromkeys(LEFT_OUT, 0),
    }  # fmt: skip


def test_only_the_named_sources_are_translated(server: ChatServer, tmp_path: Path):
    ours, theirs = (write_english(tmp_path / f"{name}.jsonl") for name in ("ours", "theirs"))
    address = f"{server.address}#m"
    settings = config(
        tmp_path, ours, address, sources=f"{ours},{theirs}", translate_sources="theirs"
    )
    store = Store.open(prepare(settings))
    counts = store.manifest["splits"]["train"]["counts"]
    assert set(counts["ours"]) == {"eng"}
    assert set(counts["theirs"]) == {"amh", "eng", "swh"}
    assert store.manifest["provenance"]["translation"]["sources"] == ["theirs"]
    with pytest.raises(ConfigError, match="did you mean theirs"):
        prepare(settings.model_copy(update={"translate_sources": ("their",)}))
    with pytest.raises(
        ConfigError, match="translate_sources does nothing without translate_to"
    ):
        build(PrepareConfig, None, {"translate_sources": "ours"})


def test_translations_that_are_no_good_are_left_out_and_counted(
    server: ChatServer, tmp_path: Path
):
    answers = {
        f"{QUESTION} 1?": completion(""),
        f"{QUESTION} 2?": completion(f"{QUESTION} 2?"),
        f"{QUESTION} 3?": completion("Wanyama " * 300),
        f"{QUESTION} 4?": completion("Wanyama wa msituni " * 5),
        f"{QUESTION} 5?": completion(
            "Welche Tiere leben in dem großen Wald, der diese Nummer hat?"
        ),
        f"{QUESTION} 6?": completion("Wanyama wengi", "length"),
        f"{ANSWER} 6.": completion("Wanyama wengi", "length"),
    }
    server.refuse = lambda text: (200, answers[text], {}) if text in answers else None
    told = RecordingReporter()
    folder = prepare(
        config(tmp_path, write_english(tmp_path / "mine.jsonl"), f"{server.address}#m", "sw"),
        told,
    )
    rows = rows_of(folder)
    (counts,) = Store.open(folder).manifest["translation"]["counts"]
    assert counts == {
        "source": "mine", "from": "eng", "to": "swh", "rows": 11, "texts": 24, "kept": 17, "language_not_judged": 0,
        "empty": 1, "copy": 1, "length": 1, "repetition": 1, "wrong_language": 1, "unfinished": 2,
    }  # fmt: skip
    assert rows["r1", "swh"].query is None
    assert rows["r1", "swh"].passage == says(f"{ANSWER} 1.", "Swahili")
    assert ("r6", "swh") not in rows
    assert any(
        "7 of 24 translated texts were left out: 2 x unfinished; 1 x" in warning
        for warning in told.warnings
    )


def test_passing_failures_of_an_endpoint_are_waited_for(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = files_of(
        prepare(
            config(
                tmp_path / "a", write_english(tmp_path / "mine.jsonl"), f"{server.address}#m"
            )
        )
    )
    server.faults = [
        (429, b"slow down", {"Retry-After": "0"}),
        (500, b"oops", {}),
        (200, b"<html>", {}),
        (200, b'{"choices": []}', {}),
        (200, completion(None), {}),
    ]
    server.asked.clear()
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "other"))
    found = files_of(
        prepare(config(tmp_path / "b", tmp_path / "mine.jsonl", f"{server.address}#m"))
    )
    assert found == expected
    assert len(server.asked) == 48 + 5


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            (429, b"slow down\nmore", {}),
            r"answers 429 \(slow down\); finished translations are kept",
        ),
        (
            (401, b"who are you", {}),
            r"answers 401 \(who are you\); set HYBRIDBATCH_TRANSLATOR_KEY",
        ),
        (
            (404, b"no model m", {}),
            r"answers 404 \(no model m\); the address must end before /chat/completions",
        ),
        ((200, b"hello", {}), "gives no chat completion but 'hello'"),
        ((200, completion(5), {}), "gives int for a text"),
        ((200, b"[" * 100_000, {}), "gives no chat completion"),
        (
            (200, completion("cut"), {"Content-Length": "9999"}),
            r"gives an answer that cannot be read \(IncompleteRead",
        ),
    ],
)
def test_lasting_failures_of_an_endpoint_are_one_line_and_a_rerun_goes_on(
    answer: tuple, told: str, server: ChatServer, tmp_path: Path
):
    mine = write_english(tmp_path / "mine.jsonl")
    server.refuse = lambda text: (
        answer if text == f"{ANSWER} 7." else None
    )  # in the second batch
    with pytest.raises(DataError, match=told):
        prepare(config(tmp_path, mine, f"{server.address}#m", "sw"))
    assert not (tmp_path / "data").exists()
    finished = {
        text for number in range(4) for text in (f"{QUESTION} {number}?", f"{ANSWER} {number}.")
    }
    assert finished <= set(server.answered)
    server.refuse, server.asked = (lambda text: None), []
    assert len(rows_of(prepare(config(tmp_path, mine, f"{server.address}#m", "sw")))) == 24
    assert len(server.asked) == 24 - endpoint.PARALLEL
    assert not finished & set(server.asked)


def test_an_endpoint_that_is_not_there_is_one_line(tmp_path: Path):
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/v1: cannot be reached"):
        prepare(
            config(tmp_path, write_english(tmp_path / "mine.jsonl"), "http://127.0.0.1:9/v1#m")
        )


def test_after_sigkill_finished_batches_are_not_translated_again_and_the_bytes_are_the_same(
    server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    mine = write_english(tmp_path / "mine.jsonl", records=20)
    expected = files_of(prepare(config(tmp_path / "whole", mine, f"{server.address}#m")))
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "killed"))
    server.asked.clear()
    server.answered.clear()
    command = [sys.executable, "-m", "hybridbatch", "prepare", str(mine), "--translate-to", "sw,am", "--translator",
               f"{server.address}#m", "--decontaminate", "none", "--out", str(tmp_path / "data")]  # fmt: skip
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)

    def hang(text: str) -> None:
        if len(server.answered) >= 30:  # the fourth batch of eight is under way
            os.kill(process.pid, signal.SIGKILL)

    server.refuse = hang
    assert process.wait(120) == -signal.SIGKILL
    assert not (tmp_path / "data").exists()
    server.refuse = lambda text: None
    asked = -1
    while asked != len(server.asked):  # what was on its way when the process died
        asked = len(server.asked)
        time.sleep(0.2)
    stored, server.asked = server.answered[:24], []
    assert files_of(prepare(config(tmp_path, mine, f"{server.address}#m"))) == expected
    assert len(server.asked) == 80 - 24
    assert not Counter(stored) & Counter(server.asked[: 40 - 24])


# Evaluation texts
# -----------------------------------------------------------------------------------------------------


def test_a_record_whose_translation_is_an_evaluation_text_is_left_out_in_all_languages(
    server: ChatServer, tmp_path: Path
):
    leaking = (
        "Ndege, mbweha na wanyama wengine wengi huishi porini karibu na mto wenye maji baridi."
    )
    server.refuse = lambda text: (
        (200, completion(leaking), {}) if text == f"{ANSWER} 4." else None
    )
    task = write_task(
        tmp_path / "exam",
        {"sw": [leaking]},
        {"sw": ["Maswali mengine kabisa yasiyohusiana na hayo?"]},
    )
    told = RecordingReporter()
    mine = write_english(tmp_path / "mine.jsonl")
    folder = prepare(
        config(tmp_path, mine, f"{server.address}#m", "sw", decontaminate=str(task)), told
    )
    rows = rows_of(folder)
    assert ("r4", "eng") not in rows
    removed = read_json(folder / "manifest.json")["provenance"]["removed"]
    example = next(one for one in removed["examples"] if one["record"] == "r4")
    assert example["training"]["language"] == "swh"
