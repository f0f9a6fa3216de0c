"""The atlas: many languages, the same records in each, no name given away, and the same text on
every machine.
"""

import os
import subprocess
import sys
import unicodedata

import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.languages import canonical, language, resource_class
from hybridbatch.common.records import Row
from hybridbatch.data.atlas import cldr, make_names
from hybridbatch.data.atlas.cldr import Names, locales, territories
from hybridbatch.data.atlas.queries import QUERIES, SEPARATOR, Edition, _nameless, choose
from hybridbatch.data.atlas.source import (
    DEFAULT_EVALUATION,
    TEST,
    TRAINED,
    VALIDATION,
    atlas,
    territory_of,
)
from hybridbatch.data.atlas.task import read_atlas
from hybridbatch.data.source import SourceContext
from hybridbatch.data.sources.registry import source


@pytest.fixture(scope="module")
def world():
    return atlas()


def test_near_full_coverage_of_at_least_130_languages(world):
    assert len(world.languages) >= 130
    assert all(canonical(code) == code for code in world.languages)
    assert list(world.languages) == sorted(world.languages)
    for cards in world.cards.values():
        assert len(cards) > 0.8 * len(territories())
    assert sum(len(cards) == len(territories()) for cards in world.cards.values()) > 110


def test_languages_of_the_defaults_are_there(world):
    assert set(TRAINED) | set(DEFAULT_EVALUATION) <= set(world.languages)
    low = {
        "swh",
        "yor",
        "amh",
        "zul",
        "ibo",
        "hau",
        "som",
        "wol",
        "quy",
        "chr",
        "ewe",
        "mri",
        "tir",
    }
    assert low <= set(DEFAULT_EVALUATION)
    assert {resource_class(code) for code in low} == {"low"}
    assert len({language(code).script for code in DEFAULT_EVALUATION}) >= 10


def test_english_in_disguise_is_not_a_language(world):
    names = {found.language: found for found in locales()}
    english, cebuano = names["eng"], names["ceb"]
    copied = sum(cebuano.currency[code] == english.currency[code] for code in cebuano.currency)
    assert copied > 0.9 * len(cebuano.currency)
    assert "ceb" not in world.languages
    # Uyghur has the names of all territories but of next to no city, Luganda only few languages and
    # currencies
    assert not {"uig", "lug", "nno"} & set(world.languages)


def test_only_a_locales_own_names_count():
    names = {found.language: found for found in locales()}
    assert "KE" in names["lug"].territory
    assert "KES" in names["lug"].currency
    assert "THB" not in names["lug"].currency  # CLDR would answer "Thai Baht", in English
    # a Latin-script locale leaves out what it spells alike
    assert names["swh"].city["Africa/Nairobi"] == "Nairobi"
    assert "Africa/Nairobi" not in names["uig"].city


def test_records_are_parallel(world):
    """A language has all records of the territories it has a card of."""
    records: dict[str, set[str]] = {}
    for texts in world.queries.values():
        for record in texts:
            records.setdefault(territory_of(record), set()).add(record)
    assert len(records) == len(territories()) > 240
    for code in world.languages:
        expected = {record for territory in world.cards[code] for record in records[territory]}
        assert set(world.queries[code]) == expected
    for found in records.values():
        assert 1 <= len(found) <= QUERIES
        assert {record.partition("-")[2] for record in found} == {
            str(number) for number in range(len(found))
        }
    assert sum(len(found) == QUERIES for found in records.values()) > 0.75 * len(records)


def test_no_query_contains_the_name_of_its_territory(world):
    for code, texts in world.queries.items():
        for record, text in texts.items():
            name = world.cards[code][territory_of(record)].split(SEPARATOR)[0]
            assert name.casefold() not in text.casefold(), (code, record, text)


def test_every_query_is_answered_by_its_card(world):
    for code, texts in world.queries.items():
        for record, text in texts.items():
            words = {word for part in text.split(SEPARATOR) for word in part.split()}
            card = world.cards[code][territory_of(record)]
            assert words
            assert all(word in card for word in words), (code, record, text)
            assert len(text.split(SEPARATOR)) >= 2


def test_few_queries_fit_another_card(world):
    """Counted independently of the choice: by text, in the languages of the default evaluation."""
    for code in set(DEFAULT_EVALUATION) - {"chr"}:
        cards = [card.casefold() for card in world.cards[code].values()]
        ambiguous = sum(
            sum(
                all(part in card for part in text.casefold().split(SEPARATOR)) for card in cards
            )
            > 1
            for text in world.queries[code].values()
        )
        assert ambiguous < 0.1 * len(world.queries[code]), code


def test_cards_are_distinct_and_texts_are_clean(world):
    for code in world.languages:
        cards = world.cards[code]
        assert len(set(cards.values())) == len(cards)
        for text in [*cards.values(), *world.queries[code].values()]:
            assert text == unicodedata.normalize("NFC", text) == " ".join(text.split())
            assert all(part.strip() for part in text.split(SEPARATOR))


def test_kenya_in_swahili(world):
    card = world.cards["swh"]["KE"]
    assert card.startswith("Kenya · Shilingi ya Kenya · Kiswahili · Kiingereza")
    assert card.endswith("Nairobi · Afrika ya Mashariki · Afrika")
    assert all("Kenya" not in world.queries["swh"][f"KE-{number}"] for number in range(QUERIES))


@pytest.mark.parametrize(
    ("kind", "text", "name", "spaced", "expected"),
    [
        ("currency", "Shilingi ya Kenya", "Kenya", True, "Shilingi ya"),
        ("currency", "Kenyan Shilling", "Kenya", True, "Shilling"),
        ("currency", "Kenia-Schilling", "Kenia", True, "Schilling"),
        ("currency", "肯尼亚先令", "肯尼亚", False, "先令"),
        ("currency", "ケニア・シリング", "ケニア", False, "シリング"),
        ("currency", "Kuwaitdinar", "Kuwait", True, "dinar"),
        ("currency", "Boliviano", "Bolivia", True, ""),
        ("currency", "Euro", "France", True, "Euro"),
        ("language", "Nauruan", "Nauru", True, ""),
        ("city", "Hong Kong", "Hong Kong SAR China", True, ""),
        ("city", "Ciudad de Guatemala", "Guatemala", True, "Ciudad de"),
    ],
)
def test_the_name_is_cut_out(kind: str, text: str, name: str, spaced: bool, expected: str):
    assert _nameless(kind, text, name, spaced) == expected


def test_queries_prefer_what_fits_no_other_card():
    contents = {
        "AA": {
            ("currency", 0): "X",
            ("language", 0): "l",
            ("city", 0): "z1",
            ("region", 0): "r",
        },
        "BB": {
            ("currency", 0): "X",
            ("language", 0): "l",
            ("city", 0): "z2",
            ("region", 0): "r",
        },
        "CC": {
            ("currency", 0): "Y",
            ("language", 0): "l",
            ("city", 0): "z3",
            ("region", 0): "r",
        },
    }
    names = Names(
        language="eng",
        territory={"AA": "Alphaland", "BB": "Betaland", "CC": "Gammaland", "r": "Region"},
        currency={"X": "Crown", "Y": "Gammaland Pound"},
        spoken={"l": "Common"},
        city={"z1": "First", "z2": "Second", "z3": "Gammaland"},
    )
    edition = Edition.of(names, contents)
    assert edition.cards["AA"] == "Alphaland · Crown · Common · First · Region"
    for slots in choose("AA", [edition]):
        assert ("city", 0) in slots  # nothing else tells Alphaland from Betaland
    asked = [edition.query("CC", slots) for slots in choose("CC", [edition])]
    assert asked
    assert all("Pound" in query and "Gammaland" not in query for query in asked)


def test_splits_are_by_territory(world):
    counts = {
        split: list(world.splits.values()).count(split)
        for split in ("train", "validation", "test")
    }
    assert counts == {
        "train": len(territories()) - TEST - VALIDATION,
        "validation": VALIDATION,
        "test": TEST,
    }
    assert set(world.splits) == {territory.code for territory in territories()}


def test_training_rows_hold_no_test_territory(world):
    rows = list(
        source("atlas").rows(SourceContext(keeps=lambda code: code in ("swh", "eng"), seed=99))
    )
    assert all(isinstance(row, Row) for row in rows)
    assert {row.language for row in rows} == {"swh", "eng"}
    assert {row.split for row in rows} == {"train", "validation"}
    assert all(world.splits[territory_of(row.record_id)] == row.split for row in rows)
    assert len({(row.record_id, row.language) for row in rows}) == len(rows)
    by_language = [
        {row.record_id for row in rows if row.language == code} for code in ("swh", "eng")
    ]
    assert by_language[0] == by_language[1]
    task = read_atlas()
    tested = {text for texts in task.corpus.values() for text in texts.texts}
    assert not tested & {row.passage for row in rows}


def test_task(world):
    task = read_atlas()
    assert tuple(task.queries) == tuple(task.corpus) == tuple(task.qrels) == world.languages
    assert "not general retrieval" in task.about
    assert task.parallel
    assert task.provenance["fingerprint"] == world.fingerprint
    for code, corpus in task.corpus.items():
        assert set(task.qrels[code]) >= set(task.queries[code].ids)
        for query, relevant in task.qrels[code].items():
            assert relevant == {territory_of(query): 1}
            assert territory_of(query) in corpus.ids
    assert len(task.corpus["eng"].ids) == TEST
    other = read_atlas("validation")
    assert not set(other.corpus["eng"].ids) & set(task.corpus["eng"].ids)
    with pytest.raises(ConfigError, match=r"'tset'.*test"):
        read_atlas("tset")


def test_it_is_the_atlas_of_the_committed_results(world):
    # another one: `experiments/` and the README must be made anew
    assert world.fingerprint == "adfbd7b15ff398a0"


def test_the_same_text_whatever_the_hash_seed(world):
    code = "from hybridbatch.data.atlas.source import atlas; print(atlas().fingerprint)"
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": "Asia/Tokyo"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert done.stdout.strip() == world.fingerprint


def test_the_names_in_the_package_are_those_of_cldr():
    babel = pytest.importorskip("babel")
    if f"babel {babel.__version__}" != cldr.SOURCE:
        pytest.skip(f"needs {cldr.SOURCE}, this is {babel.__version__}")
    assert make_names.OUT.read_bytes() == make_names.packed(make_names.collect())


def test_the_atlas_needs_no_babel():
    code = "import sys; sys.modules['babel'] = None; from hybridbatch.data.atlas.source import atlas; atlas()"
    subprocess.run([sys.executable, "-c", code], check=True)
