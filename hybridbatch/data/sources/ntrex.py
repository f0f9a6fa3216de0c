"""NTREX-128: 123 news documents, professionally translated; line 0 of each is its headline."""

from hybridbatch.data.sources.kinds import table_source

SOURCES = (
    table_source(
        name="ntrex",
        title="NTREX-128, news documents translated from English",
        licence="CC BY-SA 4.0",
        url="https://github.com/MicrosoftTranslator/NTREX",
        revision="8561f6a622db9edad1217683e5c83daefd8bb2bf",
        languages="91 of 128",
        size="964 records, 87,457 rows",
        yields="pseudo pairs: headline -> body, sentence -> neighbouring sentences",
    ),
)
