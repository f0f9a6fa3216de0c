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
import select
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridbatch.common import integrity
from tests.fuzz.targets import Target

LONGEST_LINE = 500
TOGETHER = 25  # inputs a process
LINE = struct.calcsize("<ii")
HANG_SECONDS = 60.0


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it gave."""

    code: int | None  # None: it hung
    said: str
    result: str  # hash of what it printed and wrote
    left: bool = False  # whether temporary files are left


class Place:
    """A target in a folder, and the undamaged result."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder / target.name
        self.changes = target.exact or target.slow  # the command changes its folder
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

    def damaged(self, inputs: Sequence[tuple[Path, bytes]]) -> Iterator[str | None]:
        """For each (file, other content): what is wrong with how the command ended, or None.

        The command runs on several inputs in one process, as far as it survives them.
        """
        done = 0
        while done < len(inputs):
            for outcome in self._outcomes(inputs[done : done + TOGETHER]):
                done += 1
                yield self.judge(outcome)

    def _outcomes(self, inputs: Sequence[tuple[Path, bytes]]) -> Iterator[Outcome]:
        """How the command ended on each input, up to the first one that ends its process."""
        place = Path(tempfile.mkdtemp(dir=self.folder.parent))
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            os.close(told)
            self._take(inputs, place, tell)
        os.close(tell)
        try:
            with open(told, "rb", buffering=0) as pipe:
                for number in range(len(inputs)):
                    ready = select.select([pipe], [], [], HANG_SECONDS)[0]
                    line = pipe.read(LINE) if ready else b""
                    said, printed = place / f"{number}.err", place / f"{number}.out"
                    text = said.read_text(errors="replace") if said.exists() else ""
                    if len(line) == LINE:
                        code, left = struct.unpack("<ii", line)
                        yield Outcome(code, text, printed.read_text(), bool(left))
                        continue
                    os.kill(child, signal.SIGKILL)
                    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
                    child = 0
                    self._copy()
                    yield Outcome(status if ready else None, text, "")
                    return
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            shutil.rmtree(place)

    def _take(self, inputs: Sequence[tuple[Path, bytes]], place: Path, tell: int) -> None:
        """Run the command on the inputs in this process, and tell how each ended; no return."""
        code = 1
        try:
            _become_command(self.folder)
            for number, (file, content) in enumerate(inputs):
                self.clear()
                if self.changes:
                    self._copy()
                    os.chdir(self.folder)
                (self.folder / file).write_bytes(content)
                with (place / f"{number}.out").open("w+b") as out:
                    with (place / f"{number}.err").open("wb") as err:
                        os.dup2(out.fileno(), 1)
                        os.dup2(err.fileno(), 2)
                        integrity.forget()
                        code = _main(self.target.command)
                    out.seek(0)
                    result = self._result(out.read())
                    out.seek(0)
                    out.truncate()
                    out.write(result.encode())
                left = any(self.folder.rglob(".*.tmp"))
                if not self.changes:
                    shutil.copyfile(self.good / file, self.folder / file)
                os.write(tell, struct.pack("<ii", code, left))
            code = 0
        finally:
            os._exit(code)

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
        if outcome.left:
            return "left temporary files"
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
            return Outcome(code, text, self._result(printed.read()), bool(self.leftovers()))

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
    value = _without_circumstances(value)
    return json.dumps(value, sort_keys=True).encode()


CIRCUMSTANCES = {
    "hardware", "versions", "checksum", "files", "throughput", "memory", "config", "seconds",
}  # fmt: skip


def _without_circumstances(value: Any) -> Any:
    """JSON without what differs between two runs of one command."""
    if isinstance(value, dict):
        kept = {name: each for name, each in value.items() if name not in CIRCUMSTANCES}
        return {name: _without_circumstances(each) for name, each in kept.items()}
    return (
        [_without_circumstances(each) for each in value] if isinstance(value, list) else value
    )


def _command(folder: Path, arguments: Sequence[str]) -> None:
    """Become the command line; never comes back."""
    code = 1
    try:
        _become_command(folder)
        code = _main(arguments)
    finally:
        os._exit(code)


def _become_command(folder: Path) -> None:
    # of the parent, they may be pytest's
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ["HYBRIDBATCH_CACHE"] = str(folder / "home")


def _main(arguments: Sequence[str]) -> int:
    """Run the command line; its exit code."""
    from hybridbatch.cli.app import main

    sys.argv = ["hybridbatch", *map(str, arguments)]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


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
