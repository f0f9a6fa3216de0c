"""`hybridbatch debias`: estimates language vectors from any text whose languages are known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hybridbatch
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import plain_name
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.data.tasks.registry import TASKS, load_task
from hybridbatch.debias.fit import counts_by_language
from hybridbatch.debias.methods import Moments
from hybridbatch.debias.vectors_file import LanguageVectors, Side, write_vectors
from hybridbatch.scoring.debias_settings import DebiasConfig
from hybridbatch.scoring.debias_texts import TextsByLanguage, has_texts, read_texts_by_language

if TYPE_CHECKING:
    from hybridbatch.scoring.audit_settings import AuditConfig
    from hybridbatch.search.embeddings import EmbeddingStore

FEW = 10  # texts of a language; with fewer texts its estimate is mostly the global estimate


def estimate(
    config: DebiasConfig, report: Reporter = SILENT, *, store: "EmbeddingStore | None" = None
) -> Path:
    """Estimate language vectors as `config` says and write them; returns their folder.

    Args:
        store: the stored embeddings of the model in the settings, if they are open.

    Raises:
        HybridBatchError: texts, models and methods that cannot be used.
    """
    if config.save_model:
        from hybridbatch.scoring.debias_model import require_savable

        require_savable(config.save_model, config.fold, config.how, config.model)
    texts, sources = texts_by_side(config, report)
    if store is None:
        from hybridbatch.scoring.forecast import tell

        queries = texts.get("query", {})
        tell(config, queries.values(), texts["passage"].values(), "debias", report)
        store = open_store(config, report)
    vectors = language_vectors(config, texts, sources, store, report)
    if config.save_model:
        _save_model(config, texts, vectors, store, report)
    folder = config.out or Path(f"language_vectors-{plain_name(Path(config.model).name)}")
    write_vectors(folder, vectors)
    return folder


def _save_model(
    config: DebiasConfig,
    texts: Mapping[Side, Mapping[str, Sequence[str]]],
    vectors: LanguageVectors,
    store: "EmbeddingStore",
    report: Reporter,
) -> None:
    """Save the model with its language vectors, as the settings say."""
    from hybridbatch.model import Encoder
    from hybridbatch.scoring.debias_model import TEXTS, save_by_language, save_global

    folder, encoder = config.save_model, store.encoder
    if folder is None or not isinstance(encoder, Encoder):
        raise ConfigError(
            f"save_model: {config.model} cannot be saved as a model; leave --save-model out"
        )
    if config.fold == "language":
        save_by_language(encoder, vectors, folder)
    else:
        both = {"query": texts["passage"], **texts}
        place = save_global(encoder, both, folder)
        report.note(
            f"{folder}: the saved model includes one mean for all languages, of the first {TEXTS}"
            f" texts of each language and side, in {place}"
        )


def rewrite_index(config: DebiasConfig, report: Reporter = SILENT) -> tuple[Path, Path]:
    """Subtract language vectors from the stored vectors of ``config.vectors``.

    Returns:
        The new file, and the folder of its language vectors.

    Raises:
        As `hybridbatch.debias.rewrite.rewrite`; `ConfigError` without the languages of the rows.
    """
    from hybridbatch.debias.index_files import open_index
    from hybridbatch.debias.rewrite import RowLanguages, read_row_languages, rewrite
    from hybridbatch.debias.vectors_file import read_vectors

    path = config.vectors
    if path is None or config.languages is None:
        raise ConfigError(
            "vectors: each vector needs its language; give --languages FILE with a line for"
            " each vector (for a Parquet file, the name of its column)"
        )
    column = str(config.languages)
    of_column = path.suffix.lower() == ".parquet" and not config.languages.is_file()
    index = open_index(
        path,
        dimension=config.dimension,
        dtype=config.dtype,
        column=config.column,
        language_column=column if of_column else None,
    )
    if index.languages is not None:
        languages = RowLanguages.of(index.languages(), f"{path}, column {column}")
    else:
        languages = read_row_languages(config.languages, index.shape[0])
    out = config.out or path.with_name(f"{path.stem}-debiased{path.suffix}")
    vectors = read_vectors(config.debias) if config.debias else None
    folder = rewrite(index, languages, out, method=config.how, vectors=vectors, report=report)
    return out, folder


def language_vectors(
    config: DebiasConfig,
    texts: Mapping[Side, Mapping[str, Sequence[str]]],
    sources: Mapping[str, str],
    store: "EmbeddingStore",
    report: Reporter = SILENT,
) -> LanguageVectors:
    """Estimate language vectors from texts by side and language; each text is encoded once."""
    moments = {
        side: _moments(store, side, by_language, config.how.products, report)
        for side, by_language in texts.items()
    }
    if "query" not in moments and config.query_estimate == "passages":
        moments["query"] = moments["passage"]
    for side, found in moments.items():
        few = [name for name, count in counts_by_language(found).items() if count < FEW]
        if few:
            report.warn(
                f"there are fewer than {FEW} {side} texts in {', '.join(few)}, so the vectors"
                " of these languages stay near the global vector"
            )
    facts: dict[str, Any] = {
        "hybridbatch": hybridbatch.__version__,
        "model": {
            "name": config.model,
            "fingerprint": store.fingerprint,
            "precision": store.precision,
        },
        "method": {**config.how.as_json(), "together": config.joins_sides},
        "sources": dict(sources),
        "texts": {side: counts_by_language(found) for side, found in moments.items()},
        "seed": config.seed,
    }
    return LanguageVectors(config.how.fit_sides(moments, together=config.joins_sides), facts)


def open_store(
    config: "DebiasConfig | AuditConfig", report: Reporter = SILENT
) -> "EmbeddingStore":
    """Load the model in the settings and open its stored embeddings. Raises: `ModelError`."""
    from hybridbatch.common.device import resolve_device, resolve_precision
    from hybridbatch.model import Encoder
    from hybridbatch.search.embeddings import EmbeddingStore

    device = resolve_device(config.device)
    encoder = Encoder.load(config.model, **config.encoder_options, report=report).to(device)
    precision = resolve_precision(config.precision, device)
    return EmbeddingStore(encoder, config.cache, precision=precision)


def _moments(
    store: "EmbeddingStore",
    side: Side,
    texts: Mapping[str, Sequence[str]],
    products: bool,
    report: Reporter,
) -> Moments:
    """The moments of a side, from one call for the texts of all languages."""
    import numpy as np

    every = [text for own in texts.values() for text in own]
    numbers = np.repeat(np.arange(len(texts)), [len(own) for own in texts.values()])
    moments = Moments.empty(tuple(texts), store.encoder.dimension, products)
    moments.add(store.embed(every, side, report), numbers)
    return moments


def texts_by_side(
    config: DebiasConfig, report: Reporter = SILENT
) -> tuple[dict[Side, dict[str, list[str]]], dict[str, str]]:
    """The texts of each side, and a description of their sources."""
    passages = _gathered(config, config.text, "passage", report)
    sources = {"passage": ", ".join(_shown(name) for name in config.text)}
    texts: dict[Side, dict[str, list[str]]] = {
        "passage": passages.sample(config.texts_per_language, config.seed)
    }
    if config.method == "shift":
        return texts, sources
    named = config.queries or _with_queries(config.text)
    if named:
        queries = _gathered(config, named, "query", report)
        texts["query"] = queries.sample(config.texts_per_language, config.seed)
        sources["query"] = ", ".join(_shown(name) for name in named)
        _fill(config, texts, sources, report)
    elif config.query_estimate == "texts":
        texts["query"] = texts["passage"]
        sources["query"] = f"no queries: {sources['passage']}, encoded as queries"
        report.note(
            "no queries were given, so their vectors are estimated from the texts, encoded"
            " as queries"
        )
    else:
        sources["query"] = "no queries: the vectors of the passages"
        report.note(
            "no queries were given, so the vectors of the passages are used for queries, too"
        )
    return texts, sources


def _fill(
    config: DebiasConfig,
    texts: dict[Side, dict[str, list[str]]],
    sources: dict[str, str],
    report: Reporter,
) -> None:
    """Provide for languages with passages but no query.

    If a mean of each language is subtracted, it follows from that of the passages, see
    `Method.fit_sides`. For other methods, the passages are encoded as queries.
    """
    lacking = [name for name in texts["passage"] if name not in texts["query"]]
    if not lacking:
        return
    shown = ", ".join(lacking[:8]) + (" ..." if len(lacking) > 8 else "")
    if config.how.by_mean_of_language:
        how = "passages, moved by the mean difference from queries in other languages"
    else:
        how = "passages, encoded as queries"
        texts["query"] |= {name: texts["passage"][name] for name in lacking}
    sources["query"] += f"; {shown}: {how}"
    report.note(f"there are no queries in {shown}; their vectors are estimated from {how}")


def _shown(name: str) -> str:
    """The name of a source in the result, which never has a path of this machine."""
    return name if name.partition(":")[0] in TASKS else Path(name).name


def _with_queries(names: Sequence[str]) -> tuple[str, ...]:
    """The sources of passages that have queries as well."""
    return tuple(
        name
        for name in names
        if name.partition(":")[0] in TASKS or has_texts(Path(name), "query")
    )


def _gathered(
    config: DebiasConfig, names: Sequence[str], side: Side, report: Reporter
) -> TextsByLanguage:
    """The texts of all sources together."""
    gathered = TextsByLanguage()
    for name in names:
        for language, texts in _of_source(config, name, side, report).items():
            gathered.texts.setdefault(language, []).extend(texts)
    return gathered


def _of_source(
    config: DebiasConfig, name: str, side: Side, report: Reporter
) -> dict[str, list[str]]:
    if name.partition(":")[0] in TASKS and not Path(name).exists():
        report.warn(
            f"{name}: is an evaluation set; these vectors have seen its texts (but no label),"
            " so scores on it are not independent of them"
        )
        task = load_task(name, data_root=config.data_root)
        texts = task.corpus if side == "passage" else task.queries
        return {language: list(one.texts) for language, one in texts.items()}
    path = Path(name)
    if not path.exists():
        setting = "queries" if side == "query" else "text"
        raise ConfigError(
            f"{setting} = {name!r}: is neither a folder or file nor a built-in task"
            f" ({', '.join(TASKS[:4])}, ...)"
        )
    return read_texts_by_language(path, side, report).texts
