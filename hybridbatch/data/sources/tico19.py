"""TICO-19: COVID-19 documents translated for emergencies, many into low-resource languages."""

from hybridbatch.data.sources.kinds import table_source

SOURCES = (
    table_source(
        name="tico19",
        title="TICO-19, health documents translated from English",
        licence="CC0 1.0",
        url="https://github.com/tico-19/tico-19.github.io",
        revision="d97615f9cffa28ec7de571e00fbd513e5a1c7fc7",
        languages="34",
        size="1,520 records, 51,612 rows",
        yields="pseudo pairs: segment -> neighbouring segments of its document",
    ),
)
