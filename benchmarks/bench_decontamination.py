"""How small edits of evaluation texts are found, and how fast: XQuAD-R's own texts, edited, against
XQuAD-R.

A text counts as found if it matches the text that it was made from. Words and letters are replaced
by others of the same language; passages are put between other sentences, as in a longer passage.
"""

import random
from collections.abc import Callable
from pathlib import Path

from common import finish, parser, timed

from hybridbatch.data.filters.evaluation_texts import EvaluationText, evaluation_texts
from hybridbatch.data.filters.near_duplicates import (
    LEAST_NEAR,
    NEAR,
    OverlapIndex,
    normal_form,
    units,
)

SAMPLE = 300
# with spaces between words
LANGUAGES = ("eng", "deu", "rus", "arb", "hin", "tur", "ell", "vie", "spa")
UNSPACED = ("zho", "tha")  # two letters stand for a word
# parts of a text (changed), parts of all texts
Edit = Callable[[list[str], list[str], random.Random], None]


def replace(count: int) -> Edit:
    """Put other parts in the place of `count` parts."""

    def edit(parts: list[str], pool: list[str], rng: random.Random) -> None:
        for at in rng.sample(range(len(parts)), min(count, len(parts))):
            parts[at] = rng.choice(pool)

    return edit


def drop(parts: list[str], pool: list[str], rng: random.Random) -> None:
    """Leave out a part."""
    del parts[rng.randrange(len(parts))]


EDITS: dict[str, Edit] = {
    "none": lambda parts, pool, rng: None,
    "a word left out": drop,
    "1 word": replace(1),
    "2 words": replace(2),
}


def parts_of(text: str, language: str) -> list[str]:
    """Words, or pairs of letters."""
    return (
        [text[at : at + 2] for at in range(0, len(text), 2)]
        if language in UNSPACED
        else text.split()
    )


def main() -> None:
    """Edit a sample of each language, look it up, print the shares found."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--data-root", type=Path, required=True, help="folder that holds xquad-r/"
    )
    options = arguments.parse_args()
    texts = evaluation_texts("xquad-r", options.data_root)
    forms = list(dict.fromkeys(normal_form(text.text) for text in texts))
    places = {form: place for place, form in enumerate(forms)}
    index = OverlapIndex(forms)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind in ("query", "passage"):
        for language in (*LANGUAGES, *UNSPACED):
            chosen = [text for text in texts if (text.kind, text.language) == (kind, language)]
            found.setdefault(kind, {})[language] = shares(chosen, language, index, places)
    everything = [text.text for text in texts]
    seconds = timed(lambda: index.matches([normal_form(text) for text in everything]))
    figures = {"share_found": found, "letters": sum(map(len, everything)), "seconds": seconds}
    finish(
        "decontamination",
        {"near": NEAR, "least_near": LEAST_NEAR, "sample": SAMPLE},
        figures,
        options.out,
    )


def shares(
    chosen: list[EvaluationText], language: str, index: OverlapIndex, places: dict[str, int]
) -> dict[str, float]:
    """By edit, the share of a sample of texts that is found; of those long enough for near matches."""
    rng = random.Random(language)
    pool = [part for text in chosen for part in parts_of(text.text, language)]
    long = [text for text in chosen if units(normal_form(text.text)) >= LEAST_NEAR]
    sample = rng.sample(long, min(SAMPLE, len(long)))
    result = {"long_enough": round(len(long) / len(chosen), 3)}
    for name, edit in EDITS.items():
        asked = []
        for text in sample:
            parts = parts_of(text.text, language)
            edit(parts, pool, rng)
            joined = ("" if language in UNSPACED else " ").join(parts)
            around = (
                ["", ""]
                if text.kind == "query"
                else [other.text for other in rng.sample(chosen, 2)]
            )
            asked.append(normal_form(f"{around[0]} {joined} {around[1]}"))
        matched = {(match.text, match.known) for match in index.matches(asked)}
        hits = sum(
            (number, places[normal_form(text.text)]) in matched
            for number, text in enumerate(sample)
        )
        result[name] = round(hits / len(sample), 3)
    return result


if __name__ == "__main__":
    main()
