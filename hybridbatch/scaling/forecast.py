"""Forecast the score of a language before training, from cells that are finished. Pure.

A forecast is the score of the starting model in the language plus an expected gain. The gain is a
ridge regression (Hoerl and Kennard 1970) on traits of the language and settings of the cell. The
strength of the ridge is the one that forecasts left-out languages best. The interval is about a
language that was not learnt from: its width comes from the errors on left-out languages, and its
degrees of freedom are their number less one.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import language

LEVEL = 0.95
RIDGES = (0.1, 1.0, 10.0, 100.0, 1000.0)  # in units of one cell
MIN_LANGUAGES = 3
TRAITS = ("seen", "script_share", "tokens_per_word", "pretraining")
SETTINGS = ("pairs", "mix", "mix_squared")
# Scripts that are written without spaces: their words cannot be counted by spaces.
UNSPACED = ("Thai", "Laoo", "Khmr", "Mymr", "Hans", "Hant", "Hani", "Jpan", "Tibt")


@dataclass(frozen=True)
class Example:
    """A language in a cell. `score` is None before training."""

    key: str  # of the cell
    task: str
    setting: str
    language: str
    untrained: float  # score of the starting model
    features: Mapping[str, float]  # of `TRAITS` and `SETTINGS`
    score: float | None = None

    @property
    def measure(self) -> tuple[str, str]:
        """Task and setting."""
        return self.task, self.setting


@dataclass(frozen=True)
class Forecast:
    """The forecast of one score, with its interval."""

    value: float
    low: float
    high: float


def language_features(
    code: str, trained: Sequence[str], tokens_per_word: float | None
) -> dict[str, float]:
    """The traits of a language that a forecast uses.

    Returns:
        ``seen`` (1 if the model is trained on it), ``script_share`` (of the training languages),
        ``tokens_per_word`` (log2; 0 if not known) and ``pretraining`` (log2 of 1 + the MiB of the
        language in CC-100; Conneau et al. 2020, arXiv:1911.02116, table 6).
    """
    own = language(code)
    shares = [language(other).script == own.script for other in trained]
    return {
        "seen": float(code in trained),
        "script_share": sum(shares) / len(shares) if shares else 0.0,
        "tokens_per_word": float(np.log2(tokens_per_word)) if tokens_per_word else 0.0,
        "pretraining": float(np.log2(1 + 1024 * pretraining_gib().get(code, 0.0))),
    }


def cell_features(pairs: float, mix: float) -> dict[str, float]:
    """The settings of a cell that a forecast uses."""
    return {"pairs": float(np.log2(pairs)), "mix": mix, "mix_squared": mix * mix}


def tokens_per_word(
    texts: Mapping[str, Sequence[str]], tokens: Mapping[str, int]
) -> dict[str, float]:
    """Tokens per word of each language (its *fertility*).

    Words are parted by spaces. In scripts without spaces a word is counted for as many characters
    as a word has on average in the other languages.

    Args:
        texts: by language.
        tokens: number of tokens of a language's texts, without special tokens.
    """
    counts: dict[str, float] = {}
    lengths = []
    for code, own in texts.items():
        if language(code).script not in UNSPACED:
            words = [word for text in own for word in text.split()]
            counts[code] = len(words)
            if words:
                lengths.append(sum(map(len, words)) / len(words))
    average = float(np.mean(lengths)) if lengths else 5.0
    for code, own in texts.items():
        counts.setdefault(code, sum(map(len, own)) / average)
    return {code: tokens[code] / counts[code] for code in texts if counts[code] > 0}


@lru_cache(maxsize=1)
def pretraining_gib() -> dict[str, float]:
    """GiB of text of each language in CC-100."""
    from importlib.resources import files

    lines = files(__package__).joinpath("cc100.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if not line.startswith("#")]
    return {code: float(size) for code, size in pairs}


@dataclass(frozen=True)
class Forecaster:
    """What was learnt about one task and setting."""

    names: tuple[str, ...]  # of the features that vary
    centre: np.ndarray  # [F]
    scale: np.ndarray  # [F]
    slopes: np.ndarray  # [F]
    gain: float  # the mean gain
    ridge: float
    error: float  # root mean squared error on left-out languages
    languages: tuple[str, ...]

    def predict(self, example: Example, level: float = LEVEL) -> Forecast:
        """The forecast for a language in a cell."""
        from scipy.stats import t

        own = np.array([example.features[name] for name in self.names])
        gain = self.gain + float((own - self.centre) / self.scale @ self.slopes)
        value = example.untrained + gain
        free = len(self.languages) - 1
        half = float(t.ppf((1 + level) / 2, free)) * self.error
        return Forecast(value, value - half, value + half)


def learn(examples: Iterable[Example]) -> dict[tuple[str, str], Forecaster]:
    """Learn a forecaster for each task and setting that has three languages or more.

    Raises:
        DataError: no task and setting has three languages.
    """
    parts: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        if example.score is not None:
            parts[example.measure].append(example)
    if not parts:
        raise DataError("a forecast needs finished trained cells to learn from; there is none")
    spoken = {m: len({example.language for example in part}) for m, part in parts.items()}
    if max(spoken.values()) < MIN_LANGUAGES:
        raise DataError(
            f"a forecast needs finished cells in {MIN_LANGUAGES} query languages or more, and there"
            f" are {max(spoken.values())}"
        )
    return {m: _learn(part) for m, part in parts.items() if spoken[m] >= MIN_LANGUAGES}


def _learn(part: Sequence[Example]) -> Forecaster:
    errors = {ridge: _error(_left_out(part, ridge)) for ridge in RIDGES}
    best = min(errors, key=lambda ridge: (errors[ridge], -ridge))
    return _fitted(part, best, errors[best])


def _fitted(part: Sequence[Example], ridge: float, error: float = 0.0) -> Forecaster:
    names = tuple(
        name for name in (*TRAITS, *SETTINGS) if len({each.features[name] for each in part}) > 1
    )
    x = np.array([[each.features[name] for name in names] for each in part]).reshape(
        len(part), -1
    )
    y = np.array([float(each.score or 0) - each.untrained for each in part])
    weights = _weights(part)
    centre = weights @ x
    scale = np.sqrt(weights @ (x - centre) ** 2)
    scale[scale == 0] = 1
    z = (x - centre) / scale
    gain = float(weights @ y)
    # The weights sum to 1, so the ridge is per cell.
    gram = (z * weights[:, None]).T @ z + ridge / len(part) * np.eye(len(names))
    slopes = np.linalg.solve(gram, (z * weights[:, None]).T @ (y - gain))
    spoken = tuple(dict.fromkeys(each.language for each in part))
    return Forecaster(names, centre, scale, slopes, gain, ridge, error, spoken)


def _weights(part: Sequence[Example]) -> np.ndarray:
    """float64 [n], sum 1: every language counts the same, whatever the number of its cells."""
    counts: dict[str, int] = defaultdict(int)
    for example in part:
        counts[example.language] += 1
    return np.array([1 / counts[example.language] / len(counts) for example in part])


def _left_out(part: Sequence[Example], ridge: float) -> list[tuple[Example, float]]:
    """Each example with its forecast from the other languages."""
    found = []
    for code in dict.fromkeys(example.language for example in part):
        others = [example for example in part if example.language != code]
        learnt = _fitted(others, ridge)
        for example in part:
            if example.language == code:
                own = np.array([example.features[name] for name in learnt.names])
                gain = learnt.gain + float((own - learnt.centre) / learnt.scale @ learnt.slopes)
                found.append((example, example.untrained + gain))
    return found


def _error(forecasts: Sequence[tuple[Example, float]]) -> float:
    """The root mean squared error, with every language counting the same."""
    squares = np.array(
        [(float(example.score or 0) - value) ** 2 for example, value in forecasts]
    )
    return float(np.sqrt(_weights([example for example, _ in forecasts]) @ squares))


def leave_one_language_out(examples: Iterable[Example]) -> list[tuple[Example, Forecast]]:
    """Forecast every example by a forecaster that learnt from the other languages alone.

    Ridge and interval, too, come from the other languages alone. Measures with fewer than four
    languages are left out.
    """
    parts: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for example in examples:
        if example.score is not None:
            parts[example.measure].append(example)
    found = []
    for part in parts.values():
        spoken = dict.fromkeys(example.language for example in part)
        for code in spoken if len(spoken) > MIN_LANGUAGES else ():
            learnt = _learn([example for example in part if example.language != code])
            found += [
                (example, learnt.predict(example))
                for example in part
                if example.language == code
            ]
    return found


def misses(forecasts: Iterable[tuple[Example, Forecast]]) -> list[dict[str, Any]]:
    """The miss over all cells, a row for each task and setting, then one over all.

    Returns:
        ``miss`` (mean absolute error), ``inside`` (share of scores inside their interval),
        ``half_width`` (mean) and, for comparison, ``miss_untrained``: the miss of the starting
        model's score as the forecast.
    """
    done = [(example, found) for example, found in forecasts if example.score is not None]
    rows: list[dict[str, Any]] = []
    for measure in [*dict.fromkeys(example.measure for example, _ in done), None]:
        own = [(e, f) for e, f in done if measure is None or e.measure == measure]
        if not own or (measure is None and len(rows) < 2):
            continue
        scores = np.array([float(e.score or 0) for e, _ in own])
        values = np.array([[f.value, f.low, f.high] for _, f in own])
        untrained = np.array([e.untrained for e, _ in own])
        task, setting = measure or ("all", "all")
        rows.append(
            {
                "task": task,
                "setting": setting,
                "languages": len({e.language for e, _ in own}),
                "cells": len({e.key for e, _ in own}),
                "scores": len(own),
                "miss": float(np.abs(values[:, 0] - scores).mean()),
                "inside": float(((values[:, 1] <= scores) & (scores <= values[:, 2])).mean()),
                "half_width": float((values[:, 2] - values[:, 1]).mean() / 2),
                "miss_untrained": float(np.abs(untrained - scores).mean()),
            }
        )
    return rows
