"""The builder of belebele-sib: Belebele's questions and passages in the languages of SIB-200.

Belebele's passages consist of sentences of FLORES-200. SIB-200 has about half of these sentences,
with one id in every language. If SIB-200's English sentences make up at least nine tenths of an
English passage, the passage is rebuilt in every language by joining its sentences.
"""

from pathlib import Path
from typing import Any

from hybridbatch.data.homes.aligned import sib_sentences
from hybridbatch.data.homes.home import Files, said, write

LEAST_SHARE = 0.9  # least share of a passage's characters that SIB-200's sentences have
Record = dict[str, Any]


def build_belebele_sib(belebele: Files, sib: Files, folder: Path) -> None:
    """Write questions in English and German, corpora in all languages, one file of judgements."""
    passages = list(belebele.records("data/belebele/eng_Latn.jsonl"))
    sentences = sib_sentences(sib)
    parts = _sentences_of([str(passage["text"]) for passage in passages], sentences["eng_Latn"])
    chosen = [
        number
        for number, found in enumerate(parts)
        if _share(passages[number], found, sentences) >= LEAST_SHARE
    ]
    for language, table in sorted(sentences.items()):
        corpus: list[Record] = []
        for number in chosen:
            text = " ".join(table[sentence]["text"] for _, sentence in parts[number])
            corpus.append({"id": f"bel-{number:03d}", "lang": language, "text": text})
        write(folder / f"corpus.{language}.jsonl.gz", corpus)
    judged: list[Record] = []
    for code, name in (("en", "eng_Latn"), ("de", "deu_Latn")):
        texts = list(belebele.records(f"data/belebele/{name}.jsonl"))
        queries: list[Record] = []
        for number in chosen:
            for place, item in enumerate(texts[number]["items"]):
                key = f"bel-{number:03d}-q{place}"
                queries.append({"id": key, "lang": code, "text": said(item, "question")})
                if code == "en":
                    judged.append({"query_id": key, "doc_id": f"bel-{number:03d}", "rel": 1})
        write(folder / f"queries.{code}.jsonl.gz", queries)
    write(folder / "qrels.jsonl.gz", judged)


def _sentences_of(
    passages: list[str], english: dict[int, Record]
) -> list[list[tuple[int, int]]]:
    """For each passage, (place, sentence id) of SIB-200's sentences in the passage, in order."""
    found: list[list[tuple[int, int]]] = [[] for _ in passages]
    bare = [_letters(passage) for passage in passages]
    for number in sorted(english):
        sentence = _letters(english[number]["text"])
        for place, passage in enumerate(bare):
            at = passage.find(sentence)
            if at >= 0:
                found[place].append((at, number))
                break
    return [sorted(parts) for parts in found]


def _share(
    passage: Record, parts: list[tuple[int, int]], sentences: dict[str, dict[int, Record]]
) -> float:
    """The share of a passage's letters that its sentences have."""
    english = sentences["eng_Latn"]
    total = sum(len(_letters(english[number]["text"])) for _, number in parts)
    return total / len(_letters(passage["text"]))


def _letters(text: str) -> str:
    """Letters and digits alone, because the two data sets differ in quotes and blanks."""
    return "".join(character for character in text.lower() if character.isalnum())
