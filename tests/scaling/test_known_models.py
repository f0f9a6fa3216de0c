"""Fingerprints of models are kept for the files that a model has."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hybridbatch.common.errors import ModelError
from hybridbatch.common.progress import SILENT, SilentReporter
from hybridbatch.model import Encoder
from hybridbatch.scaling.cells.known_models import model_fingerprint


class Heard(SilentReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_fingerprint_is_computed_once_for_the_same_files(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    first, again = Heard(), Heard()
    found = model_fingerprint(str(model), first)
    assert found == Encoder.load(str(model)).fingerprint()
    load = Encoder.load
    monkeypatch.setattr(Encoder, "load", lambda *_, **__: pytest.fail("loaded again"))
    assert model_fingerprint(str(model), again) == found
    assert again.notes == first.notes

    monkeypatch.setattr(Encoder, "load", load)
    (kept,) = (tmp_path / "cache" / "fingerprints").iterdir()
    written = kept.read_text()
    wrong = found.translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))
    for damaged in ("{", written.replace(found, wrong)):
        kept.write_text(damaged)
        assert model_fingerprint(str(model), SILENT) == found


def test_changed_files_are_read_again(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    first = model_fingerprint(str(model), SILENT)
    modules = model / "1_Pooling" / "config.json"
    modules.write_text(
        modules.read_text().replace(
            '"pooling_mode_mean_tokens": true', '"pooling_mode_cls_token": true'
        )
    )
    assert (
        model_fingerprint(str(model), SILENT) == Encoder.load(str(model)).fingerprint() != first
    )


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        model_fingerprint(str(tmp_path / "absent"), SILENT)


def test_a_sweep_starts_without_torch():
    """Importing torch takes more than a second, before the first cell that needs it."""
    code = (
        "import sys, hybridbatch.scaling.sweep, hybridbatch.scaling.cells.runner\n"
        "import hybridbatch.search.bm25, hybridbatch.data.tasks.registry\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
