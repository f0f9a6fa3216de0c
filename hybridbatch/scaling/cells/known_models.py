"""The fingerprints of models, computed once for the files that a model has.

A fingerprint needs the loaded model, which takes several seconds with the imports. The cache keeps
it under the names, sizes and times of the model's files. So a sweep starts without torch.
"""

from pathlib import Path

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import cache_folder, fingerprint, read_json, write_json
from hybridbatch.common.progress import Reporter, SilentReporter
from hybridbatch.common.provenance import versions
from hybridbatch.model import BUILTIN
from hybridbatch.model.builtin import builtin_location

SCHEMA = 1  # raise it when `Encoder.fingerprint` gives other values for the same files
LIBRARIES = ("hybridbatch", "torch", "transformers", "tokenizers")


def model_fingerprint(name: str, report: Reporter) -> str:
    """The result of `Encoder.fingerprint` for a model that is loaded with default options.

    Notes of the loading are reported in every case.

    Raises:
        ModelError: the model cannot be loaded.
    """
    place = cache_folder() / "fingerprints" / f"{_key(name, report)}.json"
    if place.exists():
        try:
            kept = read_json(place)
            notes, found = list(kept["notes"]), str(kept["fingerprint"])
        except (DataError, KeyError, TypeError):
            pass  # the file is damaged, so the model is loaded again
        else:
            for note in notes:
                report.note(note)
            return found
    from hybridbatch.model import Encoder

    heard = _Heard(report)
    found = Encoder.load(name, report=heard).fingerprint()
    write_json(place, {"model": name, "fingerprint": found, "notes": heard.notes}, sealed=True)
    return found


def _key(name: str, report: Reporter) -> str:
    folder = _folder(name, report)
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            status = path.stat()
            files.append([str(path.relative_to(folder)), status.st_size, status.st_mtime_ns])
    own = versions()
    libraries = [own.get(library) for library in LIBRARIES]
    return fingerprint([SCHEMA, name, str(folder.resolve()), libraries, files])


def _folder(name: str, report: Reporter) -> Path:
    """The folder of a model's files. Only for a hub model this imports torch."""
    if name in BUILTIN:
        location = builtin_location(name, report)
        if isinstance(location, Path):
            return location
    else:
        given = Path(name).expanduser()
        for folder in (given, given / "model"):
            if (folder / "config.json").is_file():
                return folder
    from hybridbatch.model.loading import locate

    return Path(locate(name, report).location)


class _Heard(SilentReporter):
    """Passes notes and warnings on, and keeps them."""

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep a note."""
        self.notes.append(text)
        self.report.note(text)

    def warn(self, text: str) -> None:
        """Keep a warning as a note."""
        self.notes.append(text)
        self.report.warn(text)
