"""The settings of every command: built once, checked, then frozen.

A field's description, bounds and panel are its only documentation: the command line's options,
`--config` files and the JSON of a run are all made from these classes.
"""

import re
import reprlib
from collections.abc import Collection, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hybridbatch.common.errors import ConfigError, DataError, nearest
from hybridbatch.common.files import read_yaml
from hybridbatch.common.languages import language_of_texts
from hybridbatch.common.sizes import memory_bytes

ResolvedPrecision = Literal["fp32", "bf16", "fp16"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
S = TypeVar("S", bound="Settings")
MESSAGE_LENGTH = 460  # characters of a message about settings, at most
UNWRITABLE = re.compile("[\0\ud800-\udfff]")
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
LARGEST_INTEGER = 2**63 - 1
FACTORS = {"%": Decimal("0.01"), "k": Decimal(1_000), "m": Decimal(1_000_000)}


def setting(default: Any, panel: str, description: str, **bounds: Any) -> Any:
    """Make a field with its help text, its panel of `--help`, and bounds such as ``ge=0``."""
    return Field(default, description=description, json_schema_extra={"panel": panel}, **bounds)


class Settings(BaseModel):
    """Base of all settings: they are immutable, and unknown names are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _within_reason(cls, value: Any) -> Any:
        """Refuse integers beyond 64 bits, and texts that no file or terminal accepts."""
        if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError("is beyond 64 bits")
        if isinstance(value, str) and UNWRITABLE.search(value):
            raise ValueError("holds a character that neither file names nor terminals accept")
        return value

    def as_json(self) -> dict[str, Any]:
        """Every setting with its value, as JSON types."""
        return self.model_dump(mode="json")


class EncoderSettings(Settings):
    """How an encoder is loaded, for training and for evaluation."""

    pooling: Literal["auto", "mean", "cls", "lasttoken"] = setting(
        "auto", "Model", "Pooling; auto: the pooling that the model states, else mean."
    )
    query_prompt: str | None = setting(
        None,
        "Model",
        "Text put before every query; default: the prompt that the model states, else 'query: '.",
    )
    passage_prompt: str | None = setting(
        None,
        "Model",
        "Text put before every passage; default: the prompt that the model states, else"
        " 'passage: '.",
    )
    max_query_tokens: int = setting(
        64, "Model", "Number of tokens kept of a query, special tokens included.", ge=3
    )
    max_passage_tokens: int = setting(
        256, "Model", "Number of tokens kept of a passage, special tokens included.", ge=3
    )
    trust_remote_code: bool = setting(
        False,
        "Model",
        "Run code that comes with the model. Without this option such code never runs.",
    )

    @property
    def encoder_options(self) -> dict[str, Any]:
        """The keyword arguments of `hybridbatch.model.Encoder.load`."""
        return {name: getattr(self, name) for name in EncoderSettings.model_fields}


def wanted_recall() -> Any:
    """The setting of how much an approximate index must find."""
    return setting(
        0.95,
        "Search",
        "Share of the true first --depth passages that an approximate index must find; the"
        " index is tuned to it on a sample of queries.",
        gt=0,
        le=1,
    )


class DataRootSettings(Settings):
    """Where local copies of public data sets are."""

    data_root: Path | None = setting(
        None,
        "Data",
        "Folder of local copies of public data sets; it is searched before anything is downloaded.",
    )


class MachineSettings(Settings):
    """The device that computes, and its number format."""

    device: str = setting(
        "auto", "Machine", "cpu, cuda, cuda:1 or mps; auto: a GPU if there is one."
    )
    precision: Precision = setting(
        "auto",
        "Machine",
        "Number format; auto: bf16 if the machine computes it fast, else fp32.",
    )


class KernelSettings(Settings):
    """How texts are encoded outside of training."""

    kernels: Literal["auto", "plain", "packed"] = setting(
        "auto",
        "Machine",
        "How texts are encoded on a CPU. plain: as in training; packed: faster, and vectors"
        " differ by 1e-7; auto: packed on machines where it was measured to be faster.",
    )


class CacheSettings(Settings):
    """Where embeddings are stored."""

    cache: Path | None = setting(
        None, "Machine", "Folder of stored embeddings; default: the user's cache folder."
    )


def checked_memory_size(value: str | None) -> str | None:
    """A validator of settings that are amounts of memory. Raises `ValueError`."""
    if value is not None:
        memory_bytes(value)
    return value


def checked_language(code: str | None) -> str | None:
    """A validator of settings that are a language: its canonical id. Raises `ValueError`."""
    if code is None:
        return None
    try:
        return language_of_texts(code)
    except DataError as error:
        raise ValueError(str(error)) from error


def build(
    cls: type[S], file: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> S:
    """Build settings from a YAML file, if there is one; `overrides` take precedence.

    Numbers may be written as people write them: ``50%``, ``10k``, ``1.5M``. Lists and mappings may
    be one text: ``64,128`` and ``afriqa=2,ntrex=0.5``.

    Raises `ConfigError`: one line of at most 500 characters that names every bad setting, its
    value, its place and the mend.
    """
    fields = cls.model_fields
    written = _read(file)
    given = dict(overrides or {})
    place = f"{file}: " if file else ""
    for name in [*written, *given]:
        if name not in fields:
            origin = place if name in written else ""
            suggestion = nearest(name, list(fields))
            raise ConfigError(f"{origin}unknown setting {shortened(name)!r}{suggestion}")

    for name, value in written.items():
        if isinstance(value, bool) and not _allows(bool, fields[name].annotation):
            raise ConfigError(
                f"{place}{name} = {str(value).lower()}: must not be true or false"
            )
    written = {name: _parsed(fields[name].annotation, value) for name, value in written.items()}
    given = {name: _parsed(fields[name].annotation, value) for name, value in given.items()}
    merged = {
        name: _layered(
            fields[name].default, written.get(name), given.get(name, written.get(name))
        )
        for name in {**written, **given}
    }
    try:
        return cls(**merged)
    except ValidationError as error:
        of_file = set(written) - set(given)
        problems = [_problem(problem, place, of_file) for problem in error.errors()]
        raise ConfigError(shortened("; ".join(problems), MESSAGE_LENGTH)) from error


def _read(file: Path | None) -> dict[str, Any]:
    """The settings of a file by the names of their fields. Raises `ConfigError`."""
    written: dict[str, Any] = {}
    for given, value in read_yaml(file).items() if file else ():
        name = str(given).replace("-", "_")
        if name in written:
            raise ConfigError(
                f"{file}: {shortened(name)!r} stands there twice, once with a dash (-) and once"
                " with an underscore (_); take one out"
            )
        written[name] = value
    return written


def _layered(default: Any, written: Any, given: Any) -> Any:
    """Return the value of a setting: that of the last layer that gives one.

    A mapping is merged name by name: default, then file, then command line.
    """
    layers = [layer for layer in (default, written, given) if layer is not None]
    if not isinstance(given, dict) or not all(isinstance(layer, dict) for layer in layers):
        return given
    merged = {}
    for layer in layers:
        merged.update(layer)
    return merged


def _problem(problem: Mapping[str, Any], place: str, of_file: Collection[str]) -> str:
    """Describe one finding of pydantic in words.

    Args:
        place: the file, as a prefix.
        of_file: names of the settings whose values come from the file.
    """
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not problem["loc"]:
        return f"{place}{message}"
    name = str(problem["loc"][0])
    origin = place if name in of_file else ""
    return f"{origin}{name} = {shortened(problem['input'])}: {message}"


def shortened(value: Any, most: int = 60) -> str:
    """A value for a message: one line, cut in the middle if it is long."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = " ".join(text[: 4 * most].split()) if len(text) > most else " ".join(text.split())
    text = CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
    if len(text) <= most:
        return text
    half = (most - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def _parsed(annotation: Any, value: Any) -> Any:
    """A value that was written as one text, in the shape that the setting has."""
    if isinstance(value, list):
        return [parsed_number(annotation, each) for each in value]
    if isinstance(value, dict):
        return {name: parsed_number(annotation, each) for name, each in value.items()}
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "none" and type(None) in get_args(annotation):
        return None
    kind = get_origin(annotation)
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if kind is tuple:
        return [parsed_number(annotation, part) for part in parts]
    if kind is dict:
        named = re.split(r",(?=[^,=]*=)", value)  # other commas belong to a value
        pairs = [part.strip(" ,").partition("=") for part in named if part.strip(" ,")]
        return {
            name.strip(): parsed_number(annotation, each.strip()) for name, _, each in pairs
        }
    return parsed_number(annotation, value)


def parsed_number(annotation: Any, value: Any) -> Any:
    """``50%`` as 0.5 and ``10k`` as 10000 where the setting holds numbers; other values as given."""
    if not isinstance(value, str):
        return value
    if not (_allows(int, annotation) or _allows(float, annotation)):
        return value
    match = re.fullmatch(r"([+-]?\d{1,15}(?:\.\d{1,15})?)\s*(%|[kKmM])", value.strip())
    if match is None:
        return value
    number = Decimal(match[1]) * FACTORS[match[2].lower()]
    return int(number) if number == int(number) else float(number)


def _allows(kind: Any, annotation: Any) -> bool:
    """Whether a setting takes values of a kind, alone or in a list or mapping."""
    if annotation is kind or annotation is Any:
        return True
    return any(_allows(kind, part) for part in get_args(annotation))


def separated(value: Any, mark: str) -> list[str]:
    """The parts of a text, or the items of a list, as texts; for settings that hold several.

    Raises `ValueError` for anything else.
    """
    if isinstance(value, str):
        value = value.split(mark)
    if not isinstance(value, list | tuple):
        raise ValueError("must be a text or a list of texts")
    return [text for text in (str(part).strip() for part in value) if text]
