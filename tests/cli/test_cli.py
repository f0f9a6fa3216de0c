"""The edge: help, options made from settings, configuration files, one-line errors."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hybridbatch.cli.options import number_option
from hybridbatch.common.errors import ConfigError
from hybridbatch.common.settings import build
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.training.settings import TrainConfig


def hybridbatch(
    *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hybridbatch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from hybridbatch.cli.app import app;"
        "CliRunner().invoke(app, ['--help']);"
        "print(sorted({'torch', 'transformers', 'numpy', 'babel', 'mteb', 'datasets', 'pyarrow'} &"
        " set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "command",
    ["prepare", "train", "eval", "scale-sweep", "reproduce", "languages", "inspect", "compare"],
)
def test_every_command_explains_itself(command: str) -> None:
    done = hybridbatch(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("cls", [PrepareConfig, TrainConfig, EvalConfig])
def test_every_setting_says_what_it_is(cls: type) -> None:
    for name, field in cls.model_fields.items():
        assert field.description, name
        assert field.json_schema_extra["panel"], name


def test_the_command_line_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "mix: 0.25\nlearning-rate: 1e-4\nmax_grad_norm: none\nsource_weights: {afriqa: 2}\n"
    )
    config = build(TrainConfig, file, {"mix": "0.75"})
    assert (config.mix, config.learning_rate, config.max_grad_norm) == (0.75, 1e-4, None)
    assert config.source_weights == {"afriqa": 2.0}


def test_lists_and_mappings_may_be_one_text() -> None:
    config = build(
        TrainConfig,
        overrides={"matryoshka_dims": "64, 128", "source_weights": "afriqa=2,ntrex=0.5"},
    )
    assert config.matryoshka_dims == (64, 128)
    assert config.source_weights == {"afriqa": 2.0, "ntrex": 0.5}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("mixx: 0.5\n", ["mixx", "mix"]),
        ("mix: 1.5\n", ["mix", "1.5", "less than or equal to 1"]),
        ("mix: [1\n", ["run.yaml:2", "not valid YAML"]),
        ("- mix\n", ["name: value"]),
        ("warmup_steps: 20\nsteps: 10\n", ["warmup_steps 20", "steps 10"]),
        ("learning_rate: .nan\n", ["learning_rate"]),
        ("temperature: 0\n", ["temperature", "greater than 0"]),
        ("learning_rate: -1\n", ["learning_rate", "greater than 0"]),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, parts: list[str]) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        build(TrainConfig, file)
    message = str(raised.value)
    assert "\n" not in message
    assert "run.yaml" in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(
    ("kind", "least", "text", "expected"),
    [
        (int, 0, "10k", 10_000),
        (int, 1, "1", 1),
        (float, 0, "2%", 0.02),
        (float, 0, "1e-3", 0.001),
    ],
)
def test_options_of_any_command_take_numbers_as_people_write_them(
    kind: type, least: int, text: str, expected: float
) -> None:
    assert number_option(kind, "A number.", least=least).parser(text) == expected


@pytest.mark.parametrize(
    ("kind", "least", "text"),
    [
        (int, 0, "-1"),
        (int, 0, "50%"),
        (int, 1, "0"),
        (int, 0, "9" * 30),
        (int, 0, "many"),
        (float, 0, "-5"),
        (float, 0, "nan"),
        (float, 0, "inf"),
    ],
)
def test_options_of_any_command_refuse_numbers_out_of_bounds(
    kind: type, least: int, text: str
) -> None:
    with pytest.raises(typer.BadParameter, match=re.escape(text)):
        number_option(kind, "A number.", least=least).parser(text)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["train", "--mix", "1.5"], ["mix = 1.5"]),
        (["train", "--languages", "sw,xzq"], ["xzq"]),
        (["languages", "low-resourse"], ["low-resource"]),
        (["prepare", "atlass"], ["atlas"]),
        (["train", "--config", "missing.yaml"], ["missing.yaml"]),
        (["eval", "--tasks", "xquadr"], ["xquad-r"]),
        (["inspect", "nowhere"], ["nowhere"]),
        (["cache", "--prune", "nan"], ["--prune", "nan"]),
        (["inspect", "x" * 300], ["too long", "check this path"]),
        (["prepare", "--out", "x" * 5000], ["too long", "check this path"]),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(
    tmp_path: Path, arguments: list[str], parts: list[str]
) -> None:
    done = hybridbatch(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert len(errors[0]) < 500
    assert all(part in errors[0] for part in parts), errors
