"""Runs a command on damaged files, in a forked process, and judges what it did.

The rule: exit 0, 1 (only of checks) or 2; one line of error, without a traceback, under 500
characters; no temporary file left; and where a file has checksums, either the error or the result
of the undamaged file.
"""

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import Target

LONGEST_LINE = 500
HANG_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it gave."""

    code: int | None  # None: it hung
    said: str
    result: str  # hash of what it printed and wrote


class Place:
    """A target in a folder, and the undamaged result."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder / target.name
        self.good = folder / f"{target.name}.good"
        self.good.mkdir(parents=True)
        target.make(self.good)
        self._copy()
        self.files = sorted(
            path.relative_to(self.folder)
            for pattern in target.files
            for path in self.folder.glob(pattern)
            if path.is_file() and path.stat().st_size
        )
        assert self.files, target.name
        self._import_what_the_command_imports()
        self.expected = self.run()
        assert self.expected.code == 0, (target.name, self.expected.said)

    def _import_what_the_command_imports(self) -> None:
        """Once here instead of in every child: most of a short command's time."""
        names = self.folder / "modules"
        child = os.fork()
        if not child:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            before = set(sys.modules)
            end = os._exit

            def tell(code: int) -> None:
                names.write_text("\n".join(sorted(set(sys.modules) - before)))
                end(code)

            os._exit = tell  # type: ignore[assignment]
            _command(self.folder, self.target.command)
        _wait(child)
        for name in names.read_text().split() if names.exists() else ():
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        self._copy()

    def _copy(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.good, self.folder)

    def damaged(self, file: Path, content: bytes) -> str | None:
        """Run the command with other content of a file; what is wrong with how it ended, or None."""
        if self.target.exact or self.target.slow:
            self._copy()
        before = (self.good / file).read_bytes()
        (self.folder / file).write_bytes(content)
        outcome = self.run()
        (self.folder / file).write_bytes(before)
        return self.judge(outcome)

    def judge(self, outcome: Outcome) -> str | None:
        """What breaks the rule."""
        if outcome.code is None:
            return f"hung for {HANG_SECONDS:g} s"
        if "Traceback (most recent call last)" in outcome.said:
            return f"traceback: {outcome.said.strip().splitlines()[-1][:300]}"
        if outcome.code not in (0, 2):
            return f"exit {outcome.code}: {outcome.said[-300:]}"
        errors = [line for line in outcome.said.splitlines() if line.startswith("error: ")]
        if outcome.code == 2:
            last = outcome.said.strip().splitlines()[-1:]
            if len(errors) != 1 or last != errors:
                return f"not one line of error: {outcome.said[-300:]!r}"
            if len(errors[0]) > LONGEST_LINE + len(str(self.folder)):
                return f"an error of {len(errors[0])} characters: {errors[0][:200]}"
        left = [path.name for path in self.folder.rglob(".*.tmp")]
        if left:
            return f"left {left[0]}"
        if outcome.code == 0 and self.target.exact and outcome.result != self.expected.result:
            return "another result, in silence"
        return None

    def kill(self, seconds: float) -> None:
        """Start the command and kill it after so long; what it has written stays."""
        child = os.fork()
        if not child:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            _command(self.folder, self.target.command)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    def leftovers(self) -> list[str]:
        """Names of temporary files and folders."""
        found = (*self.folder.rglob(".*.tmp"), *self.folder.rglob(".*.old"))
        return [path.relative_to(self.folder).as_posix() for path in found]

    def clear(self) -> None:
        """Remove what the command writes."""
        for name in self.target.outputs:
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def run(self, *, clear: bool = True) -> Outcome:
        """Run the command in the folder, in a process of its own."""
        if clear:
            self.clear()
        with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as printed:
            child = os.fork()
            if not child:
                os.dup2(printed.fileno(), 1)
                os.dup2(said.fileno(), 2)
                _command(self.folder, self.target.command)
            code = _wait(child)
            said.seek(0)
            printed.seek(0)
            text = said.read().decode(errors="replace")
            return Outcome(code, text, self._result(printed.read()))

    def _result(self, printed: bytes) -> str:
        digest = hashlib.sha256(printed)
        for name in (*self.target.outputs, "run/model"):
            path = self.folder / name
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            for file in files:
                if file.is_file():
                    digest.update(_comparable(file))
        return digest.hexdigest()


def _comparable(file: Path) -> bytes:
    """The part of a file that is the same in every run."""
    if file.suffix == ".parquet" or file.name.startswith("."):
        return b""
    raw = file.read_bytes()
    if file.suffix != ".json":
        return raw if file.suffix == ".safetensors" else b""
    try:
        value = json.loads(raw)
    except ValueError:
        return raw
    if isinstance(value, dict):
        for name in ("hardware", "versions", "checksum", "files", "throughput", "memory", "config"):
            value.pop(name, None)
    return json.dumps(value, sort_keys=True).encode()


def _command(folder: Path, arguments: object) -> None:
    """Become the command line; never comes back."""
    code = 1
    try:
        # of the parent, they may be pytest's
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.chdir(folder)
        os.environ["HYBRIDBATCH_CACHE"] = str(folder / "home")
        sys.argv = ["hybridbatch", *map(str, arguments)]  # type: ignore[call-overload]
        from hybridbatch.cli.app import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> int | None:
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
