"""Nothing needs what only POSIX systems have, and prepare, train and eval run without it.

This is no test on Windows or macOS: it takes the modules and calls away that they lack.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny import write_tiny_model

PACKAGE = Path(__file__).parents[2] / "hybridbatch"
# What Python has on POSIX only, or where it does something else on Windows.
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "syslog"}
CALLS = [
    "os.sysconf",
    "os.fork",
    "os.killpg",
    "os.kill",
    "os.setsid",
    "os.getpgid",
    "os.getpgrp",
    "os.setpgid",
    "os.getuid",
    "os.geteuid",
    "os.getgid",
    "os.chown",
    "os.fchown",
    "os.fchmod",
    "os.nice",
    "os.sched_getaffinity",
    "os.sched_setaffinity",
    "os.posix_fadvise",
    "os.posix_fallocate",
    "os.pread",
    "os.pwrite",
    "os.statvfs",
    "os.fstatvfs",
    "os.mkfifo",
    "os.uname",
    "os.getloadavg",
    "os.wait4",
    "os.waitid",
    "os.WNOHANG",
    "os.register_at_fork",
    "os.O_DIRECTORY",
    "os.O_NOFOLLOW",
    "signal.SIGKILL",
    "signal.SIGHUP",
    "signal.SIGUSR1",
    "signal.SIGUSR2",
    "signal.SIGCHLD",
    "signal.SIGALRM",
    "signal.SIGSTOP",
    "signal.SIGCONT",
    "signal.SIGTSTP",
    "signal.SIGPIPE",
    "signal.alarm",
    "signal.setitimer",
    "signal.pthread_sigmask",
    "signal.sigwait",
    "socket.AF_UNIX",
    "mmap.MADV_SEQUENTIAL",
    "mmap.MADV_RANDOM",
]


def needs(path: Path) -> list[str]:
    """Imports and calls of a file that only POSIX systems have, outside of a guard.

    A guard is a ``try`` that goes on after an `ImportError`, or a ``hasattr``.
    """
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    guarded: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any(
            "ImportError" in ast.dump(h) for h in node.handlers
        ):
            guarded.update(part for line in node.body for part in ast.walk(line))
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            names = [node.module]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = f"{node.value.id}.{node.attr}"
            asked = f'hasattr({node.value.id}, "{node.attr}")' in text
            names = [name] if name in CALLS and not asked else []
        if node not in guarded:
            found += [f"{path.name}:{getattr(node, 'lineno', 0)}: {name}" for name in names]
    return found


def test_the_package_needs_nothing_that_only_posix_has() -> None:
    found = [told for path in sorted(PACKAGE.rglob("*.py")) for told in needs(path)]
    assert found == []


def test_the_search_for_it_finds_it(tmp_path: Path) -> None:
    source = "import os\nimport fcntl\ntry:\n    import resource\nexcept ImportError:\n    pass\nos.fork()\n"
    (tmp_path / "a.py").write_text(source)
    assert needs(tmp_path / "a.py") == ["a.py:2: fcntl", "a.py:7: os.fork"]


WITHOUT = """
import psutil  # whose Linux flavour needs what is taken away
import os, sys
for name in ("fcntl", "resource", "pwd", "grp"):
    sys.modules[name] = None
del os.sysconf
import ctypes
plain = ctypes.CDLL
def CDLL(name, *rest, **further):
    if name is None:
        class Empty: pass
        return Empty()
    return plain(name, *rest, **further)
ctypes.CDLL = CDLL
sys.argv = ["hybridbatch", *sys.argv[1:]]
from hybridbatch.cli.app import main
main()
"""


@pytest.mark.slow
def test_the_stages_run_without_posix(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    lines = ["id\tlanguage\tquery\tpassage"]
    for number in range(40):
        for language in ("eng", "deu", "swh"):
            lines.append(
                f"r{number}\t{language}\task {language} {number}\tbe {language} {number} ba"
            )
    (tmp_path / "pairs.tsv").write_text("\n".join(lines) + "\n")
    environment = os.environ | {"HYBRIDBATCH_CACHE": str(tmp_path / "cache")}
    for words in (
        ["prepare", "pairs.tsv", "--out", "data", "--decontaminate", "none"],
        ["train", "--data", "data", "--model", str(model), "--steps", "2", "--batch-size", "4",
         "--out", "run", "--device", "cpu"],
        ["eval", "run", "--tasks", "atlas", "--languages", "eng,deu", "--out", "eval"],
    ):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, *words],
            cwd=tmp_path, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "eval" / "eval.json").is_file()
