"""TyDi QA, gold passage task: questions of people who seek information, in the passage's language."""

from hybridbatch.data.sources.kinds import retrieval_source

SOURCES = (
    retrieval_source(
        "tydi",
        folder="tydi-goldp",
        parts={"en": "train", "ko": "train", "sw": "train"},
        title="TyDi QA gold passage, training set",
        licence="Apache-2.0 (passages: Wikipedia, CC BY-SA)",
        origin=(
            "https://github.com/sagorbrur/tydiqa-language-specific",
            "55c6649475e0765f717a6d32a173c6664096a8ce",
        ),
        languages="en, ko, sw",
        size="8,076 questions",
    ),
)
