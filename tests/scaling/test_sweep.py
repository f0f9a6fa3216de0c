"""A sweep is a list of content-addressed cells, each done once, whatever happens in between."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError, DataError, OutputError
from hybridbatch.common.files import make_folder, read_json, write_json
from hybridbatch.common.settings import build
from hybridbatch.scaling.analysis import Sweep
from hybridbatch.scaling.cells.folder import SweepFolder, execute
from hybridbatch.scaling.cells.grid import FIRST_DEFAULTS, nested_order, plan_cells, spread
from hybridbatch.scaling.check import check_cells
from hybridbatch.scaling.settings import SweepConfig
from hybridbatch.scaling.sweep import (
    _overview,
    _told_apart,
    dry_run,
    run_sweep,
    status,
    varying,
)
from hybridbatch.training.settings import TrainConfig
from tests.helpers import synthetic
from tests.helpers.recording import RecordingReporter
from tests.helpers.synthetic import LANGUAGES, facts, sweep_config

RECORDS = 4000
OLD = "; ".join(f"{name}={first}" for name, first in FIRST_DEFAULTS.items())
EARLIER_KEYS = ["a4624b6759fddb7e", "6197e393d36577b0", "bc191421c19c17f9"]


def cells_of(**changes):
    return plan_cells(sweep_config(**changes), facts())


def test_axes_are_written_as_text():
    config = build(
        SweepConfig,
        None,
        {"pairs": "500,2k,1.5M,all", "train_languages": "ar,zh;4;family:Bantu"},
    )
    assert config.pairs == (500, 2000, 1_500_000, None)
    assert config.train_languages == ("ar,zh", 4, "family:Bantu")
    assert build(SweepConfig, None, {"train_languages": "2,4"}).train_languages == (2, 4)
    assert build(SweepConfig, None, {"set": "learning_rate=1e-5,3e-5; margin=0.1"}).set == {
        "learning_rate": ("1e-5", "3e-5"), "margin": ("0.1",)
    }  # fmt: skip


def test_the_grid_is_the_product_of_its_axes_and_the_untrained_models():
    cells = cells_of(seeds="13,14", model="e5-small-q4,labse")
    assert len(cells) == 3 * 2 * 2 * 2 + 2
    assert [cell.axes["model"] for cell in cells if cell.train is None] == [
        "e5-small-q4",
        "labse",
    ]
    assert len({cell.key for cell in cells}) == len(cells)
    assert sweep_config(seeds="13,14", model="e5-small-q4,labse").cells == 24


def test_targets_are_evaluated_and_kept_out_of_training():
    for cell in cells_of():
        assert cell.evaluation.languages == "swh,zul"
        assert cell.train is None or cell.train.languages == "eng,deu,fin,yor,hin"
    assert cells_of(allow_seen=True)[1].train.languages == ",".join(LANGUAGES)


def test_numbers_of_languages_are_nested_sets_the_best_resourced_first():
    assert nested_order(["yor", "swh", "eng", "fin", "hin"])[:2] == ["eng", "fin"]
    sets = {
        cell.axes["train_languages"]: cell.train.languages.split(",")
        for cell in cells_of(train_languages="2,3,5")[1:]
    }
    assert [len(codes) for codes in sets.values()] == [2, 3, 5]
    assert set(sets[2]) < set(sets[3]) < set(sets[5])
    assert "deu" in sets[2]


def test_a_key_changes_with_all_that_determines_the_result_and_nothing_else():
    def key(config=None, **changes):
        return plan_cells(sweep_config(**(config or {})), facts(**changes))[1].key

    assert (
        key()
        == key({"seeds": "13,15"})
        == key({"data_root": "elsewhere"})
        == key({"launcher": "ray"})
    )
    assert key() == key({"pairs": "100,all"}), "a grown grid keeps the keys of its old cells"
    others = [key(data="d2"), key(tasks={"atlas": "t9"}), key(models={"e5-small-q4": "m9"}), key({"steps": "3"}),
              key({"set": "temperature=0.1"}), key({"languages": "swh"})]  # fmt: skip
    assert len({key(), *others}) == 7


def test_cells_are_scored_as_parallel_as_the_sweep_says():
    assert {cell.evaluation.parallel for cell in cells_of(parallel="no")} == {"no"}
    keys = {
        choice: [cell.key for cell in cells_of(parallel=choice)] for choice in ("auto", "no")
    }
    assert keys["auto"] == [cell.key for cell in cells_of()]
    assert not set(keys["auto"]) & set(keys["no"])


def test_a_setting_that_came_later_keeps_the_keys_of_older_cells():
    keys = [cell.key for cell in cells_of(set=OLD)]
    assert keys[:3] == EARLIER_KEYS
    assert not set(keys[1:]) & {cell.key for cell in cells_of(set=f"lora_rank=4; {OLD}")}


def test_a_default_that_changed_leaves_the_old_value_its_keys_and_gives_the_new_one_its_own():
    for name, first in FIRST_DEFAULTS.items():
        assert getattr(TrainConfig(), name) != first, f"else drop {name} from FIRST_DEFAULTS"
    old = {cell.key for cell in cells_of(set=OLD)[1:]}
    new = {cell.key for cell in cells_of()[1:]}
    named = {cell.key for cell in cells_of(set="temperature=auto; learning_rate=2e-5")[1:]}
    assert new == named
    assert not old & new


def test_cells_are_scored_at_the_lengths_of_their_training_and_so_is_their_start():
    cells = cells_of(set="max_passage_tokens=64,96")
    starts = [cell for cell in cells if cell.train is None]
    assert [cell.evaluation.max_passage_tokens for cell in starts] == [64, 96]
    assert all(
        cell.evaluation.max_passage_tokens == cell.train.max_passage_tokens
        for cell in cells
        if cell.train
    )


def test_all_records_and_their_number_are_one_cell():
    assert len(cells_of(pairs=f"{RECORDS},all")) == len(cells_of(pairs="all"))


def test_epochs_become_steps():
    cells = plan_cells(build(SweepConfig, None, {"languages": "swh", "mix": "1", "pairs": "10,50", "batch_size": "4",
                                                "epochs": "2", "seeds": "1"}), facts())[1:]  # fmt: skip
    assert {cell.axes["pairs"]: cell.train.steps for cell in cells} == {10: 5, 50: 25}


def test_any_training_setting_can_be_an_axis():
    cells = cells_of(set="learning_rate=1e-5,3e-5")[1:]
    assert len(cells) == 24
    assert (
        {cell.axes["learning_rate"] for cell in cells}
        == {cell.train.learning_rate for cell in cells}
        == {1e-5, 3e-5}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_languages": "swh,eng"}, "names targets of the evaluation \\(swh\\)"),
        ({"train_languages": "7"}, "ask for 1 to 5"),
        (
            {"train_languages": "1"},
            "cross-lingual batches, but train_languages = 1 has one language only",
        ),
        ({"languages": "all"}, "give --allow-seen"),
        ({"languages": "swh,fra"}, "fra"),
        ({"pairs": "4001"}, "has 4000 training records"),
        ({"pairs": "3"}, "batch_size = 4 is more than pairs = 3"),
        ({"mix": "1.5"}, "mix = 1.5"),
        ({"mix": "0,0"}, "names a value twice"),
        ({"mix": ""}, "has no value"),
        ({"pairs": "5x"}, "'5x' is not a size"),
        ({"epochs": "1"}, "give one of them"),
        ({"budget": "soon"}, "not a duration"),
        ({"set": "mix=0.5"}, "use --mix"),
        ({"set": "learning_rat=1"}, "did you mean learning_rate"),
        ({"set": "learning_rate=fast"}, "learning_rate"),
    ],
)
def test_contradictions_are_one_clear_line(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        cells_of(**changes)
    assert "\n" not in str(caught.value)


def test_any_beginning_of_the_spread_order_covers_the_grid():
    cells = cells_of(mix="0,0.25,0.5,0.75,1", pairs="100,200,300,400,500", seeds="13")[1:]
    order = spread(cells)
    assert sorted(cell.key for cell in order) == sorted(cell.key for cell in cells)
    corners = {(cell.axes["mix"], cell.axes["pairs"]) for cell in order[:5]}
    assert {(0, 100), (1, 500), (0, 500), (1, 100)} <= corners
    lists = [
        replace(cell, axes={**cell.axes, "dims": [8, 4] if number % 2 else [16]})
        for number, cell in enumerate(cells)
    ]
    assert {cell.key for cell in spread(lists)} == {cell.key for cell in cells}


def results(folder):
    """Every result file with its content; times of day and durations taken out."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.suffix == ".parquet":
            found[path.relative_to(folder)] = path.read_bytes()
        elif path.is_file():
            found[path.relative_to(folder)] = path.read_text().replace(str(folder), "")
    return found


def sweep(out, runner=synthetic.run, **changes):
    return run_sweep(sweep_config(out=out, **changes), runner=runner, facts=facts())


def test_a_sweep_writes_one_json_per_cell_and_a_summary(tmp_path):
    folder = sweep(tmp_path / "s")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] == len(list((folder / "cells").glob("*.json"))) == 13
    assert summary["missing"] == []
    for row in summary["cells"]:
        cell = json.loads((folder / "cells" / f"{row['key']}.json").read_text())
        assert (cell["schema_version"], cell["kind"], cell["key"]) == (1, "cell", row["key"])
        by_language = cell["eval"]["tasks"][0]["settings"]["cross-lingual"]
        mean = sum(values["mAP"] for values in by_language.values()) / len(by_language)
        assert row["atlas cross-lingual mAP"] == pytest.approx(mean)
    assert (folder / "summary.csv").read_text().count("\n") == 14
    assert not list((folder / "work").iterdir())


def test_a_second_run_computes_nothing_and_a_grown_grid_only_what_is_new(tmp_path):
    done = []

    def runner(cell, work):
        done.append(cell.key)
        return synthetic.run(cell, work)

    sweep(tmp_path / "s", runner)
    assert len(done) == 13
    sweep(tmp_path / "s", runner)
    assert len(done) == 13
    sweep(tmp_path / "s", runner, pairs="100,200,400")
    assert len(done) == len(set(done)) == 19


@pytest.mark.parametrize(
    "setting",
    [
        {"source_weights": [{"ntrex": 1}, {"ntrex": 2, "mkqa": 0.5}]},
        {"matryoshka_dims": [[64], [64, 128]]},
    ],
)
def test_settings_that_are_mappings_or_lists_can_be_axes(tmp_path, setting):
    sweep(tmp_path / "s", pairs="100", set=setting)
    (name,) = setting
    found = Sweep.open(tmp_path / "s")
    trained = found.trained
    assert len(trained) == 12
    assert found.frame()[name].nunique() == 2
    assert len({cell["axes"][name] for cell in trained}) == 2


def test_finished_cells_are_shared_between_sweeps(tmp_path):
    sweep(tmp_path / "one")
    done = []

    def runner(cell, work):
        done.append(cell.axes["mix"])
        return synthetic.run(cell, work)

    sweep(tmp_path / "two", runner, mix="0,0.25,1", reuse=[tmp_path / "one"])
    assert set(done) == {0.25}
    assert len(list((tmp_path / "two" / "cells").glob("*.parquet"))) == 13


def test_an_interrupted_sweep_ends_with_the_same_files(tmp_path):
    whole = sweep(tmp_path / "whole")
    count = 0

    def interrupted(cell, work):
        nonlocal count
        count += 1
        if count == 5:
            raise SystemExit
        return synthetic.run(cell, work)

    with pytest.raises(SystemExit):
        sweep(tmp_path / "s", interrupted)
    states = [row["state"] for row in status(tmp_path / "s")]
    assert (states.count("done"), states.count("waiting")) == (4, 9)
    again = sweep(tmp_path / "s")
    assert {p: t for p, t in results(again).items() if p.name != "sweep.json"} == {
        p: t for p, t in results(whole).items() if p.name != "sweep.json"
    }


SLOW_SWEEP = """
import sys, time
from dataclasses import replace
from functools import partial
from pathlib import Path
from tests.helpers import synthetic
from hybridbatch.scaling.sweep import run_sweep
def slow(cell, work):
    (work / "half").write_text("written")
    time.sleep(0.3)
    return synthetic.run(cell, work)
run_sweep(synthetic.sweep_config(out=Path(sys.argv[1])), runner=slow, facts=synthetic.facts())
"""


def test_a_sweep_killed_in_the_middle_of_a_cell_ends_with_the_same_files(tmp_path):
    command = [sys.executable, "-c", SLOW_SWEEP, str(tmp_path / "s")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    while len(list((tmp_path / "s" / "cells").glob("*.json"))) < 3:
        assert process.poll() is None
        time.sleep(0.02)
    while "running" not in {row["state"] for row in status(tmp_path / "s")}:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert "running" not in {row["state"] for row in status(tmp_path / "s")}
    again, whole = results(sweep(tmp_path / "s")), results(sweep(tmp_path / "whole"))
    cells = [path for path in whole if path.parts[0] == "cells"]
    assert len(cells) == 26
    assert {path: again[path] for path in cells} == {path: whole[path] for path in cells}


def test_a_cell_that_always_fails_is_set_aside_with_its_log(tmp_path):
    folder = sweep(tmp_path / "s", synthetic.fail_at_half, tries=3)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["finished"] == 9
    assert {entry["mix"] for entry in summary["missing"]} == {0.5}
    assert {row["state"] for row in status(folder)} == {"done", "failed"}
    log = SweepFolder(folder).log(summary["missing"][0]["key"]).read_text()
    assert log.count("RuntimeError: the middle is cursed") == 3
    sweep(tmp_path / "s")  # mended
    assert {row["state"] for row in status(folder)} == {"done"}
    assert not list((folder / "failed").iterdir())


def test_a_full_disk_stops_the_sweep_at_once(tmp_path):
    def full(cell, work):
        raise OutputError("no space left")

    with pytest.raises(OutputError):
        sweep(tmp_path / "s", full)


def test_results_of_another_schema_version_are_refused(tmp_path):
    folder = sweep(tmp_path / "s")
    path = next((folder / "cells").glob("*.json"))
    write_json(path, read_json(path) | {"schema_version": 99}, sealed=True)
    with pytest.raises(DataError, match=r"schema version 99.*reads 1"):
        sweep(tmp_path / "s")


def test_a_huge_grid_asks_first(tmp_path):
    seeds = ",".join(map(str, range(5000)))
    with pytest.raises(ConfigError, match=r"30,000 cells, about 5\.4 hours.*--yes"):
        sweep(tmp_path / "s", seeds=seeds)
    assert not (tmp_path / "s").exists()


def test_a_budget_is_kept_by_measured_cost(tmp_path):
    def runner(cell, work):
        return synthetic.run(cell, work) | {"seconds": {"train": 1000.0, "eval": 0.0}}

    sweep(tmp_path / "s", runner, budget="10m")
    states = [row["state"] for row in status(tmp_path / "s")]
    # the untrained model, and the one whose cost could not be known
    assert states.count("done") == 2


def test_a_dry_run_measures_a_short_run_and_keeps_nothing(tmp_path):
    found = dry_run(sweep_config(out=tmp_path / "s"), runner=synthetic.run, facts=facts())
    assert (found["total"], found["done"]) == (13, 0)
    assert found["cells"][1]["seconds"] == pytest.approx(0.3 * 8 / 12 + 0.2 + 0.25, abs=0.06), (
        "steps, what is around them, eval"
    )
    assert not (tmp_path / "s").exists()
    sweep(tmp_path / "s")
    again = dry_run(
        sweep_config(out=tmp_path / "s", seeds="13,14,15"), runner=synthetic.run, facts=facts()
    )
    assert (again["total"], again["done"], again["measured_on"]) == (
        19,
        13,
        "13 finished cells",
    )


def test_axes_that_no_cell_changes_are_told_once(tmp_path):
    told_apart, same = varying(status(sweep(tmp_path / "s", seeds="13", pairs="100")))
    assert {tuple(row) for row in told_apart} == {("cell", "state", "pairs", "mix")}
    assert [(row["pairs"], row["mix"]) for row in told_apart] == [
        (0, None),
        (100, 0.0),
        (100, 0.5),
        (100, 1.0),
    ]
    assert {"model", "seed", "batch_size"} <= set(same)
    listed = [{"cell": "a", "dims": [8], "few": [2]}, {"cell": "b", "dims": [4], "few": [2]}]
    assert varying(listed) == (
        [{"cell": "a", "dims": [8]}, {"cell": "b", "dims": [4]}],
        {"few": [2]},
    )


def test_worker_processes_give_the_results_of_one_process_though_one_dies(tmp_path):
    folder = sweep(tmp_path / "s", synthetic.die_once, jobs=2, seeds="13", pairs="100")
    whole = sweep(tmp_path / "whole", seeds="13", pairs="100")
    assert len(list(folder.glob("died-*"))) == 1
    for path in (whole / "cells").iterdir():
        assert (folder / "cells" / path.name).read_bytes() == path.read_bytes()


def test_status_of_a_folder_that_is_no_sweep_is_one_line(tmp_path):
    with pytest.raises(DataError, match="not the folder of a sweep"):
        status(tmp_path)


@pytest.mark.parametrize("pid", [2**31, 10**30])
def test_a_damaged_trace_of_a_process_is_no_running_process(tmp_path, pid):
    folder = SweepFolder(tmp_path)
    trace = {"host": socket.gethostname(), "pid": pid, "started": time.time()}
    write_json(make_folder(folder.work("key")) / "process.json", trace)
    assert folder.state("key") == "waiting"


# Doing cells again


@pytest.mark.parametrize("length", [{"steps": "2"}, {"epochs": "0.1"}])
def test_cells_done_again_are_the_same_and_a_changed_record_is_found(tmp_path, length):
    axes = {
        "languages": "swh,zul",
        "mix": "0,0.5,1",
        "pairs": "100,200",
        "batch_size": "4",
        "seeds": "13,14",
    }
    config = build(SweepConfig, None, {**axes, **length, "out": tmp_path})
    folder = run_sweep(config, runner=synthetic.run, facts=facts())
    again = check_cells(folder, 3, seed=1, runner=synthetic.run, facts=facts())
    assert len(again) == 3
    assert all(each.identical and each.within(0) for each in again)
    changed = SweepFolder(folder).result(again[0].cell.key)
    cell = read_json(changed)
    cell["eval"]["tasks"][0]["settings"]["cross-lingual"]["swh"]["mAP"] += 0.05
    write_json(changed, cell)
    first, *others = check_cells(folder, 3, seed=1, runner=synthetic.run, facts=facts())
    assert not first.identical
    assert first.within(0.051)
    assert not first.within(0.049)
    assert all(each.identical for each in others)


def checked_once(folder, **changes):
    """The first check of a sweep whose only trained cell is done again with a changed record."""
    (again,) = check_cells(folder, 1, seed=1, runner=synthetic.run, facts=facts())
    path = SweepFolder(folder).result(again.cell.key)
    cell = read_json(path)
    for place, value in changes.items():
        cell["eval"]["tasks"][0]["settings"]["multilingual"]["swh"][place] *= value
    write_json(path, cell, sealed=True)
    return check_cells(folder, 1, seed=1, runner=synthetic.run, facts=facts())[0]


def test_rank_distance_may_differ_by_a_tenth(tmp_path):
    config = sweep_config(out=tmp_path, mix="0.5", pairs="100", seeds="13")
    folder = run_sweep(config, runner=synthetic.run, facts=facts())
    assert checked_once(folder, rank_distance=1.05).within(0)
    assert not checked_once(folder, rank_distance=1.3).within(0.02)


@pytest.mark.parametrize(
    ("recorded", "other_bits", "said"),
    [
        ({}, True, "not the same bits, on the same kind of machine"),
        (None, False, "not the same bits; the record names no machine"),
        ({"torch": "2.1", "cpu": "Z80"}, False,
         "not the same bits; the record is of another machine: cpu Z80, here 8080, torch 2.1, here 2.13"),
    ],
)  # fmt: skip
def test_other_bits_are_a_fault_only_on_the_same_kind_of_machine(
    tmp_path, monkeypatch, recorded, other_bits, said
):
    run = synthetic.run

    def here(cell, work, changed=()):
        result = run(cell, work)
        if cell.train and changed is not None:
            known = {"cpu": "8080", "threads": 1, "torch": "2.13"} | dict(changed)
            result["train"] |= {"hardware": known, "versions": known}
        return result

    config = sweep_config(out=tmp_path, mix="0.5", pairs="100", seeds="13")
    folder = run_sweep(config, runner=partial(here, changed=recorded), facts=facts())
    monkeypatch.setattr(synthetic, "run", here)
    (same,) = check_cells(folder, 1, seed=1, runner=here, facts=facts())
    assert (same.other_bits, same.verdict) == (False, "the same to the last bit")
    changed = checked_once(folder, mAP=1.001)
    assert changed.within(0.02)
    assert (changed.other_bits, changed.verdict) == (other_bits, said)


def test_a_damaged_record_is_found_before_anything_runs_and_trained_cells_come_first(tmp_path):
    folder = run_sweep(sweep_config(out=tmp_path), runner=synthetic.run, facts=facts())
    ran = []

    def recorder(cell, work):
        ran.append(cell)
        return synthetic.run(cell, work)

    for seed in range(3):
        check_cells(folder, 4, seed=seed, runner=recorder, facts=facts())
    assert all(cell.train for cell in ran)
    count = len(check_cells(folder, 99, seed=1, runner=recorder, facts=facts()))
    assert count == len(status(folder))  # then the untrained ones, too
    path = SweepFolder(folder).result(ran[-1].key)
    path.write_text(path.read_text()[:-40])
    ran.clear()
    with pytest.raises(DataError, match="damaged"):
        check_cells(folder, 99, seed=1, runner=recorder, facts=facts())
    assert not ran


def test_cells_of_a_plan_from_before_a_default_changed_are_run_again(tmp_path):
    folder = run_sweep(sweep_config(out=tmp_path, set=OLD), runner=synthetic.run, facts=facts())
    path = folder / "sweep.json"
    plan = read_json(path)
    plan["settings"]["set"] = {}  # it named none of them
    write_json(path, plan)
    (again,) = check_cells(folder, 1, seed=1, runner=synthetic.run, facts=facts())
    assert again.cell.train
    assert again.identical


@pytest.mark.parametrize(
    ("changes", "compared"),
    [
        ({}, "mix"),
        ({"mix": "0.5", "set": "strategy=hybrid,mixed"}, "strategy"),
        ({"mix": "0.5"}, None),
        ({"set": "temperature=0.02,0.05"}, None),
    ],
)
def test_a_comparison_at_found_temperatures_is_warned_of_once(tmp_path, changes, compared):
    report = RecordingReporter()
    config = sweep_config(out=tmp_path, **changes)
    run_sweep(config, report, runner=synthetic.run, facts=facts())
    told = [text for text in report.warnings if "temperature auto" in text]
    assert len(told) == (compared is not None)
    assert all(f"cells of another {compared}" in text for text in told)


def test_cells_of_other_data_cannot_be_done_again(tmp_path):
    folder = run_sweep(sweep_config(out=tmp_path), runner=synthetic.run, facts=facts())
    other = replace(facts(), data="another", models={"e5-small-q4": "another"})
    with pytest.raises(
        DataError, match="none of its finished cells can be run again with what is here"
    ):
        check_cells(folder, 1, seed=1, runner=synthetic.run, facts=other)


def test_strategies_and_baselines_are_run_once_whatever_does_not_concern_them():
    known = facts(models={"e5-small-q4": "m1", "labse": "m2"})
    config = sweep_config(set="strategy=hybrid,mixed,mtt; copies=2,4", pairs="100", seeds="13")
    cells = plan_cells(config, known)[1:]
    found = [(cell.train.strategy, cell.axes["mix"], cell.train.copies) for cell in cells]
    assert sorted(found, key=str) == sorted(
        [
            *(("hybrid", mix, None) for mix in (0.0, 0.5, 1.0)),
            ("mixed", None, None),
            ("mtt", None, 2),
            ("mtt", None, 4),
        ],
        key=str,
    )
    taught = plan_cells(
        sweep_config(
            set="teacher=none,labse; distill_weight=0,0.5,1", pairs="100", seeds="13", mix="0.5"
        ),
        known,
    )[1:]
    assert [(cell.train.teacher, cell.train.distill_weight) for cell in taught] == [
        (None, 0.5), ("labse", 0.5), ("labse", 1.0),
    ]  # fmt: skip
    assert (
        taught[0].key
        == plan_cells(sweep_config(pairs="100", seeds="13", mix="0.5"), known)[1].key
    )
    other = facts(models={"e5-small-q4": "m1", "labse": "m3"})
    again = plan_cells(
        sweep_config(set="teacher=labse", pairs="100", seeds="13", mix="0.5"), other
    )[1]
    assert again.key != taught[1].key, "another teacher of the same name"


def test_the_live_view_shows_states_the_best_so_far_and_the_time_left(tmp_path):
    cells = cells_of()
    folder = SweepFolder(tmp_path)
    finished = []
    for cell in cells[:5]:
        execute(cell, folder, synthetic.run)
        finished.append((cell, folder.read(cell.key)))
    folder.record_failure(cells[5], RuntimeError("lost"))
    rows, caption = _overview(cells, _told_apart(cells), folder, finished, 1)
    assert [row["state"] for row in rows[:6]] == ["failed", *["done"] * 4, "done, untrained"]
    assert list(rows[1]) == ["state", "seed", "pairs", "mix", "seconds"], "only axes that vary"
    counts, *best, left = caption.splitlines()
    assert counts == "5 of 13 done, 1 failed, 7 waiting"
    means = {
        cell.key: np.mean(
            [m["mAP"] for m in result["eval"]["tasks"][0]["settings"]["monolingual"].values()]
        )
        for cell, result in finished[1:]
    }
    top = max(cells[1:5], key=lambda cell: means[cell.key])
    place = f"seed 13, pairs {top.axes['pairs']}, mix {top.axes['mix']}"
    assert f"best atlas monolingual mAP so far: {means[top.key]:.3f} ({place})" in best
    assert left == "about 0 min left"


def test_a_long_sweep_is_announced_before_its_cells_run(tmp_path, monkeypatch):
    monkeypatch.setattr("hybridbatch.scaling.sweep.LONG", 0.0)
    report = RecordingReporter()
    run_sweep(sweep_config(out=tmp_path), report, runner=synthetic.run, facts=facts())
    assert not any("take about" in note for note in report.notes)  # nothing to estimate it from
    more = sweep_config(out=tmp_path, seeds="13,14,15")
    run_sweep(more, report, runner=synthetic.run, facts=facts())
    assert any("cells take about" in note for note in report.notes), report.notes
