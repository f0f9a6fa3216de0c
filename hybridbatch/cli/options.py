"""Command-line options made from settings classes: one description, one default, one place."""

import inspect
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from hybridbatch.cli.completion import completer
from hybridbatch.common.settings import LARGEST_INTEGER, Settings, build, parsed_number

S = TypeVar("S", bound=Settings)


def from_settings(
    cls: type[S], handler: Callable[..., None], arguments: Mapping[str, str] | None = None
) -> Callable[..., None]:
    """A function for Typer with an option for every field of `cls`, `--config`, and `handler`'s own
    options.

    Args:
        cls: the settings class.
        handler: called with the built settings and its own keyword parameters (Typer-annotated).
        arguments: fields that can (also) be given as positional argument, with its metavar.
    """
    arguments = arguments or {}
    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(inspect.signature(handler).parameters.values())[1:]
    ]

    def run(config: Path | None, **given: Any) -> None:
        extra = {parameter.name: given.pop(parameter.name) for parameter in own}
        for name in arguments:
            positional = given.pop(f"{name}_argument")
            if positional:
                given[name] = positional
        handler(
            build(
                cls, config, {name: value for name, value in given.items() if value is not None}
            ),
            **extra,
        )

    parameters = [
        _argument(name, metavar, cls.model_fields[name]) for name, metavar in arguments.items()
    ]
    parameters.append(
        _parameter(
            "config",
            Path | None,
            typer.Option(
                help="YAML file of settings; options on the command line override it."
            ),
        )
    )
    for name, field in cls.model_fields.items():
        if name in arguments and _is_tuple(field.annotation):
            continue
        parameters.append(_option(name, field))
    run.__signature__ = inspect.Signature([*parameters, *own])  # type: ignore[attr-defined]
    run.__doc__ = handler.__doc__
    run.__name__ = handler.__name__
    return run


def number_option(
    kind: type[int] | type[float],
    description: str,
    *,
    least: int = 0,
    metavar: str | None = None,
) -> Any:
    """An option of a command that has no settings class, for a number written as in settings.

    Args:
        kind: int or float.
        least: the least value; the greatest is that of 64 bits.
        metavar: the name of the value; default: as for settings.
    """
    bounded: Any = Annotated[kind, Field(ge=least, le=LARGEST_INTEGER, allow_inf_nan=False)]
    adapter: TypeAdapter[Any] = TypeAdapter(bounded)

    def parse(value: Any) -> Any:
        try:
            return adapter.validate_python(parsed_number(kind, value))
        except ValidationError as error:
            message = error.errors()[0]["msg"]
            raise typer.BadParameter(f"{value}: {message[:1].lower()}{message[1:]}") from error

    return typer.Option(help=description, parser=parse, metavar=metavar or _metavar(kind))


def _parameter(name: str, annotation: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[annotation, info],
    )


def _argument(name: str, metavar: str, field: FieldInfo) -> inspect.Parameter:
    many = _is_tuple(field.annotation)
    info = typer.Argument(
        metavar=f"[{metavar}{'...' if many else ''}]",
        help=_help(field),
        show_default=False,
        autocompletion=completer(name, field.annotation),
    )
    return _parameter(f"{name}_argument", (list[str] if many else str) | None, info)


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    extra = field.json_schema_extra
    panel = str(extra["panel"]) if isinstance(extra, dict) else "Options"
    boolean = field.annotation in (bool, bool | None)
    info = typer.Option(
        f"{flag}/--no-{flag[2:]}" if boolean else flag,
        help=_help(field),
        rich_help_panel=panel,
        metavar=None if boolean else _metavar(field.annotation),
        show_default=False,
        autocompletion=None if boolean else completer(name, field.annotation),
    )
    return _parameter(name, (bool if boolean else str) | None, info)


def _help(field: FieldInfo) -> str:
    default = shown(field.default)
    return f"{field.description} [{default}]" if default else f"{field.description}"


def shown(default: Any) -> str:
    """A default as a person would write it on the command line; empty if there is none."""
    if default is None or default in ((), {}):
        return ""
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, Mapping):
        return ",".join(f"{name}={value}" for name, value in default.items())
    if isinstance(default, tuple):
        return ",".join("all" if each is None else shown(each) for each in default)
    if isinstance(default, float):
        return f"{default:g}"
    return str(default)


def _is_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _metavar(annotation: Any) -> str:
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [_metavar(kind) for kind in get_args(annotation) if kind is not type(None)]
        return "|".join(dict.fromkeys(kinds))
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    if _is_tuple(annotation):
        return f"{_metavar(get_args(annotation)[0])},..."
    if get_origin(annotation) is dict:
        return "NAME=VALUE,..."
    return {int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(annotation, "TEXT")
