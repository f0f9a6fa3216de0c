"""AmQA: Amharic questions on Amharic Wikipedia paragraphs. The splits are the source's own."""

from hybridbatch.data.sources.kinds import retrieval_source

SOURCES = (
    retrieval_source(
        "amqa",
        folder="amharic-qa",
        parts={"train": "train", "dev": "validation"},  # its test set is left alone
        title="AmQA, Amharic question answering",
        licence="MIT",
        origin=(
            "https://github.com/semantic-systems/amharic-qa",
            "68d06ea20ba0dedfdb99385d44fbdc54b83ad96a",
        ),
        languages="am",
        size="2,323 questions",
    ),
)
