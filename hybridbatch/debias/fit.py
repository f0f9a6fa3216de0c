"""Fits the maps of both sides from their moments, by the name of a method."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hybridbatch.common.errors import ConfigError
from hybridbatch.debias import methods
from hybridbatch.debias.methods import Debiasing, Moments, Scope
from hybridbatch.debias.vectors_file import Side

MethodName = Literal["centre", "lir", "lsar", "shift", "whiten"]
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

        With LSAR, a side whose texts are all in one language takes the subspace of the other side.

        Args:
            sides: the moments of each side.
            together: fit one map for both sides, from the texts of both. Each side has the same
                weight.

        Raises:
            ConfigError: one side is missing; otherwise as `fit`.
        """
        if self.name == "shift":
            return {"passage": self.fit(sides["passage"])}
        if len(sides) < 2:
            lacking = "queries" if "passage" in sides else "passages"
            raise ConfigError(f"{self.name}: has no vectors of {lacking} to estimate from")
        if together:
            turn = self.fit(_joined(sides["query"], sides["passage"]))
            return {"query": turn, "passage": turn}
        if self.name == "lsar":
            return self._subspaces(sides)
        return {side: self.fit(moments) for side, moments in sides.items()}

    def _subspaces(self, sides: Mapping[Side, Moments]) -> dict[Side, Debiasing]:
        """Fit LSAR; a side with a single language takes the subspace of the other side."""
        able = [side for side, moments in sides.items() if len(moments.languages) > 1]
        found = {side: self.fit(sides[side]) for side in able or sides}
        return {side: found.get(side, next(iter(found.values()))) for side in sides}

    def as_json(self) -> dict[str, Any]:
        """The name of the method and the parameters that it has."""
        has = {
            "centre": ("scope",),
            "lir": ("rank",),
            "lsar": ("rank",),
            "shift": ("alpha", "pivot"),
            "whiten": ("scope",),
        }
        names = (*has[self.name], "shrink")
        values = {name: getattr(self, name) for name in names}
        if self.name == "lir":
            values["rank"] = self.rank or 1
        return {"name": self.name, **values}


def _joined(one: Moments, other: Moments) -> Moments:
    """Join the moments of two sets of vectors, with equal weight in every language.

    The number of texts on each side is chance, so the means must not be weighted by it. If only one
    side has a language, its moments are taken from that side.
    """
    names = tuple(dict.fromkeys([*one.languages, *other.languages]))
    width = one.sums.shape[1]
    joined = Moments.empty(names, width, one.products is not None and other.products is not None)
    for number, name in enumerate(names):
        held = [side for side in (one, other) if name in side.languages]
        places = [side.languages.index(name) for side in held]
        total = sum(int(side.counts[place]) for side, place in zip(held, places, strict=True))
        joined.counts[number] = total
        for side, place in zip(held, places, strict=True):
            factor = total / len(held) / max(int(side.counts[place]), 1)
            joined.sums[number] += factor * side.sums[place]
            joined.squares[number] += factor * side.squares[place]
            if joined.products is not None and side.products is not None:
                joined.products[number] += factor * side.products[place]
    return joined


def counts_by_language(moments: Moments) -> dict[str, int]:
    """How many vectors each language has."""
    return {
        name: int(count)
        for name, count in zip(moments.languages, np.asarray(moments.counts), strict=True)
    }
