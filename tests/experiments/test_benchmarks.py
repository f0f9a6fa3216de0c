"""What `benchmarks/run.py` does with results."""

import importlib.util
import json
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benchmarks/run.py"


@pytest.mark.parametrize("same", [True, False])
def test_a_result_replaces_only_one_of_the_same_settings(tmp_path, same):
    spec = importlib.util.spec_from_file_location("benchmarks_run", RUN)
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    out, new = tmp_path / "encode.json", tmp_path / "encode.new.json"
    out.write_text(json.dumps({"settings": {"texts": 8 if same else 44}, "figures": 1}))
    new.write_text(json.dumps({"settings": {"texts": 8}, "figures": 2}))
    assert run.settled(new, out) == (out if same else new)
    assert json.loads(out.read_text())["figures"] == (2 if same else 1)
    assert new.exists() != same
