"""The registry knows every code of every data set, and groups mean what their names say."""

import gzip
import json
import subprocess
import sys
import unicodedata

import pytest

from hybridbatch.common import languages
from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.languages import (
    canonical,
    describe_group,
    known_languages,
    language,
    optional,
    resolve,
    resource_class,
)

AVAILABLE = ("eng", "swh", "amh", "tir", "zho", "zho-Hant", "yor", "tha", "hin-Latn", "bem")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ("sw swa swh swh_Latn swh-Latn SWA Swahili sw_CD", "swh"),
        ("ar ara arb arb_Arab ar-001", "arb"),
        ("arb_Latn arb-Latn ar-Latn", "arb-Latn"),
        ("fa fas per pes pes_Arab", "pes"),
        ("prs fa-AF Dari", "prs"),
        ("ne nep npi npi_Deva", "npi"),
        ("ms msa zsm Malay", "zsm"),
        ("mn mon khk khk_Cyrl mon-Mong", "khk"),
        ("lv lav lvs", "lvs"),
        ("sq sqi als alb", "als"),
        ("no nb nor nob", "nob"),
        ("yi yid ydd iw-none", "ydd"),
        ("om orm gaz orm-Ethi", "gaz"),
        ("mg mlg plt", "plt"),
        ("qu que quy", "quy"),
        ("zh zho cmn zh-CN zho-CN zho_Hans zh_Hans_CN chi Mandarin", "zho"),
        ("zh-TW zh_Hant zho_Hant zh-Hant-HK zh-hk cmn-Hant", "zho-Hant"),
        ("yue yue_Hant", "yue"),
        ("yue_Hans", "yue-Hans"),
        ("az aze-Latn azj_Latn", "azj"),
        ("azb az_Arab", "azb"),
        ("az_Cyrl", "azj-Cyrl"),
        ("sr srp-Cyrl sr_Cyrl", "srp"),
        ("srp-Latn sr_Latn sr-Latn-RS", "srp-Latn"),
        ("es es-LA es-419 spa", "spa"),
        ("kr kau knc", "knc"),
        ("ku kur kmr", "kmr"),
        ("ckb ckb-Arab ku-Arab", "ckb"),
        ("tl fil tgl", "tgl"),
        ("tw twi tw-akua tw-asan", "twi"),
        ("ak aka", "aka"),
        ("dtp", "dtp"),
        ("kzj", "kzj"),
        ("ha ha-ne hau", "hau"),
        ("pa pan pa_Guru", "pan"),
        ("pa_Arab pnb", "pnb"),
        ("ace ace_Latn", "ace"),
        ("ace_Arab", "ace-Arab"),
        ("hin-Latn hi_rom", "hin-Latn"),
        ("ja jpn jpn-Jpan jpn-Hira", "jpn"),
        ("ko kor_Hang kor-Kore", "kor"),
        ("ga gle", "gle"),
        ("in id ind", "ind"),
        ("iw he heb", "heb"),
    ],
)
def test_every_code_of_a_language_gives_one_id(codes: str, expected: str):
    found = {code: canonical(code) for code in codes.split() if not code.endswith("-none")}
    assert found == dict.fromkeys(found, expected)


@pytest.mark.parametrize("code", ["xqz", "swahilli", "en-Latm", "swh-Latn-KE-x-y", "", "-"])
def test_an_unknown_code_is_refused(code: str):
    with pytest.raises(DataError, match="unknown language"):
        canonical(code)


def test_an_unknown_name_brings_the_nearest_ones():
    with pytest.raises(DataError, match="did you mean swahili"):
        canonical("swahilli")


def test_the_table_is_clean():
    ids = known_languages()
    assert list(ids) == sorted(ids)
    assert len(set(ids)) == len(ids)
    named: dict[str, str] = {}
    for code in ids:
        row = language(code)
        assert canonical(code) == row.id == code
        assert all(
            text == unicodedata.normalize("NFC", text).strip() != ""
            for text in (row.name, *row.aliases)
        )
        assert row.joshi_class in (None, 0, 1, 2, 3, 4, 5)
        assert named.setdefault(row.name.casefold(), code) == code
        if "-" in code:
            assert code == f"{canonical(code.partition('-')[0])}-{row.script}"
        for alias in row.aliases:
            assert canonical(alias) == code


def test_facts():
    row = language("am")
    assert (row.id, row.name, row.script, row.family, row.joshi_class) == (
        "amh",
        "Amharic",
        "Ethi",
        "Afro-Asiatic",
        2,
    )
    assert language("ace-Arab").joshi_class == language("ace").joshi_class
    assert language("ace-Arab").script == "Arab"
    assert "Latn" in language("ace-Arab").other_scripts
    assert [resource_class(code) for code in ("swh", "tha", "hin", "eng", "bem")] == [
        "low",
        "mid",
        "high",
        "high",
        "unknown",
    ]


def test_pretraining_lists_have_their_published_sizes():
    """XLM-R counts Burmese twice (Unicode and Zawgyi), which is one id here; see docs/languages.md."""

    def members(model):
        return {code for code in known_languages() if model in language(code).pretrained}

    assert len(members("xlm-r")) + 1 == 100
    assert len(members("mbert")) == 104
    assert len(members("labse")) == 109
    assert {"hin-Latn", "zho-Hant", "gaz", "san"} <= members("xlm-r")
    assert not {"yor", "ibo", "tat", "wol"} & members("xlm-r")
    assert {"yor", "hbs", "azb", "nob", "nno"} <= members("mbert")
    assert not {"amh", "hau", "xho"} & members("mbert")
    assert {"wol", "ibo", "hau", "bod"} <= members("labse")
    assert not {"bre", "nno", "pbt"} & members("labse")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", "eng swh amh tir zho zho-Hant yor tha hin-Latn bem"),
        ("low-resource", "swh amh tir yor"),
        ("low-resource,-swh", "amh tir yor"),
        ("mid-resource", "tha"),
        ("high-resource", "eng zho zho-Hant hin-Latn"),
        ("unlisted", "bem"),
        ("-eng,-mid-resource", "swh amh tir zho zho-Hant yor hin-Latn bem"),
        ("yor,sw", "swh yor"),  # in the order of the data
        ("script:Ethi", "amh tir"),
        ("script:ethi,tha", "amh tir tha"),
        ("family:Niger-Congo", "swh yor bem"),
        ("family:niger-congo&low-resource", "swh yor"),
        ("low-resource&pretrained:mbert", "swh yor"),
        ("pretrained:me5&-low-resource", None),
        ("pretrained:me5,-low-resource", "eng zho zho-Hant tha hin-Latn"),
        ("seen", "eng tha"),
        ("unseen&low-resource,tha", "swh amh tir yor tha"),
        ("low-resource,-amh,amh", "swh amh tir yor"),  # left to right
        ("eng,fra?,low-resource&swh?", "eng swh"),
        ("low-resource,-fra", "swh amh tir yor"),  # what is not there need not be taken away
        ("-low-resource&script:Ethi", "eng swh zho zho-Hant yor tha hin-Latn bem"),
    ],
)
def test_group_algebra(spec: str, expected: str | None):
    if expected is None:
        with pytest.raises(ConfigError):
            resolve(spec, AVAILABLE, trained=("en", "th"))
    else:
        assert resolve(spec, AVAILABLE, trained=("en", "th")) == tuple(expected.split())


def test_low_resource_is_joshi_0_to_2_of_the_whole_registry():
    found = set(resolve("low-resource", known_languages()))
    assert found == {
        code for code in known_languages() if language(code).joshi_class in (0, 1, 2)
    }


def test_a_spec_is_made_optional_term_by_term():
    assert optional(" fra, low-resource & swh?,,-eng,") == "fra?,low-resource?&swh?,-eng?"
    assert resolve(optional("fra,swh&low-resource,"), AVAILABLE) == ("swh",)
    with pytest.raises(ConfigError, match="names no language"):
        resolve(optional(" , "), AVAILABLE)


def test_codes_of_the_data_come_back_as_they_were_given():
    assert resolve("low-resource", ("sw", "en", "swc")) == ("sw",)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("low-resorce", "unknown language or group 'low-resorce'.*low-resource"),
        ("swahilli", "unknown language or group 'swahilli'.*swahili"),
        ("script:Etho", "unknown script 'Etho'.*Ethi"),
        ("family:Niger-Kongo", "unknown family 'Niger-Kongo'.*Niger-Congo"),
        ("pretrained:xlmr", "unknown pretrained 'xlmr'.*xlm-r"),
        ("colour:red", "unknown group 'colour:red'"),
        ("fra", r"'fra' \(French\) is not in this data, which has 10: eng, swh"),
        ("low-resource&high-resource", "'low-resource&high-resource': matches none of the 10"),
        ("tha,-tha", "'tha,-tha': matches none"),
        ("", "names no language"),
        (" , ", "names no language"),
        ("-swahilli", "unknown language or group 'swahilli'"),
    ],
)
def test_a_bad_spec_is_one_clear_line(spec: str, message: str):
    with pytest.raises(ConfigError, match=message) as error:
        resolve(spec, AVAILABLE)
    assert "\n" not in str(error.value)


def test_a_group_can_be_described():
    rows = describe_group("script:Ethi", AVAILABLE)
    assert [(row["id"], row["name"], row["Joshi class"]) for row in rows] == [
        ("amh", "Amharic", 2),
        ("tir", "Tigrinya", 2),
    ]
    assert "ti" in rows[1]["aliases"].split(", ")
    assert {row["id"] for row in describe_group("script:Ethi")} > {"amh", "tir", "gez"}


def test_the_registry_costs_nothing_until_it_is_used():
    code = "import hybridbatch.common.languages as l, sys; print(l._registry.cache_info().currsize, 'numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0", "False"]


def test_every_locale_of_cldr_is_known():
    from babel import localedata
    from babel.core import get_global

    languages_of_cldr = {name.split("_")[0] for name in localedata.locale_identifiers()}
    scripts = {
        "_".join(name.split("_")[:2])
        for name in localedata.locale_identifiers()
        if _has_script(name)
    }
    spoken = {
        code for codes in get_global("territory_languages").values() for code in codes
    } - {"und"}
    unknown = [
        code for code in languages_of_cldr | scripts | spoken if languages._find(code) is None
    ]
    assert unknown == []


def _has_script(locale: str) -> bool:
    return len(locale.split("_")) > 1 and len(locale.split("_")[1]) == 4


def test_every_code_of_the_real_data_is_known(real_data):
    for row in _rows(real_data / "meta" / "languages.jsonl.gz"):
        for data_set, codes in row["codes"].items():
            # ISO 639-3 of the pack and the data set's own code mean one language, whatever its
            # script
            assert {canonical(code).split("-")[0] for code in codes} == {
                canonical(row["iso3"])
            }, data_set
    codes = {row["lang"] for row in _rows(real_data / "stories" / "docs.jsonl.gz")}
    for folder in (
        "ntrex",
        "tico19",
        "tatoeba",
        "bible",
        "sib200",
        "belebele-sib",
        "afriqa",
        "xquad-r",
        "lafand-mt",
    ):
        stems = [
            path.name.removesuffix(".jsonl.gz")
            for path in (real_data / folder).glob("*.jsonl.gz")
        ]
        codes |= {code for stem in stems if stem != "qrels" for code in _codes(stem)}
    assert len(codes) > 400
    assert [code for code in codes if languages._find(code) is None] == []


def _rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _codes(stem: str) -> list[str]:
    """The codes in a file's name: ``swa``, ``queries.swa``, ``doc.en-kin``."""
    kind, _, code = stem.rpartition(".")
    return code.split("-") if kind in ("doc", "sent") else [code]


def test_the_corpora_of_belebele_stay_apart(real_data):
    codes = [path.name.split(".")[1] for path in (real_data / "belebele-sib").glob("corpus.*")]
    assert len(codes) == 205
    assert len({canonical(code) for code in codes}) == 205


def test_every_code_of_mteb_is_known():
    import mteb

    by_task = {task.metadata.name: codes_of(task) for task in mteb.get_tasks()}
    assert len(set().union(*by_task.values())) > 400
    unknown = {
        code for codes in by_task.values() for code in codes if languages._find(code) is None
    }
    assert unknown == set()
    # a macrolanguage code beside the code it stands for, for one subset, in mteb's own metadata
    both = {"nor-Latn", "nob-Latn"}
    for name, codes in by_task.items():
        if not both <= codes:
            assert len({canonical(code) for code in codes}) == len(codes), name


def codes_of(task) -> set[str]:
    """The codes of human languages in an mteb task's metadata, of all its subsets."""
    stated = task.metadata.eval_langs
    lists = stated.values() if isinstance(stated, dict) else [stated]
    natural = {code for codes in lists for code in codes if not code.endswith("-Code")}
    return natural - {"zxx-Zxxx"}  # neither programs nor what has no language
