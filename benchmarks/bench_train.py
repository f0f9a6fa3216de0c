"""Training against sentence-transformers: same model, pairs, precision, dropout, optimizer
settings, in one run.

Parts (`--parts`): *speed*: pairs/s against MultipleNegativesRankingLoss, for each precision, on
mixed and on equal lengths, the two taking turns step by step; *cached*: pairs/s and peak memory of
one large batch against CachedMultipleNegativesRankingLoss; *memory*: peak memory by batch size;
*largest*: peak memory of the largest batch by tokens per pass;
*overhead*: gradient caching against the plain pass at equal batch, taking turns; *budget*: seconds by the
number of micro-batches; *scaling*: one
process with a batch, two with twice the batch, a thread or GPU each. The peer runs in a process of
its own, so that neither side's ways with memory touch the other.

The model is random, in the shape of multilingual-e5-small or XLM-R base, vocabulary included; texts
are random words, one token each. Mixed lengths are as in question answering (queries about 12
tokens, passages about 60, up to 180), equal ones 64. Our tokenising, done before training, is
counted with the steps, as the peer's is part of its.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, TextIO

import numpy as np
import torch
from common import finish, parser, spread
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from hybridbatch.common.device import resolve_precision
from hybridbatch.common.distributed import Workers, join
from hybridbatch.common.memory import freed_memory_kept
from hybridbatch.common.peak import measured_peak
from hybridbatch.common.progress import SILENT
from hybridbatch.common.seeding import stream
from hybridbatch.model import Encoder
from hybridbatch.sampling.schedule import Schedule
from hybridbatch.training.batches import Batches
from hybridbatch.training.loop import Machine, Trainer, set_dropout
from hybridbatch.training.model_card import peak_memory
from hybridbatch.training.rows import Rows
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import found_budget
from hybridbatch.training.validation import Validation

PARTS = ("speed", "cached", "memory", "largest", "overhead", "budget", "scaling")
MICRO_BATCHES = (2, 4, 8, 15, 30, 60)  # of the part "budget"
SHAPES = {"e5-small": ("bert", 384, 12, 1536), "xlmr-base": ("xlm-roberta", 768, 12, 3072)}
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "query:", "passage:"]
ADDED = 3  # tokens that prompt, start and end add to a text
MOST = 180  # tokens of a passage
PEERS_PART = 64  # sequences that the peer embeds at a time in its cached loss
WHOLE = 1 << 40  # a token budget that every batch meets
SIDES = ("query", "passage")
TURN = "a step is done\n"  # what the peer's process says before it waits for a line
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--parts", default=",".join(PARTS))
    arguments.add_argument(
        "--precisions", help="of the speed part; the others take the last one"
    )
    arguments.add_argument("--shape", choices=list(SHAPES), default="e5-small")
    arguments.add_argument("--layers", type=int, default=12)
    arguments.add_argument("--vocabulary", type=int, default=250_037)
    arguments.add_argument(
        "--batch", type=int, default=64, help="pairs per step of speed, overhead and scaling"
    )
    arguments.add_argument(
        "--large-batch", type=int, default=1024, help="pairs of the cached part and of memory"
    )
    arguments.add_argument(
        "--largest-batch", type=int, default=8192, help="pairs of memory, short texts"
    )
    arguments.add_argument(
        "--steps", type=int, default=2, help="counted steps, after one that is not"
    )
    arguments.add_argument(
        "--micro-tokens",
        type=int,
        nargs="+",
        default=[0],
        help="tokens per forward pass of the largest batch; 0: as the memory allows",
    )
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    # one measurement in a process of its own, as JSON
    arguments.add_argument("--alone", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    if not options.precisions:  # where bf16 is emulated, a step takes minutes
        fast = resolve_precision("auto", torch.device(options.device))
        options.precisions = "fp32" if fast == "fp32" else "fp32,bf16"
    if options.alone:
        alone(options, **json.loads(options.alone))
        return
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        options.start = Path(folder) / "start"
        write_model(options)
        for part in PARTS:
            if part in parts:
                started = time.perf_counter()
                figures[part] = globals()[part](options)
                print(
                    f"{part}: {time.perf_counter() - started:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
    settings = {
        name: value
        for name, value in vars(options).items()
        if name not in ("out", "start", "alone")
    }
    finish("train", settings, figures, options.out, options.device)


def speed(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Pairs/s of plain training, ours and the peer's, and the share of this machine's peak."""
    return [
        _speed(options, lengths, precision)
        for lengths in ("mixed", "equal")
        for precision in options.precisions.split(",")
    ]


def _speed(options: argparse.Namespace, lengths: str, precision: str) -> dict[str, Any]:
    count = options.steps + 1
    texts = make_texts(options, (count + 1) * options.batch, lengths)
    ours, peaks = Ours(options, texts, options.batch, precision, lengths, WHOLE), []

    def turn() -> None:
        ours.step()
        measured_peak.cache_clear()
        peaks.append(measured_peak(torch.device(options.device), precision, options.threads))

    with freed_memory_kept():
        peer = measure(
            options, who="sentence-transformers", batch=options.batch, lengths=lengths, precision=precision,
            cached=False, steps=count, between=turn,
        )  # fmt: skip
        mine, progress = ours.seconds[1:], ours.trainer.progress
        work, tokens, padded = (
            x / count for x in (progress.work, progress.tokens, progress.padded_tokens)
        )
        products = ours.share_of_products()
    if "failed" in peer:
        return peer
    peak = max(peaks)
    return {
        "lengths": lengths,
        "precision": precision,
        "hybridbatch_pairs_per_second": spread([options.batch / s for s in mine]),
        "sentence_transformers_pairs_per_second": spread(
            [options.batch / s for s in peer["seconds"][1:]]
        ),
        "ratio": median(peer["seconds"][1:]) / median(mine),
        "first_loss": [ours.trainer.losses[0], peer["losses"][0]],  # dropout differs
        "tokens_per_step": tokens,
        "padded_tokens_per_step": padded,
        "peak_operations_per_second": peak,
        "share_of_peak": work / median(mine) / peak,
        "matrix_products": {
            "share_of_seconds": products,  # of one step more, under the profiler
            "share_of_peak": work / (products * median(mine)) / peak,
        },
    }


def cached(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A step of a large batch of mixed lengths, within the memory of a small one, each in its
    process.
    """
    return [
        measure(options, who=who, batch=options.large_batch, lengths="mixed", cached=True)
        for who in ("hybridbatch", "sentence-transformers")
    ]


def memory(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory of a step by batch size; `cached` has that of the large batch."""
    small, largest = (
        {"batch": options.batch, "lengths": "mixed", "cached": False},
        {"batch": options.largest_batch, "lengths": "short", "cached": True},
    )
    runs = [
        {"who": who, **settings}
        for settings in (small, largest)
        for who in ("hybridbatch", "sentence-transformers")
    ]
    runs[2]["micro_tokens"] = 0  # as the machine's memory allows
    return [measure(options, **run) for run in runs]


def largest(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory and seconds of a step of the largest batch, by tokens per forward pass; the
    peer's, too.
    """
    batch = {"batch": options.largest_batch, "lengths": "short", "cached": True}
    runs = [{"who": "hybridbatch", "micro_tokens": tokens} for tokens in options.micro_tokens]
    runs.append({"who": "sentence-transformers"})
    return [measure(options, **batch, **run) for run in runs]


def overhead(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a cached step over those of a plain one, both ours, taking turns."""
    texts = make_texts(options, (options.steps + 1) * options.batch, "mixed")
    precision = options.precisions.split(",")[-1]
    plain = Ours(options, texts, options.batch, precision, "mixed", WHOLE)
    tokens = int(plain.trainer.batches[0].tokens.lengths.sum())
    parted = Ours(options, texts, options.batch, precision, "mixed", tokens // 4)
    with freed_memory_kept():
        for _ in range(options.steps + 1):
            plain.step()
            parted.step()
    seconds = [median(each.seconds[1:]) for each in (plain, parted)]
    return {"precision": precision, "micro_batches": 4, "plain_seconds": seconds[0], "cached_seconds": seconds[1],
            "ratio": seconds[1] / seconds[0]}  # fmt: skip


def budget(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of a large batch of short texts, by the number of its micro-batches, taking turns.

    CPU seconds beside those of the clock: on a machine with other work, they are the ones to
    compare.
    """
    texts = make_texts(options, (options.steps + 1) * options.large_batch, "short")
    precision = options.precisions.split(",")[-1]
    runs: dict[int, Ours] = {}
    found: dict[int, dict[str, list[float]]] = {}
    for parts in MICRO_BATCHES:
        runs[parts] = Ours(options, texts, options.large_batch, precision, "short", WHOLE)
        tokens = int(runs[parts].trainer.batches[0].tokens.lengths.sum())
        runs[parts].trainer.use_budget(-(-tokens // parts))
        found[parts] = {"seconds": [], "cpu_seconds": []}
    for _ in range(options.steps + 1):
        for parts, each in runs.items():
            started = time.process_time()
            each.step()
            found[parts]["seconds"].append(each.seconds[-1])
            found[parts]["cpu_seconds"].append(time.process_time() - started)
    rows = []
    for parts, values in found.items():
        progress = runs[parts].trainer.progress
        row = {"micro_batches": parts, "tokens_per_forward_pass": progress.token_budget}
        # The first step warms up.
        rows.append(row | {name: median(each[1:]) for name, each in values.items()})
    return rows


def scaling(options: argparse.Namespace) -> dict[str, Any]:
    """Pairs/s of one process with a batch and of two with twice the batch."""
    if options.device == "cuda" and torch.cuda.device_count() < 2:
        return {"skipped": "one GPU"}
    found = {}
    for size in (1, 2):
        row = measure(
            options, processes=size, threads=1, who="hybridbatch", batch=size * options.batch, lengths="mixed",
            cached=False, steps=options.steps + 1,
        )  # fmt: skip
        found[f"pairs_per_second_{size}"] = size * options.batch / median(row["seconds"][1:])
    return found | {"efficiency": found["pairs_per_second_2"] / found["pairs_per_second_1"] / 2}


def measure(
    options: argparse.Namespace, processes: int = 1, threads: int = 0, between: Callable[[], None] = lambda: None,
    **what: Any,
) -> dict[str, Any]:  # fmt: skip
    """One measurement in a process (or several) of its own: seconds per step and peak memory.

    Args:
        between: called after every step of the peer, which waits.
    """
    what = {
        "precision": options.precisions.split(",")[-1],
        "steps": 1,
        "micro_tokens": 8192,
        **what,
    }
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--rdzv-backend", "c10d",
                    "--rdzv-endpoint", "localhost:0"]  # fmt: skip
    command += [
        __file__,
        "--alone",
        json.dumps(what | {"start": str(options.start)}),
        "--device",
        options.device,
    ]
    command += [
        "--threads",
        str(threads or options.threads),
        "--vocabulary",
        str(options.vocabulary),
    ]
    env = os.environ | {"OMP_NUM_THREADS": str(threads or options.threads)}
    line = ""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as child:
        for line in child.stdout:
            if line == TURN:
                between()
                child.stdin.write("\n")
                child.stdin.flush()
    label = {name: what[name] for name in ("who", "batch", "lengths", "precision")}
    if child.returncode:
        return label | {"failed": f"exit code {child.returncode}, as when memory runs out"}
    return label | json.loads(line)


def alone(
    options: argparse.Namespace, who: str, batch: int, lengths: str, precision: str, cached: bool, steps: int,
    micro_tokens: int, start: str,
) -> None:  # fmt: skip
    """Print the seconds of each step, the losses and the peak memory of this process."""
    options.start = Path(start)
    before = peak_memory(torch.device(options.device))
    texts = make_texts(options, steps * batch, lengths)
    started = time.process_time()
    budget = None
    if who == "hybridbatch":
        with join(torch.device(options.device)) as workers:
            ours = Ours(
                options,
                texts,
                batch,
                precision,
                lengths,
                (micro_tokens or None) if cached else WHOLE,
                workers,
            )
            with freed_memory_kept():
                for _ in range(steps):
                    ours.step()
            seconds, losses = ours.seconds, ours.trainer.losses
            budget, leads = ours.trainer.progress.token_budget, workers.leads
    else:
        queries, passages = (
            [f"{side}: {text}" for text in kept]
            for side, kept in zip(SIDES, texts, strict=True)
        )
        config, leads = settings(batch, precision, steps), True

        def take_turns(_: Any) -> None:
            print(TURN, end="", file=out, flush=True)
            sys.stdin.readline()

        with standard_output() as out:
            seconds, losses = run_peer(
                config, options.start, {"anchor": queries, "positive": passages}, torch.device(options.device),
                cached=cached, after=take_turns,
            )  # fmt: skip
    peak = peak_memory(torch.device(options.device))
    if leads:
        print(
            json.dumps(
                {
                    "seconds": seconds,
                    "cpu_seconds": time.process_time() - started,
                    "losses": losses,
                    "pairs_per_second": batch / median(seconds),
                    "peak_bytes": peak,
                    "bytes_before": before,
                    "tokens_per_forward_pass": budget
                    if cached and who == "hybridbatch"
                    else None,
                }
            )
        )


def write_model(options: argparse.Namespace) -> None:
    """A random encoder with a tokenizer of whole words, as a sentence-transformers folder."""
    family, hidden, _, inner = SHAPES[options.shape]
    words = {piece: number for number, piece in enumerate([*SPECIAL, *vocabulary(options)])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=512,
    )  # fmt: skip
    config = AutoConfig.for_model(
        family, hidden_size=hidden, num_hidden_layers=options.layers, num_attention_heads=12, intermediate_size=inner,
        vocab_size=options.vocabulary, max_position_embeddings=514, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(options.start)
    fast.save_pretrained(options.start)
    saved = Path(f"{options.start}-saved")
    Encoder.load(str(options.start), max_passage_tokens=MOST).save(
        saved, "start of a benchmark"
    )
    options.start = saved


def vocabulary(options: argparse.Namespace) -> list[str]:
    """The words of the random model."""
    return [f"w{number}" for number in range(options.vocabulary - len(SPECIAL))]


def make_texts(
    options: argparse.Namespace, count: int, lengths: str
) -> tuple[list[str], list[str]]:
    """Queries and passages of random words."""
    words, rng = np.array(vocabulary(options), dtype=object), stream(0, "benchmark texts")

    def texts(mean: int, most: int) -> list[str]:
        sizes = (
            rng.lognormal(np.log(mean) - 0.18, 0.6, count)
            if lengths == "mixed"
            else np.full(count, mean)
        )
        sizes = np.clip(sizes.astype(int), ADDED + 1, most) - ADDED
        return [" ".join(rng.choice(words, size)) for size in sizes]

    (query, most), passage = {
        "mixed": ((12, 32), 60),
        "equal": ((64, 64), 64),
        "short": ((8, 8), 8),
    }[lengths]
    return texts(query, most), texts(passage, MOST)


def settings(batch: int, precision: str, steps: int) -> TrainConfig:
    """What both sides share."""
    return TrainConfig(
        steps=steps, batch_size=batch, warmup_steps=0, lr_schedule="constant", precision=precision, log_to="none", temperature=0.05,
        max_query_tokens=64, max_passage_tokens=MOST, validate_every=10**9, checkpoint_every=10**9,
    )  # fmt: skip


class MadeUp(Rows):
    """Texts in memory, a query and a passage a row."""

    languages = ("any",)

    def __init__(self, queries: list[str], passages: list[str]) -> None:
        self._queries, self._passages = queries, passages

    def queries(self, rows: np.ndarray) -> list[str]:
        """The query of each row."""
        return [self._queries[i] for i in rows]

    def passages(self, rows: np.ndarray) -> list[str]:
        """The passage of each row."""
        return [self._passages[i] for i in rows]

    def record_ids(self, rows: np.ndarray) -> list[str]:
        """A name for each row."""
        return [str(i) for i in rows]


class Ours:
    """Our trainer, a step at a time, with the seconds of each; `Trainer.train` keeps freed memory
    meanwhile.
    """

    def __init__(
        self, options: argparse.Namespace, texts: tuple[list[str], list[str]], batch: int, precision: str, lengths: str,
        budget: int | None, workers: Workers | None = None,
    ) -> None:  # fmt: skip
        queries, passages = texts
        steps = len(queries) // batch
        config = settings(batch, precision, steps)
        device = torch.device(options.device)
        encoder = Encoder.load(str(options.start), **config.encoder_options).to(device)
        rows = np.arange(steps * batch).reshape(steps, batch)
        schedule = self.schedule_of(rows)
        started = time.perf_counter()
        batches = Batches(schedule, MadeUp(queries, passages), encoder.tokenise)
        self.tokenising = (time.perf_counter() - started) / steps
        self.seconds: list[float] = []
        self.device = device
        workers = workers or Workers(device=device)
        machine = Machine(workers, precision, budget or WHOLE)
        self.trainer = Trainer(encoder, batches, Validation({}), config, Path(), machine)
        if not budget:
            self.trainer.use_budget(found_budget(config, self.trainer, SILENT))

    @staticmethod
    def schedule_of(rows: np.ndarray) -> Schedule:
        """Steps of pairs that have a row each, int64 [T, B]."""
        steps = len(rows)
        return Schedule(
            kind=np.ones(steps, np.uint8),
            source=np.zeros(steps, np.int16),
            language=np.zeros(steps, np.int16),
            query_row=rows,
            passage_row=rows,
            notes=(),
        )

    def step(self) -> None:
        """Take the next step."""
        started = now(self.device)
        self.trainer._step(lambda record: None, self)
        self.seconds.append(now(self.device) - started + self.tokenising)

    def share_of_products(self) -> float:
        """Take a step more; the share of its time on the device that goes into matrix products."""
        with torch.profiler.profile() as found:
            self.step()
        name = "self_device_time_total" if self.device.type == "cuda" else "self_cpu_time_total"
        times = {event.key: getattr(event, name) for event in found.key_averages()}
        return sum(times.get(product, 0) for product in PRODUCTS) / sum(times.values())

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        """The progress bar's part."""


def run_peer(
    config: TrainConfig, start: Path, pairs: dict[str, list[str]], device: torch.device, *, cached: bool = False,
    after: Callable[[Any], None], model_options: dict[str, Any] | None = None,
) -> tuple[list[float], list[float]]:  # fmt: skip
    """Train with SentenceTransformerTrainer on batches of `pairs`, in their order.

    Args:
        start: sentence-transformers folder of the encoder.
        pairs: texts with their prompts, queries and positives.
        cached: with the peer's gradient cache.
        after: told the encoder after each step, off the clock.
        model_options: such as the kind of attention, for transformers.
    Returns: seconds and loss of each step.
    """
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    encoder = SentenceTransformer(str(start), device=device.type, model_kwargs=model_options)
    encoder.max_seq_length = config.max_passage_tokens
    if config.dropout is not None:
        set_dropout(encoder, config.dropout)
    scale = 1 / config.temperature
    loss = (
        CachedMultipleNegativesRankingLoss(encoder, scale=scale, mini_batch_size=PEERS_PART)
        if cached
        else MultipleNegativesRankingLoss(encoder, scale=scale)
    )
    seconds, losses = [], []

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.started = 0.0

        def on_train_begin(self, *_, **__):
            self.started = now(device)

        def on_step_end(self, *_, **__):
            seconds.append(now(device) - self.started)
            after(encoder)
            self.started = now(device)

        def on_log(self, args, state, control, logs=None, **__):
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    def in_order(
        dataset: Dataset, batch_size: int, drop_last: bool, **_: Any
    ) -> DefaultBatchSampler:
        return DefaultBatchSampler(SequentialSampler(dataset), batch_size, drop_last)

    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            folder, per_device_train_batch_size=config.batch_size, max_steps=config.steps,
            bf16=config.precision == "bf16", learning_rate=config.learning_rate, weight_decay=config.weight_decay,
            lr_scheduler_type=config.lr_schedule, max_grad_norm=config.max_grad_norm, save_strategy="no",
            report_to="none", disable_tqdm=True, logging_steps=1, use_cpu=device.type == "cpu",
            dataloader_num_workers=0, seed=config.seed, batch_sampler=in_order,
        )  # fmt: skip
        data, watch = Dataset.from_dict(pairs), [Clock()]
        SentenceTransformerTrainer(
            encoder, arguments, train_dataset=data, loss=loss, callbacks=watch
        ).train()
    return seconds, losses


@contextmanager
def standard_output() -> Iterator[TextIO]:
    """The standard output; what anybody else prints inside the block goes to the standard error."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        try:
            yield out
        finally:
            os.dup2(out.fileno(), 1)


def now(device: torch.device) -> float:
    """Seconds, once the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
