"""The page of a package index: absolute links, the same facts as the citation file."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
import yaml

pytest.importorskip("setuptools", "77")
ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ADDRESS = "https://forge.example/people/hybridbatch"
RELATIVE = re.compile(r"\]\((?!https?:|#)")


def package_page(readme: str, repository: str | None) -> str:
    return runpy.run_path(str(ROOT / "setup.py"))["package_page"](readme, repository, "1.2.3")


def test_links_lead_to_the_files_of_the_release() -> None:
    readme = (
        "[a](docs/a.md#x) [b](https://b.example/) [c](#c)\n```\n[d](d.md)\n```\n![e](e.svg)\n"
    )
    assert package_page(readme, ADDRESS + "/") == (
        f"[a]({ADDRESS}/blob/v1.2.3/docs/a.md#x) [b](https://b.example/) [c](#c)\n"
        f"```\n[d](d.md)\n```\n![e]({ADDRESS}/raw/v1.2.3/e.svg)\n"
    )
    assert package_page(readme, None) == (
        "a [b](https://b.example/) [c](#c)\n```\n[d](d.md)\n```\ne\n"
    )


def test_the_sdist_has_the_folders_that_its_tests_read() -> None:
    """Tests of the studies stay in the repository; the pages of the first study are not needed."""
    tests = [path for path in (ROOT / "tests").rglob("*.py") if "experiments" not in path.parts]
    read = re.compile(r'"experiments" / "(\w+)"')
    needed = {name for path in tests for name in read.findall(path.read_text())}
    given = re.findall(r"^graft experiments/(\w+)$", (ROOT / "MANIFEST.in").read_text(), re.M)
    assert needed - {"study"} == set(given)


def built(folder: Path, repository: str | None) -> Message:
    """The metadata that setuptools writes for a wheel."""
    (folder / "hybridbatch").mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / "hybridbatch" / "__init__.py", folder / "hybridbatch")
    if repository:
        stated = (folder / "pyproject.toml").read_text()
        entry = f'[project.urls]\nRepository = "{repository}"\n'
        (folder / "pyproject.toml").write_text(stated.replace("[project.urls]\n", entry))
    command = (
        "from setuptools import build_meta as b; b.prepare_metadata_for_build_wheel('out')"
    )
    (folder / "out").mkdir()
    subprocess.run([sys.executable, "-c", command], cwd=folder, check=True, capture_output=True)
    return message_from_bytes(next(folder.glob("out/*/METADATA")).read_bytes())


@pytest.mark.parametrize("repository", [None, ADDRESS])
def test_the_built_page_has_no_relative_link(tmp_path: Path, repository: str | None) -> None:
    found = built(tmp_path / "tree", repository)
    assert found["Description-Content-Type"] == "text/markdown"
    page = str(found.get_payload())
    assert page.startswith("# ")
    assert not RELATIVE.search(page)
    if repository:
        for path in re.findall(
            re.escape(f"{ADDRESS}/") + r"(?:blob|raw)/v[^/]+/([^)#]+)", page
        ):
            assert (ROOT / path).exists(), path
        assert f"Repository, {ADDRESS}" in found.get_all("Project-URL")
    assert any(url.startswith("Paper, ") for url in found.get_all("Project-URL"))


def test_the_citation_agrees_with_the_package() -> None:
    import hybridbatch

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(cited["version"]) == hybridbatch.__version__
    assert cited["license"] == PROJECT["license"]
    assert cited["title"].startswith(PROJECT["name"])
    assert cited.get("repository-code") == PROJECT["urls"].get("Repository")
    papers = [each["value"] for ref in cited["references"] for each in ref["identifiers"]]
    assert papers == ["arXiv:" + PROJECT["urls"]["Paper"].rpartition("/")[2]]
