"""Ways to take the language out of embeddings, without training and without labels.

Every method gives the same kind of thing, a `Debiasing`: for each language an affine map
``z -> W_l (z - b_l)``, after which the vector is brought back to length 1. The methods differ in
``b_l`` (the *offset*) and ``W_l``:

| method | b_l | W_l |
|---|---|---|
| `centre` | mean of the language, or of all languages | identity |
| `remove_directions` (LIR) | 0 | without the first r principal directions of the language |
| `remove_subspace` (LSAR) | 0 | without a subspace spanned by the means of the languages |
| `shift` (SHIFT) | alpha times (mean of the language - mean of the pivot) | identity |
| `whiten` | mean of the language, or of all languages | inverse root of the covariance |

Everything is computed from `Moments`: sums that can be collected block by block, so that an index
of any size needs no more memory than a few vectors per language.

All functions are pure: numpy arrays in, numpy arrays out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np

from hybridbatch.common.errors import ConfigError, DataError

Scope = Literal["language", "global"]
Embeddings = Mapping[str, np.ndarray]  # [n, D] by language
BLOCK_ROWS = 16_384  # turned at once: what bounds the memory beside the vectors themselves


@dataclass(frozen=True)
class Moments:
    """What the methods need to know of the vectors of L languages: sums, which add up over blocks.

    Attributes:
        languages: their names, L.
        counts: int64 [L], vectors of each.
        sums: float64 [L, D].
        squares: float64 [L], sum of the squared lengths.
        products: float64 [L, D, D], sum of the outer products; None where no method asks for it.
    """

    languages: tuple[str, ...]
    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    products: np.ndarray | None = None

    @classmethod
    def of(cls, vectors: Embeddings, products: bool = False) -> Self:
        """The moments of `vectors` ([n, D] by language); languages without vectors are left out.

        Raises: `DataError` when there is no vector at all, or one is not finite.
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
        """Add `vectors` [n, D], each of the language whose number `numbers` [n] gives.

        Raises: `DataError` for vectors of another width, and for NaN or infinite numbers; the
            moments are then as they were.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.sums.shape[1]:
            raise DataError(
                f"vectors have shape {vectors.shape}, but {self.sums.shape[1]} dimensions are"
                " expected; encode all texts with one model"
            )
        for start in range(0, len(vectors), BLOCK_ROWS):
            block = np.asarray(vectors[start : start + BLOCK_ROWS], dtype=np.float64)
            if not np.isfinite(block).all():
                row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
                raise DataError(f"vector {row} holds NaN or infinite numbers; encode its text anew")
            self._add_block(block, numbers[start : start + BLOCK_ROWS])

    def _add_block(self, block: np.ndarray, numbers: np.ndarray) -> None:
        order = np.argsort(numbers, kind="stable")
        present, starts = np.unique(numbers[order], return_index=True)
        for number, rows in zip(present, np.split(order, starts[1:]), strict=True):
            own = block[rows]
            self.counts[number] += len(own)
            self.sums[number] += own.sum(axis=0)
            self.squares[number] += np.einsum("nd,nd->", own, own)
            if self.products is not None:
                self.products[number] += own.T @ own

    def without_empty(self) -> "Moments":
        """The same, of the languages that have vectors."""
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

    @property
    def means(self) -> np.ndarray:
        """float64 [L, D]: the plain mean of each language, which must have a vector."""
        return self.sums / self.counts[:, None]

    @property
    def global_mean(self) -> np.ndarray:
        """float64 [D]: the mean of the means, so that every language counts the same."""
        return self.means.mean(axis=0)

    def weights(self) -> np.ndarray:
        """float64 [L]: how far each language's mean is to be trusted, from 0 to 1.

        The mean of n texts strays from the true one by sigma² / n; true means stray from the global
        one by tau². The shrunk mean ``global + w (mean - global)`` has the least expected squared
        error at

            w = tau² / (tau² + sigma² / n).

        Both are traces, by the method of moments: sigma² is the variance within languages, pooled;
        tau² is what the spread of the means has beyond sigma² / n, and at least 0. With one
        language, the two means are the same, and w is 1. Where no language has two texts, nothing
        tells tau² from sigma²: w is 0, the global mean.

        Source: empirical Bayes with one variance for all dimensions; Efron and Morris, "Stein's
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
        """float64 [L, D]: each language's mean, drawn towards the global one as far as its few
        texts demand (`weights`).
        """
        if not shrink:
            return self.means
        center = self.global_mean
        return center + self.weights()[:, None] * (self.means - center)


@dataclass(frozen=True)
class Debiasing:
    """One side's map: the vectors of a language, without what tells the language.

    A language that is not in the tables is turned by the entry `EVERY`, which each map has.

    Attributes:
        offsets: float32 [D] by language, what is subtracted.
        directions: float32 [r, D] by language, orthonormal rows, what is projected out then.
        matrix: float32 [D, D], multiplied then, or None.
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
        """float32 [n, D]: `vectors` [n, D] turned, rows of length 1.

        Args:
            languages: of all vectors, or one for each.
        A row of which nothing is left (it was the offset itself) stays zero.
        Raises: `DataError` for vectors of another width, and another number of languages.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise DataError(
                f"vectors have shape {vectors.shape}, but the language vectors have"
                f" {self.dimension} dimensions; they are of another model"
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

    def apply_numbered(
        self, vectors: np.ndarray, numbers: np.ndarray, names: Sequence[str]
    ) -> np.ndarray:
        """As `apply`, with the languages as numbers int [n] into `names`: for many vectors at once.

        Rows that are zero stay zero.
        """
        turned = vectors.astype(np.float32)
        zero = ~turned.any(axis=1)  # of float32: looking at float16 takes ten times as long
        if self.directions:
            out = np.empty(vectors.shape, dtype=np.float32)
            for number in np.unique(numbers):
                rows = np.flatnonzero(numbers == number)
                out[rows] = self._turn(turned[rows], names[number])
        else:
            offsets = np.stack([self.offsets.get(name, self.offsets[EVERY]) for name in names])
            out = turned
            out -= offsets[numbers]
            if self.matrix is not None:
                out = np.dot(out, self.matrix.T)
            squares = np.asarray(np.einsum("nd,nd->n", out, out))
            lengths = np.sqrt(squares)
            lengths[lengths == 0] = 1
            out /= lengths[:, None]
        out[zero] = 0
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


EVERY = "*"  # the entry for a language that has none: the global mean, or the global directions


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """`vectors` [n, D] with rows of length 1; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def centre(
    data: Moments | Embeddings, scope: Scope = "language", *, shrink: bool = True
) -> Debiasing:
    """Centring: the mean of each language is subtracted, or that of all languages.

    Args:
        data: vectors of one side, [n, D] by language, or their moments.
        scope: ``language``: its own mean; ``global``: the mean of the languages' means.
        shrink: draw the mean of a language with few texts towards the global one.
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
    """LIR: the first `rank` principal directions of each language's vectors are projected out.

    With M_l [n, D] the vectors of a language and c_1 ... c_r the first right singular vectors of
    M_l (not centred): ``z - sum_i c_i (c_i . z)``.

    Args:
        data: vectors of one side, [n, D] by language, or their moments with products.
        shrink: mix a language's second moment M_l' M_l / n with the mean of all languages', by
            `Moments.weights`: ours, for languages with few texts.
    Raises: `ConfigError` for a rank outside 1 .. D - 1.
    Source: Yang et al., "A Simple and Effective Method To Eliminate the Self Language Bias in
        Multilingual Representations", EMNLP 2021, arXiv:2109.04727, section 2; singular vectors as
        in SHIFT's code, which has it as a baseline (principal components of centred vectors are
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
    """LSAR: one low-rank subspace, found from the means of the languages, is projected out of all.

    The means M [D, L] are approximated by ``mu 1' + S G'`` with mu orthogonal to the span of S:
    the common part and the language-specific subspace S of rank r. What is kept of a vector is
    ``z - S S' z``.

    Args:
        data: vectors of one side, [n, D] by language, or their moments.
        rank: r, at most L - 1, which is the default.
    Raises: `ConfigError` for fewer than two languages, and for a rank outside 1 .. L - 1.
    Source: Xie et al., "Discovering Low-rank Subspaces for Language-agnostic Multilingual
        Representations", EMNLP 2022, arXiv:2401.05792, algorithm 1; the decomposition is that of
        Piratla et al., ICML 2020.
    """
    moments = _moments(data)
    languages = len(moments.languages)
    if languages < 2:
        raise ConfigError(
            f"lsar: finds what tells languages apart, but there is only {moments.languages[0]};"
            " give texts of two languages or use --method centre"
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
    """SHIFT: documents are moved to where those of the pivot language lie; queries stay.

    ``z - alpha V_l`` with ``V_l = mean of f(text in l) - f(the same text in the pivot)``, not
    normalised. Over texts that all languages share, that is the mean of l less the mean of the
    pivot, which is how it is computed here: with texts that are not parallel it also works, and
    their difference in topic is then part of V_l.

    Args:
        data: passage vectors, [n, D] by language, or their moments. For the paper's V_l, give
            parallel texts only.
        pivot: the language to which the others are moved; English in the paper.
        alpha: strength; 0 leaves the vectors as they are.
    Raises: `ConfigError` for a pivot without vectors.
    A language without texts is left as it is, as in the authors' code. Theirs are the vectors before
    normalisation; here they have length 1, as every index holds them.
    Source: Jang et al., "SHIFT: Semantic Harmonization via Index-side Feature Transformation for
        Multilingual Information Retrieval", arXiv:2606.18801, equation 1 and algorithm 1, as the
        authors' code has them (yjoonjang/SHIFT, src/shift/langvec.py and apply.py).
    """
    moments = _moments(data)
    if pivot not in moments.languages:
        raise ConfigError(
            f"pivot = {pivot!r}: has no texts among {', '.join(moments.languages)}; SHIFT moves the"
            " other languages to where its texts lie"
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
    """Whitening: vectors are centred, then turned so that their dimensions are uncorrelated with
    variance 1.

    W is the inverse square root of the covariance about the offsets, pooled over languages with
    equal weight (ZCA whitening: W = U L^-1/2 U', so that vectors stay near where they were; cosines
    are those of any other whitening).

    Args:
        data: vectors of one side, [n, D] by language, or their moments with products.
        scope: of the mean that is subtracted, as for `centre`.
        shrink: shrink the means, and the covariance towards a multiple of the identity (OAS), which
            fewer texts than dimensions need.
    Raises: `DataError` where the vectors do not differ, or are too few without shrinking.
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
            f"whitening needs vectors that differ in all {len(values)} dimensions; the"
            f" {int(moments.counts.sum())} given do not: give more texts, or use another method"
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
