"""The project's own JSON documents: written with a checksum, and read through one door.

A document says what it is (``kind``, ``schema_version``). A `Shape` names what its readers rely on,
so that a file of another shape is refused here, in one line, and not where a key is missed. Keys
that a shape does not name are kept.
"""

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import REMAKE, read_json

SHOWN = 80  # characters of a value in a message


class Shape(BaseModel):
    """The entries that a document must have. Values are not converted: ``"3"`` is no number."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    kind_name: ClassVar[str] = ""  # what ``kind`` must be; empty: the document has none
    versions: ClassVar[tuple[int, ...]] = ()  # schema versions that this program reads
    what: ClassVar[str] = "document"  # for messages, such as "manifest of prepared data"
    listed: ClassVar[str] = ""  # name of the only entry, if the file holds its value alone


class Trained(Shape):
    """The entries of ``train.json`` that other commands read."""

    kind_name: ClassVar[str] = "train"
    versions: ClassVar[tuple[int, ...]] = (1,)
    what: ClassVar[str] = "record of a finished training"

    config: dict[str, Any]
    trained_languages: list[str]


def read_document(path: Path, shape: type[Shape], mend: str = REMAKE) -> dict[str, Any]:
    """A document as a plain dictionary, checked against its shape and its checksum.

    Args:
        mend: what the user can do about a file that cannot be used.
    Raises: `DataError`: damaged, of another kind or schema version, or of another shape.
    """
    value = read_json(path, mend)
    if shape.kind_name:
        if not isinstance(value, dict) or value.get("kind") != shape.kind_name:
            raise DataError(f"{path}: is not the {shape.what}; {mend}")
        version = value.get("schema_version")
        if shape.versions and version not in shape.versions:
            known = ", ".join(map(str, shape.versions))
            raise DataError(
                f"{path}: has schema version {_cut(version)}, but this version of hybridbatch"
                f" reads {known}; {mend}, or use the version of hybridbatch that wrote the"
                " file"
            )
    require_shape(value, shape, path, mend)
    return value


def read_shape(path: Path, shape: type[Shape], mend: str = REMAKE) -> dict[str, Any]:
    """A JSON file that has no ``kind``, checked against its shape. Raises `DataError`."""
    value = read_json(path, mend)
    if shape.listed:
        value = {shape.listed: value}
    require_shape(value, shape, path, mend)
    assert isinstance(value, dict)
    return value


def require_shape(value: Any, shape: type[Shape], place: object, mend: str = REMAKE) -> None:
    """Raise `DataError` naming the first entry of a JSON value that is missing or of a wrong type."""
    try:
        shape.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "its content"
        reason = first["msg"].partition(" or instance of ")[0]
        reason = reason[:1].lower() + reason[1:]
        found = "" if first["type"] == "missing" else f" (found {_cut(first['input'])})"
        raise DataError(
            f"{place}: cannot be used as the {shape.what}: {where[:SHOWN]}:"
            f" {reason[:200]}{found}; {mend}"
        ) from error


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def read_training(run: Path) -> dict[str, Any]:
    """The ``train.json`` of a run folder. Raises `DataError`."""
    return read_document(run / "train.json", Trained, "train the model again")
