"""Bad settings, models and texts of `hybridbatch train`, as a user meets them: one line, code 2,
nothing left behind.
"""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hybridbatch.cli.app import main
from hybridbatch.common.files import read_json
from hybridbatch.common.records import Row
from hybridbatch.data.store.writer import write_store
from tests.helpers.parallel import LANGUAGES, rows


@pytest.fixture
def call(tmp_path, tiny_model, monkeypatch, capsys):
    """``hybridbatch train`` on made-up data with some more arguments: exit code and standard error."""

    def run(
        *arguments: object, model: Path = tiny_model, table: list[Row] | None = None
    ) -> tuple[int, str]:
        write_store(
            tmp_path / "data", table or [*rows(24), *rows(9, "validation")], provenance={}
        )
        command = [
            "hybridbatch",
            "train",
            "--data",
            tmp_path / "data",
            "--model",
            model,
            "--out",
            tmp_path / "run",
        ]
        command += ["--batch-size", 6, "--precision", "fp32", *arguments]
        if "--steps" not in arguments:
            command += ["--steps", 3]
        monkeypatch.setattr("sys.argv", list(map(str, command)))
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rate", "0"], "learning_rate = 0: input should be greater than 0"),
        (["--learning-rate", "-1e-5"], "learning_rate = -1e-5: input should be greater than 0"),
        (["--learning-rate", "nan"], "learning_rate = nan: input should be a finite number"),
        (["--learning-rate", "inf"], "learning_rate = inf: input should be a finite number"),
        (["--learning-rate", "3e5"], "learning_rate = 3e5: is far too large"),
        (["--learning-rate", "fast"], "learning_rate = fast: input should be a valid number"),
        (["--temperature", "0"], "temperature = 0: input should be greater than 0"),
        (["--temperature", "-0.05"], "temperature = -0.05: input should be greater than 0"),
        (["--temperature", "nan"], "temperature = nan: input should be a finite number"),
        (["--warmup-steps", "11", "--steps", "10"], "warmup_steps 11 is more than steps 10"),
        (["--warmup-steps", "-1"], "warmup_steps = -1"),
        (["--lora-alpha", "8"], "lora_alpha does nothing without lora_rank"),
        (
            ["--memory-limit", "8"],
            "memory_limit = 8: '8' is not an amount of memory; write 512MB, 8GB or 16GiB",
        ),
        (["--memory-limit", "-8GB"], "is not an amount of memory"),
        (["--micro-tokens", "0"], "micro_tokens = 0"),
        (["--batch-size", "100"], "--batch-size"),
    ],
)
def test_settings_out_of_bounds(call, tmp_path, arguments, message):
    code, said = call(*arguments)
    assert code == 2
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert message in errors[0]
    assert not (tmp_path / "run").exists()


def names(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.name != ".lock"]


def refused(call, tmp_path: Path, *arguments: object, **changes) -> str:
    """The one line that a refusal says; nothing is left but what was there."""
    there = names(tmp_path / "run")
    code, said = call(*arguments, **changes)
    assert code == 2, said
    (error,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert "Traceback" not in said
    assert names(tmp_path / "run") == there
    return error


def test_a_foreign_folder_is_no_run_to_go_on_with(call, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("dear")
    assert "not a training run (it holds letter.txt)" in refused(call, tmp_path)


def test_a_damaged_run_is_named_with_its_line(call, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{\n")
    assert "run.json:2: is not valid JSON" in refused(call, tmp_path)


def copied(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder))


def words_only(folder: Path, pad: str | None) -> Path:
    """Give a model a tokenizer of few words that drops ~ and has no special tokens but perhaps
    padding.
    """
    words = {
        word: number
        for number, word in enumerate(["[UNK]", "[PAD]", "query", "passage", ":", "ba"])
    }
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Replace("~", "")
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for path in folder.glob("tokenizer*"):
        path.unlink()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token=pad
    ).save_pretrained(folder)
    return folder


def test_a_tokenizer_of_another_model(call, tmp_path, tiny_model):
    model = copied(tiny_model, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file(
        weights | {name: weights[name][:50].clone()},
        model / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 50}))
    assert "tokenizer has 204 pieces but the model has 50 embeddings" in refused(
        call, tmp_path, model=model
    )


def test_a_tokenizer_without_padding_token_trains(call, tmp_path, tiny_model):
    model = words_only(copied(tiny_model, tmp_path / "model"), pad=None)
    assert call(model=model)[0] == 0
    assert read_json(tmp_path / "run" / "train.json")["skipped_steps"] == []


def test_a_text_without_tokens_is_named_by_its_record(call, tmp_path, tiny_model):
    model = words_only(copied(tiny_model, tmp_path / "model"), pad="[PAD]")
    table = [*rows(24)]
    table[3 * 7 + 1] = table[3 * 7 + 1]._replace(query="~")
    said = refused(
        call, tmp_path, "--query-prompt", "", "--steps", 30, model=model, table=table
    )
    assert "record 'train-7': query sequence 0 has no tokens" in said


def test_texts_of_a_megabyte_are_cut(call, tmp_path):
    table = rows(24)
    long = {0: "x" * 1_000_000, 4: "ba " * 350_000}
    table = [
        row._replace(query=f"{text} {row.query}", passage=f"{text} {row.passage}")
        if (text := long.get(i))
        else row
        for i, row in enumerate(table)
    ]
    code, said = call(
        "--max-query-tokens", 12, "--max-passage-tokens", 40, "--steps", 8, table=table
    )
    assert code == 0, said
    facts = read_json(tmp_path / "run" / "train.json")
    assert facts["skipped_steps"] == []
    assert facts["throughput"]["tokens"] <= 8 * 6 * (12 + 40)
    assert facts["trained_languages"] == list(LANGUAGES)
