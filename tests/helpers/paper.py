"""The data and models of the paper's experiment as small files in their true layouts, and a process
that runs `hybridbatch` on them.

``python -m tests.helpers.paper ARGS`` runs ``hybridbatch reproduce ARGS`` where ``WEB`` is the
address that stands for the plain web. The counts of the benchmarks are not checked, because these
files are small.
"""

import json
import os
import random
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import torch

from tests.helpers.hub_layouts import card, jsonl, packed, parquet, squad, write, zipped
from tests.helpers.tiny import write_tiny_model

RECORDS = 40
MMARCO = ("arabic", "chinese", "english", "german", "hindi", "portuguese", "russian", "spanish")
MIRACL = "ar bn de en es fa fi fr hi id ja ko ru sw te th yo zh".split()  # noqa: SIM905
XQUAD = "ar de el en es hi ru th tr vi zh".split()  # noqa: SIM905
MLQA = "ar de en es hi vi zh".split()  # noqa: SIM905
ANIMALS = "elephants lions foxes birds horses sheep goats camels zebras rabbits".split()  # noqa: SIM905
PLACES = "forest river mountain village desert garden valley island market harbour".split()  # noqa: SIM905


def question(number: int, source: str) -> str:
    """A question that tells records and sources apart."""
    return f"Where do the {_words(number)} of {source} number {number} live?"


def answer(number: int, source: str) -> str:
    """Its answer."""
    place = PLACES[number % 10]
    return f"The {_words(number)} of {source} live near the {place}, in house {number}."


def _words(number: int) -> str:
    return f"{ANIMALS[number % 10]} and {ANIMALS[number // 10 % 10]}"


def write_paper_hub(root: Path) -> None:
    """The repositories of the sources, of MIRACL and of both models, and the folder ``evaluation``
    with XQuAD-R and MLQA-R in LAReQA's own layout.
    """
    datasets = root / "datasets"
    _write_tables(datasets)
    _write_scripts(datasets)
    _write_web(datasets)
    _write_miracl(datasets)
    for name, languages in (("xquad-r", XQUAD), ("mlqa-r", MLQA)):
        for code in languages:
            path = root / "evaluation" / name / f"{code}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(_lareqa(code)))
    models = root / "models"
    write_xlm_r(models / "FacebookAI" / "xlm-roberta-base")
    write_labse(models / "sentence-transformers" / "LaBSE")


def write_xlm_r(folder: Path) -> Path:
    """A bare transformer, as XLM-R's repository has it: no file of sentence-transformers."""
    write_tiny_model(folder, "xlm-roberta", seed=3)
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        (folder / name).unlink()
    (folder / "1_Pooling").rmdir()
    return folder


def write_labse(folder: Path, hidden: int = 32) -> Path:
    """LaBSE's modules: BERT, the first token, a dense layer with tanh, and a norm."""
    from safetensors.torch import save_file

    write_tiny_model(folder, "bert", hidden=hidden, seed=4)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]  # fmt: skip
    modules = []
    for number, (path, kind) in enumerate(kinds):
        kind = f"sentence_transformers.models.{kind}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": kind})
    (folder / "modules.json").write_text(json.dumps(modules))
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_cls_token": True,
               "pooling_mode_mean_tokens": False}  # fmt: skip
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    dense = {"in_features": hidden, "out_features": hidden, "bias": True,
             "activation_function": "torch.nn.modules.activation.Tanh"}  # fmt: skip
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text(json.dumps(dense))
    drawn = torch.Generator().manual_seed(5)
    weights = {
        "linear.weight": torch.randn(hidden, hidden, generator=drawn) / hidden**0.5,
        "linear.bias": torch.zeros(hidden),
    }
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    return folder


def _write_tables(datasets: Path) -> None:
    def pairs(source: str, query: str, passage: str) -> bytes:
        return parquet(
            [{query: question(n, source), passage: answer(n, source)} for n in range(RECORDS)]
        )

    write(
        datasets / "sentence-transformers/natural-questions",
        {
            "README.md": card(("pair", "train", "pair/train-*")),
            "pair/train-00000-of-00001.parquet": pairs("nq", "query", "answer"),
        },
    )
    write(
        datasets / "sentence-transformers/yahoo-answers",
        {
            "README.md": card(("title-answer-pair", "train", "title-answer-pair/train-*")),
            "title-answer-pair/train-00000-of-00001.parquet": pairs("yahoo", "title", "answer"),
        },
    )
    sentences = []
    for n in range(RECORDS):
        one = {"question_id": f"Q{n}", "question": question(n, "wiki"), "document_title": "T"}
        sentences.append(one | {"answer": answer(n, "wiki"), "label": 1})
        sentences.append(one | {"answer": f"Nothing is known of {n}.", "label": 0})
    write(
        datasets / "microsoft/wiki_qa",
        {
            "README.md": card(("default", "train", "data/train-*")),
            "data/train-00000-of-00001.parquet": parquet(sentences),
        },
    )
    films = []
    for n in range(RECORDS):
        plot = f"The film {n} begins at night. {answer(n, 'films')} It ends in the morning."
        films.append(
            {"plot_id": f"/m/{n}", "title": "Mars", "no_answer": False, "plot": plot,
             "question_id": f"d{n}", "question": question(n, "films"), "answers": [PLACES[n % 10]]}
        )  # fmt: skip
    write(
        datasets / "ibm-research/duorc",
        {
            "README.md": card(("SelfRC", "train", "SelfRC/train-*")),
            "SelfRC/train-00000-of-00001.parquet": parquet(films),
        },
    )


def _write_scripts(datasets: Path) -> None:
    script = "raise SystemExit('the code of a data set was run')\n"
    files: dict[str, bytes | str] = {"README.md": "# mMARCO\n", "mmarco.py": script}
    for language in MMARCO:
        name = f"mmarco {language}"
        asked = "".join(f"{n}\t{question(n, name)}\n" for n in range(RECORDS))
        texts = "".join(f"{n}\t{answer(n, name)}\n" for n in range(2 * RECORDS))
        files[f"data/google/queries/train/{language}_queries.train.tsv"] = asked
        files[f"data/google/collections/{language}_collection.tsv"] = texts
    triples = "".join(f"{n}\t{n}\t{n + RECORDS}\n" * 3 for n in range(RECORDS))
    files["data/triples.train.ids.small.tsv"] = triples
    write(datasets / "unicamp-dl/mmarco", files)
    lines = []
    for n in range(RECORDS):
        relevant = [{"docid": f"p{n}#0", "title": f"T{n}", "text": answer(n, "tydi")}]
        other = [{"docid": f"n{n}#0", "title": "N", "text": f"Nothing of {n} is here."}]
        lines.append({"query_id": str(n), "query": question(n, "tydi"),
                      "positive_passages": relevant, "negative_passages": other})  # fmt: skip
    folder = {"README.md": "# Mr. TyDi\n", "mr-tydi.py": script}
    for language in ("english", "arabic"):
        write(
            datasets / "castorini/mr-tydi",
            {**folder, f"mrtydi-v1.1-{language}/train.jsonl.gz": packed(jsonl(lines))},
        )
    pairs = [
        {"question": question(n, "faq"), "answer": answer(n, "faq"), "language": "en"}
        for n in range(RECORDS)
    ]
    page = {"id": "1", "language": "en", "num_pairs": RECORDS, "domain": "a", "qa_pairs": pairs}
    write(
        datasets / "clips/mfaq",
        {"README.md": "# MFAQ\n", "mfaq.py": script, "data/en/train.jsonl": jsonl([page])},
    )


def _write_web(datasets: Path) -> None:
    entities = [
        {"question": question(n, "entities"), "answers": [answer(n, "entities")]}
        for n in range(RECORDS)
    ]
    files: dict[str, bytes | str] = {
        "dataset.zip": zipped({"dataset/train/P19.train.json": entities}),
    }
    for domain in ("new_wiki", "nyt", "amazon_reviews", "reddit"):
        asked = []
        for n in range(RECORDS):
            one = {"id": f"{domain}-{n}", "question": question(n, domain), "answers": []}
            asked.append((answer(n, domain), [one]))
        files[f"datasets/{domain}_v1.0.json"] = json.dumps(squad((f"Article_{domain}", asked)))
    write(datasets / "web/files", files)


def _write_miracl(datasets: Path) -> None:
    files: dict[str, bytes | str] = {"README.md": "# MIRACL\n"}
    corpus: dict[str, bytes | str] = {"README.md": "# MIRACL corpus\n"}
    for code in MIRACL:
        folder = f"miracl-v1.0-{code}"
        asked = "".join(f"{n}\t{question(n, f'miracl {code}')}\n" for n in range(12))
        judged = "".join(f"{n}\tQ0\td{n}#0\t1\n" for n in range(12))
        files[f"{folder}/topics/topics.{folder}-dev.tsv"] = asked
        files[f"{folder}/qrels/qrels.{folder}-dev.tsv"] = judged
        passages = [
            {"docid": f"d{n}#0", "title": f"T{n}", "text": answer(n, f"miracl {code}")}
            for n in range(20)
        ]
        corpus[f"miracl-corpus-v1.0-{code}/docs-0.jsonl.gz"] = packed(jsonl(passages))
    write(datasets / "miracl/miracl", files)
    write(datasets / "miracl/miracl-corpus", corpus)


def _lareqa(code: str) -> dict:
    """Eight paragraphs of two sentences, each with one question."""
    paragraphs = []
    for n in range(8):
        first = f"{answer(n, f'squad {code}')} "
        second = f"The animals of {n} sleep well in {code}."
        place = first.index("house")
        one = {"id": f"q{n}", "question": question(n, f"squad {code}"),
               "answers": [{"text": "house", "answer_start": place}]}  # fmt: skip
        breaks = [[0, len(first)], [len(first), len(first) + len(second)]]
        paragraphs.append({"context": first + second, "sentence_breaks": breaks, "qas": [one]})
    return {"data": [{"title": "T", "paragraphs": paragraphs}]}


# A sentence of each language, as long as the English texts above; `translated` marks it.
SENTENCES = {
    "Arabic": "تعيش هذه الحيوانات الكبيرة بالقرب من الغابة في البيت رقم",
    "Chinese": "这些大动物住在森林附近的一座老房子里面它们喜欢安静的地方门牌号码是",
    "German": "Diese großen Tiere leben in der Nähe des Waldes, in dem alten Haus Nummer",
    "Spanish": "Estos animales grandes viven cerca del bosque, en la casa vieja número",
    "Russian": "Эти большие животные живут недалеко от леса, в старом доме номер",
    "Hindi": "ये बड़े जानवर जंगल के पास पुराने घर में रहते हैं और उनका नंबर है",
    "Thai": "สัตว์ใหญ่เหล่านี้อาศัยอยู่ใกล้ป่าในบ้านหลังเก่าที่เงียบสงบหมายเลข",
    "Turkish": "Bu büyük hayvanlar ormanın yakınında, eski evde yaşıyorlar, kapı numarası",
}


def translated(text: str, language: str) -> str:
    """A made translation that tells texts apart, for the server of `chat_server`."""
    mark = random.Random(text).randrange(10**6)
    (sentence,) = [words for name, words in SENTENCES.items() if language.startswith(name)]
    return f"{sentence} {mark}."


def main() -> None:
    """Run ``hybridbatch reproduce`` on these files; prints the folder of the data last."""
    from dataclasses import replace

    from hybridbatch.cli.app import app
    from hybridbatch.data.tasks import catalogue

    web = os.environ["WEB"]
    for module, file in (("entityquestions", "dataset.zip"), ("squadshifts", "datasets")):
        import_module(f"hybridbatch.data.sources.{module}").ADDRESS = f"{web}/{file}"
    uncounted = {}
    for name, one in catalogue.CATALOGUE.items():
        uncounted[name] = replace(one, queries=None, passages=None)
    catalogue.CATALOGUE = uncounted
    run: Callable[..., object] = app
    run(["reproduce", *sys.argv[1:]], standalone_mode=False)
    (data,) = Path("data").iterdir()
    print(json.dumps({"data": str(data.resolve())}))


if __name__ == "__main__":
    main()
