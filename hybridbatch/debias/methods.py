"""Ways to take the language out of embeddings, without training and without labels.

Every method gives a `Debiasing`. It maps a vector of language l by ``z -> W_l (z - b_l)``, and
scales the result to length 1. The methods differ in ``b_l`` (the *offset*) and ``W_l``:

| method | b_l | W_l |
|---|---|---|
| `centre` | mean of the language, or of all languages | identity |
| `remove_directions` (LIR) | 0 | projects out the first r principal directions of the language |
| `remove_subspace` (LSAR) | 0 | projects out a subspace spanned by the means of the languages |
| `shift` (SHIFT) | alpha times (mean of the language - mean of the pivot) | identity |
| `whiten` | mean of the language, or of all languages | inverse root of the covariance |

All methods compute from `Moments`. These are sums that can be collected block by block, so an index
of any size needs no more memory than a few vectors per language.

All functions are pure: they take numpy arrays and return numpy arrays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from hybridbatch.common.errors import ConfigError, DataError

Scope = Literal["language", "global"]
Embeddings = Mapping[str, np.ndarray]  # [n, D] by language
BLOCK_ROWS = 16_384  # rows turned at once; bounds the memory beside the vectors themselves


@dataclass(frozen=True)
class Moments:
    """Sums over the vectors of L languages: all that the methods need. They add up over blocks.

    Attributes:
        languages: the L names.
        counts: int64 [L], number of vectors of each language.
        sums: float64 [L, D].
        squares: float64 [L], sum of the squared lengths.
        products: float64 [L, D, D], sum of the outer products; None if no method needs it.
    """

    languages: tuple[str, ...]
    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    products: np.ndarray | None = None

    @classmethod
    def of(cls, vectors: Embeddings, products: bool = False) -> Self:
        """The moments of `vectors` ([n, D] by language); languages without vectors are left out.

        Raises:
            DataError: there is no vector at all, or one is not finite.
        """
        names = tuple(name for name, rows in vectors.items() if len(rows))
        if not names:
            raise DataError("language vectors need at least one embedded text; there is none")
        width = vectors[names[0]].shape[1]
        moments = cls.empty(names, width, products)
        for number, name in enumerate(names):
            moments.add(vectors[name], np.full(len(vectors[name]), number))
        return moments

    @classmethod
    def empty(cls, languages: Sequence[str], width: int, products: bool = False) -> Self:
        """The moments of no vectors, to `add` to."""
        count = len(languages)
        return cls(
            languages=tuple(languages),
            counts=np.zeros(count, dtype=np.int64),
            sums=np.zeros((count, width)),
            squares=np.zeros(count),
            products=np.zeros((count, width, width)) if products else None,
        )

    def add(self, vectors: np.ndarray, numbers: np.ndarray) -> None:
        """Add `vectors` [n, D]; `numbers` [n] has the number of each vector's language.

        Raises:
            DataError: vectors of another width, or NaN or infinite numbers. The moments do not
                change in this case.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.sums.shape[1]:
            raise DataError(
                f"vectors have shape {vectors.shape}, but {self.sums.shape[1]} dimensions are"
                " expected; encode all texts with one model"
            )
        parts = []
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            parts += self._sums(vectors[block], numbers[block])
        if not all(np.isfinite(total).all() for _, _, total, _, _ in parts):
            bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
            if len(bad):
                raise DataError(
                    f"vector {int(bad[0])} holds NaN or infinite numbers; encode its text anew"
                )
        for number, count, total, squares, products in parts:
            self.counts[number] += count
            self.sums[number] += total
            self.squares[number] += squares
            if self.products is not None:
                self.products[number] += products

    def _sums(self, block: np.ndarray, numbers: np.ndarray) -> list[tuple[Any, ...]]:
        """(language number, count, sum, sum of squares, sum of products) of a block's languages."""
        order = np.argsort(numbers, kind="stable")
        present, starts = np.unique(numbers[order], return_index=True)
        found = []
        for number, rows in zip(present, np.split(order, starts[1:]), strict=True):
            own = block[rows].astype(np.float64)
            products = own.T @ own if self.products is not None else None
            squares = np.einsum("nd,nd->", own, own)
            found.append((number, len(own), own.sum(axis=0), squares, products))
        return found

    def without_empty(self) -> "Moments":
        """The moments of the languages that have vectors."""
        kept = np.flatnonzero(self.counts)
        if not len(kept):
            raise DataError("language vectors need at least one vector; there is none")
        return self.part(kept)

    def part(self, kept: np.ndarray) -> "Moments":
        """The moments of the languages with these numbers."""
        return Moments(
            languages=tuple(self.languages[number] for number in kept),
            counts=self.counts[kept],
            sums=self.sums[kept],
            squares=self.squares[kept],
            products=None if self.products is None else self.products[kept],
        )

    def moved(self, by: np.ndarray) -> "Moments":
        """The moments that the same vectors would have with `by` [D] added to each."""
        counts, along = self.counts[:, None], self.sums @ by
        products = self.products
        if products is not None:
            outer = self.sums[:, :, None] * by
            squared = self.counts[:, None, None] * np.outer(by, by)
            products = products + outer + outer.transpose(0, 2, 1) + squared
        return Moments(
            languages=self.languages,
            counts=self.counts,
            sums=self.sums + counts * by,
            squares=self.squares + 2 * along + self.counts * float(by @ by),
            products=products,
        )

    @property
    def means(self) -> np.ndarray:
        """float64 [L, D]: the plain mean of each language, which must have a vector."""
        return self.sums / self.counts[:, None]

    @property
    def global_mean(self) -> np.ndarray:
        """float64 [D]: the mean of the means, so that every language counts the same."""
        return self.means.mean(axis=0)

    def weights(self) -> np.ndarray:
        """float64 [L]: the weight of each language's own mean against the global mean, from 0 to 1.

        The mean of n texts differs from the true mean by a variance of sigma² / n. The true means
        differ from the global mean by a variance of tau². The shrunk mean ``global + w (mean -
        global)`` has the least expected squared error at

            w = tau² / (tau² + sigma² / n).

        Both variances are traces, estimated by the method of moments. sigma² is the pooled variance
        within languages. tau² is the variance of the means beyond sigma² / n, and at least 0. With
        one language, its mean is the global mean, and w is 1. If no language has two texts, tau²
        cannot be told from sigma²; then w is 0, which gives the global mean.

        Source: Empirical Bayes with one variance for all dimensions; Efron and Morris, "Stein's
            Estimation Rule and Its Competitors", JASA 1973.
        """
        languages = len(self.languages)
        freedom = int((self.counts - 1).sum())
        if languages < 2:
            return np.ones(languages)
        if freedom < 1:
            return np.zeros(languages)
        means = self.means
        inside = self.squares - self.counts * np.einsum("ld,ld->l", means, means)
        within = max(float(inside.sum()), 0.0) / freedom
        from_center = means - means.mean(axis=0)
        spread = float(np.einsum("ld,ld->", from_center, from_center)) / (languages - 1)
        between = max(spread - within * float((1 / self.counts).mean()), 0.0)
        if between + within == 0:
            return np.ones(languages)
        return between / (between + within / self.counts)

    def shrunk_means(self, shrink: bool = True) -> np.ndarray:
        """float64 [L, D]: the mean of each language, drawn to the global mean by `weights`."""
        if not shrink:
            return self.means
        center = self.global_mean
        return center + self.weights()[:, None] * (self.means - center)


@dataclass(frozen=True)
class Debiasing:
    """The map of one side, which removes from a vector what tells its language.

    A language without an entry is turned by the entry `EVERY`, which each map has.

    Attributes:
        offsets: float32 [D] by language; subtracted first.
        directions: float32 [r, D] by language, orthonormal rows; projected out next.
        matrix: float32 [D, D]; multiplied last. None for no matrix.
    """

    offsets: Mapping[str, np.ndarray]
    directions: Mapping[str, np.ndarray] = field(default_factory=dict)
    matrix: np.ndarray | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that have an entry of their own."""
        return tuple(name for name in self.offsets if name != EVERY)

    @property
    def dimension(self) -> int:
        """D."""
        return len(self.offsets[EVERY])

    def apply(self, vectors: np.ndarray, languages: str | Sequence[str]) -> np.ndarray:
        """Turn `vectors` [n, D]; returns float32 [n, D] with rows of length 1.

        A vector that equals its offset becomes zero, and stays zero.

        Args:
            languages: one language for all vectors, or one for each.

        Raises:
            DataError: vectors of another width, or another number of languages.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise DataError(
                f"vectors have shape {vectors.shape}, but the language vectors have"
                f" {self.dimension} dimensions, so they belong to another model"
            )
        out = np.empty(vectors.shape, dtype=np.float32)
        if isinstance(languages, str):
            for start in range(0, len(vectors), BLOCK_ROWS):
                block = slice(start, start + BLOCK_ROWS)
                out[block] = self._turn(vectors[block], languages)
            return out
        if len(languages) != len(vectors):
            raise DataError(
                f"{len(vectors)} vectors have {len(languages)} languages; each needs one"
            )
        names, numbers = np.unique(np.asarray(languages, dtype=object), return_inverse=True)
        for number, name in enumerate(names):
            rows = np.flatnonzero(numbers == number)
            out[rows] = self._turn(vectors[rows], str(name))
        return out

    def _turn(self, vectors: np.ndarray, language: str) -> np.ndarray:
        known = language if language in self.offsets else EVERY
        turned = vectors.astype(np.float32) - self.offsets[known]
        directions = self.directions.get(known)
        if directions is not None:
            turned -= (turned @ directions.T) @ directions
        if self.matrix is not None:
            turned = turned @ self.matrix.T
        return unit_rows(turned)


EVERY = "*"  # the entry for a language without an entry: the global mean or global directions


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """`vectors` [n, D] with rows of length 1; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def centre(
    data: Moments | Embeddings, scope: Scope = "language", *, shrink: bool = True
) -> Debiasing:
    """Centring: subtracts the mean of each language, or the mean of all languages.

    Args:
        data: vectors of one side, [n, D] by language, or their moments.
        scope: ``language``: the mean of each language; ``global``: the mean of the languages'
            means.
        shrink: draw the mean of a language with few texts to the global mean.

    Source: Libovický, Rosa and Fraser, "On the Language Neutrality of Pre-trained Multilingual
        Representations", EMNLP Findings 2020, arXiv:2004.05160, section 3 (a mean per language).
    """
    moments = _moments(data)
    offsets = {EVERY: _single(moments.global_mean)}
    if scope == "language":
        means = moments.shrunk_means(shrink)
        offsets |= {
            name: _single(mean) for name, mean in zip(moments.languages, means, strict=True)
        }
    return Debiasing(offsets)


def remove_directions(
    data: Moments | Embeddings, rank: int = 1, *, shrink: bool = True
) -> Debiasing:
    """LIR: projects out the first `rank` principal directions of each language's vectors.

    M_l [n, D] are the vectors of a language, not centred, and c_1 ... c_r its first right singular
    vectors. A vector becomes ``z - sum_i c_i (c_i . z)``.

    Args:
        data: vectors of one side, [n, D] by language, or their moments with products.
        shrink: mix the second moment M_l' M_l / n of a language with the mean of all languages'
            second moments, by `Moments.weights`. This is our addition, for languages with few
            texts.

    Raises:
        ConfigError: a rank outside 1 .. D - 1.

    Source: Yang et al., "A Simple and Effective Method To Eliminate the Self Language Bias in
        Multilingual Representations", EMNLP 2021, arXiv:2109.04727, section 2; singular vectors as
        in SHIFT's code, which has LIR as a baseline (principal components of centred vectors are
        another reading).
    """
    moments = _moments(data, products=True)
    _check_rank(rank, moments.sums.shape[1] - 1, "the dimensions of the vectors less one")
    assert moments.products is not None
    second = moments.products / moments.counts[:, None, None]
    every = second.mean(axis=0)
    weights = moments.weights() if shrink else np.ones(len(moments.languages))
    directions = {EVERY: _leading(every, rank)}
    for name, own, weight in zip(moments.languages, second, weights, strict=True):
        directions[name] = _leading(weight * own + (1 - weight) * every, rank)
    nothing = np.zeros(moments.sums.shape[1], dtype=np.float32)
    return Debiasing(dict.fromkeys(directions, nothing), directions)


def remove_subspace(
    data: Moments | Embeddings, rank: int | None = None, *, shrink: bool = True
) -> Debiasing:
    """LSAR: projects out one low-rank subspace, found from the means of the languages.

    The means M [D, L] are approximated by ``mu 1' + S G'``, where mu is orthogonal to the span of
    S. mu is the common part, and S, of rank r, is the language-specific subspace. A vector becomes
    ``z - S S' z``.

    Args:
        data: vectors of one side, [n, D] by language, or their moments.
        rank: r; at most L - 1, which is the default.

    Raises:
        ConfigError: fewer than two languages, or a rank outside 1 .. L - 1.

    Source: Xie et al., "Discovering Low-rank Subspaces for Language-agnostic Multilingual
        Representations", EMNLP 2022, arXiv:2401.05792, algorithm 1; the decomposition is from
        Piratla et al., ICML 2020.
    """
    moments = _moments(data)
    languages = len(moments.languages)
    if languages < 2:
        raise ConfigError(
            "lsar: removes what distinguishes languages, but the texts are only in"
            f" {moments.languages[0]}; give texts in two languages, or use --method centre"
        )
    rank = languages - 1 if rank is None else rank
    _check_rank(rank, languages - 1, "the number of languages less one")
    means = moments.shrunk_means(shrink).T  # [D, L]
    center = means.mean(axis=1, keepdims=True)
    left, values, right = np.linalg.svd(means - center, full_matrices=False)
    close = center + (left[:, :rank] * values[:rank]) @ right[:rank]
    # the vector of least length that all columns of `close` share: orthogonal to their differences
    common = np.linalg.pinv(close.T) @ np.ones(languages)
    common /= common @ common
    left, _, _ = np.linalg.svd(close - common[:, None], full_matrices=False)
    directions = _single(left[:, :rank].T)
    names = (EVERY, *moments.languages)
    nothing = np.zeros(moments.sums.shape[1], dtype=np.float32)
    return Debiasing(dict.fromkeys(names, nothing), dict.fromkeys(names, directions))


def shift(
    data: Moments | Embeddings, pivot: str, alpha: float = 1.0, *, shrink: bool = True
) -> Debiasing:
    """SHIFT: moves passages to where the passages of the pivot language lie; queries stay.

    A vector becomes ``z - alpha V_l``, not normalised, with ``V_l = mean of f(text in l) - f(the
    same text in the pivot)``. Over texts that all languages share, V_l is the mean of l minus the
    mean of the pivot, and this function computes it so. It also works with texts that are not
    parallel; then V_l contains their difference in topic.

    A language without texts stays as it is, as in the authors' code. The authors take vectors
    before normalisation. Here vectors have length 1, as in every index.

    Args:
        data: passage vectors, [n, D] by language, or their moments. For the V_l of the paper, give
            parallel texts only.
        pivot: the language to which the other languages are moved; English in the paper.
        alpha: strength; 0 leaves the vectors as they are.

    Raises:
        ConfigError: a pivot without vectors.

    Source: Jang et al., "SHIFT: Semantic Harmonization via Index-side Feature Transformation for
        Multilingual Information Retrieval", arXiv:2606.18801, equation 1 and algorithm 1, as in the
        authors' code (yjoonjang/SHIFT, src/shift/langvec.py and apply.py).
    """
    moments = _moments(data)
    if pivot not in moments.languages:
        raise ConfigError(
            f"pivot = {pivot!r}: has no texts among {', '.join(moments.languages)}; SHIFT"
            " moves the other languages to where the texts of the pivot lie"
        )
    means = moments.shrunk_means(shrink)
    home = means[moments.languages.index(pivot)]
    offsets = {EVERY: np.zeros(len(home), dtype=np.float32)}
    for name, mean in zip(moments.languages, means, strict=True):
        offsets[name] = _single(alpha * (mean - home))
    return Debiasing(offsets)


def whiten(
    data: Moments | Embeddings, scope: Scope = "language", *, shrink: bool = True
) -> Debiasing:
    """Whitening: centres vectors, then makes their dimensions uncorrelated with variance 1.

    W is the inverse square root of the covariance about the offsets, pooled over languages with
    equal weight. It is ZCA whitening, W = U L^-1/2 U', which keeps vectors near their place;
    cosines are the same with any other whitening.

    Args:
        data: vectors of one side, [n, D] by language, or their moments with products.
        scope: which mean is subtracted, as for `centre`.
        shrink: shrink the means, and shrink the covariance to a multiple of the identity (OAS),
            which is needed with fewer texts than dimensions.

    Raises:
        DataError: the vectors do not differ, or are too few without shrinking.

    Source: Su et al., "Whitening Sentence Representations for Better Semantics and Faster
        Retrieval", arXiv:2103.15316, algorithm 1 without its cut of dimensions; OAS: Chen, Wiesel,
        Eldar and Hero, IEEE Transactions on Signal Processing 2010, equation 23.
    """
    moments = _moments(data, products=True)
    assert moments.products is not None
    centred = centre(moments, scope, shrink=shrink)
    about = np.stack(
        [centred.offsets.get(name, centred.offsets[EVERY]) for name in moments.languages]
    )
    about = about.astype(np.float64)
    means = moments.means
    # E (z - b)(z - b)' of a language, from E zz' and its mean
    covariance = (moments.products / moments.counts[:, None, None]).mean(axis=0)
    cross = means.T @ about / len(means)
    covariance += about.T @ about / len(means) - cross - cross.T
    if shrink:
        covariance = _towards_identity(covariance, int(moments.counts.sum()))
    values, directions = np.linalg.eigh(covariance)
    if values[-1] <= 0 or values[0] <= values[-1] * 1e-10:
        raise DataError(
            f"whitening needs vectors that differ in all {len(values)} dimensions, but the"
            f" {int(moments.counts.sum())} given vectors do not; give more texts, or use"
            " another method"
        )
    matrix = (directions / np.sqrt(values)) @ directions.T
    return Debiasing(centred.offsets, matrix=_single(matrix))


def _towards_identity(covariance: np.ndarray, count: int) -> np.ndarray:
    """The covariance [D, D] of `count` vectors, shrunk by OAS."""
    width = len(covariance)
    trace, trace_of_square = float(np.trace(covariance)), float((covariance**2).sum())
    above = (1 - 2 / width) * trace_of_square + trace**2
    below = (count + 1 - 2 / width) * (trace_of_square - trace**2 / width)
    share = min(above / below, 1.0) if below > 0 else 1.0
    return (1 - share) * covariance + share * (trace / width) * np.eye(width)


def _moments(data: Moments | Embeddings, products: bool = False) -> Moments:
    if not isinstance(data, Moments):
        return Moments.of(data, products)
    if products and data.products is None:
        raise ValueError("this method needs moments that were collected with products")
    return data.without_empty()


def _leading(second: np.ndarray, rank: int) -> np.ndarray:
    """float32 [rank, D]: the first principal directions of a second moment [D, D]."""
    _, directions = np.linalg.eigh(second)  # ascending
    return _single(directions[:, ::-1][:, :rank].T)


def _check_rank(rank: int, most: int, what: str) -> None:
    if not 1 <= rank <= most:
        raise ConfigError(f"rank = {rank}: must be from 1 to {most}, {what}")


def _single(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)
