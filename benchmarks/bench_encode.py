"""Encoding against sentence-transformers and its backends: the same model, texts and precision,
taking turns.

Texts are random words of mixed lengths (queries about 12 tokens, passages about 60, up to 180) and
of equal ones (64), or those of a task (`--task xquad-r`). The model is random in the shape of
multilingual-e5-small, or `--model`. The peer sorts by length and pads; it runs with each batch of
`--peer-batch`, and the best of them counts. `--peers-python` names an interpreter that has
sentence-transformers with the extras onnx and openvino. ONNX (optimised O3) and OpenVINO then take
turns, too. In bf16, torch runs under autocast. Vectors must agree.
"""

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_train import MOST, SHAPES, make_texts, write_model
from common import finish, parser, spread, timed

from hybridbatch.data.tasks.registry import load_task
from hybridbatch.model import Encoder
from hybridbatch.model.inference import PACKED, PLAIN, packs_weights

# Largest difference of a component. O3 replaces the GELU by an approximation.
AGREEMENT = {"fp32": 1e-4, "bf16": 0.05, "onnx": 0.02}
BACKENDS = {"fp32": ["onnx-O3", "openvino"], "bf16": ["openvino-bf16"]}


def main() -> None:
    """Encode with all, in turn."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--model", help="built-in name, folder or hub id; default: random, of --shape"
    )
    arguments.add_argument("--shape", choices=list(SHAPES), default="e5-small")
    arguments.add_argument("--layers", type=int, default=12)
    arguments.add_argument("--vocabulary", type=int, default=250_037)
    arguments.add_argument("--task", help="texts of this task; default: random words")
    arguments.add_argument("--data-root", type=Path, help="folder of local copies of the task")
    arguments.add_argument(
        "--texts", type=int, default=1000, help="queries, and as many passages"
    )
    arguments.add_argument("--lengths", default="mixed,equal")
    arguments.add_argument("--precisions", default="fp32,bf16")
    arguments.add_argument("--peer-batch", type=int, nargs="*", default=[8, 32])
    arguments.add_argument(
        "--peers-python", help="interpreter with the backends onnx and openvino"
    )
    arguments.add_argument("--backend-batch", type=int, nargs="*", default=[8])
    arguments.add_argument(
        "--rounds", type=int, default=3, help="counted, after one that is not"
    )
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        options.start = options.folder / "start"
        if options.model:
            Encoder.load(options.model, max_passage_tokens=MOST).save(
                options.start, "start of a benchmark"
            )
        else:
            write_model(options)
        hidden = ("out", "start", "folder", "data_root", "peers_python")
        settings = {name: value for name, value in vars(options).items() if name not in hidden}
        settings["peer"] = "SentenceTransformer.encode"
        rows = []
        for lengths in [options.task] if options.task else options.lengths.split(","):
            for precision in options.precisions.split(","):
                rows.append(compare(options, lengths, precision))
                # after every run, so that a stopped benchmark keeps those that are done
                finish("encode", settings, {"runs": rows}, options.out, options.device)


def compare(options: argparse.Namespace, lengths: str, precision: str) -> dict[str, Any]:
    """Texts per second of all, on queries and passages together."""
    texts = chosen_texts(options, lengths)
    ours = Encoder.load(str(options.start), max_query_tokens=MOST, max_passage_tokens=MOST)
    ours.to(options.device)
    runs: dict[str, Callable[[], tuple[dict[str, float], np.ndarray]]] = {}
    runs["hybridbatch-plain"] = partial(run_ours, ours, texts, precision, PLAIN)
    if options.device == "cpu" and packs_weights():
        runs["hybridbatch"] = partial(run_ours, ours, texts, precision, PACKED)
    peer = Peer(options, texts, precision)
    for name, batch in peer.offers:
        runs[f"{name}-{batch}"] = partial(peer.run, name, batch)
    spent: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    differences = {}
    reference = run_ours(ours, texts, "fp32", PLAIN)[1]
    for _ in range(options.rounds + 1):
        for name, run in runs.items():
            seconds, vectors = run()
            spent[name].append(seconds)
            differences[name] = float(np.abs(vectors - reference).max())
            bound = AGREEMENT["onnx" if name.startswith("onnx") else precision]
            if differences[name] > bound:
                raise SystemExit(
                    f"{lengths}, {precision}: {name} differs by {differences[name]}"
                )
    peer.end()
    count = sum(map(len, texts.values()))
    tokens = sum(int(ours.tokenise(some, side).lengths.sum()) for side, some in texts.items())
    speed = {
        name: spread([count / one["wall_seconds"] for one in each[1:]])
        for name, each in spent.items()
    }
    own = "hybridbatch" if "hybridbatch" in speed else "hybridbatch-plain"
    best: dict[str, float] = {}
    for name in speed:
        if not name.startswith("hybridbatch"):
            kind = name.rpartition("-")[0]
            best[kind] = max(best.get(kind, 0.0), speed[name]["median"])
    return {
        "lengths": lengths,
        "precision": precision,
        "texts": count,
        "tokens": tokens,
        "texts_per_second": speed,
        "cpu_seconds": {
            name: spread([one["cpu_seconds"] for one in each[1:]])
            for name, each in spent.items()
        },
        "ratio_to_plain": speed[own]["median"] / speed["hybridbatch-plain"]["median"],
        "ratio_to_best_batch": {kind: speed[own]["median"] / best[kind] for kind in best},
        "largest_difference": differences,
        "peers": peer.about,
    }


def chosen_texts(options: argparse.Namespace, lengths: str) -> dict[str, list[str]]:
    """Texts by side: of a task, the same number in each of its languages; else of random words."""
    if not options.task:
        queries, passages = make_texts(options, options.texts, lengths)
        return {"query": queries, "passage": passages}
    task = load_task(options.task, data_root=options.data_root)
    rng = np.random.default_rng(0)
    found = {}
    for side, by_language in (("query", task.queries), ("passage", task.corpus)):
        each = -(-options.texts // len(by_language))
        found[side] = [
            one.texts[place]
            for one in by_language.values()
            for place in rng.permutation(len(one.texts))[:each]
        ]
    return found


def run_ours(
    encoder: Encoder, texts: dict[str, list[str]], precision: Any, kernels: Any
) -> tuple[dict[str, float], np.ndarray]:
    """Seconds and vectors of one encoding by hybridbatch."""
    parts: list[np.ndarray] = []

    def encode() -> None:
        for side, some in texts.items():
            sided: Any = side
            parts.append(encoder.encode(some, sided, precision=precision, kernels=kernels))

    return timed(encode), np.concatenate(parts)


class Peer:
    """sentence-transformers: in this process, or with its backends in another environment."""

    def __init__(
        self, options: argparse.Namespace, texts: dict[str, list[str]], precision: str
    ) -> None:
        self.texts, self.precision, self.folder = texts, precision, options.folder
        self.device = options.device.partition(":")[0]
        torch_name = "torch" if precision == "fp32" else "torch-bf16"
        self.offers = [(torch_name, batch) for batch in options.peer_batch]
        self.about: dict[str, Any] = {}
        self.other: subprocess.Popen[str] | None = None
        if not options.peers_python:
            from sentence_transformers import SentenceTransformer

            self.model = SentenceTransformer(str(options.start), device=options.device)
            self.model.max_seq_length = MOST
            return
        (self.folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        backends = BACKENDS[precision]
        wanted = {"folder": str(self.folder), "most": MOST, "threads": options.threads}
        wanted |= {"backends": [torch_name, *backends]}
        script = Path(__file__).with_name("encode_peers.py")
        self.other = subprocess.Popen(
            [options.peers_python, script, json.dumps(wanted)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        )
        told = self._told()
        while "ready" not in told:
            self.about.setdefault("missing", []).append(told)
            told = self._told()
        self.about["versions"] = told["versions"]
        self.offers += [
            (name, batch)
            for name in backends
            for batch in options.backend_batch
            if name in told["ready"]
        ]

    def run(self, name: str, batch: int) -> tuple[dict[str, float], np.ndarray]:
        """Seconds and vectors of one encoding."""
        if self.other is not None:
            assert self.other.stdin
            self.other.stdin.write(f"{name} {batch}\n")
            self.other.stdin.flush()
            return self._told(), np.load(self.folder / "peer.npy")
        parts = []

        def encode() -> None:
            half = self.precision == "bf16"
            with torch.autocast(self.device, torch.bfloat16, enabled=half):
                for side, some in self.texts.items():
                    found = self.model.encode(
                        some, prompt_name=side, batch_size=batch, convert_to_tensor=True
                    )
                    parts.append(found.float().cpu().numpy())

        return timed(encode), np.concatenate(parts)

    def end(self) -> None:
        """End the other process."""
        if self.other is not None:
            assert self.other.stdin
            self.other.stdin.close()
            self.other.wait()

    def _told(self) -> dict[str, Any]:
        """The next line of JSON that the other process prints."""
        assert self.other
        assert self.other.stdout
        for line in self.other.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit("the process of the peers has ended")


if __name__ == "__main__":
    main()
