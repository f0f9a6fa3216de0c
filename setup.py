"""The README for package indexes, where relative links lead nowhere; pyproject.toml has the rest.

With an entry "Repository" among the project's URLs, relative links lead to the files of this version
there. Without it, they become plain text, and an image becomes its description.
"""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?![a-z]+:|#)([^)\s]+)\)")


def package_page(readme: str, repository: str | None, version: str) -> str:
    """The README with absolute links.

    Args:
        readme: Markdown, with links relative to the root of the repository.
        repository: the repository's address, in the form of GitHub; None: not known.
        version: the release; its tag is ``v`` and the version.
    """

    def absolute(link: re.Match[str]) -> str:
        image, text, path = link.groups()
        if repository is None:
            return text
        kind = "raw" if image else "blob"
        return f"{image}[{text}]({repository.rstrip('/')}/{kind}/v{version}/{path})"

    parts = FENCE.split(readme)
    return "".join(part if FENCE.match(part) else LINK.sub(absolute, part) for part in parts)


def main() -> None:
    """Hand the page to setuptools."""
    stated = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = (HERE / "hybridbatch" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    if version is None:
        raise SystemExit("hybridbatch/__init__.py: states no __version__")
    readme = (HERE / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=package_page(readme, stated["urls"].get("Repository"), version[1]),
        long_description_content_type="text/markdown",
    )


if __name__ == "__main__":  # as setuptools runs it
    main()
