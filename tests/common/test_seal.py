"""The checksum in the last line of the project's JSON."""

import pytest

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import read_json, write_json


def test_every_flipped_bit_of_sealed_json_is_seen(tmp_path):
    path, value = tmp_path / "a.json", {"kind": "a", "mean": 0.25, "names": ["eng", "swh"]}
    write_json(path, value, sealed=True)
    raw = path.read_bytes()
    assert read_json(path) == value
    changed = []
    for place in range(8 * len(raw)):
        content = bytearray(raw)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            changed += [place] if read_json(path) != value else []
        except DataError:
            continue
    assert not changed


def test_json_without_a_checksum_is_read_as_it_is(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n "kind": "a",\n "revision": "0123456789abcdef01234567"\n}\n')
    assert read_json(path)["kind"] == "a"
    write_json(path, {"kind": "a"}, sealed=True)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], ' "kind": "b"', lines[-1]]))  # an edit, as documented
    assert read_json(path) == {"kind": "b"}
    path.write_text("\n".join([lines[0], ' "kind": "b",', *lines[2:]]))
    with pytest.raises(DataError, match="checksum does not fit"):
        read_json(path)
