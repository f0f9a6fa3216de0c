"""Smaller versions of large corpora, for trials: all judged passages, and a share of the others."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import overload

import numpy as np

from hybridbatch.common.files import fingerprint
from hybridbatch.common.records import Task, Texts

LEAST_PASSAGES = 20_000  # of a corpus; a smaller corpus stays whole


class Picked(Sequence[str]):
    """Some of the texts of a sequence, in its order; read on demand."""

    def __init__(self, texts: Sequence[str], places: np.ndarray) -> None:
        self._texts, self._places = texts, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self._texts[at] for at in self._places[place].tolist()]
        return self._texts[int(self._places[place])]


def thinned(task: Task, share: float) -> Task:
    """The task with a share of the passages of its large corpora.

    Judged passages all stay. A hash of the id draws the others, at least `LEAST_PASSAGES` of a
    corpus. Fewer passages make every question easier, so scores of different shares cannot be
    compared.
    """
    if share == 1:
        return task
    corpus = {}
    for language, texts in task.corpus.items():
        judged = {passage for row in task.qrels.get(language, {}).values() for passage in row}
        corpus[language] = _thinned(texts, judged, share)
    if all(corpus[language] is texts for language, texts in task.corpus.items()):
        return task
    note = (
        f"{task.name}: only {share:g} of the passages of large corpora are searched, which makes"
        " the questions easier; compare with equal shares only"
    )
    provenance = {**task.provenance, "passage_share": f"{share:g}"}
    return replace(task, corpus=corpus, notes=(*task.notes, note), provenance=provenance)


def _thinned(texts: Texts, judged: set[str], share: float) -> Texts:
    share = max(share, LEAST_PASSAGES / max(1, len(texts.ids)))
    if share >= 1:
        return texts
    kept = [at for at, name in enumerate(texts.ids) if _chance(name) < share or name in judged]
    places = np.array(kept, np.int64)
    known = texts.fingerprint and fingerprint([texts.fingerprint, share])
    return Texts(Picked(texts.ids, places), Picked(texts.texts, places), known)


def _chance(name: str) -> float:
    """A number in [0, 1) that depends only on the id."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64
