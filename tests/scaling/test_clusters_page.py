"""Every command of the page about clusters is read by the program that it starts."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from hybridbatch.cli.app import app

PAGE = (Path(__file__).parents[2] / "docs" / "clusters.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
LINES = "\n".join(BLOCKS).replace("\\\n", " ").splitlines()


def words_after(program: str) -> list[list[str]]:
    """The words after a program's name on every line that starts it; variables become a number."""
    found = []
    for line in LINES:
        words = shlex.split(re.sub(r"\$\{?\w+\}?", "2", line), comments=True)
        started = words[1:] if words[:1] == ["srun"] and program != "srun" else words
        if started[:1] == [program]:
            found.append(started[1:])
    return found


def parse(words: list[str]) -> None:
    """Read the words of a `hybridbatch` command as the command line does, without a run."""
    command = get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words[0]]
        words = words[1:]
    command.make_context(command.name, list(words))


def test_the_page_shows_every_way() -> None:
    counts = {
        name: len(words_after(name)) for name in ("torchrun", "hybridbatch", "ray", "srun")
    }
    assert counts == {"torchrun": 3, "hybridbatch": 4, "ray": 2, "srun": 1}


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_are_shell(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", words_after("torchrun"), ids=" ".join)
def test_torchrun_reads_its_options_and_hybridbatch_the_rest(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    read = get_args_parser().parse_args(words)
    assert read.module
    assert read.training_script == "hybridbatch"
    assert read.training_script_args[0] == "train"
    parse(read.training_script_args)


@pytest.mark.parametrize(
    "words",
    [words for words in words_after("hybridbatch") if words[0] == "scale-sweep"],
    ids=" ".join,
)
def test_sweeps_are_read(words: list[str]) -> None:
    parse(words)


@pytest.mark.parametrize("words", words_after("ray"), ids=" ".join)
def test_ray_reads_its_options(words: list[str]) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    assert words[0] == "start"
    scripts.start.make_context("start", words[1:])


def test_what_the_job_script_asks_of_slurm_has_values() -> None:
    asked = re.findall(r"^#SBATCH (.*)$", PAGE, re.MULTILINE)
    assert asked
    for option in " ".join(asked).split():
        assert re.fullmatch(r"--[a-z-]+=\S+", option), option
