"""One flipped bit in any file that is read back is seen, or changes nothing."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hybridbatch.common import integrity
from hybridbatch.common.errors import DataError
from hybridbatch.common.files import read_json, write_json
from hybridbatch.common.records import Row
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.data.store import writer
from hybridbatch.data.store.reader import Store

MEND = "make it again"


def flip_everywhere(path: Path, read: Callable[[], object], flips: int, seed: int = 0) -> int:
    """Flip one bit at a time: `read` gives what it gave before, or a `DataError` that names a file.
    Returns how many were seen.
    """
    integrity.forget()
    expected, raw, seen = read(), path.read_bytes(), 0
    rng = random.Random(seed)
    for _ in range(flips):
        place = rng.randrange(8 * len(raw))
        content = bytearray(raw)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        integrity.forget()
        try:
            found = read()
        except DataError as error:
            seen += path.parent.name in str(error) or path.name in str(error)
        else:
            assert found == expected, (
                f"bit {place} of {path.name} changed the result in silence"
            )
    path.write_bytes(raw)
    integrity.forget()
    assert read() == expected
    return seen


def test_a_sealed_document_is_compared_and_may_be_laid_out_anew(tmp_path):
    path = tmp_path / "result.json"
    value = {"kind": "x", "mAP": [0.605, None, 1e-7], "name": "Köln 🚀 \udc80", "n": 2**60}
    write_json(path, value, sealed=True)
    assert read_json(path) == value
    assert list(json.loads(path.read_text()))[-1] == "checksum"
    path.write_text(json.dumps(json.loads(path.read_text())))  # another layout, the same values
    assert read_json(path) == value
    path.write_bytes(path.read_bytes().replace(b"0.605", b"0.705"))
    with pytest.raises(DataError, match=r"result\.json: is damaged, or was edited.*checksum"):
        read_json(path)
    edited = json.loads(path.read_text())
    del edited["checksum"]
    path.write_text(json.dumps(edited))
    assert read_json(path)["mAP"][0] == 0.705


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_flipped_bits_of_a_document(tmp_path, newline):
    path = tmp_path / "result.json"
    write_json(path, {"a": [1.25, "text"], "b": {"c": None}, "checksums": True}, sealed=True)
    path.write_bytes(path.read_bytes().replace(b"\n", newline.encode()))

    def read() -> object:
        value = read_json(path)
        return {name: value.get(name) for name in ("a", "b", "checksums")}

    assert flip_everywhere(path, read, 400) > 250


@pytest.mark.parametrize("shape", [(1000, 33), (3,), (0, 8)])
def test_flipped_bits_of_an_array(tmp_path, shape):
    path = tmp_path / "x.npy"
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    integrity.save_array(path, array)
    np.testing.assert_array_equal(np.load(path), array)  # NumPy reads it too
    flip_everywhere(
        path, lambda: integrity.load_array(path, MEND, memory_map=True).tolist(), flips=150
    )


def test_an_array_without_checksums_is_read(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(5))
    assert integrity.load_array(tmp_path / "x.npy", MEND).tolist() == [0, 1, 2, 3, 4]
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\x01\x00\x0a\x00{'descr': (")
    with pytest.raises(DataError, match=r"x\.npy: is damaged .*make it again"):
        integrity.load_array(tmp_path / "x.npy", MEND)


def test_the_files_of_a_folder(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "model.safetensors").write_bytes(bytes(100_000))
    (tmp_path / "1_Pooling" / "config.json").write_text("{}")
    assert not integrity.check_sums(tmp_path, MEND)
    integrity.write_sums(tmp_path)
    assert integrity.check_sums(tmp_path, MEND)
    (tmp_path / "1_Pooling" / "config.json").write_text("[]")
    with pytest.raises(DataError, match=r"1_Pooling/config\.json: is damaged"):
        integrity.check_sums(tmp_path, MEND)


def test_weights_in_memory_stand_for_their_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    weights = {"a": np.arange(30, dtype=np.float32), "b": np.ones((2, 3), np.int8)}
    save_file(weights, path)
    expected = integrity.file_checksum(path)
    reads: list[Path] = []
    read = integrity.file_checksum
    monkeypatch.setattr(
        integrity, "file_checksum", lambda path: reads.append(path) or read(path)
    )

    def check(tensors, mended=expected):
        integrity.forget()
        reads.clear()
        integrity.check_tensors(path, mended, tensors, MEND)

    check(weights)
    assert not reads  # the same bytes are in memory
    check({"a": weights["a"]})
    check({**weights, "b": np.zeros((2, 3), np.int8)})
    assert reads == [path]  # a library changed them: the file counts
    raw = path.read_bytes()
    for place in (0, 30, len(raw) - 1):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(DataError, match=r"model\.safetensors: is damaged .*make it again"):
            check(load_file(path) if place > 100 else weights)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        check(weights)


def rows(records: int):
    for number in range(records):
        for language in ("eng", "swh"):
            yield Row(
                "s",
                f"r{number}",
                language,
                f"question {number} {language}" if number % 5 else None,
                f"passage {number // 2} {language} " + "x" * (number % 60),
                tuple(f"negative {i} {number}" for i in range(number % 3)),
            )


def everything(folder: Path) -> list[object]:
    """All that commands read of prepared data; the rows at random, and in order."""
    store = Store.open(folder)
    found: list[object] = [store.manifest]
    for split in store.splits:
        index = store.index(split)
        found += [index.group.tolist(), index.language.tolist(), index.record_start.tolist()]
        found.append(store.rows(split, np.random.default_rng(1).integers(0, index.rows, 9)))
        found.append(store.rows(split, np.arange(index.rows)))
        tokens = store.tokens(split, "passage", tokenise=code_points, key="toy")
        found += [tokens.take(np.arange(5)).ids.tolist(), tokens.lengths.tolist()]
        found.append(tokens.take(np.arange(index.rows)).ids.tolist())
    return found


def code_points(texts, side) -> TokenArrays:
    return TokenArrays.of([[ord(letter) for letter in text] for text in texts])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "BLOCK_ROWS", 60)
        writer.write_store(
            folder, rows(120), provenance={}, validation_share=0.2, shard_rows=100
        )
    everything(folder)
    return folder


def test_flipped_bits_of_every_file_of_prepared_data(prepared):
    files = [
        path for path in sorted(prepared.rglob("*")) if path.is_file() and path.stat().st_size
    ]
    assert len(files) > 15
    for path in files:
        flip_everywhere(path, lambda: everything(prepared), flips=8)


def test_only_what_is_read_is_compared(tmp_path):
    folder = tmp_path / "data"
    long = (
        Row(
            "s", f"r{number:03}", "eng", f"question {number}", f"passage {number} " + "y" * 2000
        )
        for number in range(100)
    )
    writer.write_store(folder, long, provenance={}, validation_share=0)
    (shard,) = folder.glob("*.arrow")
    content = bytearray(shard.read_bytes())
    content[content.index(b"passage 99")] ^= 1
    shard.write_bytes(content)
    store = Store.open(folder)  # opens at once, and reads what is whole
    rows = np.arange(100)
    damaged = store.record_ids("train", rows).index("r099")
    far = rows[abs(rows - damaged) > 20]
    assert len(store.passages("train", far)) == len(far)
    with pytest.raises(
        DataError, match=r"train-00000.arrow: is damaged .bytes .* have changed"
    ):
        store.passages("train", rows)


def test_data_of_earlier_versions_is_read_and_given_checksums(prepared, tmp_path):
    folder = Path(shutil.copytree(prepared, tmp_path / "data"))
    expected = everything(folder)[1:]
    manifest = read_json(folder / "manifest.json")
    del manifest["checksums"]
    write_json(folder / "manifest.json", manifest)
    (folder / "checksums").unlink()
    store = Store.open(folder)
    assert not store.has_checksums
    store.verify()
    assert everything(folder)[1:] == expected
    writer.add_sums(store)
    assert Store.open(folder).has_checksums
    assert everything(folder)[1:] == expected
    assert Store.open(folder).fingerprint == store.fingerprint


@pytest.mark.parametrize("sources", [{}, [{}], ["s"], 3])
def test_a_manifest_whose_sources_have_another_shape_is_refused(sources, tmp_path):
    writer.write_store(tmp_path / "data", rows(4), provenance={}, validation_share=0)
    path = tmp_path / "data" / "manifest.json"
    manifest = read_json(path)
    write_json(path, {**manifest, "provenance": {"sources": sources}})
    with pytest.raises(
        DataError, match=r"manifest\.json: cannot be used .*provenance\.sources"
    ):
        Store.open(tmp_path / "data")
