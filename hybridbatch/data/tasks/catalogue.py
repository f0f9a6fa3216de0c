"""The public data sets known by name: sources, expected sizes, and caveats."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import ConfigError, DataError, nearest
from hybridbatch.common.languages import canonical, resolve
from hybridbatch.common.records import Task
from hybridbatch.common.sizes import gigabytes
from hybridbatch.data.download.sizes import Files, KnownSize, size_of
from hybridbatch.data.homes.aligned import NTREX_LANGUAGES, TATOEBA
from hybridbatch.data.homes.registry import HOMES
from hybridbatch.data.sources.local_copies import local_copy
from hybridbatch.data.tasks import belebele, lareqa, miracl
from hybridbatch.data.tasks.layouts import (
    files_by_code,
    read_bitext,
    read_english_to,
    read_flat,
)

# Canonical ids of the languages of SIB-200.
SIB200 = tuple(
    """
    ace ace-Arab acm acq aeb afr ajp aka als amh apc arb arb-Latn ars ary arz asm ast awa ayr
    azb azj bak bam ban bel bem ben bho bjn bjn-Arab bod bos bug bul cat ceb ces cjk ckb crh cym
    dan deu dik dyu dzo ell eng epo est eus ewe fao fij fin fon fra fur fuv gaz gla gle glg grn
    guj hat hau heb hin hne hrv hun hye ibo ilo ind isl ita jav jpn kab kac kam kan kas kas-Deva
    kat kaz kbp kea khk khm kik kin kir kmb kmr knc knc-Arab kon kor lao lij lim lin lit lmo ltg
    ltz lua lug luo lus lvs mag mai mal mar min min-Arab mkd mlt mni mos mri mya nld nno nob npi
    nqo nso nus nya oci ory pag pan pap pbt pes plt pol por prs quy ron run rus sag san sat scn
    shn sin slk slv smo sna snd som sot spa srd srp ssw sun swe swh szl tam taq taq-Tfng tat tel
    tgk tgl tha tir tpi tsn tso tuk tum tur twi tzm uig ukr umb urd uzn vec vie war wol xho ydd
    yor yue zho zho-Hant zsm zul
    """.split()  # noqa: SIM905
)
Reader = Callable[..., Task]  # (folder, name, **fields of Task) -> Task


@dataclass(frozen=True)
class Description:
    """One data set: files under the data root, or repositories of the hub."""

    about: str
    languages: str  # for people: the number or names of languages
    size: str  # for people
    source: str  # repository @ commit
    licence: str
    read: Reader | None = None  # of a folder of files
    folder: str | None = None  # folder under the data root; None: the task's name
    splits: tuple[str, ...] = ()  # the first one is the default
    # expected in every language, or by language code
    queries: int | Mapping[str, int] | None = None
    # expected in every language, or by language code
    passages: int | Mapping[str, int] | None = None
    # (queries, passages) of the default split by language, at most, for the forecast; None: as
    # counted in `queries` and `passages`
    roughly: Mapping[str, tuple[int, int]] | None = None
    megabytes: float | None = None  # to download; None: as the home states, or by language
    fetch: Callable[[], Path] | None = None  # downloads the files if no data root has them
    fetched: Callable[[], Path | None] = lambda: None  # the folder of an earlier `fetch`
    # (languages, trained): the files that `hub` reads
    files: Callable[[str, Sequence[str]], Sequence[Files]] | None = None
    hub: Callable[..., Task] | None = (
        None  # (name, data_root, languages, trained, **fields of Task): reads from the hub
    )


def _read_lareqa(folder: Path, name: str, **fields: Any) -> Task:
    return (read_flat if files_by_code(folder, "corpus") else lareqa.read_original)(
        folder, name, **fields
    )


def _read_afriqa(folder: Path, name: str, *, split: str, **fields: Any) -> Task:
    return read_flat(folder, name, split=split, rules="drop unjudged", **fields)


def _read_amqa(folder: Path, name: str, *, split: str, **fields: Any) -> Task:
    return read_flat(folder, name, codes={split: canonical("am")}, **fields)


CATALOGUE: Mapping[str, Description] = {
    "xquad-r": Description(
        about="Question to answer sentence, translated SQuAD dev; sentences without their paragraph.",
        languages="11",
        size="1,190 questions, 852 to 1,276 sentences a language",
        source=lareqa.XQUAD_R.source,
        licence="CC BY-SA 4.0",
        read=_read_lareqa,
        queries=1190,
        passages={"ar": 1222, "de": 1276, "el": 1234, "en": 1180, "es": 1215, "hi": 1244,
                  "ru": 1219, "th": 852, "tr": 1167, "vi": 1209, "zh": 1196},
        megabytes=17.0,
        fetch=lareqa.XQUAD_R.fetch,
        fetched=lareqa.XQUAD_R.fetched,
    ),
    "mlqa-r": Description(
        about="Question to answer sentence, MLQA dev; languages have different articles and share part of the questions,"
        " so the corpora are parallel in their answers only.",
        languages="7",
        size="500 to 1,148 questions, 1,787 to 6,264 sentences a language",
        source=lareqa.MLQA_R.source,
        licence="CC BY-NC 4.0",
        read=_read_lareqa,
        queries={"ar": 517, "de": 512, "en": 1148, "es": 500, "hi": 507, "vi": 511, "zh": 504},
        passages={"ar": 2545, "de": 2362, "en": 6264, "es": 1787, "hi": 2426, "vi": 2828, "zh": 2322},
        megabytes=16.0,
        fetch=lareqa.MLQA_R.fetch,
        fetched=lareqa.MLQA_R.fetched,
    ),
    "xquad-ro": Description(
        about="Question to paragraph in Romanian, translated SQuAD dev; paragraphs, so not comparable with xquad-r.",
        languages="ro",
        size="1,190 questions, 240 paragraphs",
        source="github.com/google-deepmind/xquad @ 7d30520c717524000f0d9d2f9c10a069acd9d285",
        licence="CC BY-SA 4.0",
        read=read_flat,
        queries=1190,
        passages=240,
        roughly={"ro": (1190, 240)},
    ),
    "belebele": Description(
        about="Question to passage of four sentences or so, in all languages of Belebele; passages are parallel.",
        languages="122; a local copy: en, de",
        size="900 questions, 488 passages a language",
        source=f"{belebele.SOURCE}; local copy: github.com/saeub/item-evaluation @ c6332925bd1984396267a60a861227514edac484",
        licence="CC BY-SA 4.0",
        read=partial(read_flat, strip_language=True),
        queries=900,
        passages=488,
        roughly=dict.fromkeys(belebele.CODES, (900, 488)),
        files=belebele.files,
        hub=belebele.read_belebele,
    ),
    "miracl": Description(
        about="Question to Wikipedia passages of its own language, the development set; compare nDCG@10 and recall@100.",
        languages="18",
        size="119 to 2,896 questions, 49,043 to 32,893,221 passages a language; 106,332,152 in all",
        source=miracl.SOURCE,
        licence="Apache-2.0; passages CC BY-SA",
        queries=miracl.QUERIES,
        passages=miracl.PASSAGES,
        files=miracl.files,
        hub=miracl.read_miracl,
    ),
    "belebele-sib": Description(
        about="English and German Belebele questions to passages joined from SIB-200's sentences; the corpus is smaller"
        " than BelebeleRetrieval's, so the scores are not comparable with it.",
        languages="questions en, de; passages 205",
        size="293 questions, 160 passages a language",
        source="github.com/saeub/item-evaluation @ c6332925bd1984396267a60a861227514edac484;"
        " github.com/dadelani/sib-200 @ 593cea88519930f776c1a4a1980b6a35b39dca57",
        licence="CC BY-SA 4.0",
        read=read_flat,
        queries=293,
        passages=160,
        roughly={**dict.fromkeys(SIB200, (0, 160)), "eng": (293, 160), "deu": (293, 160)},
    ),
    "afriqa": Description(
        about="Questions in African languages to English or French Wikipedia passages, the gold passages of train and"
        " dev only: a small corpus, so the scores are not those of open retrieval.",
        languages="questions 10, passages en, fr",
        size="hundreds of questions a language",
        source="github.com/masakhane-io/afriqa @ 5c29933753692c28773c34ac1f68482007f1d2bb",
        licence="CC BY 4.0; passages CC BY-SA",
        read=_read_afriqa,
        splits=("dev", "train"),
        roughly={"bem": (235, 0), "fon": (271, 0), "hau": (222, 0), "ibo": (307, 0), "kin": (230, 0),
                 "twi": (348, 0), "zul": (242, 0), "en": (0, 3111), "fr": (0, 494),
                 **dict.fromkeys(("swa", "wol", "yor"), (0, 0))},  # none, or in another split
    ),
    "amqa": Description(
        about="Amharic question to passage; few passages, many questions each.",
        languages="am",
        size="33 to 170 passages",
        source="github.com/semantic-systems/amharic-qa @ 68d06ea20ba0dedfdb99385d44fbdc54b83ad96a",
        licence="MIT",
        read=_read_amqa,
        folder="amharic-qa",
        splits=("test", "dev", "train"),
        roughly={"am": (299, 33)},
    ),
    "tydi": Description(
        about="Question to gold passage in English, Korean and Swahili; the train split, which many encoders have seen.",
        languages="en, ko, sw",
        size="1,625 to 3,696 questions, 1,269 to 3,429 passages",
        source="github.com/sagorbrur/tydiqa-language-specific @ 55c6649475e0765f717a6d32a173c6664096a8ce",
        licence="Apache-2.0; passages CC BY-SA",
        read=read_flat,
        folder="tydi-goldp",
        roughly={"en": (3696, 3429), "ko": (1625, 1269), "sw": (2755, 1687)},
    ),
    "sib200": Description(
        about="Bitext retrieval: find the translation of a FLORES-200 sentence.",
        languages="up to 205",
        size="1,004 sentences a language",
        source="github.com/dadelani/sib-200 @ 593cea88519930f776c1a4a1980b6a35b39dca57",
        licence="CC BY-SA 4.0",
        read=read_bitext,
        queries=1004,
        passages=1004,
        roughly=dict.fromkeys(SIB200, (1004, 1004)),
    ),
    "ntrex": Description(
        about="Bitext retrieval: find the translation of a news sentence.",
        languages="91; a local copy: up to 128",
        size="1,997 sentences a language",
        source="github.com/MicrosoftTranslator/NTREX @ 8561f6a622db9edad1217683e5c83daefd8bb2bf",
        licence="CC BY-SA 4.0",
        read=read_bitext,
        queries=1997,
        passages=1997,
        roughly=dict.fromkeys(NTREX_LANGUAGES, (1997, 1997)),
    ),
    "tatoeba": Description(
        about="Bitext retrieval from English: find the translation of a sentence. Every language has its own English"
        " side, so the direction into English, whose corpora would differ, is left out.",
        languages="93 and English; a local copy: up to 112",
        size="up to 1,000 sentences a language",
        source="github.com/facebookresearch/LASER @ 74bc6ae7ffb7cba670fe0f428d0ede9f666fb821",
        licence="CC BY 2.0 FR",
        read=read_english_to,
        roughly={**dict.fromkeys(TATOEBA, (1000, 1000)), "eng": (0, 0)},
    ),
}  # fmt: skip


def read_named(
    name: str,
    split: str,
    data_root: Path | None,
    languages: str = "all",
    trained: Iterable[str] = (),
) -> Task:
    """A task of the catalogue, with its counts checked.

    A task from files has all its languages, and a task from the hub has the wanted languages.

    Args:
        split: one of the description's splits, or empty for its default.
        data_root: folder that holds the data set's folder.
        languages, trained: as `resolve` takes them, for data that is downloaded by language.

    Raises:
        ConfigError: The split is unknown.
        DataError: The data is absent, faulty or incomplete.
    """
    description = CATALOGUE[name]
    if split and split not in description.splits:
        raise ConfigError(
            f"task {name}:{split}: no such split{nearest(split, description.splits)};"
            f" {name} has {', '.join(description.splits) or 'one split only, so write ' + name}"
        )
    split = split or next(iter(description.splits), "")
    fields: dict[str, Any] = {
        "about": description.about,
        "provenance": {
            "source": description.source,
            "licence": description.licence,
            **({"split": split} if split else {}),
        },
    }
    if description.hub and not local_folder(name, data_root):
        task, origin = (
            description.hub(name, data_root, languages, trained, **fields),
            description.source,
        )
    else:
        folder = find_folder(name, data_root)
        assert description.read
        task = description.read(folder, name, **fields, **({"split": split} if split else {}))
        origin = str(folder)
    _check_counts(task, description, origin)
    return task


def local_folder(name: str, data_root: Path | None) -> Path | None:
    """The folder of a task's files, if it is on this machine.

    The folder is under the data root, or was downloaded before.
    """
    description = CATALOGUE[name]
    folder = description.folder or name
    copy = local_copy(data_root, folder) if description.read else None
    home = HOMES.get(folder)
    return copy or description.fetched() or (home.built() if home else None)


def expected_sizes(name: str, languages: str, trained: Iterable[str]) -> dict[str, int]:
    """The number of languages, queries and passages of a task in the wanted languages, at most."""
    known: dict[str, tuple[int, int]] = {}
    for code, counts in _by_language(CATALOGUE[name.partition(":")[0]]).items():
        known[canonical(code)] = counts
    wanted = resolve(languages, tuple(known), tuple(trained))
    queries = [known[code][0] for code in wanted]
    passages = [known[code][1] for code in wanted]
    return {
        "query languages": sum(count > 0 for count in queries),
        "corpus languages": sum(count > 0 for count in passages),
        "queries": sum(queries),
        "passages": sum(passages),
    }


def _by_language(description: Description) -> Mapping[str, tuple[int, int]]:
    """The number of queries and passages by language, at most."""
    if description.roughly is not None:
        return description.roughly
    queries, passages = description.queries, description.passages
    assert isinstance(passages, Mapping)
    found: dict[str, tuple[int, int]] = {}
    for code, count in passages.items():
        found[code] = (queries[code] if isinstance(queries, Mapping) else queries or 0, count)
    return found


def files_to_fetch(
    name: str, data_root: Path | None, languages: str, trained: Iterable[str]
) -> list[Files]:
    """The files that loading a task in the wanted languages would download."""
    base = name.partition(":")[0]
    description = CATALOGUE[base]
    if local_folder(base, data_root):
        return []
    home = HOMES.get(description.folder or base)
    if home:
        return [KnownSize(home.megabytes, home.cloned(data_root))]
    if description.files:
        return list(description.files(languages, tuple(trained)))
    return [KnownSize(description.megabytes or 0.0, here=False)]


def whereabouts(name: str, data_root: Path | None) -> str:
    """Where a task's data is, for people: on this machine, or what would be downloaded."""
    description = CATALOGUE[name]
    if local_folder(name, data_root):
        return "here"
    home = HOMES.get(description.folder or name)
    if home:
        return home.whereabouts(data_root)
    if description.megabytes is not None:
        return f"to download: {description.megabytes:g} MB"
    size = size_of(description.files("all", ())) if description.files else None
    if size is None:
        return "to download, language by language"
    if not size.absent:
        return "here"
    return f"to download, language by language: {gigabytes(size.absent)} in all"


def find_folder(name: str, data_root: Path | None) -> Path:
    """The folder of a task's files, downloaded if necessary.

    Raises:
        DataError: The files cannot be downloaded.
    """
    description = CATALOGUE[name]
    folder = local_folder(name, data_root)
    if folder:
        return folder
    if description.fetch:
        return description.fetch()
    if home := HOMES.get(description.folder or name):
        return home.obtain(data_root)
    if description.hub:
        raise DataError(
            f"task {name}: its data comes from the hub ({description.source}) language by"
            " language, and cannot be a folder"
        )
    where = (
        f"{data_root / (description.folder or name)} is not there"
        if data_root
        else "no data root is set"
    )
    raise DataError(
        f"task {name}: {where}; point --data-root at a folder that holds"
        f" {description.folder or name}/ (its data comes from {description.source})"
    )


def _check_counts(task: Task, description: Description, origin: str) -> None:
    """Check that the task is complete, because a benchmark's name stands for all of it.

    Raises:
        DataError: A language has an unexpected count.
    """
    queries, passages = (
        {canonical(code): count for code, count in expected.items()}
        if isinstance(expected, Mapping)
        else dict.fromkeys(side, expected)
        for expected, side in (
            (description.queries, task.queries),
            (description.passages, task.corpus),
        )
    )
    for what, side, counts in (
        ("queries", task.queries, queries),
        ("passages", task.corpus, passages),
    ):
        for language, texts in side.items():
            wanted = counts.get(language)
            if wanted is not None and len(texts.ids) != wanted:
                raise DataError(
                    f"{origin}: {task.name} has {wanted} {what} in {language}, not"
                    f" {len(texts.ids)}; get the files again, or evaluate the folder itself by its"
                    " path"
                )
