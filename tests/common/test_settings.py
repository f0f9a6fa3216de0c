"""Settings from files and options: numbers as people write them, and damaged files in one line."""

from pathlib import Path

import pytest

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.settings import build
from hybridbatch.common.sizes import memory_bytes
from hybridbatch.scaling.settings import SweepConfig
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.training.settings import TrainConfig

BOMB = "name: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &a{i + 1} [{','.join([f'*a{i}'] * 9)}]\n"
    for i, name in enumerate(["out", "data", "data_root", "languages", "max_records", "model"])
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "seed: 2024-13-45\n",
        "seed: 2024-01-02\n",
        "seed: !!timestamp 2024-13-45\n",
        "seed: " + "9" * 5000 + "\n",
        "seed: " + "9" * 300 + "\n",
        "seed: 36893488147419103232\n",
        "seed: " + "[" * 5000 + "]" * 5000 + "\n",
        "seed: 1:30\n",
        "seed: !!python/object:os.system x\n",
        "seed: !!timestamp abc\n",
        "gradient_cache: !!bool maybe\n",
        "source_weights: !!map [a, b]\n",
        "data: !!binary AAAA\n",
        'seed: !!int ""\n',
        'name: "\\UFFFFFFFF"\n',
        "batch-size: 8\nbatch_size: 9\n",
        f"steps: {2**63 - 1}\n",
        'mix: "a\\nb\\nc"\nsteps: "\\n\\nq"\n',
        'mix: "\\e[31mred"\n',
        'name: "a\\0b"\n',
        'name: "\\ud800"\n',
        "steps: " + "x" * 100_000 + "\n",
        "mix: 0.1\nmix: 0.2\n",
        "mix: true\n",
        "? [a, b]\n: 1\n",
        "".join(f"{name}: [x]\n" for name in ("mix", "steps", "batch_size", "ema", "copies")),
        "x" * 2_000_000,
    ],
    ids=lambda text: repr(text[:24]),
)
def test_a_damaged_file_of_settings_is_one_short_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        build(TrainConfig, file)
    message = str(raised.value)
    assert message.isprintable()
    assert len(message.removeprefix(str(tmp_path))) < 500
    assert "run.yaml" in message


@pytest.mark.parametrize("value", ["!!int 3", "9" * 5000])
def test_a_value_that_yaml_cannot_read_is_named_with_its_line(
    tmp_path: Path, value: str
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"mix: 0.5\nseed: {value}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml:2: "):
        build(TrainConfig, file)


@pytest.mark.parametrize("value", ["true", "3", "{a: 1}"])
def test_values_of_another_kind_are_refused(tmp_path: Path, value: str) -> None:
    file = tmp_path / "eval.yaml"
    file.write_text(f"pool: {value}\n")
    with pytest.raises(ConfigError, match="pool"):
        build(EvalConfig, file)


def test_yaml_reads_languages_and_exponents_as_what_they_are(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("languages: no\nlearning_rate: 1e-4\nsymmetric: yes\n")
    config = build(TrainConfig, file)
    assert (config.languages, config.learning_rate, config.symmetric) == ("no", 1e-4, True)


def test_numbers_may_be_written_as_people_write_them() -> None:
    config = build(
        TrainConfig, None, {"mix": "50%", "steps": "10k", "source_weights": "a=150%"}
    )
    assert (config.mix, config.steps, config.source_weights) == (0.5, 10_000, {"a": 1.5})
    sweep = build(SweepConfig, None, {"mix": "0,25%,1", "pairs": "500,2k,all", "steps": "1.5k"})
    assert (sweep.mix, sweep.pairs, sweep.steps) == (
        (0.0, 0.25, 1.0),
        (500, 2000, None),
        (1500,),
    )
    assert build(TrainConfig, None, {"name": "10k"}).name == "10k"


def test_fractions_are_no_integers() -> None:
    with pytest.raises(ConfigError, match="steps = 0"):
        build(TrainConfig, None, {"steps": "1%"})


def test_amounts_of_memory() -> None:
    assert [memory_bytes(size) for size in ("512MB", "1.5 GiB", "8gb")] == [
        512_000_000,
        1_610_612_736,
        8_000_000_000,
    ]
    for size in ("8", "1KB", "nan GB", "1e9GB", "9" * 400 + "GB"):
        with pytest.raises(ValueError, match="not an amount of memory"):
            memory_bytes(size)
