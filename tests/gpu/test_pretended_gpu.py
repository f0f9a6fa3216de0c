"""The project's GPU paths on a pretended GPU: numbers, kernels, waits, devices, memory.

They guard what a machine without a GPU can see of one (`tests.helpers.pretend_cuda`). The figures
of kernels are those of today: a change that needs more has to say why.
"""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers import pretend_cuda

# Seconds of it are computing; a machine with much else to do needs more than the usual limit.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def library(request, tmp_path_factory) -> Path:
    """What a process with the pretended GPU needs; pytest's cache keeps it from run to run."""
    if torch.version.cuda or torch.version.hip:
        pytest.skip("the pretended GPU needs a torch that has no GPU paths of its own")
    cache = getattr(request.config, "cache", None)
    folder = tmp_path_factory.mktemp("pretended") if cache is None else cache.mkdir("pretended")
    library = pretend_cuda.build(folder)
    if library is None:
        pytest.skip("no C++ compiler for the pretended GPU (g++ or clang++)")
    return library


@pytest.fixture(scope="module")
def watched(library: Path) -> dict:
    """The figures that `tests.gpu.watched` prints."""
    found = subprocess.run(
        [sys.executable, "-m", "tests.gpu.watched"],
        env=pretend_cuda.environment(library),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])


def test_values_and_gradients_are_those_of_the_cpu(watched):
    for family, found in {**watched["numbers"], **watched["head_widths"]}.items():
        assert found["fp32"] < 1e-6, family
        assert found["fp32_gradient"] < 1e-6, family
        assert found["bf16_cosine"] > 0.999, family
        assert found["bf16_gradient"] > 0.99, family


def test_packable_families_use_flash_attention_and_never_wait(watched):
    families = {name: found for name, found in watched["numbers"].items() if name != "mpnet"}
    assert len(families) == 14
    for family, found in families.items():
        assert found["flash"] == 2, family  # one a layer
        assert found["waits"] == 0, family
    assert watched["numbers"]["mpnet"]["flash"] == 0


def test_any_width_of_heads_is_computed(watched):
    flash = {width: found["flash"] for width, found in watched["head_widths"].items()}
    assert flash == {"6": 1, "20": 1, "264": 0}


@pytest.mark.parametrize(
    ("kind", "per_layer", "beside"),
    [
        ("bert 0.1", 41, 85),
        ("bert 0.0", 37, 85),
        ("modernbert 0.1", 55, 76),
        ("gte 0.1", 56, 85),
        ("bert 0.1 lora_rank", 122, 56),
    ],
)
def test_kernels_and_waits_of_a_step_stay_few(watched, kind, per_layer, beside):
    found = watched["step_counts"][kind]
    assert found["kernels_per_layer"] <= per_layer
    assert found["other_kernels"] <= beside
    assert sum(found["waits"].values()) <= 2, found["waits"]


def test_the_weights_are_cast_once_a_step_however_many_passes_it_takes(watched):
    found = watched["casts"]
    assert found["passes"] == 3
    assert (
        found["copies"] == 1 + found["passes"]
    )  # of the weights; of the gradients of each pass
    assert found["same_bits"]
    assert found["states_read_apart"] < 1e-2


def test_gradient_caching_replays_the_dropout_of_flash_attention(watched):
    found = watched["replay"]
    assert found["parts"] == 3
    assert found["loss"] < 1e-4
    assert found["gradient"] < 1e-5


def test_training_has_the_losses_of_the_cpu_and_resumes_with_the_same_bits(watched):
    found = watched["training"]
    assert found["everything"] < 1e-5
    assert found["taught"] < 1e-5
    assert found["embeddings"] < 1e-5
    assert found["resumed"]
    assert found["fp16_scale"] == 2.0**16


def test_encoding_goes_on_in_smaller_batches_where_memory_runs_out(watched):
    found = watched["encoding"]
    assert found["difference"] < 1e-6
    assert found["difference_when_short"] < 1e-6
    assert found["difference_ahead"] < 1e-6
    assert found["waits"] == {}  # but for the events that tell of a copy's end
    assert found["sizes"] == [40, 20, 10, 10, 20, 10, 10]


def test_an_old_card_gets_what_it_can(watched):
    found = watched["refusals"]
    assert found["auto"] == "bf16"
    assert found["old"] == "fp16"
    assert found["old_bf16"] > 0.999
    assert found["old_fp16"] > 0.999
    assert found["old_flash"] == 0
    assert "cannot compute bf16" in found["refused_bf16"]
    assert "there is 1 GPU" in found["refused_cuda:7"]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("a GPU that is too small", "use a smaller model, --lora-rank, a smaller --batch-size"),
        ("a precision it lacks", "the Tesla T4 cannot compute bf16"),
        ("fp16 on a CPU", "works on GPUs only"),
        ("no driver", "Found no NVIDIA driver on your system"),
        ("no CUDA", "is a build without CUDA"),
        ("no CUDA, eval", "is a build without CUDA"),
        ("no such GPU", "there is 1 GPU"),
        ("one GPU for all", "under torchrun each process takes the GPU of its own rank"),
        ("more processes than GPUs", "process 1 of this machine has no GPU"),
        ("NCCL is missing", "has no NCCL"),
        ("an unknown backend", "is no backend for communication"),
        ("a bad share", "must be a number over 0 and at most 1"),
    ],
)
def test_what_a_gpu_cannot_do_is_one_line_and_exit_code_2(watched, mistake, message):
    code, said = watched["mistakes"][mistake]
    assert code == 2
    told = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(told) == 1, said
    assert message in told[0]
    assert "Traceback" not in said


@pytest.mark.slow
def test_two_processes_share_a_gpu_over_gloo(library):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def start(rank: int, size: int) -> subprocess.Popen:
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        own |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "HYBRIDBATCH_BACKEND": "gloo"}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.shared"],
            env=pretend_cuda.environment(library) | own,
            stdout=subprocess.PIPE,
            text=True,
        )

    processes = [start(0, 1), start(0, 2), start(1, 2)]
    alone, *both = (json.loads(each.communicate(timeout=250)[0]) for each in processes)
    for each in both:
        assert each["meeting"] == "cpu"
        assert each["losses"] == pytest.approx(alone["losses"], abs=1e-5)
        assert "under torchrun each process takes the GPU" in each["refused"]
