"""SQuADShifts: English questions on new domains. The paper's validation set (arXiv:2408.10536), so validation only."""

from hybridbatch.sources.retrieval import retrieval_source

SOURCES = (
    retrieval_source(
        "squadshifts",
        folder="squadshifts",
        parts=dict.fromkeys(("new_wiki", "amazon_reviews", "reddit"), "validation"),
        title="SQuADShifts, the paper's validation set",
        licence="none in the repository; its card says CC BY 4.0",
        url="https://github.com/modestyachts/squadshifts-website",
        revision="b7cc4d50af791c36c49417fb94dd739d6a9e7bef",
        languages="en",
    ),
)
