"""Files: atomic writes, JSON, YAML, JSON Lines; every failure is one line that names file and mend."""

import errno
import gzip
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from xxhash import xxh3_64_hexdigest

from hybridbatch.common.errors import ConfigError, DataError, OutputError
from hybridbatch.common.locks import lock, locked
from hybridbatch.common.sizes import memory_bytes

JsonValue = Any
MOST_LINE = 1 << 28  # bytes of an unpacked line of text
LARGEST_YAML = 1_000_000  # bytes
DEEPEST_YAML = 20  # lists and mappings within each other
LEFTOVER = re.compile(r"\A\..+\.\d+\.(tmp|old)\Z")
STALE = 86400.0  # seconds after which a temporary file is left over where there are no locks
REMAKE = "make it again with the command that wrote it"
_SEAL = re.compile(rb',\n "checksum": "xxh3:([0-9a-f]{16})"\n\}\s*$')
# a last line that was a checksum before one of its letters changed
_BROKEN_SEAL = re.compile(rb'\n ".{8}": "(?:xxh3:.{16}|.{5}[0-9a-f]{16})"\r?\n\}\s*$')
_swept: set[str] = set()  # folders in which this process has looked for leftovers


def _output_error(path: Path, error: OSError) -> OutputError:
    reasons = {
        errno.ENOSPC: "no space left on the device; free some and run the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
        errno.EACCES: "no permission to write there; choose another place with --out or change the permissions",
        errno.EPERM: "no permission to write there; choose another place with --out or change the permissions",
        errno.EROFS: "the file system is read-only; choose another place with --out",
        errno.ENOTDIR: "a part of this path is a file, not a folder; choose another place",
        errno.EEXIST: "a file is in the way; move it or choose another place",
    }
    return OutputError(f"{path}: {reasons.get(error.errno or 0, error.strerror or error)}")


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into an `OutputError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise _output_error(path, error) from error


def make_folder(path: Path) -> Path:
    """Create a folder (and its parents) unless it is there. Raises `OutputError`."""
    with output_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed onto it when the block succeeds, removed when it
    fails.

    The file is flushed to the disk before the rename, so a crash leaves the old file or the new
    one. The temporary file is locked, so that `clear_temporaries` tells the files of living
    processes from those of killed ones; the first call for a folder clears it. Raises
    `OutputError` for anything the file system refuses.
    """
    make_folder(path.parent)
    if str(path.parent.absolute()) not in _swept:
        clear_temporaries(path.parent)
        _swept.add(str(path.parent.absolute()))
    with output_errors(path):
        temporary, handle = _new_temporary(path)
    try:
        with output_errors(path):
            yield temporary
            with open(temporary, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


def _new_temporary(path: Path) -> tuple[Path, int]:
    """An empty temporary file beside `path` that this process has locked, and its handle."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.randbits(48)}.tmp")
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        lock(handle)
        # another process may have found it before it was locked, and taken it for a leftover
        if temporary.exists():
            return temporary, handle
        os.close(handle)


def clear_temporaries(folder: Path) -> None:
    """Remove the temporary files in a folder that no living process is writing.

    Where the system has no locks, those that are older than a day. What cannot be removed stays.
    """
    try:
        names = [name for name in os.listdir(folder) if LEFTOVER.fullmatch(name)]
    except OSError:
        return
    for name in names:
        leftover = folder / name
        try:
            if leftover.is_dir():  # of `atomic_folder`, which clears its own
                continue
            with locked(leftover, wait=False) as dead:
                old = time.time() - leftover.stat().st_mtime > STALE
                if dead or (dead is None and old):
                    leftover.unlink(missing_ok=True)
        except OSError:
            continue


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place when the block succeeds.

    An older folder at `path` is moved aside first and deleted last; if the process is killed
    between, the next call puts it back. What killed processes left beside `path` is removed, what
    living ones are writing is not: each holds a lock on its folder, which the system frees when the
    process ends. Raises `OutputError`.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    with output_errors(path), ExitStack() as stack:
        with locked(path.parent) as alone:
            if alone:
                _clear(path)
            temporary.mkdir()
            stack.enter_context(locked(temporary))
        try:
            yield temporary
            readable = (
                temporary.stat().st_mode & 0o666
            )  # some libraries write for the owner only
            for folder, _, names in os.walk(temporary):
                for name in names:
                    with open(Path(folder, name), "rb+") as written:
                        os.fsync(written.fileno())
                    os.chmod(Path(folder, name), readable)
            with locked(path.parent):
                if path.exists():
                    os.replace(path, old)
                try:
                    os.replace(temporary, path)
                finally:
                    _settle(old, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def clear_leftovers(path: Path) -> None:
    """Remove what killed processes left of their `atomic_folder` of `path`, as the next one would.
    Raises `OutputError`.
    """
    with output_errors(path), locked(path.parent) as alone:
        if alone:
            _clear(path)


def _clear(path: Path) -> None:
    """As `clear_leftovers`; the parent must be locked."""
    name = re.compile(rf"\.{re.escape(path.name)}\.\d+\.(tmp|old)")
    for leftover in sorted(path.parent.iterdir()):
        match = name.fullmatch(leftover.name)
        if match is None or not leftover.is_dir():
            continue
        if match[1] == "old":
            _settle(leftover, path)
        else:
            with locked(leftover, wait=False) as dead:
                if dead:
                    shutil.rmtree(leftover, ignore_errors=True)


def _settle(old: Path, path: Path) -> None:
    """Delete what was moved aside for a new `path`, or move it back if there is none."""
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        os.replace(old, path)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; what UTF-8 cannot hold, such as a file name's stray bytes, as
    ``\\udc80`` (which JSON reads as it was).
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: JsonValue, *, sealed: bool = False) -> None:
    """Write strict JSON (no NaN) atomically, indented, keys in the order given.

    Args:
        sealed: add a last line ``"checksum"`` of all before it, which `read_json` compares; for
            the project's own documents.
    """
    text = json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)
    write_text(path, (_seal(text) if sealed else text) + "\n")


def _seal(text: str) -> str:
    """The JSON of an object with its checksum as the last entry."""
    body = text.removesuffix("\n}")
    return f'{body},\n "checksum": "xxh3:{xxh3_64_hexdigest(body.encode(errors="backslashreplace"))}"\n}}'


def read_json(path: Path, mend: str = REMAKE) -> JsonValue:
    """Read a JSON file; the checksum of a sealed one is compared and left out.

    Args:
        mend: what the user can do about damage, for the error.
    Raises: `DataError` naming the line.
    """
    raw = read_bytes(path)
    value = parse_json(raw, path, mend)
    seal = value.pop("checksum", None) if isinstance(value, dict) else None
    sealed = isinstance(seal, str) and seal.startswith("xxh3:")
    if _BROKEN_SEAL.search(raw) if not sealed else not _seal_fits(raw, value, str(seal)):
        raise DataError(
            f"{path}: is damaged, or was edited since it was written (its checksum does not"
            f' fit); {mend}. To keep an edit, remove the last line "checksum"'
        )
    return value


def _seal_fits(raw: bytes, value: JsonValue, seal: str) -> bool:
    """Whether a document is as it was written: byte by byte, or at least in all its values."""
    raw = raw.replace(b"\r\n", b"\n")
    written = _SEAL.search(raw, max(0, len(raw) - 100))
    if written and xxh3_64_hexdigest(raw[: written.start()]) == written[1].decode():
        return True
    text = json.dumps(value, ensure_ascii=False, indent=1).removesuffix("\n}")
    return seal == f"xxh3:{xxh3_64_hexdigest(text.encode(errors='backslashreplace'))}"


def parse_json(raw: bytes | str, place: object, mend: str = "") -> JsonValue:
    """The value of a JSON text, whatever is wrong with it.

    Args:
        place: the file (and line) it comes from, for the error.
    Raises: `DataError`: no UTF-8, no JSON, nested too deeply, or a number of too many digits.
    """
    after = f"; {mend}" if mend else ""
    try:
        return json.loads(raw.decode("utf-8") if isinstance(raw, bytes) else raw)
    except json.JSONDecodeError as error:
        line = f":{error.lineno}" if error.lineno > 1 or isinstance(place, Path) else ""
        raise DataError(f"{place}{line}: is not valid JSON ({error.msg}){after}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: is not valid UTF-8 at byte {error.start}{after}") from error
    except RecursionError as error:
        raise DataError(
            f"{place}: cannot be used as JSON (it is nested too deeply){after}"
        ) from error
    except ValueError as error:  # a number of more than 4,300 digits
        raise DataError(
            f"{place}: cannot be used as JSON (a number is too long){after}"
        ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping. Raises `ConfigError` naming the line.

    Anchors and aliases, which let a few bytes stand for gigabytes, are refused, and so are tags; a
    date is a text.
    """
    try:
        if path.stat().st_size > LARGEST_YAML:
            raise ConfigError(f"{path}: is too large for a file of settings (more than 1 MB)")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not valid UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from error
    value = _parse_yaml(path, text)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: must hold settings as `name: value` lines, not a {type(value).__name__}"
        )
    return value


def _parse_yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.load(text, Loader=_yaml_loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{path}{line}: is not valid YAML ({problem[:200]})") from error
    except RecursionError as error:
        raise ConfigError(
            f"{path}: is nested too deeply for a file of settings; write settings as `name:"
            " value` lines"
        ) from error
    except (ValueError, OverflowError) as error:  # such as "\UFFFFFFFF"
        raise ConfigError(
            f"{path}: holds an escape that is no character; write the character itself"
        ) from error


@lru_cache(maxsize=1)
def _yaml_loader() -> Any:
    import yaml

    class SettingsLoader(yaml.SafeLoader):
        """Plain values, lists and mappings; nothing that refers to something else."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            """Refuse anchors, aliases, tags, and nesting that no setting has."""
            event = self.peek_event()
            anchor = getattr(event, "anchor", None)
            if anchor is not None:
                what = "aliases (*) and anchors (&) are not taken; write the value out"
                raise yaml.composer.ComposerError(None, None, what, event.start_mark)
            if event.tag is not None:
                what = "tags (!) are not taken; write the plain value, or a text in quotes"
                raise yaml.composer.ComposerError(None, None, what, event.start_mark)
            self.depth = getattr(self, "depth", 0) + 1
            if self.depth > DEEPEST_YAML:
                what = "is nested too deeply for settings"
                raise yaml.composer.ComposerError(None, None, what, event.start_mark)
            try:
                return super().compose_node(parent, index)
            finally:
                self.depth -= 1

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            """Refuse a name that stands twice: the first value would be lost without a word."""
            seen = set()
            for key, _ in node.value:
                if isinstance(key.value, str) and key.value in seen:
                    what = f"{key.value[:60]!r} stands there twice"
                    raise yaml.constructor.ConstructorError(None, None, what, key.start_mark)
                if isinstance(key.value, str):
                    seen.add(key.value)
            return super().construct_mapping(node, deep)

    # The core schema of YAML 1.2: `no` is a language and 1:30 a text, `1e-4` is a number.
    SettingsLoader.yaml_implicit_resolvers = {}
    for tag, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("int", r"[-+]?[0-9]+", "-+0123456789"),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            "-+0123456789.",
        ),
    ):
        whole = re.compile(f"^(?:{pattern})$")
        SettingsLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", whole, list(first))

    def whole_number(loader: Any, node: Any) -> int:
        try:
            return int(loader.construct_scalar(node))
        except ValueError as error:  # more than 4,300 digits
            what = "a number is too long to be read; shorten it"
            raise yaml.constructor.ConstructorError(
                None, None, what, node.start_mark
            ) from error

    SettingsLoader.add_constructor("tag:yaml.org,2002:int", whole_number)
    return SettingsLoader


def read_bytes(path: Path) -> bytes:
    """A file's bytes. Raises `DataError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The bytes of a file, or its lines, unpacked as its suffix says."""
    if path.suffix == ".gz":
        with gzip.open(path, "rb") as unpacked:
            yield unpacked
    elif path.suffix == ".zst":
        import pyarrow as pa

        with (
            pa.input_stream(pa.OSFile(os.fsencode(path)), compression="zstd") as arrow,
            io.BufferedReader(arrow) as buffered,
        ):
            yield buffered
    else:
        with path.open("rb") as plain:
            yield plain


def limit_of(variable: str, default: int) -> int:
    """A number of bytes from an environment variable such as ``512MB``. Raises `ConfigError`."""
    given = os.environ.get(variable)
    if not given:
        return default
    try:
        return memory_bytes(given)
    except ValueError as error:
        raise ConfigError(f"{variable}: {error}") from error


def line_limit() -> int:
    """The most bytes of an unpacked line, cell or unit of text. Raises `ConfigError`."""
    return limit_of("HYBRIDBATCH_MAX_LINE", MOST_LINE)


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(line number from 1, text without its end) of a UTF-8 file that `open_lines` can open.

    A byte order mark is left out. Raises `DataError` as `open_lines`, and for a line that is not
    UTF-8.
    """
    with open_lines(path) as lines:
        for number, raw in lines:
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: is not valid UTF-8 at byte {error.start} of the line;"
                    " save the file as UTF-8"
                ) from error
            yield number, text


@contextmanager
def open_lines(path: Path) -> Iterator[Iterator[tuple[int, bytes]]]:
    """(line number from 1, raw line without its end) of a plain, ``.gz`` or ``.zst`` file.

    Raises `DataError` for a missing, unreadable or truncated file, naming the last good line, and
    for a line of more than 256 MiB, such as a small packed file can hold (``HYBRIDBATCH_MAX_LINE``
    in the environment is another limit).
    """
    line = 0

    most = line_limit()

    def numbered(handle: Any) -> Iterator[tuple[int, bytes]]:
        nonlocal line
        while raw := handle.readline(most + 1):
            line += 1
            if len(raw) > most:
                raise DataError(
                    f"{path}:{line}: has more than {most:,} bytes in one line; to read longer"
                    " lines, set HYBRIDBATCH_MAX_LINE=1GB in the environment"
                )
            yield line, raw.rstrip(b"\r\n")

    try:
        with _opened(path) as handle:
            yield numbered(handle)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: is truncated or damaged after line {line} ({error}); fetch it again"
        ) from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read after line {line} ({error.strerror or error})"
        ) from error


@contextmanager
def open_stream(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a plain, ``.gz`` or ``.zst`` file. Raises `DataError` as `open_lines`."""
    try:
        with _opened(path) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: is truncated or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


def plain_name(text: str) -> str:
    """A text as part of a file's name: all but letters, digits, dots, underscores and dashes
    becomes dashes.
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(value: JsonValue, length: int = 16) -> str:
    """A short hex sha256 of a JSON-like value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def cache_folder() -> Path:
    """Where converted models and embeddings are kept: $HYBRIDBATCH_CACHE, else the user's cache
    folder.
    """
    chosen = os.environ.get("HYBRIDBATCH_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hybridbatch"
