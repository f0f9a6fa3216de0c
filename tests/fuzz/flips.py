"""One flipped bit in any stored file is seen: an error, or the same content; never another one.

    python -m tests.fuzz.flips [--count 1000] [--seed 0] [FORMAT ...]

Every format is written by the program and read back through the functions that its commands use.
Exit 1 if a reader gives other content without a word.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridbatch.common import integrity
from hybridbatch.common.errors import HybridBatchError
from tests.fuzz import targets


@dataclass(frozen=True)
class Format:
    """A stored format.

    Attributes:
        make: writes files into a folder.
        files: patterns of the files that are damaged.
        read: their content, in a form that can be compared by its repr.
    """

    name: str
    make: Callable[[Path], None]
    files: Sequence[str]
    read: Callable[[Path], Any]


def _plain(value: Any) -> Any:
    """Arrays and tensors with all of their bytes, so that repr shows everything."""
    if hasattr(value, "numpy"):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, np.ascontiguousarray(value).tobytes()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _read_prepared(folder: Path) -> Any:
    from hybridbatch.data.store.reader import Store

    store = Store.open(folder / "data")
    found = []
    for split in store.splits:
        index = store.index(split)
        arrays = (index.record_start, index.source, index.group, index.language, index.has)
        found.append((arrays, store.rows(split, np.arange(index.rows))))
    return store.manifest, found


def _make_tokens(folder: Path) -> None:
    _read_tokens(folder)


def _read_tokens(folder: Path) -> Any:
    from hybridbatch.common.tokens import TokenArrays, stored_tokens

    def tokenise(texts: Sequence[str]) -> TokenArrays:
        return TokenArrays.of([[ord(letter) for letter in text] for text in texts])

    present = np.arange(300) % 7 > 0
    tokens = stored_tokens(
        folder / "tokens", present, lambda rows: [f"text {row}" * 9 for row in rows], tokenise
    )
    return tokens.take(np.arange(300)).ids, tokens.lengths


def _read_embeddings(folder: Path) -> Any:
    from hybridbatch.search.embeddings import _shards, list_spaces

    spaces = sorted(list_spaces(folder / "cache"), key=lambda space: space.folder)
    facts = [(one.model, one.fingerprint, one.side, one.precision) for one in spaces]
    return facts, [[shard[:2] for shard in _shards(one.folder)] for one in spaces]


def _make_blocks(folder: Path) -> None:
    values = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    integrity.save_array(folder / "block.npy", values)


def _read_blocks(folder: Path) -> Any:
    from hybridbatch.search.blocked_vectors import BlockedVectors

    return BlockedVectors([folder / "block.npy"], 200, 8, np.dtype(np.float32))[0:200]


def _read_checkpoints(folder: Path) -> Any:
    from hybridbatch.training import checkpoint

    run = folder / "run"
    steps = [1, 2]
    return checkpoint.read_run(run), [checkpoint.load(run, step) for step in steps]


def _read_model(folder: Path) -> Any:
    from hybridbatch.model import Encoder

    encoder = Encoder.load(str(folder / "model"))
    return encoder.fingerprint(), encoder.usage.stated, encoder.usage.own_max_tokens


def _make_model(folder: Path) -> None:
    from tests.helpers.tiny import write_tiny_model

    write_tiny_model(folder / "model")
    integrity.write_sums(folder / "model")


def _read_evaluation(folder: Path) -> Any:
    import pandas as pd

    from hybridbatch.scoring.documents import check_scores, read_evaluation
    from hybridbatch.scoring.per_query import FILE

    facts = read_evaluation(folder / "eval-1")
    check_scores(folder / "eval-1", FILE, facts)
    return facts, pd.read_parquet(folder / "eval-1" / FILE).to_csv()


def _read_sweep(folder: Path) -> Any:
    from hybridbatch.scaling.cells.folder import SweepFolder

    sweep = SweepFolder(folder / "sweep")
    keys = [entry["key"] for entry in sweep.read_plan()["cells"]]
    cells = [(sweep.read(key), sweep.read_queries(key).to_csv()) for key in keys]
    return sweep.read_plan(), cells


PIECES = [f"piece {number}" for number in range(40)]


def _make_translations(folder: Path) -> None:
    from hybridbatch.data.translation.cache import TranslationCache

    cache = TranslationCache({"name": "none"}, folder)
    cache.put({piece: piece.upper() for piece in PIECES}, "eng", "swh")
    cache._connection.close()


def _read_translations(folder: Path) -> Any:
    from hybridbatch.data.translation.cache import TranslationCache

    cache = TranslationCache({"name": "none"}, folder)
    try:
        found = cache.get(PIECES, "eng", "swh")
        # what is not found is translated again
        return {piece: found.get(piece, piece.upper()) for piece in PIECES}
    finally:
        cache._connection.close()


def _make_corpus(folder: Path) -> None:
    from hybridbatch.data.tasks.corpus_file import write_texts

    write_texts(folder / "corpus.arrow", [(f"d{n}", f"text {n} " * 5) for n in range(300)])


def _read_corpus(folder: Path) -> Any:
    from hybridbatch.data.tasks.corpus_file import open_texts

    texts = open_texts(folder / "corpus.arrow")
    return list(texts.ids), list(texts.texts), texts.fingerprint


def _log(folder: Path, done: int) -> Any:
    from hybridbatch.training.logs import open_log
    from hybridbatch.training.settings import TrainConfig

    return open_log(folder, TrainConfig(log_to="jsonl"), done)


def _make_steps(folder: Path) -> None:
    with _log(folder, 0) as log:
        for step in range(1, 20):
            log({"step": step, "loss": 1 / step, "kind": "monolingual"})


def _read_steps(folder: Path) -> Any:
    content = (folder / "steps.jsonl").read_bytes()
    with _log(folder, 100):
        kept = (folder / "steps.jsonl").read_bytes()
    (folder / "steps.jsonl").write_bytes(content)
    return kept


def _make_vectors(folder: Path) -> None:
    from hybridbatch.debias.vectors_file import SIDES, LanguageVectors, write_vectors
    from tests.debias.test_vectors_file import vectors_of

    made: LanguageVectors = vectors_of()
    assert set(made.sides) <= set(SIDES)
    write_vectors(folder / "vectors", made)


def _read_vectors(folder: Path) -> Any:
    from hybridbatch.debias.vectors_file import read_vectors

    found = read_vectors(folder / "vectors")
    points = np.eye(found.dimension, dtype=np.float32)
    moved = [
        found.apply(points, side, code) for side in found.sides for code in found.languages
    ]
    return found.facts, moved


FORMATS = (
    Format("prepared data", targets._prepared, ["data/**/*"], _read_prepared),
    Format("tokens", _make_tokens, ["tokens/*"], _read_tokens),
    Format("embeddings", targets._embeddings, ["cache/**/*.npy", "cache/*/space.json"], _read_embeddings),
    Format("blocks of large corpora", _make_blocks, ["block.npy"], _read_blocks),
    Format("checkpoints", targets._trained, ["run/run.json", "run/checkpoints/*/*"], _read_checkpoints),
    Format("models", _make_model, ["model/**/*"], _read_model),
    Format("evaluations", targets._evaluations, ["eval-1/*.json", "eval-1/*.parquet"], _read_evaluation),
    Format("sweeps", targets._sweep, ["sweep/sweep.json", "sweep/cells/*"], _read_sweep),
    Format("translations", _make_translations, ["*.sqlite"], _read_translations),
    Format("stored corpora", _make_corpus, ["corpus.*"], _read_corpus),
    Format("logs of steps", _make_steps, ["steps.jsonl"], _read_steps),
    Format("language vectors", _make_vectors, ["vectors/*"], _read_vectors),
)  # fmt: skip


def flip(form: Format, folder: Path, count: int, seed: int) -> Counter[str]:
    """Flip `count` bits, one at a time; how often it was seen, harmless, or changed the content."""
    form.make(folder)
    found = (path for pattern in form.files for path in folder.glob(pattern))
    files = sorted({path for path in found if path.is_file() and path.stat().st_size})
    contents = {path: path.read_bytes() for path in files}
    expected = repr(_plain(form.read(folder)))
    draw = np.random.default_rng([seed, len(form.name)])
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        path = files[int(draw.integers(len(files)))]
        content = bytearray(contents[path])
        place = int(draw.integers(8 * len(content)))
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        integrity.forget()
        try:
            same = repr(_plain(form.read(folder))) == expected
            outcome = "harmless" if same else f"in silence: {path.name}, bit {place}"
        except HybridBatchError:
            outcome = "seen"
        except Exception as error:
            outcome = f"traceback: {path.name}, bit {place}: {type(error).__name__}: {error}"
        outcomes[outcome] += 1
        for file, original in contents.items():
            if not file.is_file() or file.read_bytes() != original:
                file.write_bytes(original)
    return outcomes


def main() -> int:
    """Flip bits in every format; 1 if one went unseen."""
    options = argparse.ArgumentParser(prog="python -m tests.fuzz.flips", description=__doc__)
    options.add_argument("formats", nargs="*", help="names of formats (default: all)")
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    bad = 0
    for form in FORMATS:
        if given.formats and form.name not in given.formats:
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcomes = flip(form, Path(folder), given.count, given.seed)
        seen, harmless = outcomes.pop("seen", 0), outcomes.pop("harmless", 0)
        bad += sum(outcomes.values())
        print(
            f"{form.name}: {seen:,} seen, {harmless:,} without effect,"
            f" {sum(outcomes.values()):,} not seen",
            flush=True,
        )
        for what, times in outcomes.most_common(10):
            print(f"    {times} x {what}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
