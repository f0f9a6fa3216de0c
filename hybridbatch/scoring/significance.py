"""Is one run better than another? Paired tests and intervals whose unit is the question.

A question that is asked in 11 languages, or searched in 11 corpora, gives 11 values that rise and
fall together. These values form one *cluster*. The randomisation test flips the signs of all values
of a cluster together, and the bootstrap draws them together. So the number of questions decides
what is significant, not the number of values.

Runs with several seeds have two sources of chance, seeds and questions. `crossed_t` covers both
sources in one t test. If this test finds no difference, the runs are either equivalent within a
margin (`equivalence_p`) or undecided. `Contrast.detectable` is the difference that the test would
find with a chance of 80 %.

Sources: paired randomisation test, Smucker, Allan and Carterette, CIKM 2007; clustered resampling,
Cameron, Gelbach and Miller, Review of Economics and Statistics 90(3), 2008; BCa intervals, Efron,
JASA 82(397), 1987; Holm, Scandinavian Journal of Statistics 6(2), 1979; variance by two crossed
clusters, Cameron, Gelbach and Miller, Journal of Business & Economic Statistics 29(2), 2011;
degrees of freedom, Satterthwaite, Biometrics Bulletin 2(6), 1946; two one-sided tests, Schuirmann,
Journal of Pharmacokinetics and Biopharmaceutics 15(6), 1987.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hybridbatch.common.errors import DataError
from hybridbatch.common.seeding import stream

Method = Literal["percentile", "bca"]
CHUNK = 256  # draws at a time; this bounds the memory to CHUNK x questions
SETTINGS = 512  # settings whose bootstrap means are held at a time: 40 MB at 10,000 draws


@dataclass(frozen=True)
class Comparison:
    """Run A against run B in one setting; differences are A - B."""

    setting: str
    questions: int  # clusters
    values: int  # pairs of values, at least one per question
    mean_a: float
    mean_b: float
    difference: float
    low: float  # bounds of the interval of the difference
    high: float
    p: float  # two-sided, randomisation test
    p_holm: float  # p after Holm's correction for the number of settings
    # Cohen's d of the questions' mean differences; None if they do not vary
    effect_size: float | None
    # the difference that a t test over questions at 5 % would find with a chance of 80 %; None
    # for a single question
    detectable: float | None

    @property
    def half_width(self) -> float:
        """Half the width of the interval: the number behind the plus-minus sign."""
        return (self.high - self.low) / 2


def compare(
    values_a: np.ndarray,
    values_b: np.ndarray,
    questions: Sequence[str] | np.ndarray,
    settings: Sequence[str] | np.ndarray,
    *,
    seed: int,
    draws: int = 10_000,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare two runs on the same queries, setting by setting.

    Args:
        values_a, values_b: float [N], the metric of each query; row i of both is the same query.
        questions: [N] id of the question behind each query: the same in all its languages.
        settings: [N] name of the setting; a group of language pairs may be one setting.
        seed: the seed of signs and resamples, which all settings share.
        draws: the number of random sign patterns and of bootstrap resamples.
        level: coverage of the interval (BCa).

    Returns:
        One comparison per setting, in order of first appearance. Holm's correction of the p values
        covers all settings.

    Raises:
        DataError: the arrays differ in length, have no values, or have values that are not finite.
    """
    if not len(values_a) == len(values_b) == len(questions) == len(settings):
        raise DataError(
            f"runs cannot be paired: {len(values_a)} and {len(values_b)} values, {len(questions)}"
            f" questions, {len(settings)} settings"
        )
    if not len(values_a):
        raise DataError("there is nothing to compare, because the runs share no query")
    difference = np.asarray(values_a, dtype=np.float64) - np.asarray(values_b, dtype=np.float64)
    if not np.isfinite(difference).all():
        raise DataError(
            f"value {int(np.argmin(np.isfinite(difference)))} of the runs is not a finite number"
        )
    question_names, question = np.unique(np.asarray(questions), return_inverse=True)
    setting_names, first, setting = np.unique(
        np.asarray(settings), return_index=True, return_inverse=True
    )
    shape = len(question_names), len(setting_names)
    cell = question * shape[1] + setting
    sums = np.bincount(cell, difference, minlength=shape[0] * shape[1]).reshape(shape)
    counts = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)

    p = randomisation_p(sums, seed=seed, draws=draws)
    low, high = bootstrap_interval(sums, counts, seed=seed, draws=draws, level=level)
    corrected = holm(p)
    found = []
    for number in np.argsort(first):
        chosen = setting == number
        asked = counts[:, number] > 0
        found.append(
            Comparison(
                setting=str(setting_names[number]),
                questions=int(asked.sum()),
                values=int(chosen.sum()),
                mean_a=float(np.mean(np.asarray(values_a)[chosen])),
                mean_b=float(np.mean(np.asarray(values_b)[chosen])),
                difference=float(difference[chosen].mean()),
                low=float(low[number]),
                high=float(high[number]),
                p=float(p[number]),
                p_holm=float(corrected[number]),
                effect_size=cohen_d(sums[asked, number] / counts[asked, number]),
                detectable=_detectable(sums[asked, number], counts[asked, number]),
            )
        )
    return found


def _detectable(sums: np.ndarray, counts: np.ndarray) -> float | None:
    """The minimal detectable mean difference, from the clusters' residuals; None for one cluster.

    Args:
        sums, counts: float64 [C], sum and number of each question's differences.
    """
    from scipy.special import stdtrit

    clusters = len(sums)
    if clusters < 2:
        return None
    residuals = sums - sums.sum() / counts.sum() * counts
    variance = clusters / (clusters - 1) * (residuals**2).sum() / counts.sum() ** 2
    quantiles = stdtrit(clusters - 1, 0.975) + stdtrit(clusters - 1, POWER)
    return float(quantiles * np.sqrt(variance))


@dataclass(frozen=True)
class Contrast:
    """A mean difference over seeds and questions, with its t test."""

    mean: float
    error: float  # standard error of the mean
    degrees: float  # of freedom
    low: float  # bounds of the t interval
    high: float
    p: float  # two-sided
    detectable: float  # the difference that a test at 5 % would find with a chance of 80 %


Decision = Literal["difference", "equivalent", "undecided"]
# With fewer seeds Satterthwaite's approximation errs: 5 to 11 % of true nulls rejected at 5 %. From
# five seeds on, 5.7 % at most are (docs/scaling.md, "How often the tests err").
FEWEST_SEEDS = 5
POWER = 0.8


def crossed_t(differences: np.ndarray, *, level: float = 0.95) -> Contrast:
    """Test if the mean of differences is 0, for other seeds and other questions at once.

    The variance of the mean has three parts: the variance between the means of seeds, plus the
    variance between the means of questions, minus the variance of single cells, because both other
    parts contain it. The sum is never below either of the first two parts (Cameron, Gelbach and
    Miller 2011, with the part of the cells by analysis of variance). With at least `FEWEST_SEEDS`
    seeds, the degrees of freedom are Satterthwaite's. With fewer seeds, they are the smaller of
    seeds - 1 and questions - 1, which is cautious. Nothing is pooled with other contrasts.

    Args:
        differences: float [S, Q], by seed and question cluster. With one seed, the test covers
            questions alone. With one question (only means are known), it covers seeds alone.
        level: coverage of the interval.

    Raises:
        DataError: there are fewer than two values.
    """
    from scipy.special import stdtr, stdtrit

    values = np.asarray(differences, dtype=np.float64)
    if values.size < 2:
        raise DataError("a test needs two seeds or two questions")
    variance, degrees = _crossed_variance(values)
    mean, error = float(values.mean()), float(np.sqrt(variance))
    if error == 0:
        return Contrast(mean, 0.0, degrees, mean, mean, 1.0 if mean == 0 else 0.0, 0.0)
    half = float(stdtrit(degrees, (1 + level) / 2)) * error
    detectable = float(stdtrit(degrees, 0.975) + stdtrit(degrees, POWER)) * error
    p = float(2 * stdtr(degrees, -abs(mean) / error))
    return Contrast(mean, error, degrees, mean - half, mean + half, p, detectable)


def _crossed_variance(values: np.ndarray) -> tuple[float, float]:
    """Variance of the mean of [S, Q], and its degrees of freedom."""
    seeds, questions = values.shape
    by_seed, by_question = values.mean(axis=1), values.mean(axis=0)
    if seeds == 1:
        return float(by_question.var(ddof=1)) / questions, questions - 1.0
    if questions == 1:
        return float(by_seed.var(ddof=1)) / seeds, seeds - 1.0
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    of_questions = float(by_question.var(ddof=1)) / questions
    rest = values - by_seed[:, None] - by_question + values.mean()
    of_cells = float((rest**2).sum()) / ((seeds - 1) * (questions - 1)) / values.size
    fewest = float(min(seeds, questions) - 1)
    variance = max(of_seeds + of_questions - of_cells, of_seeds, of_questions)
    if seeds < FEWEST_SEEDS or variance == 0:
        return variance, fewest
    parts = of_seeds**2 / (seeds - 1) + of_questions**2 / (questions - 1)
    return variance, max(fewest, variance**2 / parts)


def equivalence_p(found: Contrast, margin: float) -> float:
    """p value of "the difference is as large as `margin`, in one direction or the other".

    It is the larger p value of two one-sided t tests (Schuirmann 1987). If it is below 0.05, the
    difference and the 90 % interval of the contrast lie within the margin.

    Args:
        found: the contrast.
        margin: > 0, in units of the metric. Fix it before you see the data.

    Raises:
        DataError: the margin is not positive.
    """
    from scipy.special import stdtr

    if not margin > 0:
        raise DataError(f"the margin of an equivalence test must be positive, not {margin}")
    if found.error == 0:
        return 0.0 if abs(found.mean) < margin else 1.0
    return float(stdtr(found.degrees, -(margin - abs(found.mean)) / found.error))


def decide(found: Contrast, p: float, margin: float, *, alpha: float = 0.05) -> Decision:
    """Decide if a contrast shows a difference, equivalence or neither.

    Args:
        found: the contrast.
        p: its p value, corrected for the family it belongs to.
        margin: of the equivalence test.
        alpha: of both tests.

    Returns:
        ``difference`` if p is below alpha; else ``equivalent`` if the p value of the equivalence
        test is below alpha; else ``undecided``: there may be a difference of up to
        `Contrast.detectable`.
    """
    if p < alpha:
        return "difference"
    return "equivalent" if equivalence_p(found, margin) < alpha else "undecided"


def randomisation_p(sums: np.ndarray, *, seed: int, draws: int = 10_000) -> np.ndarray:
    """Two-sided p values of the paired randomisation test.

    Under the null hypothesis, the sign of every question is random.

    Args:
        sums: float64 [C, S], sum of the differences of each cluster in each setting.
        draws: the number of random sign patterns. If no more patterns than this exist, each is
            taken once, and the test is exact.

    Returns:
        float64 [S]. The observed pattern counts as one draw, so p is never 0.
    """
    clusters = len(sums)
    observed = np.abs(sums.sum(axis=0))
    # sums in another order may differ in the last bits: count those
    observed -= 1e-12 * np.abs(sums).sum(axis=0)
    exact = clusters < 63 and 2**clusters <= draws
    total = 2**clusters if exact else draws
    rng = stream(seed, "randomisation")
    reached = np.zeros(sums.shape[1])
    for start in range(0, total, CHUNK):
        size = min(CHUNK, total - start)
        if exact:
            bits = (np.arange(start, start + size)[:, None] >> np.arange(clusters)) & 1
        else:
            bits = rng.integers(0, 2, (size, clusters), dtype=np.int8)
        reached += (np.abs((1.0 - 2.0 * bits) @ sums) >= observed).sum(axis=0)
    return reached / total if exact else (reached + 1) / (total + 1)


def bootstrap_interval(
    sums: np.ndarray,
    counts: np.ndarray,
    *,
    seed: int,
    draws: int = 10_000,
    level: float = 0.95,
    method: Method = "bca",
) -> tuple[np.ndarray, np.ndarray]:
    """The interval of the mean over all values of a setting. Questions are drawn with replacement.

    Args:
        sums, counts: float64 [C, S], sum and number of a cluster's values in each setting; 0 where
            it has none.
        level: coverage, 0 < level < 1.
        method: "percentile", or "bca" (bias-corrected and accelerated, second-order correct).

    Returns:
        Lower and upper bounds, float64 [S]. The bounds of a setting do not depend on the other
        settings.
    """
    parts = [
        _interval(
            sums[:, i : i + SETTINGS], counts[:, i : i + SETTINGS], seed, draws, level, method
        )
        for i in range(0, sums.shape[1], SETTINGS)
    ]
    return np.concatenate([low for low, _ in parts]), np.concatenate(
        [high for _, high in parts]
    )


def _interval(
    sums: np.ndarray, counts: np.ndarray, seed: int, draws: int, level: float, method: Method
) -> tuple[np.ndarray, np.ndarray]:
    from scipy.special import ndtr, ndtri

    clusters = len(sums)
    rng = stream(seed, "bootstrap")
    means = np.empty((draws, sums.shape[1]))
    for start in range(0, draws, CHUNK):
        size = min(CHUNK, draws - start)
        weights = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size).astype(
            np.float64
        )
        drawn = weights @ counts
        # a draw without any question of a setting repeats the mean of all questions
        whole = drawn == 0
        means[start : start + size] = np.where(
            whole,
            sums.sum(axis=0) / counts.sum(axis=0),
            weights @ sums / np.where(whole, 1, drawn),
        )
    means.sort(axis=0)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])[:, None].repeat(sums.shape[1], axis=1)
    if method == "bca":
        below = _share_below(means, sums.sum(axis=0) / counts.sum(axis=0))
        bias = ndtri(np.clip(below, 1 / (draws + 1), draws / (draws + 1)))
        normal = bias + ndtri(tails)
        tails = ndtr(bias + normal / (1 - _acceleration(sums, counts) * normal))
    place = tails * (draws - 1)
    under = np.floor(place).astype(np.int64)
    over = np.minimum(under + 1, draws - 1)
    bounds = np.take_along_axis(means, under, 0) * (1 - place + under) + np.take_along_axis(
        means, over, 0
    ) * (place - under)
    return bounds[0], bounds[1]


def _share_below(means: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """The share [S] of the drawn means [draws, S] below the observed mean [S].

    Equal means count half. Otherwise the interval of A - B would not be that of B - A turned
    around, where few questions have few different values.
    """
    slack = 1e-12 * np.abs(means).max(axis=0)
    below = (means < observed - slack).mean(axis=0)
    not_above = (means <= observed + slack).mean(axis=0)
    return (below + not_above) / 2


def _acceleration(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Skewness of the jackknifed means over 6 (Efron 1987, eq. 6.6) of every setting.

    It is 0 if the means do not vary.
    """
    left = counts.sum(axis=0) - counts
    without = np.where(left > 0, (sums.sum(axis=0) - sums) / np.where(left > 0, left, 1), 0.0)
    present = (counts > 0) & (left > 0)
    mean = (without * present).sum(axis=0) / np.maximum(present.sum(axis=0), 1)
    deviation = np.where(present, mean - without, 0.0)
    spread = (deviation**2).sum(axis=0) ** 1.5
    return np.where(
        spread > 0, (deviation**3).sum(axis=0) / (6 * np.where(spread > 0, spread, 1)), 0.0
    )


def holm(p: np.ndarray) -> np.ndarray:
    """The p values [S] after Holm's step-down correction, which bounds the family's error rate."""
    order = np.argsort(p)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(
        np.maximum.accumulate(np.asarray(p)[order] * np.arange(len(p), 0, -1)), 1.0
    )
    return corrected


def cohen_d(differences: np.ndarray) -> float | None:
    """Cohen's d of paired differences [C], their mean in standard deviations.

    It is None if the differences do not vary.
    """
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return float(differences.mean()) / spread if spread > 0 else None


def verdict(
    found: Comparison,
    name_a: str,
    name_b: str,
    metric: str,
    *,
    scale: float = 100.0,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    verb: str = "beats",
) -> str:
    """A comparison in one sentence, by the Holm-corrected p value.

    Args:
        scale: multiplies the values; 100 gives points of mAP, 1 ranks of rank distance.
        alpha: the difference counts if the corrected p value is below this level.
        verb: the verb between the better run and the worse run.
    """
    size, p = _size(found, metric, scale), p_in_words(found.p_holm)
    if found.p_holm >= alpha:
        sign = "-" if found.difference < 0 else ""
        return (
            f"there is no significant difference between {name_a} and {name_b} on {found.setting}"
            f" ({sign}{size}, {p}{_would_be_seen(found, metric, scale)})"
        )
    better, worse = (
        (name_a, name_b) if (found.difference > 0) == higher_is_better else (name_b, name_a)
    )
    return f"{better} {verb} {worse} on {found.setting} by {size}, {p}"


def summary(
    found: Sequence[Comparison],
    name_a: str,
    name_b: str,
    metric: str,
    *,
    scale: float = 100.0,
    higher_is_better: bool = True,
    alpha: float = 0.05,
    verb: str = "beats",
) -> str:
    """All settings of one task in one sentence.

    The sentence has the differences, greatest first, and then the settings without a difference.

    Args: as `verdict`.
    """
    clauses = []
    real = sorted(
        (each for each in found if each.p_holm < alpha), key=lambda each: -abs(each.difference)
    )
    for each in real:
        better, worse = (
            (name_a, name_b) if (each.difference > 0) == higher_is_better else (name_b, name_a)
        )
        size, p = _size(each, metric, scale), p_in_words(each.p_holm)
        clauses.append(f"{better} {verb} {worse} {_place(each.setting)} by {size}, {p}")
    unsettled = [each for each in found if each.p_holm >= alpha]
    if unsettled:
        none = [_place(each.setting) for each in unsettled]
        between = "" if real else f" between {name_a} and {name_b}"
        places = f"{', '.join(none[:-1])}{' and ' if none[:-1] else ''}{none[-1]}"
        weakest = max(unsettled, key=lambda each: each.detectable or 0)
        luck = _would_be_seen(weakest, metric, scale).removeprefix("; ")
        note = f" ({luck})" if luck else ""
        clauses.append(f"there is no significant difference{between} {places}{note}")
    return "; ".join(clauses)


def p_in_words(p: float) -> str:
    """``p = 0.012``, or ``p < 0.001`` below what three digits show."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _size(found: Comparison, metric: str, scale: float) -> str:
    return f"{scale * abs(found.difference):.1f} ± {scale * found.half_width:.1f} {metric}"


def _would_be_seen(found: Comparison, metric: str, scale: float) -> str:
    """The detectable difference in words; nothing if the values do not vary at all."""
    if not found.detectable:
        return ""
    size = f"{scale * found.detectable:.1f} {metric}"
    return f"; a difference of {size} would have been found with a chance of 80 %"


def _place(setting: str) -> str:
    """``multilingual:low-resource`` as words."""
    name, _, group = setting.partition(":")
    if name == "multilingual":
        return f"on the pool of {group}" if group else "on the pool"
    return f"in {setting} retrieval"
