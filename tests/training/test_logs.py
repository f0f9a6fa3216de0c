"""Logs go where the settings say; packages are asked for only then."""

import json
import sys
import types

import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.training.logs import grouped, open_log
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train


def test_none_writes_nothing(tmp_path):
    with open_log(tmp_path, TrainConfig(log_to="none"), 0) as log:
        log({"step": 1, "loss": 0.5})
    assert not list(tmp_path.iterdir())


def test_jsonl_goes_on_after_the_steps_that_count(tmp_path):
    for done, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with open_log(tmp_path, TrainConfig(log_to="jsonl"), done) as log:
            for step in steps:
                log({"step": step, "session": done})
    lines = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [(line["step"], line["session"]) for line in lines] == [
        (1, 0),
        (2, 0),
        (3, 2),
        (4, 2),
    ]


def test_a_damaged_line_is_named(tmp_path):
    path, settings = tmp_path / "steps.jsonl", TrainConfig(log_to="jsonl")
    with open_log(tmp_path, settings, 0) as log:
        for step in (1, 2):
            log({"step": step, "loss": 0.5})
    raw = path.read_bytes()
    for place in range(
        0, 8 * (len(raw) - 1), 7
    ):  # but the last line feed, which may be missing
        content = bytearray(raw)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with (
            pytest.raises(DataError, match=r"steps\.jsonl:[12]"),
            open_log(tmp_path, settings, 2),
        ):
            pass
    path.write_bytes(b'{"step": 1}\n' + raw + b'{"step": 3, "lo')  # of an earlier version; cut
    with open_log(tmp_path, settings, 1):
        pass
    assert path.read_bytes() == b'{"step": 1}\n' + raw.splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("target", "package"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, target, package):
    monkeypatch.setitem(sys.modules, package, None)
    with (
        pytest.raises(ConfigError, match=f"pip install {target}"),
        open_log(tmp_path, TrainConfig(log_to=target), 0),
    ):
        pass


def test_a_missing_package_is_refused_before_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="not installed"):
        train(TrainConfig(log_to="wandb", data="nowhere", model="nothing"))


RECORD = {
    "step": 4,
    "kind": "monolingual",
    "loss": 0.5,
    "lr": 1e-5,
    "pairs/s": 9.0,
    "of peak": 0.7,
}
GROUPED = {
    "loss/all batches": 0.5,
    "loss/monolingual": 0.5,
    "optimisation/lr": 1e-5,
    "rates/pairs per second": 9.0,
    "rates/of peak": 0.7,
}


def test_numbers_are_grouped():
    assert grouped(RECORD) == GROUPED
    assert grouped({"step": 4, "validation/loss": 1.5}) == {"validation/loss": 1.5}


def test_wandb_gets_every_step_under_the_runs_name(tmp_path, monkeypatch):
    calls = []
    session = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        finish=lambda: calls.append("finished"),
    )
    fake = types.SimpleNamespace(init=lambda **settings: calls.append(settings) or session)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with open_log(tmp_path / "my-run", TrainConfig(log_to="wandb", mix=0.25), 0) as log:
        log(RECORD)
    assert calls[0]["name"] == "my-run"
    assert calls[0]["config"]["mix"] == 0.25
    assert calls[1:] == [(4, GROUPED), "finished"]


def test_only_a_resumed_run_keeps_its_id_at_wandb(tmp_path, monkeypatch):
    ids = []
    session = types.SimpleNamespace(finish=lambda: None)
    fake = types.SimpleNamespace(init=lambda id, **settings: ids.append(id) or session)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for folder, done in (("a/run", 0), ("a/run", 5), ("b/run", 0), ("a/run", 0)):
        with open_log(tmp_path / folder, TrainConfig(log_to="wandb"), done):
            pass
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.package("tensorboard")
def test_tensorboard_gets_the_numbers_and_the_settings(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_log(tmp_path, TrainConfig(log_to="tensorboard", mix=0.25), 3) as log:
        log(RECORD)
        log({"step": 4, "validation/loss": 1.5})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {*GROUPED, "validation/loss"}
    assert events.Scalars("loss/monolingual")[0].step == 4
    told = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"mix" in told
