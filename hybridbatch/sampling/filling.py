"""Fills batches from a stream, epoch by epoch, with no record and no passage twice in a batch."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice

import numpy as np

from hybridbatch.sampling.streams import _AT_ONCE


def fill_batches(
    groups: np.ndarray,
    batch_size: int,
    batches: int,
    generator: Callable[[int], np.random.Generator],
) -> np.ndarray:
    """int [batches, batch_size]: positions of members, with distinct groups within each batch.

    The members form an endless sequence: epoch e has the order of ``generator(e).permutation``. If
    the group of a member is already in the batch, the member is deferred: it comes first in the
    next batch. So each member is used once in an epoch, and fewer batches are a prefix of more
    batches. A group with more than 1 / batch_size of the members cannot be used up in an epoch; its
    members take turns.

    Args:
        groups: int [members], with at least `batch_size` distinct values.
        generator: the random generator of an epoch, a pure function of the epoch.
    """
    sequence = _endless(len(groups), generator)
    filled = np.empty((batches, batch_size), np.int32 if len(groups) < 2**31 else np.int64)
    done, position, span = 0, 0, batches
    while done < batches:
        span = min(span, batches - done, max(1, _AT_ONCE // batch_size))
        block = sequence(position, position + span * batch_size).reshape(span, batch_size)
        clean = _leading_clean(groups[block])
        filled[done : done + clean] = block[:clean]
        done, position = done + clean, position + clean * batch_size
        if clean < span:
            for batch, after in _deferring(groups, batch_size, sequence, position):
                filled[done] = batch
                done, position = done + 1, after
                if done == batches:
                    break
        span = 2 * clean + 8  # about the distance to the next likely clash
    return filled


def fill_copies(
    groups: np.ndarray,
    copies: np.ndarray,
    batch_size: int,
    batches: int,
    generator: Callable[[int], np.random.Generator],
) -> np.ndarray:
    """Fill batches as `fill_batches` does, with members that bring several pairs each.

    The pairs of a member stand together. The last member of a batch brings as many as there is room
    for.

    Args:
        groups: as in `fill_batches`.
        copies: int [members]: the number of pairs of each member.
    Returns: int [batches, batch_size], the member of every pair.
    """
    sequence = _endless(len(groups), generator)
    filled = np.empty((batches, batch_size), np.int32 if len(groups) < 2**31 else np.int64)
    done, position = 0, 0
    while done < batches:
        for batch, after in _deferring(groups, batch_size, sequence, position, copies):
            filled[done] = np.repeat(batch, copies[batch])[:batch_size]
            done, position = done + 1, after
            if done == batches:
                break
    return filled


def _endless(
    size: int, generator: Callable[[int], np.random.Generator]
) -> Callable[[int, int], np.ndarray]:
    """Any section (start, stop) of the endless sequence of `size` members, epoch after epoch."""

    @lru_cache(maxsize=2)
    def epoch(number: int) -> np.ndarray:
        return generator(number).permutation(
            np.arange(size, dtype=np.int32 if size < 2**31 else np.int64)
        )

    def sequence(start: int, stop: int) -> np.ndarray:
        pieces = [
            epoch(number)[max(start - number * size, 0) : stop - number * size]
            for number in range(start // size, -(-stop // size))
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    return sequence


def _deferring(
    groups: np.ndarray,
    batch_size: int,
    sequence: Callable[[int, int], np.ndarray],
    position: int,
    copies: np.ndarray | None = None,
) -> Iterator[tuple[list[int], int]]:
    """Batches from `position` of the sequence on, and the position after each batch.

    It ends when no member is deferred any more. A batch is full when its members, with `copies`
    pairs each (default: one), have `batch_size` pairs or more.
    """
    deferred: dict[int, deque[int]] = {}
    waiting: Counter[int] = Counter()
    while True:
        batch, used, room = [], set(), batch_size
        for group in list(islice(deferred, batch_size)):
            if room <= 0:
                break
            queue = deferred.pop(group)
            batch.append(queue.popleft())
            used.add(group)
            waiting[batch[-1]] -= 1
            room -= 1 if copies is None else int(copies[batch[-1]])
            if queue:
                deferred[group] = queue  # moves to the end, so that groups take turns
        while room > 0:
            fresh = sequence(position, position + batch_size)
            for member, group in zip(fresh.tolist(), groups[fresh].tolist(), strict=True):
                if room <= 0:
                    break
                position += 1
                if group not in used:
                    batch.append(member)
                    used.add(group)
                    room -= 1 if copies is None else int(copies[member])
                # a member has waited for two epochs: its group is too large ever to be used up
                elif waiting[member] < 2:
                    deferred.setdefault(group, deque()).append(member)
                    waiting[member] += 1
        yield batch, position
        if not deferred:
            return


def _leading_clean(groups: np.ndarray) -> int:
    """The number of leading batches (rows) that have no group twice."""
    ordered = np.sort(groups, axis=1)
    clash = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    return int(clash.argmax()) if clash.any() else len(groups)
