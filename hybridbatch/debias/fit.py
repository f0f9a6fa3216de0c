"""Fits the maps of both sides from their moments, by the name of a method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hybridbatch.common.errors import ConfigError
from hybridbatch.debias import methods
from hybridbatch.debias.methods import EVERY, Debiasing, Moments, Scope
from hybridbatch.debias.vectors_file import SIDES, Side

MethodName = Literal["centre", "lir", "lsar", "shift", "whiten"]
PARAMETERS: Mapping[MethodName, tuple[str, ...]] = {
    "centre": ("scope",),
    "lir": ("rank",),
    "lsar": ("rank",),
    "shift": ("alpha", "pivot"),
    "whiten": ("scope",),
}
WITH_PRODUCTS: tuple[MethodName, ...] = ("lir", "whiten")


@dataclass(frozen=True)
class Method:
    """A method and its parameters. A method ignores parameters that it does not have.

    Attributes:
        scope: centre, whiten: one mean for each language, or one for all languages.
        rank: lir: number of directions removed, default 1; lsar: rank of the subspace, default the
            full rank.
        alpha: shift: strength.
        pivot: shift: the language to which the other languages are moved.
        shrink: draw the estimates of languages with few texts to the global estimates.
    """

    name: MethodName = "centre"
    scope: Scope = "language"
    rank: int | None = None
    alpha: float = 1.0
    pivot: str = "eng"
    shrink: bool = True

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters that the method has, besides `shrink`."""
        return PARAMETERS[self.name]

    @property
    def products(self) -> bool:
        """Whether the method needs moments with products."""
        return self.name in WITH_PRODUCTS

    def fit(self, moments: Moments) -> Debiasing:
        """Fit the map of one side.

        Raises:
            `ConfigError`, `DataError` as the functions of `methods`.
        """
        if self.name == "centre":
            return methods.centre(moments, self.scope, shrink=self.shrink)
        if self.name == "lir":
            return methods.remove_directions(moments, self.rank or 1, shrink=self.shrink)
        if self.name == "lsar":
            return methods.remove_subspace(moments, self.rank, shrink=self.shrink)
        if self.name == "shift":
            return methods.shift(moments, self.pivot, self.alpha, shrink=self.shrink)
        return methods.whiten(moments, self.scope, shrink=self.shrink)

    def fit_sides(
        self, sides: Mapping[Side, Moments], *, together: bool = False
    ) -> dict[Side, Debiasing]:
        """Fit the maps of both sides; SHIFT has no map for queries.

        Centring by language gives a language that one side lacks the mean of the other side, moved
        by the mean difference of the sides. With LSAR, a side with too few languages for its rank
        takes the subspace of the other side.

        Args:
            sides: the moments of each side.
            together: one estimate for both sides, from the texts of both. Each side has the same
                weight. When centring by language, as far as `_shared_weight` says; see there.

        Raises:
            ConfigError: one side is missing; otherwise as `fit`.
        """
        if self.name == "shift":
            return {"passage": self.fit(sides["passage"])}
        if len(sides) < 2:
            lacking = "queries" if "passage" in sides else "passages"
            raise ConfigError(f"{self.name}: has no vectors of {lacking} to estimate from")
        if self.by_mean_of_language:
            maps = _completed({side: self.fit(moments) for side, moments in sides.items()})
            weight = _shared_weight(sides) if self.shrink else 1.0
            return _drawn_together(maps, weight) if together else maps
        if together:
            turn = self.fit(joined(sides["query"], sides["passage"]))
            return {"query": turn, "passage": turn}
        if self.name == "lsar":
            return self._subspaces(sides)
        return {side: self.fit(moments) for side, moments in sides.items()}

    @property
    def by_mean_of_language(self) -> bool:
        """Whether the method subtracts a mean of each language, and nothing else."""
        return self.name == "centre" and self.scope == "language"

    @property
    def of_all_languages(self) -> bool:
        """Whether the method has one mean for all languages, and no vector of a language."""
        return self.name in ("centre", "whiten") and self.scope == "global"

    def _subspaces(self, sides: Mapping[Side, Moments]) -> dict[Side, Debiasing]:
        """Fit LSAR; a side with too few languages takes the subspace of the other side."""
        least = max(2, (self.rank or 1) + 1)
        able = [side for side, moments in sides.items() if len(moments.languages) >= least]
        found = {side: self.fit(sides[side]) for side in able or sides}
        return {side: found.get(side, next(iter(found.values()))) for side in sides}

    def as_json(self) -> dict[str, Any]:
        """The name of the method and the parameters that it has."""
        names = (*self.parameters, "shrink")
        values = {name: getattr(self, name) for name in names}
        if self.name == "lir":
            values["rank"] = self.rank or 1
        return {"name": self.name, **values}


def _completed(maps: Mapping[Side, Debiasing]) -> dict[Side, Debiasing]:
    """Give each side an offset for every language of the other side.

    It is the offset of the other side, moved by the difference of the sides: the mean difference
    over the languages that both have, else the difference of their global offsets. The global
    offset becomes the mean over all languages, so that it does not depend on which languages have
    queries.
    """
    query, passage = maps["query"], maps["passage"]
    shared = [name for name in query.languages if name in passage.languages] or [EVERY]
    rows = [query.offsets[name] - passage.offsets[name] for name in shared]
    away = {"query": np.mean(rows, axis=0), "passage": -np.mean(rows, axis=0)}
    names = sorted({*query.languages, *passage.languages})
    found: dict[Side, Debiasing] = {}
    pairs: tuple[tuple[Side, Debiasing], ...] = (("query", passage), ("passage", query))
    for side, other in pairs:
        own = maps[side].offsets
        offsets = {
            name: own[name] if name in own else other.offsets[name] + away[side]
            for name in names
        }
        complete = set(names) <= set(own)
        offsets[EVERY] = own[EVERY] if complete else np.mean(list(offsets.values()), axis=0)
        found[side] = Debiasing(offsets)
    return found


def _shared_weight(sides: Mapping[Side, Moments]) -> float:
    """How far the sides can be told apart from the languages, from 0 to 1.

    Where queries are in one language only, their mean differs from the mean of all passages by the
    side and by the language. The texts of that language tell these differences apart, as far as the
    weight of its own means (`Moments.weights`) goes. This is the mean weight over the languages
    that both sides have, 0 if they have none.
    """
    query, passage = (_weights(sides[side].without_empty()) for side in SIDES)
    shared = [min(query[name], passage[name]) for name in query if name in passage]
    return float(np.mean(shared)) if shared else 0.0


def _weights(moments: Moments) -> dict[str, float]:
    return dict(zip(moments.languages, moments.weights().tolist(), strict=True))


def _drawn_together(maps: Mapping[Side, Debiasing], weight: float) -> dict[Side, Debiasing]:
    """Draw the offsets of both sides to their mean; a weight of 1 gives both sides one map.

    So what distinguishes queries from passages stays in the vectors. The mean of two estimates is
    also more exact than either. With a weight of 0, the maps stay apart.
    """
    query, passage = maps["query"].offsets, maps["passage"].offsets
    middle = {name: (offset + passage[name]) / 2 for name, offset in query.items()}
    drawn: dict[Side, Debiasing] = {}
    for side in SIDES:
        offsets = {}
        for name, offset in maps[side].offsets.items():
            between = (1 - weight) * offset + weight * middle[name]
            offsets[name] = between.astype(np.float32)
        drawn[side] = Debiasing(offsets)
    return drawn


def joined(one: Moments, other: Moments) -> Moments:
    """Join the moments of two sets of vectors, with equal weight in every language.

    The number of texts on each side is chance, so the means must not be weighted by it. If one side
    lacks a language, its mean there is taken to differ from the mean of the other side as it does
    on average over the languages that both sides have. Otherwise the languages with queries would
    lie elsewhere than the languages without.
    """
    one, other = one.without_empty(), other.without_empty()
    names = tuple(dict.fromkeys([*one.languages, *other.languages]))
    products = one.products is not None and other.products is not None
    joint = Moments.empty(names, one.sums.shape[1], products)
    away = _mean_difference(one, other)
    for number, name in enumerate(names):
        own = _of_language(one, name) or _of_language(other, name, away)
        theirs = _of_language(other, name) or _of_language(one, name, -away)
        assert own is not None
        assert theirs is not None
        held = [side for side in (one, other) if name in side.languages]
        total = sum(int(side.counts[side.languages.index(name)]) for side in held)
        joint.counts[number] = total
        for part in (own, theirs):
            factor = total / 2 / int(part.counts[0])
            joint.sums[number] += factor * part.sums[0]
            joint.squares[number] += factor * part.squares[0]
            if joint.products is not None and part.products is not None:
                joint.products[number] += factor * part.products[0]
    return joint


def _of_language(side: Moments, name: str, moved: np.ndarray | None = None) -> Moments | None:
    """The moments of one language, moved by a vector; None if the side lacks it."""
    if name not in side.languages:
        return None
    part = side.part(np.array([side.languages.index(name)]))
    return part if moved is None else part.moved(moved)


def _mean_difference(one: Moments, other: Moments) -> np.ndarray:
    """float64 [D]: the mean of `one` less the mean of `other`, over the languages of both."""
    shared = [name for name in one.languages if name in other.languages]
    if not shared:
        return one.global_mean - other.global_mean
    rows = []
    for name in shared:
        own = one.means[one.languages.index(name)]
        rows.append(own - other.means[other.languages.index(name)])
    difference: np.ndarray = np.mean(rows, axis=0)
    return difference


def counts_by_language(moments: Moments) -> dict[str, int]:
    """How many vectors each language has."""
    return {
        name: int(count)
        for name, count in zip(moments.languages, np.asarray(moments.counts), strict=True)
    }
