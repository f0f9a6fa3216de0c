"""One registry of languages: canonical ids, what is known of each, and the algebra of language
groups.

The canonical id of a language is the ISO 639-3 code under which FLORES-200 publishes it (``swh``,
``arb``, ``pes``, ``npi``, ``zsm``, ``lvs``, ``quy`` ...), else its ISO 639-3 code. A macrolanguage
code means the individual language that data sets mean by it (``swa`` and ``sw`` are ``swh``); codes
that some data set keeps apart stay apart (``twi`` and ``aka``, ``dtp`` and ``kzj``). ``-Script`` is
added only for text that is not in the language's usual script, the first of its `scripts`:
``ace-Arab``, ``hin-Latn``, ``zho-Hant``. Chinese without a script is ``zho`` and in Hans.

The table ``common/languages.tsv`` is the only place where facts are stored; docs/languages.md names
the sources of each column. It is read on first use.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from hybridbatch.common.errors import ConfigError, DataError, nearest

ResourceClass = Literal["low", "mid", "high", "unknown"]
PRETRAINED_MODELS = {
    "xlm-r": "xlm-r",
    # multilingual E5 starts from XLM-R (small: from a MiniLM distilled from it); no list of its own
    "me5": "xlm-r",
    "mbert": "mbert",
    "labse": "labse",
}
GROUPS = ("all", "low-resource", "mid-resource", "high-resource", "unlisted", "seen", "unseen")
_PREFIXES = ("script:", "family:", "pretrained:")
_REGION = re.compile(r"[A-Z]{2}|\d{3}")
_SCRIPT = re.compile(r"[A-Z][a-z]{3}")
_EXTENDED = re.compile(r"[a-z]{3}")
# Variants of BCP 47 are dropped as regions are: those with a digit, and IANA's registered ones.
_VARIANT = re.compile(r"\d[a-z0-9]{3}|(?=.*\d)[a-z0-9]{5,8}")
_VARIANTS = frozenset(
    [
        "akuapem",
        "aluku",
        "anpezo",
        "aranes",
        "arevela",
        "arevmda",
        "arkaika",
        "asante",
        "auvern",
        "balanka",
        "barla",
        "basiceng",
        "bauddha",
        "bciav",
        "bcizbl",
        "biscayan",
        "biske",
        "blasl",
        "bohoric",
        "boont",
        "bornholm",
        "cisaup",
        "cornu",
        "creiss",
        "dajnko",
        "ekavsk",
        "emodeng",
        "fascia",
        "fodom",
        "fonipa",
        "fonkirsh",
        "fonnapa",
        "fonupa",
        "fonxsamp",
        "gallo",
        "gascon",
        "gherd",
        "grclass",
        "grital",
        "grmistr",
        "hepburn",
        "heploc",
        "hognorsk",
        "hsistemo",
        "ijekavsk",
        "itihasa",
        "ivanchov",
        "jauer",
        "jyutping",
        "kkcor",
        "kleinsch",
        "kociewie",
        "kscor",
        "laukika",
        "leidentr",
        "lemosin",
        "lengadoc",
        "lipaw",
        "mdcegyp",
        "mdctrans",
        "metelko",
        "monoton",
        "ndyuka",
        "nedis",
        "newfound",
        "nicard",
        "njiva",
        "nulik",
        "osojs",
        "oxendict",
        "pamaka",
        "peano",
        "pehoeji",
        "pinyin",
        "polyton",
        "provenc",
        "puter",
        "rigik",
        "rozaj",
        "rumgr",
        "saigon",
        "scotland",
        "scouse",
        "simple",
        "solba",
        "sotav",
        "spanglis",
        "surmiran",
        "sursilv",
        "sutsilv",
        "synnejyl",
        "tailo",
        "tarask",
        "tongyong",
        "tunumiis",
        "uccor",
        "ucrcor",
        "ulster",
        "unifon",
        "vaidika",
        "valbadia",
        "valencia",
        "vallader",
        "vecdruka",
        "viennese",
        "vivaraup",
        "wadegile",
        "xsistemo",
    ]
)
# What tools write where they do not know a language, or a text has several. "unk" is also the code
# of Enawené-Nawé, which can be had by its name.
NO_LANGUAGE = frozenset(
    ["und", "unk", "mul", "mis", "zxx", "xx", "unknown", "undetermined", "none", "multilingual"]
)
# Scripts under other names: of ISO 15924 those that stand for several or are styles of one, then
# those of Windows and of POSIX locales, and words.
_SCRIPT_NAMES = {
    "kore": "Hang",
    "hira": "Jpan",
    "kana": "Jpan",
    "hrkt": "Jpan",
    "aran": "Arab",
    "latf": "Latn",
    "latg": "Latn",
    "cyrs": "Cyrl",
    "cht": "Hant",
    "chs": "Hans",
    "traditional": "Hant",
    "simplified": "Hans",
    "latin": "Latn",
    "latinized": "Latn",
    "cyrillic": "Cyrl",
    "arabic": "Arab",
    "devanagari": "Deva",
    "ethiopic": "Ethi",
    "hebrew": "Hebr",
    "greek": "Grek",
    "bengali": "Beng",
    "gurmukhi": "Guru",
    "tifinagh": "Tfng",
}
# Tags that BCP 47 keeps from before its rules (RFC 5646, 2.2.8), as far as they are languages here.
_GRANDFATHERED = {
    "art-lojban": "jbo",
    "be-x-old": "bel",  # of Wikipedia, not of the list
    "i-ami": "ami",
    "i-bnn": "bnn",
    "i-hak": "hak",
    "i-klingon": "tlh",
    "i-lux": "ltz",
    "i-navajo": "nav",
    "i-pwn": "pwn",
    "i-tao": "tao",
    "i-tay": "tay",
    "i-tsu": "tsu",
    "no-bok": "nob",
    "no-nyn": "nno",
    "zh-guoyu": "zho",
    "zh-hakka": "hak",
    "zh-xiang": "hsn",
}


@dataclass(frozen=True, slots=True)
class Language:
    """What is known of a language, or of a language in one of its other scripts."""

    id: str
    name: str  # in English
    script: str  # ISO 15924; empty where not known
    other_scripts: tuple[str, ...]  # further scripts it is written in
    family: str | None  # top level
    # 0 to 5 of Joshi et al. 2020 (arXiv:2004.09095); None: not in their list
    joshi_class: int | None
    # models whose published pretraining languages include it, of PRETRAINED_MODELS
    pretrained: tuple[str, ...]
    aliases: tuple[str, ...]  # other codes and names that mean it

    @property
    def resource_class(self) -> ResourceClass:
        """``low`` for Joshi classes 0 to 2, ``mid`` for 3, ``high`` for 4 and 5, ``unknown`` where
        unlisted.
        """
        if self.joshi_class is None:
            return "unknown"
        return "low" if self.joshi_class <= 2 else "mid" if self.joshi_class == 3 else "high"


def canonical(code: str) -> str:
    """The canonical id of any code or English name of a language: ``sw``, ``swa_Latn``, ``Swahili``
    give ``swh``.

    Takes ISO 639-1, 639-2 and 639-3, BCP-47 and CLDR locales, the codes of FLORES, NTREX, TICO-19,
    Tatoeba, AfriQA, mteb and the stories; case and ``_`` or ``-`` do not matter. A region is
    dropped unless it implies a script or a language (``es-LA`` is ``spa``, ``zh-TW`` is
    ``zho-Hant``).

    Raises: `DataError` naming the nearest known codes.
    """
    found = _find(code)
    if found is not None:
        return found
    if names_no_language(code):
        raise _no_language(code)
    raise DataError(
        f"unknown language {code!r}{nearest(_key(code), list(_registry()[1]))}; use an ISO 639-3"
        " code"
    )


def language_of_texts(code: str) -> str:
    """As `canonical`, but ``unk`` is refused: with texts it says that their language is not known,
    and does not mean Enawene-Nawe, whose code it is.

    Raises: `DataError`.
    """
    if names_no_language(code):
        raise _no_language(code)
    return canonical(code)


def _no_language(code: str) -> DataError:
    return DataError(
        f"unknown language {code!r}: this code stands for text whose language is not known, or for"
        " several languages; name the language"
    )


def names_no_language(code: str) -> bool:
    """Whether data say with this code that they do not know the language, or have several: ``und``,
    ``mul``, ``unk``.
    """
    return _key(code).partition("-")[0] in NO_LANGUAGE


def language(code: str) -> Language:
    """The facts of a language under any of its codes. Raises: `DataError` as `canonical`."""
    code = canonical(code)
    known = _registry()[0]
    if code in known:
        return known[code]
    base, _, script = code.partition("-")
    return _in_script(known[base], script)


def resource_class(code: str) -> ResourceClass:
    """The resource class of a language. Raises: `DataError` as `canonical`."""
    return language(code).resource_class


def known_languages() -> tuple[str, ...]:
    """The ids of the registry; a known language in another known script is understood as well."""
    return tuple(_registry()[0])


def resolve(
    spec: str, available: Iterable[str], trained: Iterable[str] = ()
) -> tuple[str, ...]:
    """The languages of `available` that `spec` asks for, in the order of `available`.

    A spec is a list of terms with commas between, applied from left to right: ``x`` adds, ``-x``
    takes away, ``x&y`` is what both have, ``x?`` adds x where it is available. One that starts with
    ``-`` starts from all. Terms are language codes or names and the groups ``all``,
    ``low-resource``, ``mid-resource``, ``high-resource``, ``unlisted`` (by
    `Language.resource_class`), ``seen`` and ``unseen`` (among `trained` or not), ``script:Ethi``,
    ``family:Niger-Congo``, ``pretrained:xlm-r``.

    Raises: `ConfigError` for an unknown term (with the nearest known ones), a language added that
        is not available, or an empty result; `DataError` for an unknown code in `available` or
        `trained`.
    """
    offered = {canonical(code): code for code in available}
    seen = {canonical(code) for code in trained}
    terms = [term.strip() for term in spec.split(",") if term.strip()]
    if not terms:
        raise ConfigError(
            f"languages = {spec!r}: names no language; write ids or groups such as"
            " 'low-resource,-swh'"
        )
    chosen = set(offered) if terms[0].startswith("-") else set()
    for term in terms:
        if term.startswith("-"):
            chosen -= _members(term[1:], offered, seen, removing=True)
        else:
            chosen |= _members(term, offered, seen)
    if not chosen:
        raise ConfigError(
            f"languages = {spec!r}: matches none of the {len(offered)} available languages"
            f" ({_some(offered)})"
        )
    return tuple(code for key, code in offered.items() if key in chosen)


def optional(spec: str) -> str:
    """The same spec, for data of which each part has some of the languages: one that is missing is
    no error.
    """
    return ",".join(
        "&".join(part.strip().removesuffix("?") + "?" for part in term.split("&"))
        for term in spec.split(",")
        if term.strip()
    )


def describe_group(
    spec: str, available: Iterable[str] | None = None, trained: Iterable[str] = ()
) -> list[dict[str, str | int | None]]:
    """A row of facts per language of a group, for a table; `available` defaults to the registry.

    Raises: as `resolve`.
    """
    chosen = resolve(spec, known_languages() if available is None else available, trained)
    return [
        {
            "id": row.id,
            "name": row.name,
            "script": row.script,
            "family": row.family,
            "Joshi class": row.joshi_class,
            "pretrained": ", ".join(row.pretrained),
            "aliases": ", ".join(row.aliases),
        }
        for row in map(language, chosen)
    ]


def _members(
    term: str, offered: Collection[str], seen: Collection[str], removing: bool = False
) -> set[str]:
    """The offered languages of ``x&y``; a language that is not offered may be removed but not
    added.
    """
    parts = [_part(part.strip(), offered, seen, removing) for part in term.split("&")]
    return set.intersection(*parts)


def _part(
    name: str, offered: Collection[str], seen: Collection[str], removing: bool
) -> set[str]:
    name, needed = name.removesuffix("?"), not (removing or name.endswith("?"))
    group = name.casefold()
    if group in GROUPS:
        return {code for code in offered if _in_group(code, group, seen)}
    prefix, separator, value = name.partition(":")
    if separator:
        return _with_fact(name, prefix.casefold(), value.strip(), offered)
    found = _find(name)
    if found is None:
        known = [*GROUPS, *_PREFIXES, *offered, *_registry()[1]]
        raise ConfigError(
            f"unknown language or group {name!r}{nearest(_key(name), list(dict.fromkeys(known)))}"
        )
    if found in offered or not needed:
        return {found} & set(offered)
    raise ConfigError(
        f"language {name!r} ({language(found).name}) is not in this data, which has"
        f" {len(offered)}: {_some(offered)}"
    )


def _in_group(code: str, group: str, seen: Collection[str]) -> bool:
    if group in ("seen", "unseen"):
        return (code in seen) == (group == "seen")
    kind = language(code).resource_class
    return group == "all" or group == ("unlisted" if kind == "unknown" else f"{kind}-resource")


def _with_fact(name: str, prefix: str, value: str, offered: Collection[str]) -> set[str]:
    """Languages by ``script:``, ``family:`` or ``pretrained:``; the value's case does not matter."""
    wanted = value.casefold()
    if prefix == "pretrained":
        known = list(PRETRAINED_MODELS)
        model = PRETRAINED_MODELS.get(wanted)
        members = {code for code in offered if model in language(code).pretrained}
    elif prefix in ("script", "family"):
        known = sorted(
            {fact for row in _registry()[0].values() for fact in _facts(row, prefix)}
        )
        members = {
            code
            for code in offered
            if (getattr(language(code), prefix) or "").casefold() == wanted
        }
    else:
        raise ConfigError(
            f"unknown group {name!r}; a group with ':' must start with one of"
            f" {', '.join(_PREFIXES)}"
        )
    if wanted not in (fact.casefold() for fact in known):
        raise ConfigError(f"unknown {prefix} {value!r} in {name!r}{nearest(value, known)}")
    return members


def _facts(row: Language, field: str) -> tuple[str, ...]:
    return (
        (row.script, *row.other_scripts)
        if field == "script"
        else (row.family,)
        if row.family
        else ()
    )


def _some(codes: Collection[str], count: int = 12) -> str:
    shown = list(codes)[:count]
    return ", ".join(shown) + (", ..." if len(codes) > count else "")


def _key(code: str) -> str:
    return code.strip().replace("_", "-").casefold()


@cache
def _find(code: str) -> str | None:
    """The canonical id, or None: the whole code, else its language with script and region looked at
    in turn.
    """
    known, ids = _registry()
    key = _key(code)
    if key in ids:
        return ids[key]
    key = _without_locale(key)
    if key in ids or key in _GRANDFATHERED:
        return ids.get(key) or ids.get(_GRANDFATHERED[key])
    head, *subtags = key.split("-")
    base = ids.get(head)
    if base is None or not subtags:
        return base if key != _key(code) else None
    subtags = _without_extensions(subtags)
    # An extended language (zh-yue, ar-arz) is the language itself; a macrolanguage stands before.
    if subtags and _EXTENDED.fullmatch(subtags[0]) and subtags[0] not in _SCRIPT_NAMES:
        base = ids.get(subtags.pop(0))
        if base is None:
            return None
    script, subtags = _script_of(subtags)
    region = subtags.pop(0).upper() if subtags and _REGION.fullmatch(subtags[0].upper()) else ""
    if not script and subtags:  # a Windows locale has the script last: sr-RS-Latn
        script, subtags = _script_of(subtags)
    if not all(_VARIANT.fullmatch(subtag) or subtag in _VARIANTS for subtag in subtags):
        return None
    if script and script not in _scripts():
        return None
    special = ids.get(_key(f"{base}-{script or region}"))
    if special:
        return special
    return base if not script or script == known[base].script else f"{base}-{script}"


def _without_locale(key: str) -> str:
    """A POSIX locale without its encoding, its modifier as a subtag: sr_RS.UTF-8@latin."""
    bare, _, modifier = key.partition("@")
    bare = bare.partition(".")[0]
    return f"{bare}-{modifier}" if modifier else bare


def _without_extensions(subtags: list[str]) -> list[str]:
    """The subtags before the first extension, such as ``u-ca-buddhist``; what is for private use
    (``x-...``) stays, as nobody else can know what it means.
    """
    for place, subtag in enumerate(subtags):
        if len(subtag) == 1 and subtag != "x":
            return subtags[:place]
    return subtags


def _script_of(subtags: list[str]) -> tuple[str, list[str]]:
    """The script that the first subtag names, and the rest; without one, an empty text and all."""
    if not subtags:
        return "", subtags
    if subtags[0] in _SCRIPT_NAMES:
        return _SCRIPT_NAMES[subtags[0]], subtags[1:]
    if _SCRIPT.fullmatch(subtags[0].capitalize()):
        return subtags[0].capitalize(), subtags[1:]
    return "", subtags


def _in_script(base: Language, script: str) -> Language:
    """`base` written in another script; of models' pretraining nothing is known then."""
    others = tuple(
        other for other in (base.script, *base.other_scripts) if other and other != script
    )
    return replace(
        base, id=f"{base.id}-{script}", name=f"{base.name} ({script})", script=script, other_scripts=others,
        pretrained=(), aliases=(),
    )  # fmt: skip


@cache
def _scripts() -> frozenset[str]:
    return frozenset(
        script for row in _registry()[0].values() for script in (row.script, *row.other_scripts)
    )


@cache
def _registry() -> tuple[dict[str, Language], dict[str, str]]:
    """The languages by id, and the id of every code and name, casefolded; codes win over names."""
    languages = {row.id: row for row in _read_table()}
    ids = {row.id.casefold(): row.id for row in languages.values()}
    for row in languages.values():
        for alias in row.aliases:
            ids.setdefault(alias.casefold(), row.id)
    for row in languages.values():
        ids.setdefault(row.name.casefold(), row.id)
    return languages, ids


def _read_table() -> Iterator[Language]:
    from importlib.resources import files

    lines = (
        files(__package__).joinpath("languages.tsv").read_text(encoding="utf-8").splitlines()
    )
    for line in lines[1:]:
        id_, name, scripts, family, joshi, pretrained, aliases = line.split("\t")
        script, *others = scripts.split(",")
        yield Language(
            id=id_,
            name=name,
            script=script,
            other_scripts=tuple(others),
            family=family or None,
            joshi_class=int(joshi) if joshi else None,
            pretrained=tuple(pretrained.split(",")) if pretrained else (),
            aliases=tuple(aliases.split(";")) if aliases else (),
        )
