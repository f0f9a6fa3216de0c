"""The names of the columns of the scores per query, made from the cutoffs alone."""

from collections.abc import Iterable

K = 10  # depth of the language distribution, Lang-nDCG and MLRS
SHARE = f"same_language_share@{K}"
DISTRIBUTION = f"language_distribution@{K}"
SHIFT = f"mlrs@{K}"
FIRST = (
    "first_relevant_same",
    "first_relevant_other",
    "first_irrelevant_same",
    "first_irrelevant_other",
)
# metrics that need a whole ranking: if rankings are cut, the depth is in their names
WHOLE = ("average_precision", "reciprocal_rank")


def plain_names(cutoffs: Iterable[int]) -> tuple[str, ...]:
    """The metrics of every ranking: `hybridbatch.scoring.metrics`."""
    cuts = sorted(set(cutoffs))
    return (
        *WHOLE,
        *(f"ndcg@{k}" for k in sorted({10, *cuts})),
        *(f"recall@{k}" for k in cuts),
        *(f"precision@{k}" for k in cuts),
        *(f"success@{k}" for k in cuts),
    )


def tlr_cutoffs(cutoffs: Iterable[int]) -> list[int]:
    """The k of Target-Languages Recall@k: the cutoffs, and 20, which its paper reports."""
    return sorted({20, *(k for k in cutoffs if k > 1)})


def bias_names(cutoffs: Iterable[int]) -> tuple[str, ...]:
    """The measures of language bias in a pool: `hybridbatch.scoring.pool_bias`."""
    cuts = sorted(set(cutoffs))
    return (
        "rank_distance",
        SHARE,
        "max_rank",
        *(f"complete@{k}" for k in cuts),
        "lpr",
        f"lang_ndcg@{K}",
        *(f"tlr@{k}" for k in tlr_cutoffs(cuts)),
        *FIRST,
        *(f"peer@{k}" for k in cuts if k > 1),
        SHIFT,
    )


def ranked_names(cutoffs: Iterable[int]) -> tuple[str, ...]:
    """The columns of tasks that are ranked whole."""
    cuts = tuple(cutoffs)
    return (*plain_names(cuts), *bias_names(cuts))


def searched_names(cutoffs: Iterable[int], depth: int) -> tuple[str, ...]:
    """The columns of tasks that are searched to the first `depth` passages."""
    names = [f"{name}@{depth}" if name in WHOLE else name for name in plain_names(cutoffs)]
    return (*names, SHARE)
