import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from hybridbatch.common.errors import DataError
from hybridbatch.debias import methods
from hybridbatch.debias.methods import EVERY
from hybridbatch.debias.relatives import nearest_relatives
from hybridbatch.debias.vectors_file import (
    FACTS,
    TENSORS,
    LanguageVectors,
    read_vectors,
    write_vectors,
)

RNG = np.random.default_rng(7)
DATA = {
    name: methods.unit_rows(RNG.normal(size=(30, 8)) + RNG.normal(size=8)).astype(np.float32)
    for name in ("deu", "eng", "swh", "zul", "rus")
}
MADE = {
    "centre": methods.centre,
    "lir": lambda data: methods.remove_directions(data, 2),
    "lsar": methods.remove_subspace,
    "whiten": methods.whiten,
}


def vectors_of(method: str = "centre") -> LanguageVectors:
    turn = MADE[method](DATA)
    facts = {"model": {"name": "m", "fingerprint": "abc"}, "method": {"name": method}}
    return LanguageVectors({"query": turn, "passage": turn}, facts)


@pytest.mark.parametrize("method", list(MADE))
def test_what_is_read_turns_vectors_as_what_was_written(tmp_path, method):
    made = vectors_of(method)
    read = read_vectors(write_vectors(tmp_path, made))
    for name, rows in DATA.items():
        np.testing.assert_array_equal(
            read.apply(rows, "passage", name), made.apply(rows, "passage", name)
        )
    assert read.facts["model"] == {"name": "m", "fingerprint": "abc"}
    assert read.languages == tuple(DATA)
    for path in (tmp_path, tmp_path / TENSORS, tmp_path / FACTS):
        assert read_vectors(path).dimension == 8


def test_a_subspace_that_all_languages_share_is_stored_once(tmp_path):
    write_vectors(tmp_path, vectors_of("lsar"))
    assert load_file(tmp_path / TENSORS)["passage.directions"].shape == (1, 4, 8)


def test_a_side_without_a_map_is_left_as_it_is(tmp_path):
    made = LanguageVectors({"passage": methods.shift(DATA, "eng")}, {})
    write_vectors(tmp_path, made)
    read = read_vectors(tmp_path)
    np.testing.assert_array_equal(read.apply(DATA["swh"], "query", "swh"), DATA["swh"])
    assert np.abs(read.apply(DATA["swh"], "passage", "swh") - DATA["swh"]).max() > 0.01


def test_a_language_without_text_takes_its_nearest_relatives_and_says_so():
    made = vectors_of()
    offsets = made.sides["passage"].offsets
    expected = DATA["eng"] - (offsets["swh"] + offsets["zul"]) / 2
    np.testing.assert_allclose(
        made.apply(DATA["eng"], "passage", "xho"), methods.unit_rows(expected), atol=1e-6
    )
    (sentence,) = made.tell({"passage": ["eng", "xho", "sna"]})
    assert "no text of xho, sna; using the mean vector of swh, zul" in sentence
    assert "family and script" in sentence


def test_a_language_without_relatives_takes_the_global_vector():
    made = vectors_of()
    expected = DATA["eng"] - made.sides["query"].offsets[EVERY]
    np.testing.assert_allclose(
        made.apply(DATA["eng"], "query", "amh"), methods.unit_rows(expected), atol=1e-6
    )
    assert made.borrowed("query", ["amh"]) == {"amh": "the global one"}
    assert made.borrowed("query", ["klingon"]) == {"klingon": "the global one"}


@pytest.mark.parametrize("method", ["lir", "lsar"])
def test_relatives_lend_the_directions_that_they_have_in_common(method):
    made = vectors_of(method)
    lent = made.apply(DATA["eng"], "passage", "kin")  # swh and zul are its relatives
    assert np.isfinite(lent).all()
    np.testing.assert_allclose(np.linalg.norm(lent, axis=1), 1, atol=1e-5)


def test_the_nearest_relatives_are_found_step_by_step():
    assert nearest_relatives("swh", ("zul", "eng", "fra")) == (("zul",), "family and script")
    assert nearest_relatives("srp", ("rus", "pol")) == (("rus",), "family and script")
    # family alone is no help, as measured
    assert nearest_relatives("hin", ("rus", "pol")) == ((), "")
    assert nearest_relatives("hin-Latn", ("hin", "pol")) == (
        ("hin",), "the language in another script",
    )  # fmt: skip
    assert nearest_relatives("tha", ("rus", "pol")) == ((), "")


def damage_json(folder, **changes):
    facts = json.loads((folder / FACTS).read_text())
    facts.pop("checksum")
    (folder / FACTS).write_text(json.dumps({**facts, **changes}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / FACTS).unlink(), "does not exist"),
        (lambda f: (f / TENSORS).unlink(), "does not exist"),
        (lambda f: (f / TENSORS).write_bytes((f / TENSORS).read_bytes()[:-9]), "sha256 differs"),
        (lambda f: (f / FACTS).write_text("{"), "not valid JSON"),
        (lambda f: (f / FACTS).write_text("[]"), "is not the description of language vectors"),
        (lambda f: damage_json(f, kind="eval"), "is not the description of language vectors"),
        (lambda f: damage_json(f, sha256=3), "sha256: input should be a valid string"),
        (lambda f: damage_json(f, model=["m"]), "model: input should be a valid dictionary"),
        (lambda f: damage_json(f, method="centre"), "method: input should be"),
        (lambda f: (f / FACTS).write_text((f / FACTS).read_text().replace("swh", "eng", 1)), "damaged"),
        (lambda f: (f / FACTS).write_bytes(b"\xff" + (f / FACTS).read_bytes()), "UTF-8"),
        (lambda f: (f / TENSORS).write_bytes(b""), "sha256 differs"),
        (lambda f: damage_json(f, schema_version=9), "schema version 9"),
        (lambda f: damage_json(f, sides={}), "names neither queries nor passages"),
        (lambda f: damage_json(f, sides={"query": {"languages": ["eng"]}}), "does not fit"),
        (lambda f: damage_json(f, sides={"query": {}}), "sides.query.languages: field required"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_in_one_line(tmp_path, damage, said):
    write_vectors(tmp_path, vectors_of())
    damage(tmp_path)
    with pytest.raises(DataError, match=said) as error:
        read_vectors(tmp_path)
    assert "\n" not in str(error.value)


def test_vectors_of_an_earlier_version_without_a_checksum_are_read(tmp_path):
    write_vectors(tmp_path, vectors_of())
    damage_json(tmp_path)
    assert read_vectors(tmp_path).languages == tuple(DATA)


def test_another_file_and_another_model_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no language vectors"):
        read_vectors(tmp_path / "vectors.npy")
    with pytest.raises(DataError, match="estimate them with"):
        vectors_of().require_model("def", "other")
    vectors_of().require_model("abc", "m")
