"""An index that exists, rewritten: the same vectors as turned by hand, in every form, also after an
interruption.
"""

import errno
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from hybridbatch.common.errors import ConfigError, DataError, Interrupted, OutputError
from hybridbatch.common.files import write_json
from hybridbatch.debias import methods, turn_rows
from hybridbatch.debias import rewrite as module
from hybridbatch.debias.fit import Method
from hybridbatch.debias.index_files import open_index
from hybridbatch.debias.methods import Moments
from hybridbatch.debias.rewrite import RowLanguages, read_row_languages, rewrite
from hybridbatch.debias.turn_rows import NotFinite, RowTurner
from hybridbatch.debias.vectors_file import read_vectors
from tests.helpers.recording import RecordingReporter

ROWS, WIDTH = 230, 16
CODES = [("sw", "en", "de")[row % 3] for row in range(ROWS)]
NAMES = np.array([{"sw": "swh", "en": "eng", "de": "deu"}[code] for code in CODES])


@pytest.fixture
def stored() -> np.ndarray:
    rng = np.random.default_rng(11)
    shift = {code: rng.normal(size=WIDTH) for code in set(CODES)}
    rows = (
        rng.normal(size=(ROWS, WIDTH))
        + np.stack([shift[code] for code in sorted(shift)])[
            [sorted(shift).index(code) for code in CODES]
        ]
    )
    return methods.unit_rows(rows).astype(np.float32)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "ids.txt"
    path.write_text("\n".join(f"doc{row}\t{code}" for row, code in enumerate(CODES)) + "\n")
    return path


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 50)


def by_hand(stored: np.ndarray, **options) -> np.ndarray:
    """Each language's own mean subtracted, in float64."""
    wide = stored.astype(np.float64)
    turn = methods.centre({name: wide[name == NAMES] for name in np.unique(NAMES)}, **options)
    return turn.apply(wide, NAMES.tolist())


def turned(turn, names, rows, numbers) -> np.ndarray:
    """The rows that a turner gives, together."""
    return np.concatenate([tile for tile, _ in RowTurner.of(turn, names).turn(rows, numbers)])


def run(path: Path, lines: Path, out: Path, reporter=None, **options) -> Path:
    index = open_index(path, **options)
    languages = read_row_languages(lines, index.shape[0])
    extra = {"report": reporter} if reporter else {}
    return rewrite(index, languages, out, method=Method(), **extra)


@pytest.mark.parametrize(
    ("dtype", "close"), [("float32", 1e-6), ("float16", 1e-3), ("float64", 1e-6)]
)
def test_a_numpy_file_keeps_its_type_and_shape(tmp_path, stored, lines, dtype, close):
    np.save(tmp_path / "corpus.npy", stored.astype(dtype))
    folder = run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    made = np.load(tmp_path / "new.npy")
    assert made.dtype == dtype
    np.testing.assert_allclose(made, by_hand(stored), atol=close)
    vectors = read_vectors(folder)
    assert vectors.facts["texts"]["passage"] == {"deu": 76, "eng": 77, "swh": 77}
    np.testing.assert_allclose(
        vectors.apply(stored[:1], "query", "swh"), by_hand(stored)[:1], atol=close
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "corpus.npy", "ids.txt", "new.npy", "new.npy.language_vectors",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "order",
    [np.asfortranarray, lambda rows: rows.astype(">f4"), lambda rows: rows.astype(">f2")],
)
def test_a_numpy_file_in_another_order_of_numbers_or_bytes(tmp_path, stored, lines, order):
    np.save(tmp_path / "corpus.npy", order(stored))
    run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    np.testing.assert_allclose(np.load(tmp_path / "new.npy"), by_hand(stored), atol=1e-3)


def test_a_raw_memory_map_of_float16(tmp_path, stored, lines):
    stored.astype(np.float16).tofile(tmp_path / "corpus.f16")
    run(tmp_path / "corpus.f16", lines, tmp_path / "new.f16", dimension=WIDTH, dtype="float16")
    made = np.fromfile(tmp_path / "new.f16", np.float16).reshape(ROWS, WIDTH)
    np.testing.assert_allclose(made, by_hand(stored), atol=1e-3)


@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_a_parquet_file_keeps_its_other_columns(tmp_path, stored, kind):
    types = {
        "list": pa.list_(pa.float32()),
        "large": pa.large_list(pa.float32()),
        "fixed": pa.list_(pa.float32(), WIDTH),
    }
    table = pa.table({
        "id": [f"d{row}" for row in range(ROWS)],
        "embedding": pa.array(stored.tolist(), types[kind]),
        "lang": CODES,
    })  # fmt: skip
    pq.write_table(table, tmp_path / "corpus.parquet", row_group_size=70)
    index = open_index(tmp_path / "corpus.parquet", column="embedding", language_column="lang")
    languages = RowLanguages.of(index.languages(), "corpus.parquet")
    rewrite(index, languages, tmp_path / "new.parquet", method=Method())
    made = pq.read_table(tmp_path / "new.parquet")
    assert made.schema == table.schema
    assert made["id"] == table["id"]
    assert pq.ParquetFile(tmp_path / "new.parquet").num_row_groups == 4
    np.testing.assert_allclose(
        np.array(made["embedding"].to_pylist()), by_hand(stored), atol=1e-6
    )


@pytest.mark.parametrize("sizes", [(0, ROWS), (100, 0, 130)])
def test_a_parquet_file_may_have_row_groups_without_rows(tmp_path, stored, lines, sizes):
    table = pa.table({"vector": pa.array(stored.tolist(), pa.list_(pa.float32()))})
    write_groups(tmp_path / "corpus.parquet", table, sizes)
    run(tmp_path / "corpus.parquet", lines, tmp_path / "new.parquet")
    made = pq.read_table(tmp_path / "new.parquet")
    np.testing.assert_allclose(np.array(made["vector"].to_pylist()), by_hand(stored), atol=1e-6)


def write_groups(path: Path, table: pa.Table, sizes) -> None:
    """Write a table in row groups of these sizes."""
    start = 0
    with pq.ParquetWriter(path, table.schema) as writer:
        for size in sizes:
            writer.write_table(table.slice(start, size))
            start += size


def test_a_flat_faiss_index_gives_the_neighbours_of_the_turned_vectors(tmp_path, stored, lines):
    index = faiss.IndexFlatIP(WIDTH)
    index.add(stored)
    faiss.write_index(index, str(tmp_path / "corpus.faiss"))
    run(tmp_path / "corpus.faiss", lines, tmp_path / "new.faiss")
    made = faiss.read_index(str(tmp_path / "new.faiss"))
    assert made.metric_type == faiss.METRIC_INNER_PRODUCT
    np.testing.assert_allclose(made.reconstruct_n(0, ROWS), by_hand(stored), atol=1e-6)


@pytest.mark.parametrize("kind", ["Flat", "IVF4,Flat"])
def test_ids_of_a_mapped_index_stay(tmp_path, stored, lines, kind):
    index = faiss.index_factory(WIDTH, f"IDMap,{kind}", faiss.METRIC_INNER_PRODUCT)
    index.train(stored)
    index.add_with_ids(stored, np.arange(ROWS) * 10)
    faiss.write_index(index, str(tmp_path / "corpus.faiss"))
    run(tmp_path / "corpus.faiss", lines, tmp_path / "new.faiss")
    made = faiss.read_index(str(tmp_path / "new.faiss"))
    _, found = made.search(by_hand(stored), 1)
    nearest = found[:, 0] == np.arange(ROWS) * 10
    assert nearest.all() if kind == "Flat" else nearest.mean() > 0.9


def test_an_ivf_index_is_cut_anew_and_keeps_every_vector(tmp_path, stored, lines):
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, 4, faiss.METRIC_INNER_PRODUCT)
    index.train(stored)
    index.add(stored)
    index.nprobe = 3
    faiss.write_index(index, str(tmp_path / "corpus.ivf"))
    run(tmp_path / "corpus.ivf", lines, tmp_path / "new.ivf")
    made = faiss.read_index(str(tmp_path / "new.ivf"))
    assert (made.ntotal, made.nlist, made.nprobe) == (ROWS, 4, 3)
    made.nprobe = 4
    _, found = made.search(by_hand(stored), 1)
    np.testing.assert_array_equal(found[:, 0], np.arange(ROWS))


def test_an_ivf_index_of_fewer_vectors_than_lists_keeps_its_lists(tmp_path, stored, lines):
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, 40, faiss.METRIC_INNER_PRODUCT)
    index.train(stored)
    index.add(stored[:30])
    faiss.write_index(index, str(tmp_path / "corpus.ivf"))
    lines.write_text("\n".join(CODES[:30]))
    run(tmp_path / "corpus.ivf", lines, tmp_path / "new.ivf")
    made = faiss.read_index(str(tmp_path / "new.ivf"))
    made.nprobe = 40
    assert made.ntotal == 30
    assert (made.search(stored[:30], 1)[1] >= 0).all()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    "method",
    [
        Method(), Method(scope="global"), Method("lir", rank=2), Method("lsar"), Method("whiten"),
        Method("shift"),
    ],
)  # fmt: skip
def test_rows_are_turned_as_one_by_one(stored, monkeypatch, method, dtype):
    monkeypatch.setattr(turn_rows, "TILE_BYTES", 4 * WIDTH * 7)
    data = {name: stored[name == NAMES] for name in np.unique(NAMES)}
    turn = method.fit(Moments.of(data, products=True))
    rows = stored.astype(dtype)
    rows[[4, 9]] = 0
    rows[9, 3] = 1
    names = ("deu", "eng", "swh", "und")
    numbers = np.array([names.index(name) for name in NAMES], dtype=np.int32)
    numbers[20] = 3
    made = turned(turn, names, rows, numbers)
    wanted = turn.apply(rows.astype(np.float32), [names[number] for number in numbers])
    wanted[4] = 0  # a row of zeros is no text
    assert made.dtype == dtype
    np.testing.assert_allclose(made, wanted, atol=1e-3 if dtype == "float16" else 1e-5)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_moments_of_stored_rows_are_the_moments(stored, monkeypatch, dtype, products):
    monkeypatch.setattr(turn_rows, "TILE_BYTES", 4 * WIDTH * 7)
    numbers = np.unique(NAMES, return_inverse=True)[1].astype(np.int32)
    rows = stored.astype(dtype)
    made, wanted = (
        Moments.empty(("deu", "eng", "swh", "zul"), WIDTH, products) for _ in range(2)
    )
    for start in (0, 100):
        turn_rows.add_rows(made, rows[start:][:100], numbers[start:][:100])
        wanted.add(rows[start:][:100], numbers[start:][:100])
    np.testing.assert_array_equal(made.counts, wanted.counts)
    np.testing.assert_allclose(made.sums, wanted.sums, atol=1e-5)
    np.testing.assert_allclose(made.squares, wanted.squares, rtol=1e-6)
    if products:
        np.testing.assert_allclose(made.products, wanted.products, atol=1e-6)


def test_numbers_whose_squares_no_float32_holds_are_turned(stored):
    turn = methods.centre({"eng": stored})
    rows = np.concatenate([1e30 * stored[:2], stored[2:4]])
    made = turned(turn, ("eng",), rows, np.zeros(4, np.int32))
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(made[:2], methods.unit_rows(stored[:2]), atol=1e-5)
    moments, wanted = (Moments.empty(("eng",), WIDTH) for _ in range(2))
    turn_rows.add_rows(moments, rows, np.zeros(4, np.int32))
    wanted.add(rows, np.zeros(4, np.int32))
    np.testing.assert_allclose(moments.sums, wanted.sums, rtol=1e-5)
    rows[3, 5] = np.inf
    for products in (False, True):
        moments = Moments.empty(("eng",), WIDTH, products)
        with pytest.raises(NotFinite, match="row 3"):
            turn_rows.add_rows(moments, rows, np.zeros(4, np.int32))
    with pytest.raises(NotFinite, match="row 3"):
        turned(turn, ("eng",), rows, np.zeros(4, np.int32))


def test_a_full_disk_is_met_before_the_work(tmp_path, stored, lines, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    np.save(tmp_path / "corpus.npy", stored)
    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"[Nn]o space"):
        run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    assert not (tmp_path / "new.npy").exists()


def test_a_stopped_run_goes_on_where_it_was(tmp_path, stored, lines, monkeypatch):
    np.save(tmp_path / "corpus.npy", stored)
    turn = RowTurner.turn
    blocks = []

    def stopping(self, vectors, numbers):
        if len(blocks) == 3:
            raise KeyboardInterrupt
        blocks.append(len(vectors))
        return turn(self, vectors, numbers)

    monkeypatch.setattr(RowTurner, "turn", stopping)
    with pytest.raises(Interrupted, match="same command to go on"):
        run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    assert not (tmp_path / "new.npy").exists()
    monkeypatch.setattr(
        RowTurner,
        "turn",
        lambda self, *given: (blocks.append(len(given[0])), turn(self, *given))[1],
    )
    reporter = RecordingReporter()
    run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy", reporter)
    assert blocks == [50, 50, 50, 50, 30]
    assert any("continuing after 150 of 230" in note for note in reporter.notes)
    np.testing.assert_allclose(np.load(tmp_path / "new.npy"), by_hand(stored), atol=1e-6)


def stop_at_the_end(folder, lines, monkeypatch):
    """A run that is stopped when all vectors are rewritten, and the result is not put in place."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "_put", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(Interrupted):
            run(folder / "corpus.npy", lines, folder / "new.npy")


def test_work_of_other_vectors_is_not_taken_up(tmp_path, stored, lines, monkeypatch):
    np.save(tmp_path / "corpus.npy", stored)
    stop_at_the_end(tmp_path, lines, monkeypatch)
    other = stored[::-1].copy()
    np.save(tmp_path / "corpus.npy", other)
    run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    np.testing.assert_allclose(np.load(tmp_path / "new.npy"), by_hand(other), atol=1e-6)


def test_rewritten_vectors_that_are_damaged_are_rewritten(tmp_path, stored, lines, monkeypatch):
    np.save(tmp_path / "corpus.npy", stored)
    stop_at_the_end(tmp_path, lines, monkeypatch)
    path = tmp_path / ".new.npy.debiasing" / "vectors.part"
    raw = bytearray(path.read_bytes())
    raw[module.NPY_HEAD + 120 * WIDTH * stored.itemsize] ^= 1  # in the third block of 50 rows
    path.write_bytes(raw)
    reporter = RecordingReporter()
    run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy", reporter)
    assert any("continuing after 100 of 230" in note for note in reporter.notes)
    run(tmp_path / "corpus.npy", lines, tmp_path / "undamaged.npy")
    assert (tmp_path / "new.npy").read_bytes() == (tmp_path / "undamaged.npy").read_bytes()


@pytest.mark.parametrize("name", ["progress.json", "language_vectors.safetensors"])
def test_work_that_is_damaged_is_done_anew(tmp_path, stored, lines, monkeypatch, name):
    np.save(tmp_path / "corpus.npy", stored)
    stop_at_the_end(tmp_path, lines, monkeypatch)
    path = tmp_path / ".new.npy.debiasing" / name
    path.write_bytes(path.read_bytes().replace(b"230", b"23")[:-3])
    reporter = RecordingReporter()
    run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy", reporter)
    assert any("left damaged files" in note for note in reporter.notes)
    np.testing.assert_allclose(np.load(tmp_path / "new.npy"), by_hand(stored), atol=1e-6)


def test_work_of_another_process_stays(tmp_path, stored, lines):
    np.save(tmp_path / "corpus.npy", stored)
    work = tmp_path / ".new.npy.debiasing"
    work.mkdir()
    write_json(work / "progress.json", {"job": {"other": 1}, "sums": ["0"]}, sealed=True)
    (work / "vectors.part").write_bytes(b"rows")
    with FileLock(work / "lock"), pytest.raises(OutputError, match="another process"):
        run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    assert (work / "vectors.part").read_bytes() == b"rows"
    assert (work / "progress.json").is_file()


@pytest.mark.parametrize(("row", "length"), [(0, 3.0), (ROWS - 1, 0.5)])
def test_a_vector_of_another_length_is_told_wherever_it_is(
    tmp_path, stored, lines, row, length
):
    stored[row] *= length
    stored[7] = 0
    np.save(tmp_path / "corpus.npy", stored)
    reporter = RecordingReporter()
    run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy", reporter)
    (told,) = [text for text in reporter.warnings if "length" in text]
    assert f"such as {length:.3g}" in told
    lengths = np.linalg.norm(np.load(tmp_path / "new.npy"), axis=1)
    np.testing.assert_allclose(np.delete(lengths, 7), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [("folder.npy", "is a folder"), ("new.parquet", "in .npy"), ("corpus.npy", "itself")],
)
def test_a_result_that_cannot_be_put_there_is_refused_first(
    tmp_path, stored, lines, name, said
):
    np.save(tmp_path / "corpus.npy", stored)
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(OutputError, match=said):
        run(tmp_path / "corpus.npy", lines, tmp_path / name)
    assert not list(tmp_path.glob(".*"))


def test_vectors_without_a_language_and_zero_vectors(tmp_path, stored):
    stored[5] = 0
    np.save(tmp_path / "corpus.npy", stored)
    codes = list(CODES)
    codes[7] = "und"
    (tmp_path / "ids.txt").write_text("\n".join(codes))
    reporter = RecordingReporter()
    folder = run(tmp_path / "corpus.npy", tmp_path / "ids.txt", tmp_path / "new.npy", reporter)
    made = np.load(tmp_path / "new.npy")
    np.testing.assert_array_equal(made[5], 0)
    whole = read_vectors(folder).sides["passage"].offsets[methods.EVERY]
    np.testing.assert_allclose(made[7:8], methods.unit_rows(stored[7:8] - whole), atol=1e-6)
    assert any("1 vectors have no language" in text for text in reporter.warnings)


def test_given_language_vectors_are_used_as_they_are(tmp_path, stored, lines):
    np.save(tmp_path / "corpus.npy", stored)
    folder = run(tmp_path / "corpus.npy", lines, tmp_path / "one.npy")
    index = open_index(tmp_path / "corpus.npy")
    rewrite(
        index,
        read_row_languages(lines, ROWS),
        tmp_path / "two.npy",
        vectors=read_vectors(folder),
    )
    np.testing.assert_array_equal(np.load(tmp_path / "one.npy"), np.load(tmp_path / "two.npy"))


WIDTHS = [[1.0, 2.0, 3.0]] * 100 + [[1.0, 2.0]] * (
    ROWS - 100
)  # the second row group is narrower
EMPTY = pa.array([[]] * ROWS, pa.list_(pa.float32()))


def _write_table(path: Path, vectors: np.ndarray) -> None:
    pq.write_table(pa.table({"vector": vectors.tolist()}), path)


def _put_in(path: Path, at: int, what: bytes) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:at] + what + raw[at + len(what) :])


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("corpus.npy", lambda p, v: None, "does not exist"),
        ("corpus.npy", lambda p, v: p.write_bytes(b"nothing"), "damaged"),
        ("corpus.npy", lambda p, v: (np.save(p, v), p.write_bytes(p.read_bytes()[:-99])), "damaged"),
        ("corpus.npy", lambda p, v: np.save(p, v[0]), "not vectors"),
        ("corpus.npy", lambda p, v: np.save(p, v.astype(int)), "int64 numbers"),
        ("corpus.npy", lambda p, v: np.save(p, np.array([{}], dtype=object), True), "damaged"),
        ("corpus.npy", lambda p, v: np.save(p, np.where(v == v[60, 0], np.nan, v)), "vector 60 holds"),
        ("corpus.npy", lambda p, v: (np.save(p, v), _put_in(p, p.read_bytes().find(b"("), b"[")), "damaged"),
        ("corpus.parquet", lambda p, v: p.write_bytes(b"PAR1"), "damaged"),
        ("corpus.parquet", lambda p, v: (_write_table(p, v), _put_in(p, 4, b"\xff")), "damaged"),
        ("corpus.parquet", lambda p, v: (_write_table(p, v), _put_in(p, 40, b"\xff" * 8)), "damaged"),
        ("corpus.parquet", lambda p, v: pq.write_table(pa.table({"x": [1]}), p), "no column 'vector'"),
        ("corpus.parquet", lambda p, v: pq.write_table(pa.table({"vector": [1]}), p), "not lists"),
        ("corpus.parquet", lambda p, v: pq.write_table(pa.table({"vector": [[1.0], [1.0, 2.0]]}), p),
         "row 1 has 2 numbers"),
        ("corpus.parquet", lambda p, v: pq.write_table(pa.table({"vector": [[1.0], None]}), p),
         "row 1 has no"),
        ("corpus.parquet", lambda p, v: pq.write_table(pa.table({"vector": WIDTHS}), p, row_group_size=100),
         r"row 100 has 2 numbers; .* the first \(3\)"),
        ("corpus.parquet", lambda p, v: pq.write_table(pa.table({"vector": EMPTY}), p), "row 0 has 0 numbers"),
        ("corpus.faiss", lambda p, v: p.write_bytes(b"nothing at all"), "damaged"),
        ("corpus.faiss", lambda p, v: write_ivf_with_ids(p, v), "have their own ids"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used_are_named_in_one_line(
    tmp_path, stored, lines, name, make, said
):
    make(tmp_path / name, stored)
    with pytest.raises(DataError, match=said) as error:
        run(tmp_path / name, lines, tmp_path / f"new-{name}")
    assert "\n" not in str(error.value)
    assert not (tmp_path / f"new-{name}").exists()
    assert not list(tmp_path.glob(".*"))


def write_ivf_with_ids(path: Path, stored: np.ndarray) -> None:
    index = faiss.index_factory(WIDTH, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(stored)
    index.add_with_ids(stored, np.arange(1000, 1000 + len(stored)))
    faiss.write_index(index, str(path))


def test_lossy_and_unknown_indexes_are_refused(tmp_path, stored, lines):
    index = faiss.IndexHNSWFlat(WIDTH, 8)
    index.add(stored)
    faiss.write_index(index, str(tmp_path / "corpus.faiss"))
    with pytest.raises(DataError, match="IndexHNSWFlat does not keep"):
        open_index(tmp_path / "corpus.faiss")
    (tmp_path / "corpus.bin").write_bytes(b"1234567")
    with pytest.raises(ConfigError, match="does not show what the file holds"):
        open_index(tmp_path / "corpus.bin")
    with pytest.raises(DataError, match="no whole number of vectors"):
        open_index(tmp_path / "corpus.bin", dimension=3)


def test_lines_that_do_not_fit_are_refused(tmp_path, stored, lines):
    np.save(tmp_path / "corpus.npy", stored)
    lines.write_text("en\nde\n")
    with pytest.raises(DataError, match="has 2 lines, but there are 230 vectors"):
        run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    lines.write_text("\n".join(["en", "blorp", *CODES[2:]]))
    with pytest.raises(DataError, match=r"ids.txt:2: unknown language 'blorp'"):
        run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    lines.write_text("\n".join(["lang", *CODES]))
    with pytest.raises(
        DataError, match=r"231 lines, .* \(the first line is 'lang', the last '[a-z]+'\)"
    ):
        run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    lines.write_text("\n".join(["und"] * ROWS))
    with pytest.raises(DataError, match=r"corpus.npy: no language of its 230 vectors is known"):
        run(tmp_path / "corpus.npy", lines, tmp_path / "new.npy")
    with pytest.raises(DataError, match=r"none.txt: does not exist"):
        run(tmp_path / "corpus.npy", tmp_path / "none.txt", tmp_path / "new.npy")
