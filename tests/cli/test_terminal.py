"""What the terminal shows: help at every width, listings in pipes, JSON, progress, completion."""

import io
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console
from typer.main import get_command
from typer.testing import CliRunner

from hybridbatch.cli import console, progress_line
from hybridbatch.cli.app import app
from hybridbatch.cli.completion import completer, models
from hybridbatch.cli.progress_line import ProgressLine
from hybridbatch.cli.tables import cell, drawn
from hybridbatch.common import shortage
from hybridbatch.common.sizes import duration
from hybridbatch.scaling.settings import SweepConfig
from hybridbatch.scoring.audit_settings import AuditConfig
from hybridbatch.scoring.debias_settings import DebiasConfig
from hybridbatch.search.settings import SearchConfig

ROOT = get_command(app)


def commands(group: Any = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, each in group.commands.items():
        yield (*path, name)
        if hasattr(each, "commands"):
            yield from commands(each, (*path, name))


ALL = sorted(commands())


def invoke(*words: str, width: int = 80, code: int = 0) -> str:
    done = CliRunner().invoke(
        app, list(words), env={"COLUMNS": str(width)}, prog_name="hybridbatch"
    )
    assert done.exit_code == code, done.output
    return done.stdout


def of(path: tuple[str, ...]) -> Any:
    command = ROOT
    for name in path:
        command = command.commands[name]
    return command


@pytest.mark.parametrize("path", [(), *ALL], ids=" ".join)
def test_help_fits_the_terminal_and_cuts_no_name(path: tuple[str, ...]) -> None:
    for width in (60, 80, 100):
        text = invoke(*path, "-h", width=width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert not re.search(r"\bNone\b|[{}]", text)
        for parameter in of(path).params:
            for name in getattr(parameter, "opts", []):
                assert not name.startswith("-") or name in text
    assert text == invoke(*path, "--help", width=100)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_has_two_examples_that_parse(path: tuple[str, ...]) -> None:
    examples = of(path).examples
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(example)
        assert words[: len(path) + 1] == ["hybridbatch", *path]
        of(path).make_context("x", words[len(path) + 1 :])  # raises for an unknown option


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_command_takes_the_options_of_all(path: tuple[str, ...]) -> None:
    names = {name for parameter in of(path).params for name in parameter.opts}
    assert {"--json", "-q", "-v"} <= names


@pytest.mark.parametrize("command", ["search", "train", "debias"])
def test_the_options_of_all_commands_come_last(command: str) -> None:
    told = CliRunner().invoke(app, [command, "--help"]).stdout
    panels = [line for line in told.splitlines() if re.fullmatch(r"[A-Z].*:", line)]
    assert panels[-1] == "Everywhere:"


def test_the_list_of_commands_has_a_paragraph_for_each() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert "Search passages in any languages" in done.stdout
    assert "Write one query a line" not in done.stdout
    assert "Write one query a line" in CliRunner().invoke(app, ["search", "--help"]).stdout


def test_the_version_has_a_short_option() -> None:
    assert invoke("-V") == invoke("--version")


def test_listings_in_a_pipe_are_a_record_a_line() -> None:
    first, *rows = invoke("languages", "script:Ethi", width=40).splitlines()
    assert first.split("\t")[:3] == ["id", "name", "script"]
    assert len(rows) == len(json.loads(invoke("languages", "script:Ethi", "--json")))
    assert {row.count("\t") for row in rows} == {first.count("\t")}


@pytest.mark.parametrize(
    "words", [["prepare", "--list"], ["eval", "--list"], ["languages", "amh"]]
)
def test_listings_as_json_are_lists_of_records(words: list[str]) -> None:
    records = json.loads(invoke(*words, "--json"))
    assert isinstance(records, list)
    assert all(isinstance(record, dict) for record in records)


def test_several_things_shown_become_one_mapping(capsys: pytest.CaptureFixture[str]) -> None:
    console.reset()
    console.begin(json=True)
    console.table([{"a": float("nan")}], title="first")
    console.table([], name="others")
    console.lines(["told"])
    console.finish()
    console.reset()
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"rows": [{"a": None}], "others": [], "lines": ["told"]}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(3e-5, "3e-05"), (-2e-4, "-0.0002"), (0.0, "0.000"), (0.05, "0.050"), (1234.5, "1,234")],
)
def test_a_small_number_does_not_become_zero(value: float, shown: str) -> None:
    assert cell(value) == shown


def test_several_tables_in_a_pipe_have_titles(capsys: pytest.CaptureFixture[str]) -> None:
    console.reset()
    console.table([{"name": "a [b] c", "value": 1234.5}], title="first")
    console.table([{"name": None}], title="second")
    console.reset()
    assert capsys.readouterr().out == "name\tvalue\na [b] c\t1234.5\n\n# second\nname\n\n"


def test_quiet_leaves_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    console.reset()
    console.begin(quiet=True)
    reporter = console.TerminalReporter()
    reporter.note("a note")
    reporter.warn("a warning")
    console.reset()
    assert capsys.readouterr().err == "warning: a warning\n"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_line.time, "monotonic", clock.monotonic)
    return clock


def test_progress_fits_every_width(clock: Clock) -> None:
    line = ProgressLine("training", 1000, "steps", 10)
    for _ in range(30):
        clock.now += 4
        line.advance(2, loss=0.31)
    for width in range(8, 200):
        assert len(line.text(width)) < width
    wide = line.text(120)
    assert "70/1,000 steps" in wide
    assert "2.0 s/step" in wide
    assert "31 min 00 s left" in wide
    assert "loss 0.31" in wide
    assert "70/1,000  2.0 s/step  31 min 00 s left" in line.text(60)


def test_fast_progress_tells_units_per_second(clock: Clock) -> None:
    line = ProgressLine("encode", 100_000, "texts")
    clock.now += 10
    line.advance(5_000)
    assert "500/s" in line.text(80)
    assert line.plain() == "encode: 5,000 of 100,000 texts, 5 %, 500/s, 3 min 10 s left"


def test_a_log_gets_a_line_at_first_and_every_thirty_seconds(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    console.reset()
    with console.TerminalReporter().bar("training", 1000, "steps") as bar:
        for _ in range(100):
            clock.now += 1
            bar.advance()
    told = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in told] == [
        f"training: {count} of 1" for count in (3, 33, 63, 93)
    ]
    assert "16 min 37 s left" in told[0]


def test_short_work_is_not_told_of(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    console.reset()
    with console.TerminalReporter().bar("training", 10, "steps") as bar:
        for _ in range(10):
            clock.now += 1
            bar.advance()
    assert capsys.readouterr().err == ""


def test_durations() -> None:
    texts = [duration(seconds) for seconds in (48, 303, 7500, 270_000)]
    assert texts == ["48 s", "5 min 03 s", "2 h 05 min", "3 d 03 h"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("prepare tyd", "tydi"),
        ("eval --tasks xq", "xquad-r"),
        ("eval --tasks atlas,xq", "atlas,xquad-r"),
        ("train --strategy m", "mtt"),
        ("train --languages swh,amh,low-r", "swh,amh,low-resource"),
        ("languages all,-low-r", "all,-low-resource"),
        ("train --teacher e5", "e5-small-q4"),
        ("scale-sweep --launcher s", "slurm"),
        ("audit data xq", "xquad-r"),
    ],
)
def test_the_shell_completes_names(words: str, expected: str) -> None:
    line = f"hybridbatch {words}"
    environment = {
        "_HYBRIDBATCH_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    done = CliRunner().invoke(app, [], env=environment, prog_name="hybridbatch")
    assert expected in done.stdout.split()


@pytest.mark.parametrize(
    ("settings", "name", "typed", "expected"),
    [
        (SearchConfig, "language", "swh,fr", "swh,fra"),
        (SearchConfig, "corpus_language", "sw", "swh"),
        (SearchConfig, "corpus", "atl", "atlas"),
        (AuditConfig, "task", "xq", "xquad-r"),
        (DebiasConfig, "text", "bele", "belebele"),
        (SweepConfig, "pivot", "en", "eng"),
        (SweepConfig, "baselines", "bm25,l", "bm25,lir"),
        (SweepConfig, "launcher", "sl", "slurm"),
    ],
)
def test_completion_knows_what_options_take(settings, name, typed, expected) -> None:
    complete = completer(name, settings.model_fields[name].annotation)
    assert complete is not None
    assert expected in complete(typed)


def test_completion_knows_the_built_in_models() -> None:
    from hybridbatch.model import BUILTIN

    assert set(models()) == set(BUILTIN)


ROWS = [
    {"task": "faq", "setting": "cross-lingual", "mean_a": 0.8041, "difference": -0.0239},
    {"task": "faq", "setting": "monolingual", "mean_a": 0.9270, "difference": -0.0312},
]


@pytest.mark.parametrize("width", [10, 20, 30, 40, 60, 80, 200])
def test_a_table_breaks_no_word_at_any_width(width: int) -> None:
    console = Console(width=width, file=io.StringIO())
    console.print(drawn(ROWS, width, "A title"))
    text = console.file.getvalue()
    assert max(map(len, text.rstrip().splitlines())) <= width
    words = text.replace(",", " ").split()
    if width >= 30:
        assert {"cross-lingual", "monolingual", "0.804", "-0.031", "difference"} <= set(words)


def test_a_table_that_is_too_wide_tells_what_is_the_same_in_all_rows_below_it() -> None:
    console = Console(width=42, file=io.StringIO())
    console.print(drawn(ROWS, 42, "A title", "a note"))
    title, *_, first, second = console.file.getvalue().rstrip().splitlines()
    assert title.strip() == "A title"
    assert first.strip() == "in all rows: task faq"
    assert second.strip() == "a note"


def test_an_error_stays_one_line_whatever_a_name_holds(capsys) -> None:
    console.error("data.json: no column 'a\nb\x1d\u2028c' of é and አ")
    assert capsys.readouterr().err == (
        "error: data.json: no column 'a\\nb\\x1d\\u2028c' of é and አ\n"
    )


@pytest.mark.parametrize(
    ("command", "gibibytes"), [("prepare", "0.6"), ("search", "1.4"), ("compare", "0.9")]
)
def test_a_limit_too_small_for_the_libraries_is_told_before_they_load(
    monkeypatch, command: str, gibibytes: str
) -> None:
    monkeypatch.setattr("sys.argv", ["hybridbatch", command, "folder"])
    monkeypatch.setattr(shortage, "address_space", lambda: 350_000_000)
    assert f"`hybridbatch {command}` needed at least {gibibytes} GiB" in (
        shortage.least() or ""
    )
    monkeypatch.setattr("sys.argv", ["hybridbatch", command, "--help"])
    assert shortage.least() is None


def test_the_middle_of_a_long_error_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    console.error(f"place: {'x' * 5000}\nsays; the mend")
    told = capsys.readouterr().err
    assert told.startswith("error: place: xxx")
    assert told.endswith("x\\nsays; the mend\n")
    assert len(told) < 520
    assert len(told.splitlines()) == 1
