"""Traits of a target language that may explain its gain, and a regression of gains on them. Pure.

The facts come from `hybridbatch.common.languages`. Distance is measured on the evaluation texts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.languages import language
from hybridbatch.common.seeding import stream

NGRAM = 3  # characters
LANGUAGES_PER_COEFFICIENT = 4  # fewer cannot tell the coefficients of a regression apart
RESAMPLES = 2000


class TooFewLanguages(DataError):
    """There are too few languages for a regression."""


@dataclass(frozen=True)
class Coefficient:
    """The slope of one trait in a regression."""

    name: str
    value: float  # per unit of the trait
    interval: tuple[float, float]  # percentile bootstrap over languages
    p: float  # two-sided t test with HC3 standard errors


def traits(code: str, trained: Sequence[str], pretraining: str) -> dict[str, float | None]:
    """The traits of a target language by name; None if a trait is not known.

    Returns:
        ``joshi_class`` (0 to 5, Joshi et al. 2020), ``pretrained`` (1 if the published list of
        `pretraining` has the language, else 0), and ``script_share`` and ``family_share`` (the
        shares of the training languages with the same script and with the same family).
    """
    facts, known = language(code), [language(other) for other in trained]
    return {
        "joshi_class": facts.joshi_class,
        "pretrained": float(pretraining in (facts.pretrained or ())),
        "script_share": sum(other.script == facts.script for other in known) / len(known),
        "family_share": None
        if facts.family is None
        else sum(o.family == facts.family for o in known) / len(known),
    }


def lexical_distances(
    texts: Mapping[str, Sequence[str]], targets: Sequence[str], trained: Sequence[str]
) -> dict[str, float]:
    """The distance of each target to the nearest training language.

    The distance is 1 - the cosine of the character trigram counts of two languages.

    Args:
        texts: by language; case and the ends of words count as they are written, a text is bounded
            by spaces.
        targets, trained: languages; those without texts are passed over.
    Returns: 0 (the same text) to 1 (no trigram in common, as between scripts), by target. A target
        that is trained is compared with the other training languages.
    """
    profiles = {
        code: _profile(texts[code])
        for code in dict.fromkeys([*targets, *trained])
        if code in texts
    }
    found = {}
    for code in targets:
        others = [profiles[other] for other in trained if other in profiles and other != code]
        if code in profiles and others:
            found[code] = 1 - max(_cosine(profiles[code], other) for other in others)
    return found


def regress(
    design: Mapping[str, Sequence[float]],
    gains: Sequence[float],
    *,
    seed: int,
    level: float = 0.95,
) -> list[Coefficient]:
    """Ordinary least squares of gains on traits, with an intercept.

    The p values come from t tests with HC3 standard errors (MacKinnon and White, Journal of
    Econometrics 29, 1985), which hold for unequal variances. Intervals are percentiles of refits to
    resampled languages.

    Args:
        design: [L] values of each trait. A trait is left out if it does not vary, or if the traits
            before it determine it.
        gains: [L].
        seed: of the bootstrap.
        level: of the intervals.
    Raises: TooFewLanguages for fewer than four languages per coefficient; DataError if no trait
        varies.
    """
    y = np.asarray(gains, dtype=float)
    names, x = _independent(design, len(y))
    if not names:
        raise DataError("no trait of the languages varies")
    needed = LANGUAGES_PER_COEFFICIENT * x.shape[1]
    if len(y) < needed:
        raise TooFewLanguages(
            f"a regression on {len(names)} traits needs at least {needed} languages, and there are"
            f" {len(y)}"
        )
    fitted = np.linalg.lstsq(x, y, rcond=None)[0]
    p = _hc3_p(x, y - x @ fitted, fitted)
    rng = stream(seed, "regression bootstrap")
    draws = [_refit(x, y, rng.integers(len(y), size=len(y))) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Coefficient(name, float(fitted[k]), (float(low[k]), float(high[k])), float(p[k]))
        for k, name in enumerate(names, start=1)
    ]


def _independent(
    design: Mapping[str, Sequence[float]], count: int
) -> tuple[list[str], np.ndarray]:
    names, columns = [], [np.ones(count)]
    for name, values in design.items():
        tried = np.column_stack([*columns, np.asarray(values, dtype=float)])
        if (
            np.linalg.matrix_rank(tried / np.linalg.norm(tried, axis=0).clip(1e-300))
            == tried.shape[1]
        ):
            names.append(name)
            columns.append(np.asarray(values, dtype=float))
    return names, np.column_stack(columns)


def _hc3_p(x: np.ndarray, residuals: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    from scipy.stats import t

    inverse = np.linalg.inv(x.T @ x)
    leverage = np.einsum("ij,jk,ik->i", x, inverse, x)
    weights = (residuals / np.maximum(1 - leverage, 1e-9)) ** 2
    errors = np.sqrt(np.diag(inverse @ (x.T * weights) @ x @ inverse))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(fitted) / errors
    return np.where(errors > 0, 2 * t.sf(ratio, len(x) - x.shape[1]), 0.0)


def _refit(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Coefficients of resampled languages; NaN if the resample does not determine them."""
    fitted, _, rank, _ = np.linalg.lstsq(x[rows], y[rows], rcond=None)
    return fitted if rank == x.shape[1] else np.full(x.shape[1], np.nan)


def _profile(texts: Sequence[str]) -> Counter[str]:
    """The number of times that every character n-gram occurs in the texts."""
    found: Counter[str] = Counter()
    for text in texts:
        padded = f" {text} "
        found.update(padded[start : start + NGRAM] for start in range(len(padded) - 2))
    return found


def _cosine(one: Mapping[str, int], two: Mapping[str, int]) -> float:
    small, large = sorted((one, two), key=len)
    product = sum(count * large.get(gram, 0) for gram, count in small.items())
    return product / (_norm(one) * _norm(two)) if product else 0.0


def _norm(profile: Mapping[str, Any]) -> float:
    return float(np.sqrt(sum(count * count for count in profile.values())))
