"""The settings of every command: built once, checked, then frozen.

A field's description, bounds and panel are its only documentation: the command line's options,
`--config` files and the JSON of a run are all made from these classes.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hybridbatch.common.errors import ConfigError, nearest
from hybridbatch.common.files import read_yaml

Precision = Literal["auto", "fp32", "bf16"]
S = TypeVar("S", bound="Settings")


def setting(default: Any, panel: str, description: str, **bounds: Any) -> Any:
    """A field with its help text, the panel of `--help` it belongs to, and bounds such as ``ge=0``."""
    return Field(default, description=description, json_schema_extra={"panel": panel}, **bounds)


def _memory_size(value: str | None) -> str | None:
    if value is not None:
        memory_bytes(value)
    return value


class Settings(BaseModel):
    """Base of all settings: immutable, unknown names refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    def as_json(self) -> dict[str, Any]:
        """Every setting with its value, as JSON types."""
        return self.model_dump(mode="json")


class EncoderSettings(Settings):
    """How an encoder is loaded, for training and for evaluation."""

    pooling: Literal["auto", "mean", "cls"] = setting(
        "auto", "Model", "Pooling; auto: as the model says, else mean."
    )
    query_prompt: str | None = setting(
        None, "Model", "Text put before every query; default: as the model says, else 'query: '."
    )
    passage_prompt: str | None = setting(
        None,
        "Model",
        "Text put before every passage; default: as the model says, else 'passage: '.",
    )
    max_query_tokens: int = setting(
        64, "Model", "Tokens kept of a query, special ones included.", ge=3
    )
    max_passage_tokens: int = setting(
        256, "Model", "Tokens kept of a passage, special ones included.", ge=3
    )

    @property
    def encoder_options(self) -> dict[str, Any]:
        """The keyword arguments of `hybridbatch.model.Encoder.load`."""
        return {name: getattr(self, name) for name in EncoderSettings.model_fields}


def memory_bytes(size: str) -> int:
    """``8GB``, ``512MB`` or ``1.5GiB`` in bytes. Raises `ValueError`."""
    units = {
        f"{letter}{kind}": base**power
        for power, letter in enumerate("kmgt", 1)
        for kind, base in (("b", 1000), ("ib", 1024))
    }
    text = size.strip().lower()
    unit = next(
        (unit for unit in sorted(units, key=len, reverse=True) if text.endswith(unit)), None
    )
    try:
        value = float(text.removesuffix(unit)) * units[unit] if unit else math.nan
    except ValueError:
        value = math.nan
    if not 1e6 <= value < math.inf:
        raise ValueError(f"{size!r} is not an amount of memory; write 512MB, 8GB or 16GiB")
    return int(value)


def build(cls: type[S], file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> S:
    """Settings from a YAML file (if any) with `overrides` on top.

    Raises `ConfigError`: one line naming every bad setting, its value, its place and the mend.
    """
    values = read_yaml(file) if file else {}
    place = f"{file}: " if file else ""
    fields = cls.model_fields
    values = {str(name).replace("-", "_"): value for name, value in values.items()}
    for name in [*values, *(overrides or {})]:
        if name not in fields:
            origin = place if name in values else ""
            raise ConfigError(f"{origin}unknown setting {name!r}{nearest(name, list(fields))}")
    layers = [
        {name: _split(fields[name].annotation, value) for name, value in each.items()}
        for each in (values, overrides or {})
    ]
    merged = {**layers[0], **layers[1]}
    # a mapping is set name by name, on top of the file's and the default
    for name, value in merged.items():
        parts = [fields[name].default, *(layer.get(name) for layer in layers)]
        if isinstance(value, dict) and all(isinstance(part, dict | None) for part in parts):
            merged[name] = {key: each for part in parts if part for key, each in part.items()}
    try:
        return cls(**merged)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else ""
            message = problem["msg"].removeprefix("Value error, ")
            message = message[:1].lower() + message[1:]
            origin = place if name in values and name not in (overrides or {}) else ""
            problems.append(
                f"{origin}{name} = {problem['input']}: {message}" if name else f"{place}{message}"
            )
        raise ConfigError("; ".join(problems)) from error


def _split(annotation: Any, value: Any) -> Any:
    """Lists and mappings may be written as one text: ``64,128`` and ``afriqa=2,ntrex=0.5``."""
    if not isinstance(value, str):
        return value
    if value.lower() == "none" and type(None) in get_args(annotation):
        return None
    kind = get_origin(annotation)
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if kind is tuple:
        return parts
    if kind is dict:
        pairs = [part.partition("=") for part in parts]
        return {name.strip(): number.strip() for name, _, number in pairs}
    return value
