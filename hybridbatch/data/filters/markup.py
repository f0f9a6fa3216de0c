"""Removes markup from scraped text: tags, character references, wiki and Markdown links.

Only unambiguous markup counts, so ``5 < 6``, ``a <b and c> d``, ``List<String>``, ``x[[1]]`` and
``AT&T`` stay. (`html.parser` reads as a browser does. It takes ``<b and c>`` for a tag and all text
after an unclosed ``<script>`` for code, and differs between releases of Python.)
"""

import html
import re
from collections.abc import Callable
from html.entities import html5

_MAYBE = re.compile(r"[<&\[]")
_REFERENCE = re.compile(
    r"&(?:amp;)*(#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});"
)
# no match extends beyond the start of the next one, so that a search takes linear time
_SECTION = re.compile(
    r"<(script|style)\b[^<>]*>(?:(?!</?(?:script|style)\b).)*+</\1\s*>"
    r"|<!--(?:(?!<!--|-->).)*+-->|<!doctype\b[^<>]*>|<\?xml\b[^<>]*\?>"
    r"|<!\[CDATA\[(?P<text>(?:(?!<!\[CDATA\[|\]\]>).)*+)\]\]>",
    re.IGNORECASE | re.DOTALL,
)
_TAG = re.compile(
    r"""<(?P<end>/?)(?P<name>[A-Za-z][\w:.-]*+)
    (?P<attributes>(?:\s++[A-Za-z_:][\w:.-]*+(?:\s*=\s*(?:"[^"]*+"|'[^']*+'|[^\s"'=<>`]++)))*+)
    \s*+(?P<empty>/?)>""",
    re.VERBOSE | re.ASCII,
)
_STANDS_OPEN = re.compile("p|[bh]r|wbr|li|d[dt]|t[dhr]|thead|tbody|tfoot|option|html|head|body")
_WITHIN_WORDS = re.compile(
    "a|abbr|b|bd[io]|big|cite|code|del|dfn|em|font|i|ins|kbd|mark|[qsu]|samp|small|span|strike|strong|su[bp]|tt|var|wbr"
)
_LINKS: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    # [[page|label]]
    (re.compile(r"(?<!\w)\[\[:?(?=[^\W\d])(?:[^\[\]|\n]*\|)*([^\[\]|\n]+)\]\]"), r"\1"),
    (
        re.compile(
            r"!?\[([^\[\]\n]*)\]\(<?(?:https?://|mailto:|www\.|/)(?:[^\s()<>]|\([^\s()<>]*\))*+>?(?:["
            r" ]+\"[^\"\n]*\")?\)"
        ),
        r"\1",
    ),
    # [address label]; a blank label leaves one blank. The pattern takes all blanks at once, so that
    # a long run of blanks is not tried at every length.
    (
        re.compile(r"\[https?://[^\s\[\]]++ ++(?:([^\[\]\n ][^\[\]\n]*+)|(?<=  ))\]"),
        lambda found: found[1] or " ",
    ),
)
_PASSES = 4


def without_markup(text: str) -> str:
    """The text that a reader of the page would see; `text` unchanged if it has no markup.

    References are resolved first, including nested references (``&amp;gt;``), because tags may be
    written with them. A tag leaves a space, unless it may stand inside a word, as in
    ``H<sub>2</sub>O``. A link leaves its label. Comments, scripts and styles are removed.
    """
    for _ in range(_PASSES):  # more markup after this many passes must be deliberate
        plain = _pass(text) if _MAYBE.search(text) else text
        if plain == text:
            break
        text = plain
    return text


def _pass(text: str) -> str:
    text = _REFERENCE.sub(_character, text)
    if "<" in text:
        sections = _SECTION.sub(lambda found: found["text"] or " ", text)
        tags = list(_TAG.finditer(sections))
        both = {found["name"].lower() for found in tags if found["end"]}
        untagged = _TAG.sub(lambda found: _replacement(found, both), sections)
        if untagged != text:
            text = re.sub(r"[ \t]{2,}", " ", untagged)
    for link, label in _LINKS:
        text = link.sub(label, text)
    return text


def _character(found: re.Match[str]) -> str:
    name = found[1]
    return html.unescape(f"&{name};") if name[0] == "#" or f"{name};" in html5 else found[0]


def _replacement(found: re.Match[str], ended: set[str]) -> str:
    """The text that replaces a tag; the tag itself if its pointed brackets may mean something else."""
    name = found["name"].lower()
    if (
        found["end"]
        or found["attributes"]
        or found["empty"]
        or _STANDS_OPEN.fullmatch(name)
        or name in ended
    ):
        return "" if _WITHIN_WORDS.fullmatch(name) else " "
    return found[0]
