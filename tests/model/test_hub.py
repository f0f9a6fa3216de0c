"""Loading by hub id, through the unmodified clients, from a mirror on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from huggingface_hub import errors

from hybridbatch.common import retries
from hybridbatch.common.errors import ModelError
from hybridbatch.model import Encoder, loading
from hybridbatch.model.loading import locate, needed_files
from tests.helpers.recording import RecordingReporter
from tests.helpers.tiny import write_tiny_model

REPOSITORY = Path(__file__).parents[2]
# huggingface_hub reads its environment when it is imported, so each load is a process of its own.
LOAD = """
import sys
from hybridbatch.common.errors import HybridBatchError
from hybridbatch.model import Encoder
for name in sys.argv[1:]:
    try:
        encoder = Encoder.load(name)
        print(encoder.fingerprint(), encoder.commit)
    except HybridBatchError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_tiny_model(folder / "models" / "acme" / "tiny", "xlm-roberta")
    headless = folder / "models" / "acme" / "no-model"
    headless.mkdir()
    (headless / "README.md").write_text("nothing here")
    return folder


@pytest.fixture(scope="module")
def mirror(hub_mirror: ModuleType, root: Path) -> Iterator[str]:
    with hub_mirror.HubMirror(root) as url:
        yield url


def load(url: str, cache: Path, *names: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *names],
        env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1",
             "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        cwd=REPOSITORY, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_loading_by_id_pinning_and_failing(mirror: str, root: Path, tmp_path: Path):
    expected = Encoder.load(str(root / "models" / "acme" / "tiny")).fingerprint()
    pinned = "0123456789abcdef0123456789abcdef01234567"
    names = (
        "acme/tiny",
        f"acme/tiny@{pinned}",
        "acme/nothing",
        "acme/tiny@refs/pr/1",
        "acme/no-model",
        "acme/e5 small",
    )
    by_id, by_revision, unknown, revision, no_model, invalid = load(mirror, tmp_path, *names)
    assert by_id.split()[0] == expected
    assert len(by_id.split()[1]) == 40
    assert by_revision.split() == [expected, pinned]
    assert unknown == "acme/nothing: no folder and no public model of the hub has this name"
    assert revision == "acme/tiny@refs/pr/1: the model on the hub has no such revision"
    assert (
        no_model
        == "acme/no-model: the repository on the hub has no config.json, so it holds no transformers model"
    )
    assert (
        invalid
        == "acme/e5 small: is neither a folder nor a possible hub id (did you mean e5-small-q4?)"
    )

    # What is in the cache needs no network; the rest says so.
    cached, absent = load(mirror, tmp_path, "acme/tiny", "acme/other", HF_HUB_OFFLINE="1")
    assert cached == by_id
    assert absent.startswith(
        "acme/other: no folder has this name, it is not in the hub's local cache, and the hub"
        " cannot"
    )


@pytest.mark.parametrize(
    ("kind", "status", "said"),
    [
        (
            errors.GatedRepoError,
            403,
            "is gated; ask for access on its page on the hub, then set HF_TOKEN",
        ),
        (
            errors.HfHubHTTPError,
            503,
            "cannot be fetched from the hub (busy); what was fetched is kept; run the same command"
            " again later",
        ),
    ],
)
def test_refusals_of_the_hub_say_what_to_do(
    kind: type, status: int, said: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_, **__):
        raise kind(
            "busy", response=SimpleNamespace(headers={}, request=None, status_code=status)
        )

    monkeypatch.setattr(retries, "PAUSES", (0.0,))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", refuse)
    with pytest.raises(ModelError) as caught:
        Encoder.load("acme/closed")
    assert str(caught.value) == f"acme/closed: {said}"


@pytest.mark.slow  # the hub's client tries for half a minute
def test_an_unreachable_hub_is_one_line(tmp_path: Path):
    (line,) = load("http://127.0.0.1:9", tmp_path, "acme/tiny")
    assert line.startswith(
        "acme/tiny: no folder has this name, it is not in the hub's local cache, and the hub cannot"
        " be"
    )
    assert "e5-small-q4" in line


def test_faults_keep_no_model_away_and_a_cached_one_needs_no_hub(
    hub_mirror: ModuleType, root: Path, tmp_path: Path
):
    expected = Encoder.load(str(root / "models" / "acme" / "tiny")).fingerprint()
    faults = {"503": 0.2, "truncate": 0.2}
    with hub_mirror.HubMirror(root, faults=faults, seed=1) as url:
        (before,) = load(url, tmp_path, "acme/tiny")
    assert before.split()[0] == expected
    # The hub is gone, but nobody said so: the model in the cache is taken, after one question.
    (after,) = load(url, tmp_path, "acme/tiny")
    assert after == before


@pytest.mark.slow
def test_a_model_of_50_mb_arrives_whatever_breaks(hub_mirror: ModuleType, tmp_path: Path):
    """One answer in five is 503, and one file in five breaks off half-way."""
    folder = write_tiny_model(tmp_path / "root" / "models" / "acme" / "large", hidden=960)
    size = (folder / "model.safetensors").stat().st_size
    assert size > 50e6
    faults = {"503": 0.2, "truncate": 0.2}
    with hub_mirror.HubMirror(tmp_path / "root", faults=faults, seed=7) as url:
        (line,) = load(url, tmp_path / "cache", "acme/large")
    assert line.split()[0] == Encoder.load(str(folder)).fingerprint()


def test_a_half_filled_cache_is_completed_or_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commit = "a" * 40
    folder = tmp_path / "hub" / commit
    folder.mkdir(parents=True)
    files = ["config.json", "model.safetensors", "modules.json"]
    for name in files[:2]:
        (folder / name).touch()

    def fetch(repository: str, name: str, *, revision: str) -> None:
        (folder / name).touch()

    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network")

    def warnings() -> list[str]:
        report = RecordingReporter()
        assert locate(f"acme/tiny@{commit}", report).location == str(folder)
        return report.warnings

    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "snapshot_download", lambda *_, **__: str(folder))
    monkeypatch.setattr(loading, "hf_hub_download", fetch)
    monkeypatch.setattr(loading, "_ask", no_network)
    assert "modules.json" in warnings()[0]
    siblings = [SimpleNamespace(rfilename=name) for name in files]
    info = SimpleNamespace(sha=commit, siblings=siblings)
    monkeypatch.setattr(loading, "_ask", lambda *_, **__: info)
    assert not warnings()
    assert (folder / "modules.json").is_file()
    monkeypatch.setattr(loading, "_ask", no_network)
    assert not warnings()
    (folder / "modules.json").unlink()
    assert warnings()


def test_only_the_files_that_an_encoder_needs_are_fetched():
    files = [
        "README.md", "config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json", "model.safetensors",
        "pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "onnx/config.json", "2_Dense/pytorch_model.bin",
        "modeling.py", "sentencepiece.bpe.model",
    ]  # fmt: skip
    kept = needed_files(files)
    left_out = {"pytorch_model.bin", "tf_model.h5", "onnx/model.onnx", "onnx/config.json"}
    assert set(files) - set(kept) == left_out | {"modeling.py"}
    assert "modeling.py" in needed_files(files, trusted=True)
