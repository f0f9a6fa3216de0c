"""Ranks and first passages of rankings, by functions that numba compiles (extra `compiled`).

`scoring.counting` gives the same results with numpy. These functions read a row of scores once or
twice, where numpy needs about ten passes. numba keeps the compiled code beside this file, or in the
user's cache if this folder cannot be written.

Arguments of the functions:
    scores: float32 [n, P], rankings row by row, without NaN.
    columns: int64 [n, R], the passages asked for; -1 where there is none.
    places: int64 [G, P], precedences among equal scores; ranking i has those of row i % G.
"""

import numpy as np
from numba import njit

CHUNK = 64  # scores of which the greatest is looked at before each of them
BUCKETS = 4096  # of the scores of the passages asked for
INFINITY = np.float32(np.inf)
compiled = njit(nogil=True, cache=True, error_model="numpy")


@compiled
def ranks_of_few(
    scores: np.ndarray, columns: np.ndarray, places: np.ndarray, ranks: np.ndarray
) -> None:
    """Write the ranks of few passages to `ranks`, int64 [n, R]; 0 where there is none."""
    for i in range(len(scores)):
        row, place = scores[i], places[i % len(places)]
        for r in range(columns.shape[1]):
            column = columns[i, r]
            if column < 0:
                ranks[i, r] = 0
                continue
            own = row[column]
            greater, equal = np.int32(0), np.int32(0)
            for j in range(len(row)):  # numba makes vector code of loops over indexes only
                greater += row[j] > own
                equal += row[j] == own
            rank = 1 + np.int64(greater)
            if equal > 1:
                for j in range(len(row)):
                    if row[j] == own and place[j] < place[column]:
                        rank += 1
            ranks[i, r] = rank


@compiled
def ranks_of_many(
    scores: np.ndarray, columns: np.ndarray, places: np.ndarray, ranks: np.ndarray
) -> np.ndarray:
    """As `ranks_of_few`, for many passages.

    Returns:
        bool [n]: the rankings that are done. The others have too many equal scores, or scores too
        far apart for float32; their ranks are not written.
    """
    asked = columns.shape[1]
    done = np.zeros(len(scores), np.bool_)
    own = np.empty(asked + 1, np.float32)
    lower = np.empty(BUCKETS, np.int32)
    counts = np.empty((4, asked + 1), np.int32)
    equal = np.empty(4 * asked + 64, np.int64)
    for i in range(len(scores)):
        row, place = scores[i], places[i % len(places)]
        distinct = _distinct(row, columns[i], own)
        if distinct == 0:
            ranks[i] = 0
            done[i] = True
            continue
        if not own[distinct - 1] - own[0] < INFINITY:
            continue
        scale = _table(own, distinct, lower)
        equals = _count(row, own, distinct, scale, lower, counts, equal)
        if equals > len(equal):
            continue
        for r in range(asked):
            column = columns[i, r]
            if column < 0:
                ranks[i, r] = 0
                continue
            score = row[column]
            rank = 1 + np.int64(counts[0, np.searchsorted(own[:distinct], score)])
            if equals > distinct:
                for other in equal[:equals]:
                    if row[other] == score and place[other] < place[column]:
                        rank += 1
            ranks[i, r] = rank
        done[i] = True
    return done


@compiled
def _distinct(row: np.ndarray, columns: np.ndarray, own: np.ndarray) -> int:
    """Write the distinct scores of the columns to `own`, ascending, then infinity.

    Returns:
        Their number.
    """
    found = 0
    for column in columns:
        if column >= 0:
            own[found] = row[column]
            found += 1
    if found == 0:
        return 0
    own[:found].sort()
    distinct = 1
    for r in range(1, found):
        if own[r] != own[distinct - 1]:
            own[distinct] = own[r]
            distinct += 1
    own[distinct] = INFINITY
    return distinct


@compiled
def _table(own: np.ndarray, distinct: int, lower: np.ndarray) -> np.float32:
    """Write to `lower`, for each bucket, the number of `own` scores in lower buckets.

    The bucket of a score is its distance from the least of `own`, times the scale.

    Returns:
        The scale.
    """
    # subtraction, multiplication and truncation of floats all keep the order
    scale = np.float32(0)
    if own[distinct - 1] > own[0]:
        scale = np.float32(BUCKETS - 1) / (own[distinct - 1] - own[0])
        if not scale < INFINITY:
            scale = np.float32(0)  # all in one bucket
    filled = 0
    for r in range(distinct):
        while filled <= np.int64((own[r] - own[0]) * scale):
            lower[filled] = r
            filled += 1
    while filled < BUCKETS:
        lower[filled] = distinct
        filled += 1
    return scale


@compiled
def _count(
    row: np.ndarray,
    own: np.ndarray,
    distinct: int,
    scale: np.float32,
    lower: np.ndarray,
    counts: np.ndarray,
    equal: np.ndarray,
) -> int:
    """Write the number of scores greater than each of `own` to `counts[0]`.

    Also, write the columns of scores equal to one of `own` to `equal`, as many as it has room for.

    Returns:
        The number of equal scores.
    """
    # For each score of the row, the table and a few comparisons tell how many of `own` are below
    # it. How often each number occurs is counted, in four arrays by turns: else one addition would
    # wait for the last one.
    counts[:] = 0
    bucket = np.empty(CHUNK, np.int32)
    least, width = own[0], own[distinct - 1] - own[0]
    equals = 0
    for start in range(0, len(row), CHUNK):
        part = row[start : start + CHUNK]
        reach = np.int32(0)
        for j in range(len(part)):
            reach += part[j] >= least
        if reach == 0:
            continue
        for j in range(len(part)):
            above = part[j] - least
            above = above if above > 0 else np.float32(0)
            above = above if above < width else width
            bucket[j] = np.int32(above * scale)
        for j in range(len(part)):
            score = part[j]
            # unsigned, because numba checks the sign of an index
            below = np.uintp(lower[np.uintp(bucket[j])])
            below = np.uintp(below + np.uintp(own[below] < score))
            if own[below] <= score:
                while own[below] < score:
                    below = np.uintp(below + np.uintp(1))
                if own[below] == score:
                    if equals < len(equal):
                        equal[equals] = start + j
                    equals += 1
            counts[np.uintp(j & 3), below] += np.int32(1)
    counts[0] = counts[0] + counts[1] + counts[2] + counts[3]
    # chunks that do not reach the least of `own` are not counted, and are greater than none
    greater = np.int32(0)
    for number in range(distinct, -1, -1):
        here = counts[0, number]
        counts[0, number] = greater
        greater += here
    return equals


@compiled
def first_columns(scores: np.ndarray, places: np.ndarray, first: np.ndarray) -> None:
    """Write the columns of the first k passages, the best first, to `first`, int64 [n, k <= P]."""
    most = first.shape[1]
    best = np.empty(most, np.float32)
    for i in range(len(scores)):
        row, place, found = scores[i], places[i % len(places)], first[i]
        held = 0
        for start in range(0, len(row), CHUNK):
            part = row[start : start + CHUNK]
            if held == most:
                reach, least = np.int32(0), best[most - 1]
                for j in range(len(part)):
                    reach += part[j] >= least
                if reach == 0:
                    continue
            for j in range(len(part)):
                score, at = part[j], held
                if held == most:
                    at = most - 1
                    last = place[found[at]]
                    if score < best[at] or (score == best[at] and last < place[start + j]):
                        continue
                else:
                    held += 1
                while at > 0 and (
                    best[at - 1] < score
                    or (best[at - 1] == score and place[start + j] < place[found[at - 1]])
                ):
                    best[at], found[at] = best[at - 1], found[at - 1]
                    at -= 1
                best[at], found[at] = score, start + j
