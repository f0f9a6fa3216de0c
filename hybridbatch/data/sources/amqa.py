"""AmQA: Amharic questions on Amharic Wikipedia paragraphs, with the source's splits."""

from hybridbatch.data.sources.kinds import retrieval_source

SOURCES = (
    retrieval_source(
        "amqa",
        folder="amharic-qa",
        parts={"train": "train", "dev": "validation"},  # its test set is not used
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
