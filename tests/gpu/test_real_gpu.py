"""On a machine with a GPU, `pytest -m gpu`: the checks of `make gpu-accept`, in small."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.gpu
@pytest.mark.timeout(900)
def test_the_acceptance_script_passes_on_this_gpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    command = [
        sys.executable,
        "benchmarks/gpu_accept.py",
        "--small",
        "--out",
        tmp_path / "gpu.json",
    ]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr[-2000:]
