"""Training speed against sentence-transformers: same model, pairs, precision, dropout, optimizer settings.

The two take turns, some steps each, on the same batches; the ratio is of the medians of their steps, per round. Texts are
random whole-word pieces of the model's vocabulary, of lengths as in question answering (queries about 12 tokens, passages
about 60, up to 180) or all equal.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from common import finish, parser, spread

from hybridbatch.config import TrainConfig
from hybridbatch.model import Encoder
from hybridbatch.schedule import Schedule
from hybridbatch.seeding import stream
from hybridbatch.training.batches import Batches
from hybridbatch.training.loop import Trainer
from hybridbatch.training.validation import Validation

PROMPT_TOKENS = 5  # "query: " or "passage: " and the two special tokens, about


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--model", default="e5-small-q4")
    arguments.add_argument("--batch", type=int, default=64, help="pairs per optimizer step")
    arguments.add_argument("--lengths", choices=["mixed", "equal"], default="mixed")
    arguments.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments.add_argument("--peer", choices=["plain", "cached"], default="plain", help="MNRL or CachedMNRL")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--steps", type=int, default=3, help="counted steps per round, after one that is not")
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)

    encoder = Encoder.load(options.model, max_query_tokens=32, max_passage_tokens=180)
    start = Path(tempfile.mkdtemp()) / "start"
    encoder.save(start, "start of a benchmark")
    queries, passages = texts(encoder, options.batch * (options.steps + 1), options.lengths)
    ours, theirs, losses = [], [], {}
    for _ in range(options.rounds):
        seconds, losses["hybridbatch"], tokens = run_ours(str(start), queries, passages, options)
        ours.append(median(seconds[1:]))
        seconds, losses["sentence-transformers"] = run_peer(str(start), queries, passages, options)
        theirs.append(median(seconds[1:]))
    figures = {
        "pairs_per_second": {
            "hybridbatch": spread([options.batch / s for s in ours]),
            "sentence-transformers": spread([options.batch / s for s in theirs]),
        },
        "ratio": spread([t / o for o, t in zip(ours, theirs, strict=True)]),
        "first_loss": losses,
        "tokens_per_step": tokens,
        "gemm_share": gemm_share(encoder, tokens, median(ours), options),
    }
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    finish("train", settings, figures, options.out, options.device)


def texts(encoder: Encoder, count: int, lengths: str) -> tuple[list[str], list[str]]:
    """Queries and passages of random whole-word pieces."""
    words = [piece[1:] for piece in encoder.tokenizer.get_vocab() if piece.startswith("▁") and piece[1:].isalpha()]
    words = np.array(sorted(words), dtype=object)
    rng = stream(0, "benchmark texts")

    def of_length(mean: float, low: int, high: int) -> list[str]:
        sizes = rng.lognormal(np.log(mean) - 0.18, 0.6, count) if lengths == "mixed" else np.full(count, 64)
        sizes = np.clip(sizes.astype(int) - PROMPT_TOKENS, low, high)
        return [" ".join(rng.choice(words, size)) for size in sizes]

    short = (12, 3, 27) if lengths == "mixed" else (64, 3, 59)
    return of_length(*short), of_length(60, 5, 175)


def config_of(options, steps: int) -> TrainConfig:
    """The settings both sides share."""
    return TrainConfig(
        steps=steps, batch_size=options.batch, warmup_steps=0, lr_schedule="constant", precision=options.precision,
        max_query_tokens=64 if options.lengths == "equal" else 32, max_passage_tokens=180, log_to="none",
        validate_every=10**9, checkpoint_every=10**9,
    )  # fmt: skip


def run_ours(model: str, queries: list[str], passages: list[str], options) -> tuple[list[float], float, int]:
    """Seconds of each step, the first loss, and the tokens of a step."""
    steps = len(queries) // options.batch
    config = config_of(options, steps)
    encoder = Encoder.load(
        model, max_query_tokens=config.max_query_tokens, max_passage_tokens=config.max_passage_tokens
    ).to(options.device)
    rows = np.arange(steps * options.batch).reshape(steps, options.batch)
    schedule = Schedule(
        kind=np.ones(steps, np.uint8), source=np.zeros(steps, np.int16), language=np.zeros(steps, np.int16),
        query_row=rows, passage_row=rows, notes=(),
    )  # fmt: skip
    batches = Batches(
        schedule,
        queries=lambda wanted: [queries[i] for i in wanted],
        passages=lambda wanted: [passages[i] for i in wanted],
        negatives=lambda wanted: [() for _ in wanted],
        record_ids=lambda wanted: [str(i) for i in wanted],
        tokenise=encoder.tokenise,
    )
    seconds: list[float] = []

    class Clock:
        def advance(self, amount: int = 1, **fields: float | str) -> None:
            if options.device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            encoder, batches, Validation({}), config, languages=("any",), run=Path(folder),
            precision=options.precision, token_budget=1 << 30 if options.peer == "plain" else 16_384,
        )  # fmt: skip
        seconds.append(time.perf_counter())
        for _ in range(steps):
            trainer._step(lambda record: None, Clock())
    return list(np.diff(seconds)), trainer.losses[0], len(batches[0].tokens.ids)


def run_peer(model: str, queries: list[str], passages: list[str], options) -> tuple[list[float], float]:
    """Seconds of each step of SentenceTransformerTrainer, and the first loss."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from transformers import TrainerCallback

    config = config_of(options, len(queries) // options.batch)
    encoder = SentenceTransformer(model, device=options.device)
    encoder.max_seq_length = config.max_passage_tokens
    if options.peer == "plain":
        loss = MultipleNegativesRankingLoss(encoder, scale=1 / config.temperature)
    else:
        loss = CachedMultipleNegativesRankingLoss(encoder, scale=1 / config.temperature, mini_batch_size=64)
    data = Dataset.from_dict(
        {"anchor": [f"query: {q}" for q in queries], "positive": [f"passage: {p}" for p in passages]}
    )
    seconds: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_, **__):
            if options.device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter())

        def on_log(self, args, state, control, logs=None, **__):
            if logs and "loss" in logs:
                losses.append(logs["loss"])

    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            folder, per_device_train_batch_size=options.batch, max_steps=config.steps, bf16=options.precision == "bf16",
            learning_rate=config.learning_rate, weight_decay=config.weight_decay, lr_scheduler_type="constant",
            max_grad_norm=config.max_grad_norm, save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=1,
            use_cpu=options.device == "cpu", dataloader_num_workers=0, seed=config.seed,
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(encoder, arguments, train_dataset=data, loss=loss, callbacks=[Clock()])
        seconds.append(time.perf_counter())
        trainer.train()
    return list(np.diff(seconds)), losses[0]


def gemm_share(encoder: Encoder, tokens: int, seconds: float, options) -> dict[str, float]:
    """Matrix-product work on real tokens over the best rate of a plain product of the same kind on this machine."""
    config = encoder.model.config
    width, inner = config.hidden_size, config.intermediate_size
    work = 3 * 2 * tokens * config.num_hidden_layers * (4 * width * width + 2 * width * inner)
    kind = torch.bfloat16 if options.precision == "bf16" else torch.float32
    best = 0.0
    for rows, columns, depth in ((2048, width, inner), (4096, inner, width), (4096, width, width), (2048, 2048, 2048)):
        a, b = (torch.randn(n, depth, device=options.device).to(kind) for n in (rows, columns))
        for _ in range(20):
            started = time.perf_counter()
            torch.nn.functional.linear(a, b)
            if options.device == "cuda":
                torch.cuda.synchronize()
            best = max(best, 2 * rows * columns * depth / (time.perf_counter() - started))
    return {"gflops": work / seconds / 1e9, "best_product_gflops": best / 1e9, "share": work / seconds / best}


if __name__ == "__main__":
    main()
