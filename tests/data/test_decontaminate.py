"""Evaluation texts in training data: what counts as one, that none is overlooked, and that no other
text is taken for one.
"""

import json
import random
from pathlib import Path

import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import read_json
from hybridbatch.common.records import BadRow, Row
from hybridbatch.common.settings import build
from hybridbatch.data.filters.decontamination import (
    Findings,
    LeakFinder,
    audit,
    summary,
    watched,
)
from hybridbatch.data.filters.evaluation_texts import (
    EvaluationText,
    choose_checks,
    evaluation_only,
    evaluation_texts,
)
from hybridbatch.data.filters.near_duplicates import (
    LEAST_NEAR,
    NEAR,
    SHINGLE,
    OverlapIndex,
    normal_form,
    overlap,
)
from hybridbatch.data.prepare import prepare
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.registry import source
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from tests.cli.test_cli import hybridbatch
from tests.helpers.recording import RecordingReporter

SENTENCE = "The Panthers defense gave up just 308 points, ranking sixth in the league, while also leading in interceptions."
EDITED = "The Panthers' defence gave up only 308 points, ranking sixth in the league, while also leading in interceptions"
QUESTION = "How many points did the Panthers defense surrender that season?"
BEFORE = "Football is played in many countries. " * 12
AFTER = (
    " Nobody could have foreseen what the following autumn would bring to the city and its"
    " inhabitants." * 8
)
GERMAN = (
    "Die Abwehr der Panthers gab nur 308 Punkte ab und belegte den sechsten Platz in der Liga."
)
THAI = "กองหลังของแพนเธอร์สเสียแต้มไปเพียง 308 แต้มและอยู่ในอันดับที่หกของลีกในขณะที่นำลีกด้วยการสกัดกั้นลูก"
CHINESE = "黑豹队的防守只丢了 308分，在联赛中排名第六，同时也以 24 次拦截领先全联赛，并且夸口有四次入选职业碗。"


def finder_of(*texts: str) -> OverlapIndex:
    return OverlapIndex([normal_form(text) for text in texts])


def found(index: OverlapIndex, text: str) -> list[bool]:
    """Whether each match of a text is exact."""
    return [match.exact for match in index.matches([normal_form(text)])]


def plain_shingles(form: str) -> list[str]:
    """For texts of alphabetic scripts, where a letter is a unit."""
    return [form[at : at + SHINGLE] for at in range(len(form) - SHINGLE + 1)]


def test_case_punctuation_spacing_and_encoding_do_not_count():
    assert normal_form("  The “Café”, No. 7—ﬁne\u00a0! ") == normal_form(
        "the CAFE\u0301 no.7 fine"
    )
    assert normal_form("ｶﾞ ９") == normal_form("ガ9")
    assert normal_form("किताब") != normal_form("कतब")  # vowel signs are letters' worth
    assert normal_form("?!… —") == ""
    assert found(
        finder_of(QUESTION),
        "how many points did the PANTHERS' defense surrender -- that season",
    ) == [True]


def test_a_match_is_found_whichever_text_holds_the_other():
    index = finder_of(
        SENTENCE,
        QUESTION,
        THAI,
        CHINESE,
        f"Zuvor war nichts geschehen. {GERMAN} Danach war Pause.",
    )
    for text, exact in [
        (SENTENCE.upper(), True),
        (EDITED, False),
        (BEFORE + SENTENCE + AFTER, False),
        (BEFORE + EDITED + AFTER, False),
        (QUESTION.replace("surrender", "allow"), False),
        (GERMAN, False),
        (THAI.replace("เพียง", "แค่"), False),
        ("前言。" + CHINESE.replace("夸口", "拥有") + "后来他们赢得了比赛。", False),
    ]:
        assert found(index, text) == [exact], text


def test_unrelated_texts_and_texts_that_share_a_phrase_are_not_taken_for_leaks():
    index = finder_of(
        SENTENCE, QUESTION, "What is the capital of the Republic of Ghana?", BEFORE + AFTER
    )
    for text in [
        "What is the capital of the Republic of Kenya, and when was it founded?",
        "How many points did Liverpool score at home that year?",
        "The Panthers were ranking sixth in the league. "
        + "A different story was told by the newspapers of the day. " * 9,
        "See also",
        "",
        "黑豹是一种大型猫科动物，主要生活在亚洲和非洲的热带雨林里，夜间出来捕食。",
    ]:
        assert found(index, text) == [], text


def test_short_texts_match_exactly_or_not_at_all():
    short = "Who is the president of Ghana?"
    assert len(normal_form(short)) < LEAST_NEAR
    assert found(finder_of(short), "who is the PRESIDENT of Ghana") == [True]
    assert found(finder_of(short), "Who is the president of Kenya?") == []
    assert found(finder_of("Yes, it is."), "Yes, it is.") == []  # too short to say anything
    assert found(finder_of("谁发明了电话？"), "谁发明了电话") == [
        True
    ]  # six characters say as much as eighteen letters


def test_the_overlap_is_that_of_the_definition():
    rng = random.Random(3)
    words = [
        "alpha",
        "bravo",
        "charlie",
        "delta",
        "echo",
        "foxtrot",
        "golf",
        "hotel",
        "india",
        "juliett",
    ]
    for _ in range(60):
        short, long = (
            " ".join(rng.choices(words, k=count)) for count in (9, rng.randrange(9, 60))
        )
        one, other = sorted(
            (plain_shingles(normal_form(short)), plain_shingles(normal_form(long))), key=len
        )
        window = len(one) * 1.25
        best = max(
            sum(other[at] in set(one) for at in range(start, len(other)) if at < start + window)
            for start in range(len(other))
        )
        expected = min(best, sum(shingle in set(other) for shingle in one)) / len(one)
        assert overlap(normal_form(short), normal_form(long)) == pytest.approx(expected)
        assert overlap(normal_form(long), normal_form(short)) == pytest.approx(expected)


def test_the_index_finds_what_comparing_all_with_all_finds():
    rng = random.Random(11)
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(rng.choices(letters, k=rng.randrange(3, 9))) for _ in range(4000)]
    known = [" ".join(rng.choices(vocabulary, k=rng.randrange(8, 40))) for _ in range(120)]

    def edited(text: str) -> str:
        words = text.split()
        for _ in range(rng.randrange(0, 4)):
            words[rng.randrange(len(words))] = rng.choice(vocabulary)
        return " ".join(rng.choices(vocabulary, k=rng.randrange(0, 30)) + words)

    asked = [edited(rng.choice(known)) for _ in range(120)] + [
        " ".join(rng.choices(vocabulary, k=20)) for _ in range(60)
    ]
    known_forms, forms = (
        [normal_form(text) for text in known],
        [normal_form(text) for text in asked],
    )
    expected = {
        (text, number)
        for text, form in enumerate(forms)
        for number, other in enumerate(known_forms)
        if form == other
        or (min(len(form), len(other)) >= LEAST_NEAR and overlap(form, other) >= NEAR)
    }
    matches = {(match.text, match.known) for match in OverlapIndex(known_forms).matches(forms)}
    assert len(expected) > 80
    assert matches <= expected
    assert len(matches) >= 0.98 * len(expected)  # a sample of shingles finds the candidates


def test_a_known_text_made_of_phrases_that_all_others_have_does_not_hide_the_others():
    phrase = "in the opinion of the honourable members of this house"
    known = [
        f"{phrase} number {number} {'abcdefghij'[number % 10] * 3} {number * 7919}"
        for number in range(200)
    ]
    known.append(SENTENCE)
    assert found(finder_of(*known), BEFORE + SENTENCE) == [False]
    assert found(OverlapIndex([]), SENTENCE) == []


# Records and tasks
# ---------------------------------------------------------------------------------------------------


def write_task(
    folder: Path, corpora: dict[str, list[str]], queries: dict[str, list[str]]
) -> Path:
    """A task in the flat layout, in which query number n is answered by passage number n."""
    folder.mkdir()
    for code, texts in corpora.items():
        rows = [{"id": f"d{number}", "text": text} for number, text in enumerate(texts)]
        (folder / f"corpus.{code}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    for code, texts in queries.items():
        rows = [{"id": f"q{number}", "text": text} for number, text in enumerate(texts)]
        (folder / f"queries.{code}.jsonl").write_text(
            "\n".join(json.dumps(row) for row in rows)
        )
    count = len(next(iter(queries.values())))
    judged = [
        {"query_id": f"q{number}", "doc_id": f"d{number}", "rel": 1} for number in range(count)
    ]
    (folder / "qrels.jsonl").write_text("\n".join(json.dumps(row) for row in judged))
    return folder


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return write_task(tmp_path / "exam", {"en": [SENTENCE], "de": [GERMAN]}, {"en": [QUESTION]})


def write_training(path: Path, planted: dict[str, dict[str, tuple[str, str]]]) -> Path:
    """Thirty clean parallel records, and the planted ones."""
    rng = random.Random(5)
    clean = {
        f"clean{number}": {
            code: tuple(
                " ".join(f"{code}{rng.randrange(10**6)}" for _ in range(14)) for _ in range(2)
            )
            for code in ("en", "de", "sw")
        }
        for number in range(30)
    }
    lines = [
        {"id": record, "lang": code, "query": query, "passage": passage}
        for record, versions in (clean | planted).items()
        for code, (query, passage) in versions.items()
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    return path


SWAHILI = (
    "Swali la kwanza ni lipi katika somo hili?",
    "Jibu la swali hili linapatikana katika kitabu cha pili.",
)
PLANTED = {
    "exact question": {
        "en": (QUESTION, "An answer that is in no evaluation set at all."),
        "sw": SWAHILI,
    },
    "edited sentence": {"en": ("Which rank did they reach?", EDITED), "sw": SWAHILI},
    "sentence inside": {
        "en": ("What came next in the city?", BEFORE + SENTENCE + AFTER),
        "sw": SWAHILI,
    },
    "other language": {"de": ("Welchen Rang erreichte die Abwehr?", GERMAN), "sw": SWAHILI},
}


def records(folder: Path) -> dict[str, set[str]]:
    """Record id -> languages."""
    store, held = Store.open(folder), {}
    for split in store.splits:
        for row in store.rows(split, range(store.index(split).rows)):
            held.setdefault(row.record_id, set()).add(row.language)
    return held


def test_planted_leaks_are_removed_in_all_languages_and_told(tmp_path, task):
    mine, notes = write_training(tmp_path / "mine.jsonl", PLANTED), RecordingReporter()
    folder = prepare(
        PrepareConfig(sources=(str(mine),), out=tmp_path / "data", decontaminate=(str(task),)),
        notes,
    )
    assert set(records(folder)) == {f"clean{number}" for number in range(30)}
    assert all(languages == {"eng", "deu", "swh"} for languages in records(folder).values())
    provenance = read_json(folder / "manifest.json")["provenance"]
    assert list(provenance["decontamination"]["tasks"]) == ["exam"]
    removed = provenance["removed"]
    assert removed["records"] == 4
    assert removed["sources"] == {"mine": 4}
    assert {
        (row["language"], row["kind"], row["match"]): row["records"]
        for row in removed["counts"]
    } == {
        ("eng", "query", "exact"): 1,
        ("eng", "passage", "near"): 2,
        ("deu", "passage", "exact"): 1,
    }
    (example,) = [one for one in removed["examples"] if one["kind"] == "query"]
    assert example["evaluation"] == {"id": "q0", "language": "eng", "text": QUESTION}
    assert (example["record"], example["training"]["part"]) == ("exact question", "query")
    assert any(
        "4 records (mine 4) hold evaluation texts (exam 3)" in warning
        for warning in notes.warnings
    )
    assert str(tmp_path) not in (folder / "manifest.json").read_text()


def test_a_store_without_leaking_records_is_that_of_the_other_rows(tmp_path, monkeypatch):
    """In memory and on the disk: languages and sources that only leaking records had are gone, too."""
    monkeypatch.setattr("hybridbatch.data.filters.decontamination.BATCH_ROWS", 7)
    monkeypatch.setattr("hybridbatch.data.store.intake._RUN_ROWS", 16)
    clean = [
        Row("b", f"r{n}", code, f"asked {n} {code}", f"told {n // 2} {code}")
        for n in range(40)
        for code in ("eng", "swh")
    ]
    bad = [
        Row("b", f"bad{n}", code, QUESTION, f"told {n} {code}")
        for n in range(9)
        for code in ("eng", "yor")
    ]
    rows = [
        row
        for pair in zip(clean, [*bad, *[BadRow("f", 1, "text", "empty")] * 62], strict=True)
        for row in pair
    ]
    rows.append(Row("a", "bad", "eng", QUESTION, "the only row of its source"))
    finder, found = (
        LeakFinder([EvaluationText("exam", "eng", "query", "q0", QUESTION)]),
        Findings(),
    )
    made = write_store(
        tmp_path / "a", watched(rows, finder, found), provenance={}, leaking=found
    )
    plain = write_store(
        tmp_path / "b", [*clean, *[BadRow("f", 1, "text", "empty")] * 62], provenance={}
    )
    assert made["provenance"].pop("removed") == found.as_json()
    assert found.records == {*(("b", f"bad{n}") for n in range(9)), ("a", "bad")}
    assert made == plain
    assert made["sources"] == ["b"]
    assert made["languages"] == ["eng", "swh"]


def test_hard_negatives_are_looked_at_and_rows_of_split_test_are_not():
    finder = LeakFinder([EvaluationText("exam", "eng", "passage", "d0", SENTENCE)])
    rows = [
        Row("mine", "a", "eng", "Why so?", "For no reason.", negatives=(SENTENCE,)),
        Row("mine", "b", "eng", "Why so?", SENTENCE, split="test"),
        Row("mine", "c", "eng", None, SENTENCE, split="validation"),
    ]
    assert [(leak.row.record_id, leak.part) for leak in finder.leaks(rows)] == [
        ("a", "negative"),
        ("c", "passage"),
    ]


def test_none_keeps_everything_and_says_so(tmp_path):
    mine = write_training(tmp_path / "mine.jsonl", PLANTED)
    folder = prepare(
        PrepareConfig(sources=(str(mine),), out=tmp_path / "data", decontaminate=("none",))
    )
    assert set(records(folder)) >= set(PLANTED)
    provenance = read_json(folder / "manifest.json")["provenance"]
    assert provenance["decontamination"] == {"tasks": {}, "absent": []}
    assert provenance["removed"]["records"] == 0


def test_by_default_what_is_not_on_this_machine_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    mine, notes = write_training(tmp_path / "mine.jsonl", PLANTED), RecordingReporter()
    folder = prepare(PrepareConfig(sources=(str(mine),), out=tmp_path / "data"), notes)
    assert set(records(folder)) >= set(PLANTED)
    absent = read_json(folder / "manifest.json")["provenance"]["decontamination"]["absent"]
    assert {"xquad-r", "belebele-sib", "sib200"} <= set(absent) == set(evaluation_only())
    assert any(
        "not checked against" in note and "xquad-r" in note and "--data-root" in note
        for note in notes.notes
    )


def test_the_default_has_no_task_that_is_made_of_a_source():
    assert {"xquad-r", "belebele", "belebele-sib", "sib200", "tatoeba"} <= set(
        evaluation_only()
    )
    assert not {"ntrex", "afriqa", "tydi", "amqa", "atlas"} & set(evaluation_only())


def test_another_set_of_tasks_or_other_task_files_prepare_anew(tmp_path, task):
    mine = write_training(tmp_path / "mine.jsonl", PLANTED)
    wanted = PrepareConfig(
        sources=(str(mine),), out=tmp_path / "data", decontaminate=(str(task),)
    )
    manifest = prepare(wanted) / "manifest.json"
    before = manifest.stat().st_mtime_ns
    prepare(wanted)
    assert manifest.stat().st_mtime_ns == before
    (task / "corpus.de.jsonl").write_text(
        json.dumps({"id": "d0", "text": "Etwas ganz anderes steht nun hier."})
    )
    assert "other language" in records(prepare(wanted))
    prepare(wanted.model_copy(update={"decontaminate": ("none",)}))
    assert set(records(tmp_path / "data")) >= set(PLANTED)


def test_a_damaged_task_is_passed_over_by_default_and_refused_by_name(tmp_path):
    mine, notes = write_training(tmp_path / "mine.jsonl", {}), RecordingReporter()
    # not the benchmark's counts
    write_task(tmp_path / "xquad-ro", {"ro": ["Un paragraf."]}, {"ro": ["O întrebare?"]})
    prepare(
        PrepareConfig(sources=(str(mine),), out=tmp_path / "data", data_root=tmp_path), notes
    )
    assert any("not checked against xquad-ro" in warning for warning in notes.warnings)
    with pytest.raises(DataError, match="xquad-ro has 1190 queries"):
        prepare(
            PrepareConfig(sources=(str(mine),), data_root=tmp_path, decontaminate=("xquad-ro",))
        )


@pytest.mark.parametrize(
    ("names", "told"),
    [("xquad-rr", "xquad-r"), ("none,xquad-r", "alone"), ("", "names of tasks")],
)
def test_mistakes_are_one_line(tmp_path, names, told):
    mine = write_training(tmp_path / "mine.jsonl", {})
    with pytest.raises(ConfigError, match=told) as caught:
        prepare(
            build(
                PrepareConfig,
                overrides={
                    "sources": (str(mine),),
                    "out": tmp_path / "d",
                    "decontaminate": names,
                },
            )
        )
    assert "\n" not in str(caught.value)


def test_data_made_of_the_task_is_refused(tmp_path, task):
    lines = {"id": "1", "lang": "en", "query": QUESTION, "passage": SENTENCE}
    (tmp_path / "mine.jsonl").write_text(json.dumps(lines))
    with pytest.raises(DataError, match="all 1 records hold evaluation texts"):
        prepare(
            PrepareConfig(
                sources=(str(tmp_path / "mine.jsonl"),),
                out=tmp_path / "d",
                decontaminate=(str(task),),
            )
        )
    assert not (tmp_path / "d").exists()


def test_an_audit_reports_and_changes_nothing(tmp_path, task):
    mine = write_training(tmp_path / "mine.jsonl", PLANTED)
    folder = prepare(
        PrepareConfig(sources=(str(mine),), out=tmp_path / "data", decontaminate=("none",))
    )
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report = audit(folder, [str(task)])
    assert report["found"]["records"] == 4
    assert report["data"]["fingerprint"] == Store.open(folder).fingerprint
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    done = hybridbatch("audit", folder, task, "--out", tmp_path / "audit.json")
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "audit.json") == report
    assert summary(report["found"]) in done.stdout
    clean = prepare(
        PrepareConfig(sources=(str(mine),), out=tmp_path / "clean", decontaminate=(str(task),))
    )
    assert audit(clean, [str(task)])["found"] == Findings().as_json()
    assert summary(Findings().as_json()) == "no record holds an evaluation text"
    with pytest.raises(DataError, match="no prepared data"):
        audit(tmp_path / "nowhere", [str(task)])


def test_mteb_tasks_are_known_by_name(monkeypatch):
    from tests.scoring.test_mteb import ToyRetrieval

    monkeypatch.setattr(
        "hybridbatch.data.filters.evaluation_texts._mteb_task", lambda name: ToyRetrieval()
    )
    texts = evaluation_texts("ToyRetrieval", None)
    assert choose_checks(["ToyRetrieval"], None).fingerprints == {"ToyRetrieval": "1" * 40}
    assert {(text.kind, text.id) for text in texts} >= {("query", f"q{n}") for n in range(20)}
    judged = {text.id for text in texts if text.kind == "passage"}
    # each query's own; not the unjudged
    assert {f"d{n}" for n in range(20)} <= judged < {f"d{n}" for n in range(45)}


# Real data
# -----------------------------------------------------------------------------------------------------------


def real_findings(finder: LeakFinder, name: str, real_data: Path) -> Findings:
    found = Findings()
    found.add(
        finder.leaks(
            row for row in source(name).rows(SourceContext(real_data)) if isinstance(row, Row)
        )
    )
    return found


@pytest.fixture(scope="session")
def xquad(real_data: Path) -> list[EvaluationText]:
    return evaluation_texts("xquad-r", real_data)


def test_real_question_answering_sets_share_next_to_nothing_with_xquad_r(real_data, xquad):
    finder = LeakFinder(xquad)
    leaking = {
        name: real_findings(finder, name, real_data)
        for name in ("squadshifts", "tydi", "afriqa")
    }
    assert not leaking["squadshifts"].records
    assert not leaking["afriqa"].records
    assert len(leaking["tydi"].records) <= 3  # of 8,076
    (passage,) = [
        one for one in leaking["tydi"].as_json()["examples"] if one["kind"] == "passage"
    ]
    # Wikipedia's article, which both are drawn from
    assert passage["training"]["text"].startswith("Oxygen ")


def test_squad_like_text_made_from_xquad_r_is_found(xquad):
    """Paragraphs joined from its sentences, and its questions, each with one word replaced by its
    neighbour.
    """
    rng = random.Random(7)
    english = [text for text in xquad if text.language == "eng"]
    sentences = [text for text in english if text.kind == "passage" and len(text.text) > 80]
    questions = [
        text
        for text in english
        if text.kind == "query" and len(normal_form(text.text)) >= LEAST_NEAR
    ]

    def edited(text: str) -> str:
        words = text.split()
        at = rng.randrange(len(words) - 1)
        words[at] = words[at + 1]
        return " ".join(words)

    rows = [
        Row("squad", f"p{n}", "eng", None, f"{BEFORE} {edited(sentences[n].text)} {AFTER}")
        for n in range(300)
    ] + [Row("squad", f"q{n}", "eng", edited(questions[n].text), None) for n in range(300)]
    found = {(leak.row.record_id, leak.evaluation.id) for leak in LeakFinder(xquad).leaks(rows)}
    assert sum((f"p{n}", sentences[n].id) in found for n in range(300)) >= 297
    assert sum((f"q{n}", questions[n].id) in found for n in range(300)) >= 285


@pytest.mark.slow
def test_aligned_sources_share_with_sib200_only_what_is_truly_shared(real_data):
    """NTREX has nothing of it; TICO-19 has the Wikinews report on the NBA that FLORES has, too."""
    finder = LeakFinder(
        text
        for name in ("sib200", "belebele-sib")
        for text in evaluation_texts(name, real_data)
    )
    assert not real_findings(finder, "ntrex", real_data).records
    leaking = {record for _, record in real_findings(finder, "tico19", real_data).records}
    assert leaking
    assert all(record.startswith("Wikinews_2:") for record in leaking)


def test_local_tasks_are_checked_by_default(real_data):
    checks = choose_checks(("all",), real_data)
    assert set(checks.names) | set(checks.absent) == set(evaluation_only())
    assert set(checks.absent) <= {"mlqa-r"}  # all others are there
