"""The plan of the house: a folder imports only from the folders below it."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hybridbatch"

# From the ground up. Folders of one level do not know each other.
LEVELS = [
    {"common"},
    {"model", "sampling"},
    {"search"},
    {"debias"},
    {"data"},
    {"scoring", "training"},
    {"scaling"},
    {"api"},
    {"cli", "integrations"},
]
HEIGHT = {room: height for height, rooms in enumerate(LEVELS) for room in rooms}
FACES = {"__init__", "__main__"}


def room_of(module: str) -> str:
    """The folder below ``hybridbatch`` that a module is in, or the name of a file that has none."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of the package in a file, lazy ones too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: write the whole name of the module"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "hybridbatch":
                yield node.lineno, name


FILES = sorted(PACKAGE.rglob("*.py"))
ROOT = PACKAGE.parent
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("experiments/**/*.py")])


@pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_a_script_imports_from_the_package_exists(file: Path) -> None:
    for line, whole in imports(file):
        module, _, name = whole.rpartition(".")
        try:
            found = hasattr(import_module(module or name), name) or import_module(whole)
        except ImportError:
            found = False
        assert found, f"{file}:{line}: there is no {whole}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_a_folder_imports_only_from_folders_below_it(file: Path) -> None:
    here = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if here in FACES:
        return
    for line, module in imports(file):
        there = room_of(module)
        if there in (here, "__init__", "__version__"):  # the version is the face's only fact
            continue
        assert HEIGHT[there] < HEIGHT[here], f"{file}:{line}: {here} must not import {module}"


def test_no_file_imports_itself_through_others() -> None:
    arrows: dict[str, set[str]] = {}
    names = {module_name(file) for file in FILES}
    for file in FILES:
        targets = {nearest_module(module, names) for _, module in imports(file)}
        arrows[module_name(file)] = targets - {"hybridbatch", module_name(file)}
    while leaves := {name for name, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {name: targets for name, targets in arrows.items() if name not in leaves}
    assert not arrows, f"these files import each other in a circle: {sorted(arrows)}"


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def nearest_module(name: str, modules: set[str]) -> str:
    """The module that an import of `name` reads: itself, or the one that defines it."""
    return name if name in modules else name.rpartition(".")[0]
