"""Time in proportion to the input: every pattern and parser is fed 1 MB of its own pieces.

A pattern that takes quadratic time would take an hour for 1 MB, and the time limit of a test ends
it. (No time is asserted.)
"""

import importlib
import pkgutil
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import hybridbatch
from hybridbatch.common.errors import HybridBatchError
from hybridbatch.data.filters.markup import without_markup

SIZE = 1_000_000
HEAVY = ("torch", "transformers", "mteb")
# Modules with compiled patterns; the test below keeps the list complete.
ROOT = Path(hybridbatch.__file__).parent


def modules_with_patterns() -> list[str]:
    """Modules whose source compiles or uses a pattern at its top level."""
    names = []
    for found in pkgutil.walk_packages([str(ROOT)], "hybridbatch."):
        path = ROOT.joinpath(*found.name.split(".")[1:]).with_suffix(".py")
        if path.is_file() and re.search(r"re(gex)?\.compile\(", path.read_text("utf-8")):
            names.append(found.name)
    return names


def patterns() -> list[tuple[str, str, re.Pattern[str] | re.Pattern[bytes], bool]]:
    """(module, name, pattern, whether it searches) of all compiled patterns that modules hold.

    A pattern that is only matched against a whole text may look far ahead from one place.
    """
    source = "".join(path.read_text("utf-8") for path in ROOT.rglob("*.py"))
    found = []
    for name in modules_with_patterns():
        for attribute, value in vars(importlib.import_module(name)).items():
            used = set(re.findall(rf"\b{attribute}\.(\w+)\(", source))
            if re.search(rf"\bzipped_json\(.*\b{attribute}\b", source):
                used.add("fullmatch")  # of the names in an archive
            searches = not used or bool(used - {"fullmatch", "match", "pattern"})
            found += [(name, attribute, each, searches) for each in _within(value)]
    return found


def _within(value: object, depth: int = 0) -> Iterator[re.Pattern]:
    if hasattr(value, "pattern") and hasattr(value, "sub"):
        yield value  # of re or regex
    elif isinstance(value, list | tuple | set | frozenset) and depth < 3:
        for each in value:
            yield from _within(each, depth + 1)
    elif isinstance(value, dict) and depth < 3:
        for each in value.values():
            yield from _within(each, depth + 1)


def pieces(pattern: str) -> list[str]:
    """Texts that a pattern is made of: its literal words, and letters of its classes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = re.sub(
            r"\(\?<?[=!:>]|\(\?P?<\w+>|\\[bBAZ]|[()|*+?^$]|\{\d*,?\d*\}", " ", pattern
        )
        plain = re.sub(r"\[[^\]]*\]|\\[wdsWDSpP](\{\w+\})?|\.", " ", plain)
    words = [re.sub(r"\\(.)", r"\1", word) for word in plain.split()]
    classes = re.findall(r"\[\^?([^\]]+)\]", pattern)
    letters = {letter for inner in classes for letter in inner if letter not in "\\^-"}
    extra = [
        "a",
        "0",
        " ",
        "  ",
        "\n",
        "\t",
        "<",
        "[",
        "(",
        "&",
        '"',
        "'",
        "=",
        "|",
        "-",
        ".",
        "/",
        "é",
    ]
    return list(dict.fromkeys([*words, *sorted(letters)[:6], *extra]))


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_every_pattern_takes_its_time_in_proportion():
    for _, _, pattern, searches in patterns():
        feed(pattern, searches)


def feed(pattern: re.Pattern, searches: bool) -> None:
    """A tenth of `SIZE` of a pattern's own pieces: quadratic time shows in minutes."""
    source = pattern.pattern
    binary = isinstance(source, bytes)
    parts = pieces(source.decode("latin-1") if binary else source)
    first = parts[0] if parts else "a"
    size = SIZE // 10
    for part in parts:
        for text in (part * (size // len(part)), first + part * (size // len(part)) + "x"):
            content = text.encode("utf-8", "replace") if binary else text
            for _ in pattern.finditer(content) if searches else ():
                pass
            pattern.match(content)
            pattern.fullmatch(content)


MARKUP = (
    "[http://a", "[http://a ", " ", "[[a|", "[[a", "]]", "[a](/b", "[a](/b(", '[a](/b "', "<a", "<a ", "<a b", '<a b="',
    "<a b='", "</", "<!--", "<![CDATA[", "<script>", "<script", "</script", "&amp;", "&amp", "&#1", "<?xml ", "<!doctype ",
)  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("piece", MARKUP)
def test_markup_takes_its_time_in_proportion(piece):
    for text in (
        piece * (SIZE // len(piece)),
        "[http://a" + piece * (SIZE // len(piece)) + "x",
    ):
        without_markup(text)


PARSED = {
    "data.jsonl": ("{", "[", '{"a":', '"', "\\", "9", '"\\ud800"', "\n", " "),
    "data.json": ("[", "{", '{"a":', '"', "9", ",", "[]", " "),
    "data.csv": ('"', ",", '""', '"\n', "\n", "a", '",'),
    "data.tsv": ("\t", "\n", "a", '"'),
    "data.tmx": ("<tu>", "<tuv>", "<", "&amp;", "&a;", "<!--", "<![CDATA[", "<!ENTITY a 'a'>"),
}


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", PARSED)
def test_a_reader_takes_its_time_in_proportion(tmp_path, name):
    from hybridbatch.data.prepare import prepare
    from hybridbatch.data.settings import PrepareConfig

    heads = {
        "data.csv": "record_id,language,query,passage\n",
        "data.tsv": "record_id\tlanguage\tquery\tpassage\n",
        "data.tmx": '<?xml version="1.0"?><tmx version="1.4"><header/><body>',
    }
    for piece in PARSED[name]:
        path = tmp_path / name
        path.write_text(heads.get(name, "") + piece * (SIZE // 2 // len(piece)))
        settings = {
            "sources": (str(path),),
            "out": tmp_path / "out",
            "decontaminate": ("none",),
        }
        with pytest.raises(HybridBatchError):
            prepare(PrepareConfig(**settings))


@pytest.mark.parametrize("shared", [False, True, "in Arrow too"])
def test_a_column_that_unpacks_to_too_much_is_refused(shared, tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hybridbatch.data.formats.arrow_files import parquet_records

    path = tmp_path / "data.parquet"
    texts = ["a" * 100_000] * 20
    passages = pa.array(texts)
    if shared == "in Arrow too":
        passages = passages.dictionary_encode()
    table = pa.table({"record_id": range(20), "passage": passages})
    pq.write_table(table, path, compression="zstd", use_dictionary=bool(shared))
    assert path.stat().st_size < 10_000
    assert len(list(parquet_records(path))) == 20
    monkeypatch.setenv("HYBRIDBATCH_MAX_COLUMN", "1MB")
    refused = "column 'passage' of row group 0 unpacks to .*MAX_COLUMN=16GB"
    with pytest.raises(HybridBatchError, match=refused):
        list(parquet_records(path))


def test_a_line_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    import gzip

    from hybridbatch.common.files import open_lines

    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b"{}\n" + b" " * 3_000_000 + b"{}\n"))
    with open_lines(path) as lines:
        assert len(list(lines)) == 2
    monkeypatch.setenv("HYBRIDBATCH_MAX_LINE", "2MB")
    refused = pytest.raises(HybridBatchError, match=r"gz:2: has more than .*MAX_LINE=1GB")
    with refused, open_lines(path) as lines:
        list(lines)


LONG = "a" * 3_000_000
UNITS = "<tmx><body>" + f'<tu><tuv xml:lang="en"><seg>{"b" * 900_000}</seg></tuv></tu>' * 3
PACKED = {
    "data.json.gz": ('[{"query": "' + LONG + '"}]', "one array.*MAX_COLUMN=16GB"),
    "data.csv.gz": ('query\n"' + LONG[:1000] + ("\n" + LONG[:1000]) * 3000 + '"\n', "one cell"),
    "data.tmx.gz": (
        f'{UNITS}<tu><tuv xml:lang="en"><seg>{LONG}</seg></tuv></tu></body></tmx>',
        "one unit.*MAX_LINE=1GB",
    ),
}


@pytest.mark.parametrize("name", PACKED)
def test_a_text_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, name):
    import gzip

    from hybridbatch.data.formats.bitext import find_bitexts
    from hybridbatch.data.formats.own_files import open_tables

    def read(path):
        if bitexts := find_bitexts([path]):
            return list(bitexts[0].units())
        return [list(table.records()) for table in open_tables(path, tmp_path, "auto")]

    text, refused = PACKED[name]
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()))
    assert read(path)
    monkeypatch.setenv("HYBRIDBATCH_MAX_LINE", "2MB")
    monkeypatch.setenv("HYBRIDBATCH_MAX_COLUMN", "2MB")
    with pytest.raises(HybridBatchError, match=refused):
        read(path)
