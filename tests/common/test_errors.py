"""What other libraries say, in a sentence of ours."""

import pytest

from hybridbatch.common.errors import first_line


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no magic bytes\nat offset 3", "no magic bytes"),
        ("\n  late\nmore", "late"),
        ("", "OSError"),
        ("\n", "OSError"),
        ("x" * 300, "x" * 200),
    ],
)
def test_the_first_line_of_an_error_or_its_type(said, told):
    assert first_line(OSError(said)) == told
