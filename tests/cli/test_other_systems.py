"""prepare, train and eval without what only POSIX systems have: a stand-in for Windows and macOS.

This is no test on these systems: it takes the modules and calls away that they lack.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.tiny import write_tiny_model

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
