"""Bible verses by chapter, in languages that have little other text."""

from hybridbatch.data.sources.kinds import table_source

SOURCES = (
    table_source(
        name="bible",
        title="Bible corpus (Christodouloupoulos and Steedman), verses by chapter",
        licence="CC0 1.0 (mark-up; translations may have owners), King James Version: public domain",
        url="https://github.com/christos-c/bible-corpus",
        revision="44e5fca1bfb369a5da2ee23ebc6f421c88489c5c",
        languages="12, most of them very low-resource",
        size="3,165 records, 28,304 rows",
        yields="pseudo pairs: verse -> neighbouring verses of its chapter",
    ),
)
