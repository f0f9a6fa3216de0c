"""Question <-> question records: one question in several languages, without a passage.

A question must not be its own passage, because a pair of a text with itself teaches nothing. So
every language of a record has only one side: half of the languages have the query and half the
passage, drawn per record. Only cross-lingual batches can use such records, and they pair a question
with its translation.
"""

from collections.abc import Iterator, Mapping

from hybridbatch.common.records import Row, Split
from hybridbatch.data.source import SourceContext


def question_rows(
    context: SourceContext, source: str, record_id: str, texts: Mapping[str, str], split: Split
) -> Iterator[Row]:
    """One-sided rows of a question.

    Args:
        texts: the question by canonical language. Unwanted languages are left out before sides are
            drawn, so that both sides remain. A question in fewer than two wanted languages has no
            row.
    """
    wanted = [code for code in texts if context.keeps(code)]
    if len(wanted) < 2:
        return
    wanted.sort(key=lambda code: context.chance("side", source, record_id, code))
    for place, code in enumerate(wanted):
        asks = place < len(wanted) / 2
        yield Row(
            source,
            record_id,
            code,
            texts[code] if asks else None,
            None if asks else texts[code],
            split=split,
        )
