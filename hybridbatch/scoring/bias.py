"""Language bias of a multilingual ranking, per query; each function names the source of its definition."""

import numpy as np

from hybridbatch.errors import DataError


def rank_distance(ranks: np.ndarray) -> np.ndarray:
    """Greatest minus smallest rank of a query's relevant passages, in ranks of the pool; 0 is the best for one.

    The relevant passages are translations of each other, one per language, so that with R languages an unbiased
    ranking has R - 1. Reported as the mean over queries (then over query languages).

    Args:
        ranks: int64 [Q, R] in the pool of all languages, from 1; 0 fills up.
    Returns: int64 [Q].
    Raises: DataError if a query has no relevant passage.
    Source: Huang et al., "Soft Prompt Decoding for Multilingual Dense Retrieval", SIGIR 2023, as used by
        arXiv:2408.10536 (Table 2).
    """
    if not (present := ranks > 0).any(axis=1).all():
        raise DataError(
            f"query row {int(present.any(axis=1).argmin())} has no relevant passage; score judged queries only"
        )
    return ranks.max(axis=1) - np.where(present, ranks, np.iinfo(np.int64).max).min(axis=1)


def language_distribution(languages: np.ndarray, count: int) -> np.ndarray:
    """Share of each language among the first k passages.

    Args:
        languages: int [Q, k], language numbers of the first k passages of the pool (0 .. count - 1).
        count: number of languages, L.
    Returns: float64 [Q, L], rows sum to 1. Column l at queries of language l is the same-language share at k.
    """
    return np.stack([(languages == number).mean(axis=1) for number in range(count)], axis=1)


def same_language_share(languages: np.ndarray, query_language: int) -> np.ndarray:
    """Share of the first k passages that are in the query's language: float64 [Q]. See `language_distribution`."""
    return (languages == query_language).mean(axis=1)
