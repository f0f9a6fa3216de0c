"""A small hub on this machine, for the unmodified clients of huggingface_hub, datasets and mteb.

``with HubMirror(root) as url`` serves the folders ``root/models/ORG/NAME`` and
``root/datasets/ORG/NAME``; clients find it through ``HF_ENDPOINT=url HF_HUB_DISABLE_XET=1``. A
repository has one state, its files on disk, whatever revision a client asks for. Clients may also
create repositories and upload files, which then lie in the root.

`faults` makes the download of a file fail with the chance given: ``"429"`` and ``"503"`` answer with
that status, ``"truncate"`` closes the connection after half of the bytes, ``"slow"`` waits a while.
"""

import base64
import hashlib
import json
import random
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = ("models", "datasets", "spaces")
SLOW_SECONDS = 2
LARGE = 10 << 20  # bytes; a larger file goes another way
PAGE_ROWS = 1000  # rows of a listing that the hub sends at a time


class Absent(Exception):
    """What a client asked for does not exist; `code` is how the hub names the case."""

    def __init__(self, code: str, commit: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.commit = commit


class Repository:
    """The files of one repository."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def files(self) -> list[str]:
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in paths)

    def file(self, name: str) -> Path:
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()) or not path.is_file():
            raise Absent("EntryNotFound", self.commit("main"))
        return path

    def commit(self, revision: str) -> str:
        """A commit hash stands for itself; a branch or tag for a hash of all that is there."""
        if re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        if revision.startswith(("refs/convert/", "refs/pr/")):
            raise Absent("RevisionNotFound")
        listing = [f"{name} {blob_id(self.folder / name)}" for name in self.files()]
        return hashlib.sha1("\n".join(listing).encode()).hexdigest()

    def entry(self, name: str) -> dict[str, Any]:
        """How the hub lists a file or a folder."""
        path = self.folder / name
        if path.is_dir():
            return {"type": "directory", "path": name, "size": 0, "oid": text_id(name)}
        size = path.stat().st_size
        return {"type": "file", "path": name, "size": size, "oid": blob_id(path)}

    def tree(self, below: str, recursive: bool) -> list[dict[str, Any]]:
        """The entries under a folder; without `recursive` only those directly in it."""
        top = self.folder / below
        if not top.is_dir():
            raise Absent("EntryNotFound", self.commit("main"))
        paths = top.rglob("*") if recursive else top.glob("*")
        names = sorted(path.relative_to(self.folder).as_posix() for path in paths)
        return [self.entry(name) for name in names]

    def info(self, revision: str, blobs: bool) -> dict[str, Any]:
        """The page of a repository, as clients read it before they download a snapshot."""
        names = self.files()
        siblings: list[dict[str, Any]] = [{"rfilename": name} for name in names]
        if blobs:
            for sibling in siblings:
                entry = self.entry(sibling["rfilename"])
                sibling.update(size=entry["size"], blobId=entry["oid"])
        changed = timestamp(max((self.folder / name).stat().st_mtime for name in names))
        return {
            "_id": text_id(self.name)[:24],
            "id": self.name,
            "author": self.name.partition("/")[0],
            "sha": self.commit(revision),
            "createdAt": changed,
            "lastModified": changed,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": siblings,
        }


def text_id(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


_BLOB_IDS: dict[tuple[str, int, int], str] = {}


def blob_id(path: Path) -> str:
    """The name that git gives a file's content; computed once while the file stays as it is."""
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    if key not in _BLOB_IDS:
        digest = hashlib.sha1(f"blob {status.st_size}\0".encode())
        digest.update(path.read_bytes())
        _BLOB_IDS[key] = digest.hexdigest()
    return _BLOB_IDS[key]


def timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Handler(BaseHTTPRequestHandler):
    """Answers one client."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: tests print what they need."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        """A large file, at the address that ``objects/batch`` gave out for its hash."""
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        path = self.server.large_file(self.path.rpartition("/")[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while left:
                part = self.rfile.read(min(left, 1 << 20))
                digest.update(part)
                file.write(part)
                left -= len(part)
        self._send_json({}, 200 if digest.hexdigest() == path.name else 422)

    def _answer(self, act: Callable[[list[str], dict[str, str], bytes], None]) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urlsplit(self.path)
        steps = [unquote(step) for step in url.path.split("/") if step]
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            act(steps, query, body)
        except Absent as absent:
            headers = {"X-Error-Code": absent.code, "X-Error-Message": absent.code}
            if absent.commit:
                headers["X-Repo-Commit"] = absent.commit
            self._send_json({"error": absent.code}, 404, headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _get(self, steps: list[str], query: dict[str, str], body: bytes) -> None:
        if steps == ["api", "whoami-v2"]:
            self._send_json({"type": "user", "name": "tester", "orgs": []})
        elif steps[:1] == ["api"]:
            self._get_facts(steps[1:], query)
        else:
            self._get_file(steps)

    def _get_facts(self, steps: list[str], query: dict[str, str]) -> None:
        """``/api/KIND/ORG/NAME[/VERB[/REVISION[/PATH]]]``."""
        repository = self._repository(steps[0], steps[1:3])
        verb = steps[3] if len(steps) > 3 else "revision"
        revision = steps[4] if len(steps) > 4 else "main"
        below = "/".join(steps[5:])
        repository.commit(revision)  # raises where the revision does not exist
        if verb == "revision":
            info = repository.info(revision, blobs=is_true(query, "blobs"))
            self._send_json({**info, "private": repository.name in self.server.private})
        elif verb == "tree":
            self._send_pages(repository.tree(below, is_true(query, "recursive")), query)
        elif verb == "refs":
            main = {
                "name": "main",
                "ref": "refs/heads/main",
                "targetCommit": repository.commit("main"),
            }
            self._send_json(
                {"branches": [main], "tags": [], "converts": [], "pullRequests": []}
            )
        else:
            raise Absent("EndpointNotFound")

    def _send_pages(self, rows: list[dict[str, Any]], query: dict[str, str]) -> None:
        first = int(query.get("cursor", "0"))
        headers = {}
        if len(rows) > first + PAGE_ROWS:
            parts = [f"{name}={value}" for name, value in query.items() if name != "cursor"]
            following = "&".join([*parts, f"cursor={first + PAGE_ROWS}"])
            address = f"http://{self.headers['Host']}{urlsplit(self.path).path}?{following}"
            headers["Link"] = f'<{address}>; rel="next"'
        self._send_json(rows[first : first + PAGE_ROWS], headers=headers)

    def _get_file(self, steps: list[str]) -> None:
        """``[/datasets]/ORG/NAME/resolve/REVISION/PATH``."""
        kind = steps[0] if steps[0] in KINDS else "models"
        if steps[0] in KINDS:
            steps = steps[1:]
        if len(steps) < 5 or steps[2] != "resolve":
            raise Absent("PageNotFound")
        repository = self._repository(kind, steps[:2])
        commit = repository.commit(steps[3])
        path = repository.file("/".join(steps[4:]))
        fault = self.server.draw_fault() if self.command == "GET" else None
        if fault in ("429", "503"):
            self._send_json({"error": "a fault"}, int(fault), {"Retry-After": "1"})
            return
        if fault == "slow":
            time.sleep(SLOW_SECONDS)
        self._send_file(path, commit, truncate=fault == "truncate")

    def _send_file(self, path: Path, commit: str, truncate: bool) -> None:
        content = path.read_bytes()
        size = len(content)
        part = byte_range(self.headers.get("Range", ""), size)
        if part.start >= part.stop and size:
            self._send_json({"error": "range"}, 416, {"Content-Range": f"bytes */{size}"})
            return
        self.send_response(200 if len(part) == size else 206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{blob_id(path)}"')
        self.send_header("X-Repo-Commit", commit)
        if len(part) != size:
            span = f"bytes {part.start}-{part.stop - 1}/{size}"
            self.send_header("Content-Range", span)
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = part.start + len(part) // 2 if truncate else part.stop
        self.close_connection = truncate
        self.wfile.write(content[part.start : stop])

    def _post(self, steps: list[str], query: dict[str, str], body: bytes) -> None:
        if steps == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif steps == ["api", "validate-yaml"]:
            self._send_json({"errors": [], "warnings": []})
        elif steps[2:] == ["info", "lfs", "objects", "batch"]:
            self._send_json(self._large_files(json.loads(body)["objects"]))
        elif steps[4:5] == ["paths-info"]:
            self._paths_info(self._repository(steps[1], steps[2:4]), body)
        elif steps[4:5] == ["preupload"]:
            files = json.loads(body)["files"]
            self._send_json({"files": [{**file, **upload_mode(file)} for file in files]})
        elif steps[4:5] == ["commit"]:
            self._commit(steps[1], self._repository(steps[1], steps[2:4]), body)
        else:
            raise Absent("EndpointNotFound")

    def _large_files(self, objects: list[dict[str, Any]]) -> dict[str, Any]:
        """Where the client puts files beyond `LARGE`: the protocol of Git LFS."""
        actions = []
        for each in objects:
            href = f"{self.server.url}/large/{each['oid']}"
            actions.append({**each, "actions": {"upload": {"href": href}}})
        return {"transfer": "basic", "objects": actions}

    def _create(self, wanted: dict[str, Any]) -> None:
        kind = wanted.get("type", "model") + "s"
        name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        folder = self.server.root / kind / name
        if folder.is_dir() and any(folder.iterdir()):
            url = f"{self.server.url}/{name}"
            self._send_json({"error": "You already created this repo", "url": url}, 409)
            return
        if "private" in (
            wanted.get("visibility"),
            *(key for key in wanted if wanted[key] is True),
        ):
            self.server.private.add(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitattributes").write_text("")
        url = f"{self.server.url}/{name}"
        self._send_json({"url": url, "name": name, "id": text_id(name)[:24]})

    def _paths_info(self, repository: Repository, body: bytes) -> None:
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(body)["paths"]
        else:
            paths = parse_qs(body.decode())["paths"]
        if isinstance(paths, str):
            paths = [paths]
        there = [
            path.strip("/") for path in paths if (repository.folder / path.strip("/")).exists()
        ]
        self._send_json([repository.entry(path) for path in there])

    def _commit(self, kind: str, repository: Repository, body: bytes) -> None:
        """Write the files of a commit, which come as one line of JSON each."""
        for line in body.decode().splitlines():
            change = json.loads(line)
            if change["key"] not in ("file", "lfsFile"):
                continue
            path = repository.folder / change["value"]["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            if change["key"] == "file":
                path.write_bytes(base64.b64decode(change["value"]["content"]))
            else:
                shutil.move(self.server.large_file(change["value"]["oid"]), path)
        commit = repository.commit("main")
        url = f"{self.server.url}/{repository.name}/commit/{commit}"
        self._send_json({"success": True, "commitOid": commit, "commitUrl": url})

    def _repository(self, kind: str, name: list[str]) -> Repository:
        folder = self.server.root.joinpath(kind, *name)
        if kind not in KINDS or len(name) != 2 or ".." in name or not folder.is_dir():
            raise Absent("RepoNotFound")
        return Repository("/".join(name), folder)

    def _send_json(
        self, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def upload_mode(file: Mapping[str, Any]) -> dict[str, Any]:
    """How a client has to send a file."""
    mode = "lfs" if file["size"] > LARGE else "regular"
    return {"uploadMode": mode, "shouldIgnore": False}


def is_true(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1")


def byte_range(header: str, size: int) -> range:
    """The bytes that a ``Range`` header asks for; all of them without one."""
    asked = re.fullmatch(r"bytes=(\d*)-(\d*)", header)
    if not asked:
        return range(size)
    first, last = asked.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    stop = int(last) + 1 if last else size
    return range(int(first), min(stop, size))


class Server(ThreadingHTTPServer):
    """Serves a root folder, with faults drawn from a generator of its own."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root: Path, faults: Mapping[str, float], seed: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.private: set[str] = set()  # names of repositories that clients made private
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._faults = faults
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def large_file(self, name: str) -> Path:
        """Where a large file lies before a commit names it."""
        return self.root / "large" / Path(name).name

    def draw_fault(self) -> str | None:
        with self._lock:
            draw = self._random.random()
        for fault, chance in self._faults.items():
            if draw < chance:
                return fault
            draw -= chance
        return None


class HubMirror:
    """A hub for the length of a ``with`` block."""

    def __init__(
        self, root: Path, faults: Mapping[str, float] | None = None, seed: int = 0
    ) -> None:
        self._server = Server(Path(root), faults or {}, seed)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self._server.url

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
