"""Small files in the true layouts of the public data sets, as hub repositories for the mirror."""

import gzip
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Records = Sequence[dict]


def write(folder: Path, files: dict[str, bytes | str]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def jsonl(records: Records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def packed(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def parquet(records: Records) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), buffer)
    return buffer.getvalue()


def zipped(files: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content if isinstance(content, str) else json.dumps(content))
    return buffer.getvalue()


def card(*configs: tuple[str, str, str]) -> str:
    """A README whose metadata names (configuration, split, files), as the hub's own parquet data
    sets have it.
    """
    lines = ["---", "configs:"]
    for name, split, path in configs:
        lines += [
            f"- config_name: {name}",
            "  data_files:",
            f"  - split: {split}",
            f"    path: {path}",
        ]
    return "\n".join([*lines, "---", "# A data set", ""])


def squad(*articles: tuple[str, list[tuple[str, list[dict]]]]) -> dict:
    return {
        "version": "1.1",
        "data": [
            {
                "title": title,
                "paragraphs": [{"context": context, "qas": qas} for context, qas in paragraphs],
            }
            for title, paragraphs in articles
        ],
    }


def passage(name: str) -> dict:
    return {"docid": f"{name}#0", "title": f"Title {name}", "text": f"Text of {name}."}


def write_tables(datasets: Path) -> None:
    """Data sets that the `datasets` library knows without a script."""
    pair = {"query": "who wrote it", "answer": "The author wrote it."}
    write(
        datasets / "sentence-transformers/natural-questions",
        {
            "README.md": card(("pair", "train", "pair/train-*")),
            "pair/train-00000-of-00001.parquet": parquet(
                [pair, {"query": "what", "answer": " "}, pair]
            ),
        },
    )
    write(
        datasets / "sentence-transformers/yahoo-answers",
        {
            "README.md": card(
                ("title-answer-pair", "train", "title-answer-pair/train-*"),
                ("title-question-pair", "train", "title-question-pair/train-*"),
            ),
            "title-answer-pair/train-00000-of-00002.parquet": parquet(
                [{"title": "why?", "answer": "because"}]
            ),
            "title-answer-pair/train-00001-of-00002.parquet": parquet(
                [{"title": "how?", "answer": "slowly"}]
            ),
            "title-question-pair/train-00000-of-00001.parquet": parquet(
                [{"title": "why?", "question": "tell me"}]
            ),
        },
    )
    sentence = {
        "question_id": "Q1",
        "question": "how are glacier caves formed?",
        "document_title": "Glacier cave",
    }
    write(
        datasets / "microsoft/wiki_qa",
        {
            "README.md": card(("default", "train", "data/train-*")),
            "data/train-00000-of-00001.parquet": parquet(
                [
                    sentence | {"answer": "A cave in ice.", "label": 0},
                    sentence | {"answer": "By melt water.", "label": 1},
                    sentence | {"answer": "By warm air.", "label": 1},
                    sentence
                    | {
                        "question_id": "Q2",
                        "question": "what?",
                        "answer": "Nothing.",
                        "label": 0,
                    },
                ]
            ),
        },
    )
    plot = " ".join(
        f"Filler sentence number {n} is here to fill the plot with words." for n in range(20)
    )
    film = {"plot_id": "/m/1", "title": "Mars", "no_answer": False,
            "plot": f"{plot} Melanie arrives by train. {plot} The captain waits."}  # fmt: skip
    write(
        datasets / "ibm-research/duorc",
        {
            "README.md": card(
                ("ParaphraseRC", "train", "ParaphraseRC/train-*"),
                ("SelfRC", "train", "SelfRC/train-*"),
            ),
            "SelfRC/train-00000-of-00001.parquet": parquet(
                [
                    film
                    | {
                        "question_id": "d1",
                        "question": "How does Melanie arrive?",
                        "answers": ["by train"],
                    },
                    film
                    | {
                        "question_id": "d2",
                        "question": "Who sings?",
                        "answers": ["nobody does"],
                    },
                    film
                    | {
                        "question_id": "d3",
                        "question": "Who?",
                        "answers": [],
                        "no_answer": True,
                    },
                ]
            ),
            "ParaphraseRC/train-00000-of-00001.parquet": parquet(
                [film | {"question_id": "x", "answers": ["train"]}]
            ),
        },
    )
    gold = {"title": "Nairobi", "answers": {"text": ["Kenya"], "answer_start": [3]}}
    write(
        datasets / "google-research-datasets/tydiqa",
        {
            "README.md": card(
                ("primary_task", "train", "primary_task/train-*"),
                ("secondary_task", "train", "secondary_task/train-*"),
            ),
            "primary_task/train-00000-of-00001.parquet": parquet([{"language": "english"}]),
            "secondary_task/train-00000-of-00001.parquet": parquet(
                [
                    gold
                    | {
                        "id": "swahili--12-0",
                        "question": "Nairobi iko wapi?",
                        "context": "Nairobi iko Kenya.",
                    },
                    gold | {"id": "xyzzy--1-0", "question": "nuq?", "context": "tlh"},
                    gold
                    | {
                        "id": "english-9-1",
                        "question": "Where is it?",
                        "context": "It is in Kenya.",
                    },
                ]
            ),
        },
    )
    faq = {
        "url": "https://a.example/faq",
        "origin": "a.example",
        "topic": "Travel",
        "question_type": "What",
    }
    write(
        datasets / "PaDaS-Lab/webfaq",
        {
            "README.md": card(
                ("deu", "default", "data/deu.parquet"), ("swa", "default", "data/swa.jsonl")
            ),
            "data/deu.parquet": parquet(
                [faq | {"id": "1", "question": "Was kostet es?", "answer": "Nichts."}]
            ),
            "data/swa.jsonl": jsonl(
                [faq | {"id": "1", "question": "Ni bei gani?", "answer": "Bure."}]
            )
            + "{broken\n",
        },
    )
    question = {
        "_id": "s1",
        "lang": "Swahili",
        "code": "sw",
        "title": "Kenya",
        "text": "Kenya is a country.",
    }
    for kind, codes in (
        ("monolingual", "ar bn de en es fi fr hi id yo"),
        ("cross-lingual", "ar bn de es fa fi fr hi id ja ko ru sw te th yo zh"),
    ):
        files: dict[str, bytes | str] = {
            "README.md": card(*((code, "train", f"{code}/train-*") for code in codes.split()))
        }
        for code in codes.split():
            shards = 2 if code == "yo" else 1
            for shard in range(shards):
                record = question | {"code": code, "query": f"query {code} {shard}"}
                files[f"{code}/train-{shard:05}-of-{shards:05}.parquet"] = parquet([record])
        write(datasets / f"nthakur/swim-ir-{kind}", files)


def write_script_repositories(datasets: Path) -> None:
    """Data sets whose loader is a script, which is there and must not be run, beside the files it
    would read.
    """
    script = "raise SystemExit('the code of a data set was run')\n"
    languages = "english arabic chinese dutch french german hindi indonesian italian japanese portuguese russian spanish vietnamese"
    files: dict[str, bytes | str] = {"README.md": "# mMARCO\n", "mmarco.py": script}
    for language in languages.split():
        short = language[:2]
        queries = f"7\t{short} what\n9\t{short} who\n11\t{short} unused\n"
        passages = "".join(f"{number}\t{short} passage {number}\n" for number in range(20))
        if language == "german":
            queries = queries.replace("9\t", "9 ")  # a line without a tab
            passages = passages.replace("4\tge passage 4\n", "4\t\n", 1)
        files[f"data/google/queries/train/{language}_queries.train.tsv"] = queries
        files[f"data/google/collections/{language}_collection.tsv"] = passages
    triples = [
        (7, 0, 5),
        (9, 4, 6),
        (7, 0, 6),
        (7, 1, 5),
        (7, 0, 7),
        (7, 0, 8),
        (7, 0, 9),
        (9, 4, 99),
    ]
    files["data/triples.train.ids.small.tsv"] = (
        "".join(f"{q}\t{p}\t{n}\n" for q, p, n in triples) + "7\tx\t3\n7\t0\n"
    )
    write(datasets / "unicamp-dl/mmarco", files)

    files = {"README.md": "# Mr. TyDi\n", "mr-tydi.py": script}
    for language in [
        "arabic",
        "bengali",
        "english",
        "finnish",
        "indonesian",
        "japanese",
        "korean",
        "russian",
        "swahili",
        "telugu",
        "thai",
    ]:
        records = [
            {"query_id": "1", "query": f"{language} question", "positive_passages": [passage("a"), passage("b")],
             "negative_passages": [passage(f"n{n}") for n in range(30)]},
            {"query_id": "2", "query": "none", "positive_passages": [], "negative_passages": []},
        ]  # fmt: skip
        bad = "not json\n" if language == "thai" else ""
        files[f"mrtydi-v1.1-{language}/train.jsonl.gz"] = packed(jsonl(records) + bad)
    write(datasets / "castorini/mr-tydi", files)

    files = {"README.md": "# MFAQ\n", "mfaq.py": script}
    for code in [
        "cs",
        "da",
        "de",
        "en",
        "es",
        "fi",
        "fr",
        "he",
        "hr",
        "hu",
        "id",
        "it",
        "nl",
        "no",
        "pl",
        "pt",
        "ro",
        "ru",
        "sv",
        "tr",
        "vi",
    ]:
        pairs = [
            {"question": f"{code} q{n}?", "answer": f"{code} a{n}.", "language": code}
            for n in range(2)
        ]
        page = {
            "id": f"{code}-1",
            "language": code,
            "num_pairs": 2,
            "domain": "a.example",
            "qa_pairs": pairs,
        }
        files[f"data/{code}/train.jsonl"] = jsonl([page])
        files[f"data/{code}/valid.jsonl"] = jsonl(
            [page | {"qa_pairs": [{"question": "v?", "answer": "v"}]}]
        )
    write(datasets / "clips/mfaq", files)

    files, corpus = (
        {"README.md": "# MIRACL\n", "miracl.py": script},
        {"README.md": "# MIRACL corpus\n"},
    )
    for code in [
        "ar",
        "bn",
        "en",
        "es",
        "fa",
        "fi",
        "fr",
        "hi",
        "id",
        "ja",
        "ko",
        "ru",
        "sw",
        "te",
        "th",
        "zh",
    ]:
        folder = f"miracl-v1.0-{code}"
        files[f"{folder}/topics/topics.{folder}-train.tsv"] = (
            f"1\tquestion {code}\n2\tunanswered\n"
        )
        files[f"{folder}/topics/topics.{folder}-dev.tsv"] = "3\tdevelopment\n"
        judged = ["1\tQ0\ta#0\t1", "1\tQ0\tb#0\t0", "1\tQ0\tc#0\t1", "2\tQ0\tgone#0\t1"]
        files[f"{folder}/qrels/qrels.{folder}-train.tsv"] = "\n".join(judged) + "\n"
        files[f"{folder}/qrels/qrels.{folder}-dev.tsv"] = "3\tQ0\tb#0\t1\n3\tQ0\tx#0\t0\n"
        shards = [[passage("a"), passage("x")], [passage("b")], [passage("c")]]
        for number, shard in enumerate(shards):
            corpus[f"miracl-corpus-v1.0-{code}/docs-{number}.jsonl.gz"] = packed(jsonl(shard))
    write(datasets / "miracl/miracl", files)
    write(datasets / "miracl/miracl-corpus", corpus)


def write_web(datasets: Path) -> None:
    """Files that lie elsewhere on the web; the mirror's repository stands for their addresses."""
    entity = [
        {"question": "Where was Ada born?", "answers": ["London", "Greater London"]},
        {"question": "Where was Bo born?", "answers": []},
    ]
    gold = squad(
        (
            "Title:Tokyo_parentSection",
            [("Tokyo is a city.", [{"id": "77", "lang": "ja", "question": "東京はどこ?"}])],
        ),
        (
            "Title:Tokyo_parentSection",
            [("It is in Japan.", [{"id": "77", "lang": "ja", "question": "東京はどこ?"}])],
        ),
        ("Title:Bad", [("Text.", [{"id": "78", "lang": "xx", "question": "?"}])]),
    )
    translations = dict.fromkeys(
        ["ar", "de", "ja", "hi", "pt", "es", "it", "fr"], "Übersetzung"
    )
    mountain = {
        "name": "Q1",
        "label": dict.fromkeys(
            ["en", "ar", "de", "es", "fr", "hi", "it", "ja", "pt"], "Mount Lucania"
        )
        | {"hi": None},
    }
    mintaka = [
        {"id": "m1", "question": "Which mountain?", "translations": translations,
         "answer": {"answerType": "entity", "answer": [mountain], "mention": "Mount Lucania"}},
        {"id": "m2", "question": "How many?", "translations": translations,
         "answer": {"answerType": "numerical", "answer": [4], "mention": "4"}},
        {"id": "m3", "question": "Broken?", "translations": translations, "answer": None},
    ]  # fmt: skip
    queries = {
        code: f"{code} question" for code in ("ar", "en", "no", "zh_cn", "zh_hk", "zh_tw")
    }
    mkqa = [
        {"example_id": -5, "query": "question", "queries": queries, "answers": {}},
        {"example_id": 6, "queries": []},
    ]
    shifted = squad(
        (
            "New_Article",
            [("A new paragraph.", [{"id": "5d66", "question": "new?", "answers": []}, "no"])],
        )
    )
    files: dict[str, bytes | str] = {
        "dataset.zip": zipped({"dataset/train/P19.train.json": entity, "dataset/test/P19.test.json": entity,
                               "../../outside.txt": "escaped"}),
        "tydi_xor_gp.zip": zipped({"tydi_xor_gp/gp_squad_train_data.json": gold,
                                   "tydi_xor_gp/gp_squad_dev_data.json": squad()}),
        "mintaka_train.json": json.dumps(mintaka),
        "mkqa.jsonl.gz": packed(jsonl(mkqa)),
    }  # fmt: skip
    for domain in ("new_wiki", "nyt", "amazon_reviews", "reddit"):
        files[f"datasets/{domain}_v1.0.json"] = json.dumps(shifted).replace(
            "5d66", f"5d66-{domain}"
        )
    write(datasets / "web/files", files)


def write_belebele(datasets: Path) -> None:
    """Three passages with one or two questions each, in two languages."""
    files: dict[str, bytes | str] = {"README.md": "# Belebele\n"}
    for code in ("eng_Latn", "swh_Latn"):
        files[f"data/{code}.jsonl"] = jsonl(
            [
                {"link": f"https://a.example/{link}", "question_number": number, "flores_passage": f"{code} text {link}",
                 "question": f"{code} question {link} {number}", "mc_answer1": "a", "correct_answer_num": "1",
                 "dialect": code}
                for link, number in ((1, 1), (1, 2), (2, 1), (3, 1))
            ]
        )  # fmt: skip
    write(datasets / "facebook/belebele", files)


def write_mteb_tasks(datasets: Path) -> None:
    """mteb's XQuADRetrieval and Belebele, three passages and four questions in two languages each."""
    questions = {"1": "C1", "2": "C1", "3": "C2", "4": "C3"}
    tables: dict[tuple[str, str], list[dict]] = {}
    for code in ("en", "de"):
        tables[f"{code}-corpus", "validation"] = [
            {"_id": key, "title": "", "text": f"{code} passage {key}"}
            for key in sorted(set(questions.values()))
        ]
        tables[f"{code}-queries", "validation"] = [
            {"_id": number, "text": f"{code} question {number} of {key}"}
            for number, key in questions.items()
        ]
        tables[f"{code}-qrels", "validation"] = [
            {"query-id": number, "corpus-id": key, "score": 1}
            for number, key in questions.items()
        ]
    write_configs(datasets / "mteb/XQuADRetrieval", tables)
    belebele: dict[tuple[str, str], list[dict]] = {}
    for code in ("eng_Latn", "deu_Latn"):
        belebele[code, "test"] = [
            {
                "link": f"https://a.example/{key}",
                "flores_passage": f"{code} passage {key}",
                "question": f"{code} question {number} of {key}",
            }
            for number, key in questions.items()
        ]
    write_configs(datasets / "mteb/belebele", belebele)


def write_configs(folder: Path, tables: Mapping[tuple[str, str], list[dict]]) -> None:
    """A data set of Parquet files with a card that names the file of every config and split."""
    files: dict[str, bytes | str] = {}
    entries = []
    for (config, split), rows in tables.items():
        name = f"{config}/{split}-00000-of-00001.parquet"
        files[name] = parquet(rows)
        entries.append((config, split, name))
    files["README.md"] = card(*entries)
    write(folder, files)
