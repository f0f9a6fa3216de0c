"""The commands in README and docs exist, and those of the first run work."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from hybridbatch.cli.app import app
from tests.helpers.density import main as print_density

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIRST_RUN = re.compile(r"<!-- tested -->\n```\n(.*?)```", re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """The `hybridbatch` commands in code blocks, as lists of words; comments are cut off."""
    for block in re.findall(r"```(?:bash|sh|console)?\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*hybridbatch (.*)", line)
            if found:
                yield shlex.split(found[1].partition(" | ")[0], comments=True)


def described() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for words in commands(page.read_text(encoding="utf-8")):
            yield str(page.relative_to(ROOT)), words


@pytest.mark.parametrize(("page", "words"), described())
def test_a_command_of_the_docs_exists_with_its_options(page: str, words: list[str]) -> None:
    if "..." in words:
        words = words[: words.index("...")]
    command = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    known |= {option for parameter in command.params for option in parameter.secondary_opts}
    known |= {"--help", "-h"}
    given = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert given <= known, f"{page}: hybridbatch {command.name} has no {given - known}"


def test_the_first_run_of_the_readme_works(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tiny encoder instead of the default one."""
    monkeypatch.chdir(tmp_path)
    block = FIRST_RUN.search((ROOT / "README.md").read_text())[0]
    lines = list(commands(block))
    assert lines
    for words in lines:
        words = [str(tiny_model) if word == "e5-small-q4" else word for word in words]
        if words[0] == "train":
            words += ["--model", str(tiny_model)]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, f"{words}: {done.output}{done.exception}"
    assert "cross-lingual" in done.output


def test_the_five_lines_of_python_in_the_readme_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for block in blocks:
        compile(block, "README.md", "exec")


def test_the_code_is_not_packed(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    """The bounds that CONTRIBUTING names."""
    monkeypatch.setattr("sys.argv", ["density", str(ROOT / "hybridbatch")])
    print_density()
    tokens, nested, long_lines = re.findall(
        r"([\d.]+)%?$", capsys.readouterr().out, re.MULTILINE
    )
    assert float(tokens) <= 8.7
    assert float(nested) <= 2.0
    assert float(long_lines) <= 2.0
