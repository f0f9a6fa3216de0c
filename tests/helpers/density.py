"""How densely code is written: ``python tests/helpers/density.py FOLDER``, or `make density`.

Prints, over all Python files of the folder: tokens a code line, comprehensions inside of
comprehensions per 1,000 code lines, and the share of lines of more than 100 columns. Docstrings and
comments are no code.
"""

import ast
import io
import sys
import tokenize
from pathlib import Path

LONGEST = 100
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FSTRING_START = getattr(tokenize, "FSTRING_START", None)  # from Python 3.12 on
FSTRING_END = getattr(tokenize, "FSTRING_END", None)
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def tokens_and_lines(text: str) -> tuple[int, int]:
    """Number of tokens, and of lines that hold one; docstrings do not count.

    An f-string is one token, as in Python 3.11, whatever later versions make of it.
    """
    tokens = 0
    within = 0  # f-strings around the token
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        docstring = token.type == tokenize.STRING and token.line.strip().startswith('"""')
        if token.type in LAYOUT or docstring:
            continue
        within += (token.type == FSTRING_START) - (token.type == FSTRING_END)
        tokens += not within
        lines.update(range(token.start[0], token.end[0] + 1))
    return tokens, len(lines)


def nested_comprehensions(tree: ast.AST) -> int:
    """For every comprehension, the comprehensions inside of it."""
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, COMPREHENSIONS):
            inside = [part for part in ast.walk(node) if isinstance(part, COMPREHENSIONS)]
            count += len(inside) - 1
    return count


def main() -> None:
    tokens = code_lines = nested = long_lines = lines = 0
    for path in sorted(Path(sys.argv[1]).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        found, used = tokens_and_lines(text)
        tokens += found
        code_lines += used
        nested += nested_comprehensions(ast.parse(text))
        rows = text.splitlines()
        lines += len(rows)
        long_lines += sum(len(row) > LONGEST for row in rows)
    print(f"tokens a code line                         {tokens / code_lines:.1f}")
    print(f"nested comprehensions per 1,000 code lines {1000 * nested / code_lines:.1f}")
    print(f"lines of more than {LONGEST} columns             {long_lines / lines:.1%}")


if __name__ == "__main__":
    main()
