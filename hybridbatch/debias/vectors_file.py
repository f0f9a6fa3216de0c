"""Language vectors on disk: ``language_vectors.safetensors`` and ``language_vectors.json``.

The tensors, for each side that has a map (``query``, ``passage``):

- ``SIDE.offsets`` float32 [1 + L, D]: row 0 is for languages without a row; then one row for each
  of L languages, in the order of ``sides.SIDE.languages`` of the JSON;
- ``SIDE.directions`` float32 [1 + L, r, D], or [1, r, D] if all languages share them;
- ``SIDE.matrix`` float32 [D, D].

A vector z of language l becomes ``M (x - C' C x)`` with ``x = z - b``, scaled to length 1. A step
whose tensor is not in the file is left out. The JSON has the model, the method, the number of texts
of each language, and the sources of these texts.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from hybridbatch.common.documents import Shape, read_document
from hybridbatch.common.errors import DataError
from hybridbatch.common.files import atomic_path, make_folder, output_errors, write_json
from hybridbatch.debias.methods import EVERY, Debiasing
from hybridbatch.debias.relatives import nearest_relatives

Side = Literal["query", "passage"]
SIDES: tuple[Side, ...] = ("query", "passage")
TENSORS = "language_vectors.safetensors"
FACTS = "language_vectors.json"
KIND = "language_vectors"
SCHEMA_VERSION = 1


class Entries(Shape):
    """What ``language_vectors.json`` says of a side."""

    languages: list[str]


class Facts(Shape):
    """``language_vectors.json``."""

    kind_name: ClassVar[str] = KIND
    versions: ClassVar[tuple[int, ...]] = (SCHEMA_VERSION,)
    what: ClassVar[str] = "description of language vectors"

    sides: dict[str, Entries]
    sha256: str
    model: dict[str, Any] = Field(default_factory=dict)
    method: dict[str, Any] = Field(default_factory=dict)
    sources: dict[str, str] = Field(default_factory=dict)
    texts: dict[str, dict[str, int]] = Field(default_factory=dict)


@dataclass(frozen=True)
class LanguageVectors:
    """The language vectors of one model, by side and language.

    Attributes:
        sides: the map of each side. A side without a map is left as it is (queries with SHIFT).
        facts: JSON: ``model`` (name, fingerprint), ``method``, ``sources``, ``texts`` by side and
            language, and further facts of the maker.
    """

    sides: Mapping[Side, Debiasing]
    facts: Mapping[str, Any]
    _found: dict[tuple[Side, str], tuple[Debiasing, str]] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def dimension(self) -> int:
        """D."""
        return next(iter(self.sides.values())).dimension

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that have an entry on some side."""
        return tuple(
            dict.fromkeys(name for one in self.sides.values() for name in one.languages)
        )

    def apply(
        self, vectors: np.ndarray, side: Side, languages: str | Sequence[str]
    ) -> np.ndarray:
        """Subtract the language vectors from `vectors` [n, D] of a side.

        A language without an entry takes the entry of its nearest relatives, else the global entry;
        `borrowed` says which languages do.

        Returns:
            float32 [n, D], rows of length 1.

        Raises:
            As `Debiasing.apply`.
        """
        if side not in self.sides:
            return np.asarray(vectors, dtype=np.float32)
        names = [languages] if isinstance(languages, str) else sorted(set(languages))
        entries = {name: self._entry(side, name) for name in names}
        turn = replace(
            self.sides[side],
            offsets={EVERY: self.sides[side].offsets[EVERY]}
            | {name: one.offsets[name] for name, (one, _) in entries.items()},
            directions={
                name: one.directions[name]
                for name, (one, _) in entries.items()
                if name in one.directions
            },
        )
        return turn.apply(vectors, languages)

    def borrowed(self, side: Side, languages: Iterable[str]) -> dict[str, str]:
        """For each language without an entry on a side, say in words whose entry it takes."""
        if side not in self.sides:
            return {}
        told = {name: self._entry(side, name)[1] for name in dict.fromkeys(languages)}
        return {name: words for name, words in told.items() if words}

    def tell(self, used: Mapping[Side, Iterable[str]]) -> list[str]:
        """A sentence for each kind of borrowed entry among the languages of each side."""
        sentences = []
        for side, languages in used.items():
            by_words: dict[str, list[str]] = {}
            for name, words in self.borrowed(side, languages).items():
                by_words.setdefault(words, []).append(name)
            sentences += [
                f"language vectors ({side}): no text of {', '.join(names)}; using {words}"
                for words, names in by_words.items()
            ]
        return sentences

    def summary(self) -> dict[str, Any]:
        """The facts about the vectors that a result made with them records."""
        names = ("method", "sources", "sha256")
        return {name: self.facts[name] for name in names if name in self.facts}

    def require_model(self, fingerprint: str, name: str) -> None:
        """Raise `DataError` unless the vectors were estimated for the model of this fingerprint."""
        own = self.facts.get("model") or {}
        if own.get("fingerprint") != fingerprint:
            raise DataError(
                f"the language vectors are of {own.get('name') or 'unknown vectors'} (fingerprint"
                f" {str(own.get('fingerprint'))[:12]}), not of {name} ({fingerprint[:12]}) with"
                " these prompts and lengths; estimate them with `hybridbatch debias"
                f" {name} --text ...`"
            )

    def _entry(self, side: Side, language: str) -> tuple[Debiasing, str]:
        """The map of a side with an entry for `language`, and the lender in words ("" if none)."""
        key = (side, language)
        if key not in self._found:
            turn = self.sides[side]
            words = ""
            if language not in turn.offsets:
                relatives, degree = nearest_relatives(language, turn.languages)
                turn = _lend(turn, language, relatives)
                words = (
                    f"{_shown(relatives)} (shared: {degree})" if relatives else "the global one"
                )
            self._found[key] = turn, words
        return self._found[key]


def with_loans(turn: Debiasing, languages: Iterable[str]) -> Debiasing:
    """Give `turn` an entry for each of the languages: own, of nearest relatives, or global."""
    own = turn.languages
    for name in languages:
        if name not in turn.offsets:
            turn = _lend(turn, name, nearest_relatives(name, own)[0])
    return turn


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    kind = "the vector of" if len(names) == 1 else "the mean vector of"
    return f"{kind} {', '.join(names[:4])}{more}"


def _lend(turn: Debiasing, language: str, lenders: Sequence[str]) -> Debiasing:
    """Give `turn` an entry for `language`: the lenders' mean, or the global entry if none lends."""
    names = list(lenders) or [EVERY]
    offset = np.stack([turn.offsets[name] for name in names]).astype(np.float64).mean(axis=0)
    directions = {}
    if turn.directions:
        own = np.stack([turn.directions[name] for name in names]).astype(np.float64)
        # the subspace nearest to those of all lenders: leading directions of their mean projection
        projection = np.einsum("lrd,lre->de", own, own)
        _, vectors = np.linalg.eigh(projection)
        leading = vectors[:, ::-1][:, : own.shape[1]].T
        directions[language] = np.ascontiguousarray(leading, dtype=np.float32)
    return replace(
        turn,
        offsets={**turn.offsets, language: np.asarray(offset, dtype=np.float32)},
        directions={**turn.directions, **directions},
    )


def write_vectors(folder: Path, vectors: LanguageVectors) -> Path:
    """Write both files into `folder`, the JSON last; returns the path of the tensors.

    Raises:
        OutputError: the file cannot be written.
    """
    from safetensors.numpy import save

    make_folder(folder)
    tensors: dict[str, np.ndarray] = {}
    sides: dict[str, Any] = {}
    for side, turn in vectors.sides.items():
        names = [EVERY, *turn.languages]
        tensors[f"{side}.offsets"] = np.stack([turn.offsets[name] for name in names])
        if turn.directions:
            tensors[f"{side}.directions"] = _stacked_directions(turn, names)
        if turn.matrix is not None:
            tensors[f"{side}.matrix"] = turn.matrix
        sides[side] = {"languages": names[1:]}
    # safetensors writes the bytes in memory order
    tensors = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
    content = save(tensors, metadata={"kind": KIND, "schema_version": str(SCHEMA_VERSION)})
    path, beside = folder / TENSORS, folder / FACTS
    with output_errors(beside):
        beside.unlink(missing_ok=True)  # so that it never stands beside other tensors
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    facts = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        **vectors.facts,
        "dimension": vectors.dimension,
        "sides": sides,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    write_json(beside, facts, sealed=True)
    return path


def _stacked_directions(turn: Debiasing, names: Sequence[str]) -> np.ndarray:
    first = turn.directions[names[0]]
    if all(turn.directions[name] is first for name in names):
        return first[None]
    return np.stack([turn.directions[name] for name in names])


def read_vectors(path: Path) -> LanguageVectors:
    """Language vectors from their folder, or from either of its two files.

    Raises:
        DataError: files that are absent, damaged, or do not belong together.
    """
    folder = path if path.is_dir() else path.parent
    tensors_path, facts_path = folder / TENSORS, folder / FACTS
    if not path.is_dir() and path.name not in (TENSORS, FACTS):
        raise DataError(
            f"{path}: holds no language vectors; name the folder with {TENSORS} and {FACTS},"
            " which `hybridbatch debias` writes"
        )
    for one in (tensors_path, facts_path):
        if not one.is_file():
            raise DataError(
                f"{one}: does not exist; language vectors are {TENSORS} and {FACTS} in one"
                " folder; make them with `hybridbatch debias MODEL --text FOLDER`"
            )
    facts = read_document(facts_path, Facts, "make it again with `hybridbatch debias`")
    tensors = _read_tensors(tensors_path, facts["sha256"])
    try:
        sides = {
            side: _debiasing(tensors, side, facts["sides"][side]["languages"])
            for side in SIDES
            if side in facts["sides"]
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{facts_path}: does not fit {TENSORS} ({error!r}); make both again with `hybridbatch"
            " debias`"
        ) from error
    if not sides:
        raise DataError(
            f"{facts_path}: names neither queries nor passages; make it again with `hybridbatch"
            " debias`"
        )
    return LanguageVectors(sides, facts)


def _read_tensors(path: Path, sha256: Any) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(
                f"{path}: is not the file that {FACTS} describes (its sha256 differs),"
                " because it is damaged or comes from another run; make both again with"
                " `hybridbatch debias`"
            )
        tensors = load(content)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read ({error}); make it again with `hybridbatch debias`"
        ) from error
    for name, values in tensors.items():
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise DataError(
                f"{path}: {name} holds NaN, infinite or no float32 numbers; make it again with"
                " `hybridbatch debias`"
            )
    return tensors


def _debiasing(
    tensors: Mapping[str, np.ndarray], side: Side, languages: Sequence[str]
) -> Debiasing:
    """The map of a side. Raises `KeyError` and `ValueError` for tensors that do not fit."""
    names = [EVERY, *map(str, languages)]
    offsets = tensors[f"{side}.offsets"]
    width = offsets.shape[-1]
    if offsets.shape != (len(names), width):
        raise ValueError(f"{side}.offsets is {offsets.shape}, not {(len(names), width)}")
    directions: dict[str, np.ndarray] = {}
    if f"{side}.directions" in tensors:
        stacked = tensors[f"{side}.directions"]
        if (
            stacked.ndim != 3
            or len(stacked) not in (1, len(names))
            or stacked.shape[2] != width
        ):
            raise ValueError(f"{side}.directions is {stacked.shape}")
        rows = stacked if len(stacked) > 1 else [stacked[0]] * len(names)
        directions = dict(zip(names, rows, strict=True))
    matrix = tensors.get(f"{side}.matrix")
    if matrix is not None and matrix.shape != (width, width):
        raise ValueError(f"{side}.matrix is {matrix.shape}, not {(width, width)}")
    return Debiasing(dict(zip(names, offsets, strict=True)), directions, matrix)
