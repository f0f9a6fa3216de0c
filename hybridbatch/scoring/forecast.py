"""What an evaluation takes in hours, memory and downloads, told before it starts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybridbatch.common.memory import main_memory
from hybridbatch.common.progress import LONG, Reporter
from hybridbatch.common.records import Task
from hybridbatch.common.settings import EncoderSettings
from hybridbatch.common.sizes import duration, gigabytes
from hybridbatch.data.download.hub import Repository
from hybridbatch.data.download.sizes import HubFiles, Size, size_of
from hybridbatch.data.tasks.catalogue import expected_sizes, files_to_fetch
from hybridbatch.model.reckoning import BYTES_A_TOKEN, Reckoning, reckon
from hybridbatch.scoring.settings import BM25, RANDOM, EvalConfig

if TYPE_CHECKING:
    from hybridbatch.scoring.audit_settings import AuditConfig
    from hybridbatch.scoring.debias_settings import DebiasConfig
    from hybridbatch.search.settings import SearchConfig

SAMPLE = 200  # texts of a language, for their lengths
LARGE = 1e9  # bytes of a download that are told
COLUMNS = ("time", "memory", "vectors on disk")
CHARACTER_BYTES, MOST_TOKENS = 1.5, 512  # of texts of mteb
PASSAGE_BYTES, QUERY_BYTES = 500.0, 60.0  # of texts that are not here, about


@dataclass(frozen=True)
class Forecast:
    """What one task takes.

    Attributes:
        texts, tokens: to encode; stored embeddings are not known here.
        absent: bytes to download; None: unknown.
    """

    texts: float
    tokens: float
    absent: float | None = 0.0

    def row(self, model: Reckoning | None) -> dict[str, Any]:
        """The columns of ``--dry-run`` about time and space."""
        if model is None or not self.texts:
            return dict.fromkeys(COLUMNS)
        vectors = 4 * self.texts * model.width
        weights = 4 * model.parameters
        # Beyond the memory, `search.exact` reads the vectors from disk in blocks.
        memory = min(weights + vectors, max(weights, main_memory().total / 2))
        return {
            "time": duration(model.encode_seconds(self.tokens)),
            "memory": gigabytes(memory),
            "vectors on disk": gigabytes(vectors),
        }


def forecaster(config: EvalConfig) -> Reckoning | None:
    """The cost of the model of an evaluation; None for a baseline or an unknown shape."""
    if config.model in (BM25, RANDOM):
        return None
    return reckon(config.model, config.device, config.precision)


def of_task(task: Task, config: EvalConfig) -> Forecast:
    """The forecast for a task whose data is here."""
    queries = [one.texts for one in task.queries.values()]
    passages = [one.texts for one in task.corpus.values()]
    return of_texts(queries, passages, config)


def of_texts(
    queries: Iterable[Sequence[str]],
    passages: Iterable[Sequence[str]],
    config: EncoderSettings,
) -> Forecast:
    """The forecast for texts, given as lists of one language each."""
    sides = ((queries, config.max_query_tokens), (passages, config.max_passage_tokens))
    texts = tokens = 0.0
    for side, most in sides:
        for one in side:
            texts += len(one)
            tokens += len(one) * _mean_tokens(one, most)
    return Forecast(texts, tokens)


def _mean_tokens(texts: Sequence[str], most: int) -> float:
    """Tokens of a text, from the bytes of some of them."""
    step = max(1, len(texts) // SAMPLE)
    chosen = range(0, len(texts), step)
    lengths = [min(most, 3 + len(texts[at].encode()) / BYTES_A_TOKEN) for at in chosen]
    return sum(lengths) / len(lengths) if lengths else 0.0


def of_absent(name: str, config: EvalConfig, trained: Sequence[str]) -> Forecast:
    """The forecast for a task that is to be downloaded."""
    size = size_of(files_to_fetch(name, config.data_root, config.task_languages, trained))
    known = expected_sizes(name, config.task_languages, trained)
    queries = known["queries"]
    passages = known["passages"] * config.passage_share
    a_query = min(config.max_query_tokens, 3 + QUERY_BYTES / BYTES_A_TOKEN)
    a_passage = min(config.max_passage_tokens, 3 + PASSAGE_BYTES / BYTES_A_TOKEN)
    return Forecast(
        texts=queries + passages,
        tokens=queries * a_query + passages * a_passage,
        absent=None if size is None else size.absent,
    )


def of_stated(task: Any) -> Forecast | None:
    """The forecast for a task of mteb from the numbers that mteb states; None where it states none.

    The model cuts texts at its own length, which is not known here: `MOST_TOKENS` is assumed.
    """
    from hybridbatch.data.tasks.mteb import stated_texts

    stated = stated_texts(task)
    if stated is None:
        return None
    texts, characters = stated
    a_text = min(MOST_TOKENS, 3 + CHARACTER_BYTES * characters / texts / BYTES_A_TOKEN)
    return Forecast(texts, texts * a_text)


def size_of_official(dataset: Mapping[str, Any]) -> Size | None:
    """The size of the repository of an mteb task, of which its subsets may need a part only."""
    repository = Repository(str(dataset["path"]), str(dataset.get("revision") or "main"))
    return HubFiles(repository, ".*").size()


def download_in_words(absent: float | None) -> str:
    """The cell of a table about a download."""
    if absent is None:
        return "to download: unknown size"
    return f"to download: {gigabytes(absent)}" if absent else "here"


def sentence(
    forecasts: Iterable[Forecast], model: Reckoning | None, name: str = "the evaluation"
) -> str | None:
    """What is told before the work starts; None if it is small."""
    found = list(forecasts)
    absent = sum(one.absent or 0.0 for one in found)
    download = (model.download or 0.0) if model else 0.0
    seconds = model.encode_seconds(sum(one.tokens for one in found)) if model else 0.0
    if absent + download < LARGE and seconds < LONG:
        return None
    texts = sum(one.texts for one in found)
    parts = [f"{name} encodes at most {texts:,.0f} texts"] if texts else []
    if model and seconds:
        vectors = texts * model.width * 4
        parts.append(f"about {duration(seconds)} on this machine if none is stored")
        parts.append(f"{gigabytes(vectors)} of vectors in the cache")
    if absent + download:
        parts.append(f"to download: {gigabytes(absent + download)}")
    return "; ".join(parts)


def tell(
    config: "AuditConfig | DebiasConfig | SearchConfig",
    queries: Iterable[Sequence[str]],
    passages: Iterable[Sequence[str]],
    name: str,
    report: Reporter,
) -> None:
    """Report what the encoding of texts takes, if it is long, before the model is loaded."""
    expected = of_texts(queries, passages, config)
    model = reckon(config.model, config.device, config.precision)
    if told := sentence([expected], model, name):
        report.note(told)
