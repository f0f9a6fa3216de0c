"""The builder of stories: picture books of four repositories, with a ``##`` before each page.

A version matches the English version (``aligned_en``) if both have equally many pages and the
lengths of their pages correlate. A version of a story without an English version has no value of
``aligned_en``.
"""

import re
from pathlib import Path
from statistics import correlation
from typing import Any

from hybridbatch.data.formats.tables import spaced
from hybridbatch.data.homes.home import Files, write

LEAST_CORRELATION = 0.5
LEFT_OUT = ("adx", "khg")  # the files are those of bo
_NAME = re.compile(r"([^/]+)/(\d{4})_[^/]+\.md")
_PAGE = re.compile(r"^##[ \t]*$", re.MULTILINE)
Pages = dict[tuple[str, str], list[str]]  # (story, language) -> title and pages
Record = dict[str, Any]


def build_stories(
    asp_source: Files, global_asp: Files, pb_source: Files, global_pb: Files, folder: Path
) -> None:
    """Write ``docs`` with a record for each version of a story, and ``pages`` with its texts."""
    stories: Pages = {}
    for name, files in (
        ("asp", asp_source),
        ("asp", global_asp),
        ("pb", pb_source),
        ("pb", global_pb),
    ):
        for path, text in files.matching(_NAME.pattern):
            match = _NAME.fullmatch(path)
            assert match
            pages_of_story = _pages(text)
            if match[1] not in LEFT_OUT and any(pages_of_story[1:]):
                stories.setdefault((f"{name}-{match[2]}", match[1]), pages_of_story)
    docs: list[Record] = []
    pages: list[Record] = []
    for (story, language), texts in sorted(stories.items(), key=lambda item: item[0][::-1]):
        english = stories.get((story, "en"))
        aligned = None if english is None else _go_along(texts, english)
        docs.append({"doc": story, "lang": language, "aligned_en": aligned})
        for place, text in enumerate(texts):
            # An empty page keeps its number, so that the later pages stay aligned.
            if text:
                pages.append({"lang": language, "doc": story, "pos": place, "text": text})
    write(folder / "docs.jsonl.gz", docs)
    write(folder / "pages.jsonl.gz", pages)


def _pages(text: str) -> list[str]:
    """The title, then the pages; the last part is dropped, because it states licence and authors."""
    title, *parts = _PAGE.split(text)
    pages = [spaced(part) for part in parts]
    if pages and "* License:" in pages[-1]:
        pages.pop()
    first_line = title.strip().partition("\n")[0]
    return [spaced(first_line).lstrip("#").strip(), *pages]


def _go_along(texts: list[str], english: list[str]) -> bool:
    if len(texts) != len(english):
        return False
    ours, theirs = [len(text) for text in texts[1:]], [len(text) for text in english[1:]]
    if len(set(ours)) < 2 or len(set(theirs)) < 2:
        return ours == theirs or len(ours) < 2
    return correlation(ours, theirs) >= LEAST_CORRELATION
