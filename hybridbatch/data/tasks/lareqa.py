"""LAReQA's retrieval sets: SQuAD-like JSON with `sentence_breaks`, one file per language.

Source: Roy et al. 2020, LAReQA, arXiv:2004.05484, section 3. Every sentence of every paragraph is a
passage, and the sentence whose span contains `answer_start` is the relevant passage. A question has
one id in all its languages.

XQuAD-R is at the head of the public repository. MLQA-R (the development set of MLQA with the
authors' sentence breaks) was removed from it in 2020, and is read from the last commit that has it.
Only these sentence breaks give the paper's candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import cache_folder, read_json
from hybridbatch.common.languages import canonical
from hybridbatch.common.records import Qrels, Task, Texts
from hybridbatch.common.texts import nfc
from hybridbatch.data.download.web import web_file
from hybridbatch.data.tasks.texts_and_qrels import collect, make_task


@dataclass(frozen=True)
class Files:
    """The files of one data set in the public repository."""

    name: str  # name of the task, and of the folder in the repository
    revision: str
    sha256: Mapping[str, str]  # by language code, of the files at the revision
    home: str = "https://raw.githubusercontent.com/google-research-datasets/lareqa"

    @property
    def source(self) -> str:
        """The source in a task's provenance."""
        return f"github.com/google-research-datasets/lareqa @ {self.revision}"

    @property
    def address(self) -> str:
        """The address of the folder of files."""
        return f"{self.home}/{self.revision}/{self.name}"

    @property
    def kept(self) -> Path:
        """The default download folder of `fetch`."""
        return cache_folder() / "downloads" / f"{self.name}-{self.revision[:12]}"

    def fetch(self, folder: Path | None = None) -> Path:
        """The folder of the original files, downloaded unless it is complete.

        Args:
            folder: where to keep the files; default: in the user's cache.

        Raises:
            DataError: The address cannot be reached, or its bytes are not the revision's.
        """
        folder = folder or self.kept
        for code, digest in self.sha256.items():
            web_file(f"{self.address}/{code}.json", digest, folder / f"{code}.json")
        return folder

    def fetched(self) -> Path | None:
        """The default folder of `fetch`, if it has all files."""
        return (
            self.kept
            if all((self.kept / f"{code}.json").is_file() for code in self.sha256)
            else None
        )


XQUAD_R = Files(
    "xquad-r",
    "9bc8c7fb6dd8d01d72a05a93c2cb96882b0d299c",
    {
        "ar": "c52922d3b8ac1ae03ed5ac38647ad59870dca3dda2beefe18ecdc30729acb69d",
        "de": "16fb0f4bf4916154b585a20c24c66074591c9718a1affe764ff4697572328949",
        "el": "163fd43ee785a30eb534ae2061e9eaa766a7ee4e8ffce5e4b422480c150f64b6",
        "en": "7b0954f39297c27a31fef610f0883337dd2907fa8699151dc922afdd0fa12ffe",
        "es": "f8e836b2d91009c4363e04315f7ede363eedbbb49c67dda60de6c4aa782f58de",
        "hi": "ea45ba8ae4513d1533b222bebdc02a90bc319c055d3aeea68584a053d2e92872",
        "ru": "7f4dff853538b9a5fcc28c070b8bb983a5c5d190ac747b8e005a1ada9cab18f1",
        "th": "c3a041864c3a9fb0b4dd91cfdf99cf36b411b3e704c58a303c97bc6dc786cfe4",
        "tr": "f3e8c13002bbce154a4578f535f7533cb70f3da08840e6b62735935baec7bd94",
        "vi": "e35926bf5cc6fc6ecbdfca49467aabeb454f08d152d7818143a906bd31dde995",
        "zh": "80c2cde7b9c2fb134c303cbb52f2ba396ead9eb0014aec43993543d2ba9e93ed",
    },
)
MLQA_R = Files(
    "mlqa-r",
    "354d67d1cd066854cdfbf5ad0e6105528976141d",
    {
        "ar": "2132fbc03208535c0fe01f2e2c5121d06f9c2aa799af93b0a719dbc105bdf137",
        "de": "ce9454dc5aa6f2d85c23cd6e49cb367fbb7c4c6e62d7f71e355c6b5dae4d0886",
        "en": "fedd9a5cc0848dda80caf84aa36f482adaae230526a3f6e9e86926a93ef3b1e4",
        "es": "70ecba276b8c96a692b120693a595d076ce94ad21d4b28311538a9fcbfe0f9d7",
        "hi": "4dd0fb3c06f737a5481d705bc1dcac7876712a5815c9265908fbb3a0696cb654",
        "vi": "9d3baff6ba03e6793b25594217265ea59a136b9733833dca8a9582a84a78ff85",
        "zh": "57f01d2fff50cf3392805635b01445339f225ad5bf28ba8443b12f8dbd1e69dc",
    },
)


def read_original(folder: Path, name: str, **fields: Any) -> Task:
    """The task from ``folder/LANG.json`` files. Raises `DataError`."""
    queries: dict[str, Texts] = {}
    corpus: dict[str, Texts] = {}
    qrels: dict[str, Qrels] = {}
    for path in sorted(folder.glob("*.json")):
        language = canonical(path.stem)
        queries[language], corpus[language], qrels[language] = _read_language(path)
    return make_task(name, queries, corpus, qrels, origin=folder, **fields)


def _read_language(path: Path) -> tuple[Texts, Texts, Qrels]:
    questions: list[tuple[str, str, str]] = []
    sentences: list[tuple[str, str, str]] = []
    qrels: dict[str, dict[str, int]] = {}
    try:
        paragraphs = [
            paragraph
            for article in read_json(path)["data"]
            for paragraph in article["paragraphs"]
        ]
        for number, paragraph in enumerate(paragraphs):
            context, breaks = paragraph["context"], paragraph["sentence_breaks"]
            keys = [f"{path.stem}-p{number:03d}-s{position}" for position in range(len(breaks))]
            place = f"{path}: paragraph {number}"
            for key, (start, end) in zip(keys, breaks, strict=True):
                sentences.append((place, key, nfc(context[start:end])))
            for qa in paragraph["qas"]:
                answer = qa["answers"][0]["answer_start"]
                holder = next(
                    key for key, (_, end) in zip(keys, breaks, strict=True) if answer < end
                )
                questions.append((place, qa["id"], nfc(qa["question"])))
                qrels[qa["id"]] = {holder: 1}
    except (KeyError, IndexError, TypeError, ValueError, StopIteration) as error:
        raise DataError(
            f"{path}: does not have the layout of LAReQA (data, paragraphs, context,"
            f" sentence_breaks, qas, answers: {error!r})"
        ) from error
    return collect(questions, path), collect(sentences, path), qrels
