"""Under torchrun every process encodes its share of the texts; the first one finds them all."""

import contextlib
import io
import json
import os
import socket
import sys
from pathlib import Path

import numpy as np

from hybridbatch.cli.app import main
from hybridbatch.common.distributed import Workers
from hybridbatch.common.records import Texts
from hybridbatch.scoring.shared_encoding import _share
from hybridbatch.search.embeddings import EmbeddingStore
from tests.helpers.trainers import child_processes
from tests.scoring.test_evaluate import write_folder


def test_the_shares_are_all_texts_once_and_alike_in_length():
    generator = np.random.default_rng(0)
    texts = [
        "x" * int(length) + str(n) for n, length in enumerate(generator.integers(1, 90, 200))
    ]
    side = {"eng": Texts([str(n) for n in range(200)], texts), "deu": Texts(["a"], [texts[0]])}
    shares = [_share(side, Workers(rank, 4)) for rank in range(4)]
    assert sorted(text for share in shares for text in share) == sorted(texts)
    lengths = [sum(map(len, share)) for share in shares]
    assert max(lengths) < 1.1 * min(lengths)


def scored(rank: int, size: int, port: int, task: Path, model: Path, out: Path) -> None:
    """What a process of torchrun does: ``hybridbatch eval``, with the shards that it writes."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "HYBRIDBATCH_CACHE": str(out / "cache"),
    }  # fmt: skip
    add, written = EmbeddingStore.add, []

    def counted(self, space, keys, vectors, shard):
        written.append(len(keys))
        add(self, space, keys, vectors, shard)

    EmbeddingStore.add = counted
    sys.argv = [
        "hybridbatch",
        "eval",
        str(model),
        "--tasks",
        str(task),
        "--out",
        str(out / "run"),
    ]
    sys.argv += ["--device", "cpu", "--precision", "fp32", "--cutoffs", "1,5", "--quiet"]
    with contextlib.redirect_stdout(io.StringIO()) as told:
        try:
            main()
        except SystemExit as end:
            assert not end.code, end.code  # noqa: PT017
    (out / f"{rank}.json").write_text(json.dumps([written, len(told.getvalue())]))


def test_two_processes_encode_half_each_and_score_as_one_does(tiny_model, tmp_path):
    task, figures, encoded = write_folder(tmp_path / "mine"), [], []
    context = child_processes()
    for size in (1, 2):
        out = tmp_path / str(size)
        out.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        processes = [
            context.Process(target=scored, args=(rank, size, port, task, tiny_model, out))
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(120)
        assert [process.exitcode for process in processes] == [0] * size
        figures.append(json.loads((out / "run/eval.json").read_text())["tasks"][0]["settings"])
        encoded.append([json.loads((out / f"{rank}.json").read_text()) for rank in range(size)])
    assert figures[0] == figures[1]
    (((alone, _),), ((first, printed), (second, silent))) = encoded
    assert sum(first) + sum(second) == sum(alone)
    assert abs(sum(first) - sum(second)) <= 2  # an odd text of each side
    assert printed
    assert not silent
