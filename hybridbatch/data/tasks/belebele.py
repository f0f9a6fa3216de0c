"""Belebele as retrieval: each question against the 488 passages of any of 122 languages.

All passages are parallel. Layout read on 2026-11-24 from the repository's pages:
``data/CODE.jsonl`` for each FLORES-200 code, lines {link, question_number, flores_passage,
question, ...}. ``link`` names the passage, and ``link`` with ``question_number`` the question; both
are equal in all languages. Source: Bandarkar et al. 2023, The Belebele Benchmark, arXiv:2308.16884.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import canonical, resolve
from hybridbatch.common.records import Qrels, Task, Texts
from hybridbatch.common.texts import nfc
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.download.sizes import HubFiles
from hybridbatch.data.formats.tables import Record, position, text
from hybridbatch.data.tasks.hub_files import rows_of
from hybridbatch.data.tasks.texts_and_qrels import collect, make_task

HUB = Repository("facebook/belebele", "75b399394a9803252cfec289d103de462763db7c")
SOURCE = f"huggingface.co/datasets/{HUB.name} @ {HUB.revision}"
CODES = tuple(
    """
    acm_Arab afr_Latn als_Latn amh_Ethi apc_Arab arb_Arab arb_Latn ars_Arab ary_Arab arz_Arab asm_Beng azj_Latn bam_Latn
    ben_Beng ben_Latn bod_Tibt bul_Cyrl cat_Latn ceb_Latn ces_Latn ckb_Arab dan_Latn deu_Latn ell_Grek eng_Latn est_Latn
    eus_Latn fin_Latn fra_Latn fuv_Latn gaz_Latn grn_Latn guj_Gujr hat_Latn hau_Latn heb_Hebr hin_Deva hin_Latn hrv_Latn
    hun_Latn hye_Armn ibo_Latn ilo_Latn ind_Latn isl_Latn ita_Latn jav_Latn jpn_Jpan kac_Latn kan_Knda kat_Geor kaz_Cyrl
    kea_Latn khk_Cyrl khm_Khmr kin_Latn kir_Cyrl kor_Hang lao_Laoo lin_Latn lit_Latn lug_Latn luo_Latn lvs_Latn mal_Mlym
    mar_Deva mkd_Cyrl mlt_Latn mri_Latn mya_Mymr nld_Latn nob_Latn npi_Deva npi_Latn nso_Latn nya_Latn ory_Orya pan_Guru
    pbt_Arab pes_Arab plt_Latn pol_Latn por_Latn ron_Latn rus_Cyrl shn_Mymr sin_Latn sin_Sinh slk_Latn slv_Latn sna_Latn
    snd_Arab som_Latn sot_Latn spa_Latn srp_Cyrl ssw_Latn sun_Latn swe_Latn swh_Latn tam_Taml tel_Telu tgk_Cyrl tgl_Latn
    tha_Thai tir_Ethi tsn_Latn tso_Latn tur_Latn ukr_Cyrl urd_Arab urd_Latn uzn_Latn vie_Latn war_Latn wol_Latn xho_Latn
    yor_Latn zho_Hans zho_Hant zsm_Latn zul_Latn
    """.split()  # noqa: SIM905
)


def files(languages: str, trained: Sequence[str]) -> list[HubFiles]:
    """The files of the wanted languages, for `Description.files`."""
    codes = {canonical(code): code for code in CODES}
    wanted = resolve(languages, tuple(codes), trained)
    return [HubFiles(HUB, rf"data/{codes[one]}\.jsonl", 1.0e6) for one in wanted]


def read_belebele(
    name: str, data_root: Path | None, languages: str, trained: Iterable[str], **fields: Any
) -> Task:
    """The task in the wanted languages, read from one file of the hub per language.

    Raises:
        DataError: The data cannot be downloaded, is faulty or is not parallel.
        ConfigError: A language is unknown or not in the task.
    """
    codes = {canonical(code): code for code in CODES}
    queries: dict[str, Texts] = {}
    corpus: dict[str, Texts] = {}
    qrels: dict[str, Qrels] = {}
    for language in resolve(languages, tuple(codes), tuple(trained)):
        path = f"data/{codes[language]}.jsonl"
        questions: list[tuple[str, str, str]] = []
        passages: dict[str, str] = {}
        judged: dict[str, dict[str, int]] = {}
        for place, (link, number, passage, question) in rows_of(HUB, data_root, path, _row):
            if passages.setdefault(link, passage) != passage:
                raise DataError(
                    f"{place}: the link {link} belongs to another passage before; get the"
                    " file again"
                )
            questions.append((place, f"{link}#{number}", question))
            judged[f"{link}#{number}"] = {link: 1}
        queries[language] = collect(questions, HUB.label(path))
        corpus[language] = Texts(tuple(passages), tuple(passages.values()))
        qrels[language] = judged
    return make_task(name, queries, corpus, qrels, origin=HUB.name, **fields)


def _row(record: Record) -> tuple[str, int, str, str]:
    passage, question = (nfc(text(record, field)) for field in ("flores_passage", "question"))
    return text(record, "link"), position(record, "question_number"), passage, question
