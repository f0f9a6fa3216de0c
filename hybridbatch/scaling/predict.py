"""`hybridbatch scale-sweep --predict`: forecasts before training, and their miss afterwards.

``forecast.json`` in the folder of the sweep keeps the forecasts. A forecast is written before its
cell is trained and never changed, so it cannot know the result.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hybridbatch.common.documents import Shape, read_document
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import write_json, write_text
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.tables import markdown_table
from hybridbatch.scaling.analysis import Sweep, trained_languages
from hybridbatch.scaling.cells.folder import SweepFolder
from hybridbatch.scaling.cells.grid import Cell
from hybridbatch.scaling.forecast import (
    MIN_LANGUAGES,
    Example,
    Forecast,
    cell_features,
    language_features,
    learn,
    leave_one_language_out,
    misses,
    tokens_per_word,
)
from hybridbatch.scaling.settings import SweepConfig

if TYPE_CHECKING:
    from hybridbatch.model import Encoder

FILE = "forecast.json"
TABLE = "forecast.md"
SCHEMA = 1
METRIC = "mAP"
SAMPLE = 200  # texts of a language whose tokens are counted
Fertility = Mapping[str, Mapping[str, float]]  # tokens per word, by task and language


class ForecastDocument(Shape):
    """``forecast.json``."""

    kind_name: ClassVar[str] = "forecast"
    versions: ClassVar[tuple[int, ...]] = (SCHEMA,)
    what: ClassVar[str] = "forecast of a sweep"

    forecasts: list[dict[str, Any]]
    tried: list[dict[str, Any]]


def forecast(
    config: SweepConfig,
    cells: Sequence[Cell],
    folder: SweepFolder,
    report: Reporter = SILENT,
    fertility: Fertility | None = None,
) -> Path:
    """Write the forecasts of all cells that are not trained yet; those that exist stay.

    Args:
        config: the sweep; its `predict` names the sweeps to learn from.
        cells: the cells of the grid. The starting models must be scored already.
        folder: of the sweep.
        fertility: tokens per word by task and language; by default they are counted.

    Raises:
        ConfigError: no cell of the named sweeps scores a task of this sweep.
        DataError: too few languages to learn from, or a folder that is no sweep.
    """
    earlier = Sweep.open(*config.predict)
    if fertility is None:
        fertility = fertility_of(config, report)
    known = list(examples_of(earlier, fertility))
    starts = _starts(cells, folder)
    wanted = list(_wanted(cells, folder, starts, fertility))
    measures = {example.measure for example in wanted}
    known = [example for example in known if example.measure in measures]
    if not known and wanted:
        raise ConfigError(
            f"predict: no finished cell of {', '.join(map(str, config.predict))} scores"
            f" {', '.join(config.tasks)}; name sweeps with the same tasks"
        )
    path = folder.path / FILE
    old = read_document(path, ForecastDocument)["forecasts"] if path.exists() else []
    told = {(row["key"], row["task"], row["setting"], row["language"]) for row in old}
    learnt = learn(known) if wanted else {}
    for task, setting in sorted({example.measure for example in wanted} - set(learnt)):
        report.warn(
            f"no forecast of {setting} {task}: the sweeps to learn from have it in fewer than"
            f" {MIN_LANGUAGES} query languages, or not at all"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = list(old)
    for example in wanted:
        name = (example.key, example.task, example.setting, example.language)
        if name in told or example.measure not in learnt:
            continue
        found = learnt[example.measure].predict(example)
        rows.append(_row(example, found) | {"made": now})
    write_json(
        path,
        {
            "schema_version": SCHEMA,
            "kind": "forecast",
            "learnt_from": [place.name for place in config.predict],
            "metric": METRIC,
            "tried": misses(leave_one_language_out(known)),
            "forecasts": rows,
        },
        sealed=True,
    )
    report.note(f"wrote {len(rows) - len(old):,} forecasts to {path}, before training")
    for sentence in _differences(earlier, cells):
        report.warn(sentence)
    return path


def settle(folder: SweepFolder, report: Reporter = SILENT) -> Path | None:
    """Write ``forecast.md`` with the miss over all cells that are done by now."""
    path = folder.path / FILE
    if not path.exists():
        return None
    found = compared(folder)
    document = read_document(path, ForecastDocument)
    lines = ["# Forecasts, and their miss", ""]
    rows = misses(found)
    waiting = sum(example.score is None for example, _ in found)
    lines += [
        f"{len(found):,} scores ({METRIC}) were forecast before training, from the sweeps"
        f" {', '.join(document['learnt_from'])}; {waiting:,} of them are still to come.", "",
        markdown_table(rows) if rows else "No forecast cell is trained yet.", "",
        "## The same method on the cells it learnt from, each language left out", "",
        markdown_table(document["tried"]) if document["tried"] else "Too few languages.", "",
    ]  # fmt: skip
    place = folder.path / TABLE
    write_text(place, "\n".join(lines))
    report.note(f"wrote {place}")
    return place


def compared(folder: SweepFolder) -> list[tuple[Example, Forecast]]:
    """The forecasts of a sweep, with the scores of the cells that are done by now."""
    path = folder.path / FILE
    if not path.exists():
        return []
    cells: dict[str, dict[str, Any] | None] = {}
    found = []
    for row in read_document(path, ForecastDocument)["forecasts"]:
        key = row["key"]
        if key not in cells:
            cells[key] = folder.read(key) if folder.result(key).exists() else None
        example = Example(
            key=key,
            task=row["task"],
            setting=row["setting"],
            language=row["language"],
            untrained=row["untrained"],
            features={},
            score=_score(cells[key], row["task"], row["setting"], row["language"]),
        )
        found.append((example, Forecast(row["forecast"], row["low"], row["high"])))
    return found


def examples_of(sweep: Sweep, fertility: Fertility) -> Iterator[Example]:
    """Every language of every finished trained cell that has a mix and a scored start."""
    for cell in sweep.trained:
        start = sweep.untrained(cell["axes"]["model"])
        mix, pairs = cell["axes"].get("mix"), cell["axes"].get("pairs")
        if start is None or mix is None or not pairs:
            continue
        yield from _examples(
            cell["key"], trained_languages(cell), mix, pairs, start, cell, fertility
        )


def _wanted(
    cells: Iterable[Cell],
    folder: SweepFolder,
    starts: Mapping[str, Mapping[str, Any]],
    fertility: Fertility,
) -> Iterator[Example]:
    """Every language of every cell that is not trained yet."""
    for cell in cells:
        if cell.train is None or folder.result(cell.key).exists():
            continue
        start = starts.get(str(cell.axes["model"]))
        mix = cell.axes.get("mix")
        if start is None or mix is None:
            continue
        trained = (cell.train.languages or "").split(",")
        pairs = float(cell.train.max_records or 1)
        yield from _examples(cell.key, trained, mix, pairs, start, None, fertility)


def _examples(
    key: str,
    trained: Sequence[str],
    mix: float,
    pairs: float,
    start: Mapping[str, Any],
    cell: Mapping[str, Any] | None,
    fertility: Fertility,
) -> Iterator[Example]:
    for task in start["eval"]["tasks"]:
        name = task["name"]
        tokens = fertility.get(task.get("of") or name, {})
        for setting, languages in task["settings"].items():
            for code, metrics in languages.items():
                if METRIC not in metrics:
                    continue
                yield Example(
                    key=key,
                    task=name,
                    setting=setting,
                    language=code,
                    untrained=float(metrics[METRIC]),
                    features=language_features(code, trained, tokens.get(code))
                    | cell_features(pairs, mix),
                    score=_score(cell, name, setting, code),
                )


def _score(
    cell: Mapping[str, Any] | None, task: str, setting: str, language: str
) -> float | None:
    for entry in cell["eval"]["tasks"] if cell else ():
        if entry["name"] == task:
            value = entry["settings"].get(setting, {}).get(language, {}).get(METRIC)
            return None if value is None else float(value)
    return None


def _starts(cells: Iterable[Cell], folder: SweepFolder) -> dict[str, dict[str, Any]]:
    """The finished cells of the starting models, by model."""
    found = {}
    for cell in cells:
        if cell.train is None and cell.baseline is None and folder.result(cell.key).exists():
            found[str(cell.axes["model"])] = folder.read(cell.key)
    return found


def _row(example: Example, found: Forecast) -> dict[str, Any]:
    return {
        "key": example.key,
        "task": example.task,
        "setting": example.setting,
        "language": example.language,
        "untrained": example.untrained,
        "forecast": found.value,
        "low": found.low,
        "high": found.high,
        **dict(example.features),
    }


def _differences(earlier: Sweep, cells: Sequence[Cell]) -> Iterator[str]:
    """Settings of this grid that no cell had from which the forecast learnt."""
    ignored = {"seed", "mix", "max_records", "steps", "languages", "out", "data", "name"}
    seen: dict[str, set[str]] = {}
    for cell in earlier.trained:
        for name, value in cell["settings"]["train"].items():
            seen.setdefault(name, set()).add(str(value))
    found: dict[str, set[str]] = {}
    for planned in cells:
        settings = planned.train.as_json() if planned.train else {}
        for name, value in settings.items():
            if name in seen and name not in ignored and str(value) not in seen[name]:
                found.setdefault(name, set()).add(str(value))
    for name, values in sorted(found.items()):
        yield (
            f"the forecast learnt from no cell with {name} = {', '.join(sorted(values))} (but"
            f" {', '.join(sorted(seen[name])[:4])}), and cannot know its effect"
        )


def fertility_of(config: SweepConfig, report: Reporter = SILENT) -> dict[str, dict[str, float]]:
    """Tokens per word of the evaluation texts, by the tokenizer of the first model."""
    from hybridbatch.model import Encoder
    from hybridbatch.scaling.cells.runner import _tasks

    encoder = Encoder.load(config.model[0], report=report)
    found = {}
    for task in _tasks(
        tuple(config.tasks), config.data_root, config.languages, config.parallel
    ):
        texts = {code: list(one.texts[:SAMPLE]) for code, one in task.corpus.items()}
        found[task.name] = tokens_per_word(texts, count_tokens(encoder, texts))
    return found


def count_tokens(encoder: "Encoder", texts: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The tokens of each language's passages, without prompt and special tokens."""
    empty = int(encoder.tokenise(["a"], "passage").lengths.sum()) - 1
    counts = {}
    for code, own in texts.items():
        lengths = encoder.tokenise(list(own), "passage").lengths
        counts[code] = int((lengths - empty).clip(min=1).sum())
    return counts
