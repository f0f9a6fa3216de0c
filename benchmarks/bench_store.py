"""The store and the schedule at mMARCO's size: build, open, read at random, plan, tokenise; time
and memory of each.

Synthetic rows: records in 14 languages, every passage shared by two records, texts of random words
and fixed length. Every stage runs in a process of its own, so that its memory is its own:
`import_mib` is what the process held before it began, `resident_mib` what it holds when the stage
has ended, `peak_mib` the most that it held. Tokens are made of a smaller store (--token-rows),
since their number grows with the rows and nothing else.
"""

import multiprocessing
import resource
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from common import finish, parser, timed

from hybridbatch.common.records import Row
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from hybridbatch.sampling.plan import plan_schedule

Side = Literal["query", "passage"]
QUERY_CHARACTERS = 30
LANGUAGES = (
    "arb",
    "deu",
    "eng",
    "fra",
    "hin",
    "ind",
    "ita",
    "jpn",
    "nld",
    "por",
    "rus",
    "spa",
    "vie",
    "zho",
)


def main() -> None:
    """Build a store in a temporary folder and measure every stage."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--rows", type=int, default=4_000_000)
    arguments.add_argument("--passage-characters", type=int, default=200)
    arguments.add_argument("--steps", type=int, default=100_000)
    arguments.add_argument("--batch-size", type=int, default=100)
    arguments.add_argument("--mix", type=float, default=0.5)
    arguments.add_argument(
        "--token-rows", type=int, default=500_000, help="rows of the store that is tokenised"
    )
    arguments.add_argument("--model", default="e5-small-q4", help="whose tokenizer")
    arguments.add_argument(
        "--folder", type=Path, help="where the temporary store goes (default: the system's)"
    )
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary) / "data"
        figures = {
            "write": measured(write, folder, options.rows, options.passage_characters),
            "open": measured(open_index, folder),
            "read": measured(read_at_random, folder),
            "plan": measured(plan, folder, options.mix, options.batch_size, options.steps),
            "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            "index_bytes": sum(
                file.stat().st_size for file in (folder / "index").rglob("*.npy")
            ),
        }
        small = Path(temporary) / "small"
        measured(write, small, options.token_rows, options.passage_characters)
        figures["tokenise"] = measured(tokenise, small, options.model)
    settings = {
        name: value for name, value in vars(options).items() if name not in ("out", "folder")
    }
    finish("store", settings, figures, options.out)


def synthetic_rows(rows: int, characters: int) -> Iterator[Row]:
    """Parallel records, passages shared by two."""
    words = np.random.default_rng(0).integers(ord("a"), ord("z") + 1, (1 << 17, 6), np.uint8)
    words[:, 5] = ord(" ")
    text = words.tobytes().decode()
    places = len(text) - characters
    for record in range(rows // len(LANGUAGES)):
        start, asked = record // 2 * 7919 % places, record * 104729 % places
        passage, query = (
            text[start : start + characters],
            text[asked : asked + QUERY_CHARACTERS],
        )
        for language in LANGUAGES:
            yield Row(
                "mmarco",
                str(record),
                language,
                f"{language} {record} {query}",
                f"{language} {start} {passage}",
            )


def write(folder: Path, rows: int, characters: int) -> dict[str, Any]:
    """Build the store."""
    manifest = write_store(
        folder, synthetic_rows(rows, characters), provenance={}, validation_share=0
    )
    return {
        "rows": manifest["splits"]["train"]["rows"],
        "records": manifest["splits"]["train"]["records"],
    }


def open_index(folder: Path) -> dict[str, Any]:
    """Open the store and its index."""
    index = Store.open(folder).index("train")
    return {"rows": index.rows}


def read_at_random(folder: Path) -> dict[str, Any]:
    """Open the store and read 10,000 random passages."""
    store = Store.open(folder)
    rows = np.random.default_rng(0).integers(0, store.index("train").rows, 10_000)
    return {"texts": len(store.passages("train", rows))}


def plan(folder: Path, mix: float, batch_size: int, steps: int) -> dict[str, Any]:
    """Open the store and plan."""
    index = Store.open(folder).index("train")
    schedule = plan_schedule(index, mix=mix, batch_size=batch_size, steps=steps, seed=1)
    return {
        "pairs": schedule.query_row.size,
        "table_bytes": schedule.query_row.nbytes + schedule.passage_row.nbytes,
    }


def tokenise(folder: Path, model: str) -> dict[str, Any]:
    """Make the token arrays of all queries and passages."""
    from hybridbatch.model import Encoder

    store, encoder = Store.open(folder), Encoder.load(model)
    arrays: dict[Side, TokenArrays] = {}

    def build(side: Side) -> None:
        arrays[side] = store.tokens("train", side, tokenise=encoder.tokenise, key="key")

    figures = {}
    sides: tuple[Side, ...] = ("query", "passage")
    for side in sides:
        seconds = timed(partial(build, side))
        texts, tokens = len(arrays[side]), int(arrays[side].offsets[-1])
        figures[side] = {
            "texts": texts,
            "tokens": tokens,
            "texts_per_second": texts / seconds["wall_seconds"],
            "tokens_per_second": tokens / seconds["wall_seconds"],
            **seconds,
        }
    return figures


def measured(stage: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What the stage says of itself, its seconds, and its memory, in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_stage, stage, arguments).result()


def run_stage(
    stage: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]
) -> dict[str, Any]:
    """In the stage's own process."""
    before = peak_mib()
    figures: dict[str, Any] = {}
    seconds = timed(lambda: figures.update(stage(*arguments)))
    return {
        **figures,
        **seconds,
        "import_mib": before,
        "resident_mib": resident_mib(),
        "peak_mib": peak_mib(),
    }


def peak_mib() -> float:
    """The largest resident memory of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def resident_mib() -> float:
    """The resident memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / 2**20, 1)


if __name__ == "__main__":
    main()
