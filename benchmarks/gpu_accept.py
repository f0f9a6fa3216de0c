"""Acceptance of the GPU paths on one GPU, offline, in under ten minutes.

Prints a line of PASS, FAIL or INFO for each check, writes JSON with the machine's name (`--out`),
and exits with the number of FAILs. `gpu_bundle.py` packs the real encoder and texts that it can
use (`--bundle`); without them the encoders are random and the texts made up.

The parts run in a process of their own. If one breaks the GPU, ends its process, or takes the time
that is left, it has failed, and the others go on in a new process. What does not fit into `--seconds`
is left out with an INFO.

`--device cpu --small` runs every part on the CPU in a few minutes, to see that the script works.
"""

import argparse
import contextlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from bench_train import (
    MadeUp,
    Ours,
    make_texts,
    run_peer,
    settings,
    write_model,
)
from common import finish
from torch.nn import functional as F

from hybridbatch.common.device import upload
from hybridbatch.common.distributed import join
from hybridbatch.common.memory import return_freed_memory
from hybridbatch.common.peak import measured_peak
from hybridbatch.common.tokens import TokenArrays
from hybridbatch.model import Encoder
from hybridbatch.model.packed import PACKABLE
from hybridbatch.search.exact import search
from hybridbatch.training.gradient_cache import GradientCache, dropout_seed, split
from hybridbatch.training.token_budget import GpuMemory, kept_bytes
from tests.helpers.tiny import write_tiny_model

RANDOM = np.random.default_rng(0)
BATCHES = (64, 256, 1024)
SHAPES = ("e5-small", "xlmr-base")
AHEAD = 1.5  # times sentence-transformers with flash attention 2
OF_PEAK = 0.45  # of the bf16 peak, at 1,024 pairs of XLM-R base
MOST_WAITS, MOST_KERNELS = 2, 900  # of a step
SECONDS = 4.0  # of each measurement


class Acceptance:
    """The checks, one method each; `main` runs them in turn."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.device = torch.device(options.device)
        self.small = options.small
        self.encoder: Path | None = None
        self.texts: list[dict[str, str]] = []
        if options.bundle:
            with (
                lzma.open(options.bundle / "encoder.tar.xz") as packed,
                tarfile.open(fileobj=packed) as archive,
            ):
                archive.extractall(folder, filter="data")
            self.encoder = folder / "encoder"
            lines = (options.bundle / "texts.jsonl").read_text().splitlines()
            self.texts = [json.loads(line) for line in lines]

    def say(self, passed: bool | None, check: str, text: str, **figures: Any) -> None:
        """Print and keep one result; None: for information."""
        word = {True: "PASS", False: "FAIL", None: "INFO"}[passed]
        print(f"{word} {check}: {text}", flush=True)
        self.note({"check": check, "result": word, "text": text, **figures})

    def note(self, line: dict[str, Any]) -> None:
        """Keep a line for the process that started this one."""
        with self.options.child.open("a") as lines:
            lines.write(json.dumps(line) + "\n")

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.time() > self.options.until

    def run(self, name: str) -> None:
        """One part; an exception is its failure."""
        if self.late:
            self.say(None, name, "left out, the time is over")
            self.note({"done": name})
            return
        self.note({"begun": name})
        started = time.perf_counter()
        try:
            getattr(self, name)()
        except Exception as error:  # every other part is still to be seen
            traceback.print_exc(limit=-4)
            self.say(False, name, f"{type(error).__name__}: {str(error)[:200]}")
        self.note({"done": name})
        print(f"     {name}: {time.perf_counter() - started:.1f} s", flush=True)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # an error here ends this process, and no other
        return_freed_memory()

    # The checks.

    def facts(self) -> None:
        """What machine this is."""
        if self.device.type != "cuda":
            self.say(None, "facts", f"torch {torch.__version__} on the CPU")
            return
        card = torch.cuda.get_device_properties(self.device)
        peak = measured_peak(self.device, "bf16", torch.get_num_threads())
        self.say(
            None,
            "facts",
            f"torch {torch.__version__}, {card.name}, {card.total_memory / 2**30:.0f} GiB,"
            f" {peak / 1e12:.0f} TFLOP/s in bf16",
            bf16_peak=peak,
        )

    def numbers(self) -> None:
        """Values and gradients of every packable family against the CPU in fp32."""
        lengths = (3, 5, 5, 9, 17, 30, 64, 90, 120)
        tokens = TokenArrays.of(
            [RANDOM.integers(4, 100, length).tolist() for length in lengths]
        )
        for family in sorted(PACKABLE):
            folder = write_tiny_model(self.folder / family, family, hidden=64, dropout=0.0)
            encoder = Encoder.load(str(folder))
            expected, slope = self._gradients(encoder, tokens, "fp32")
            encoder.to(self.device)
            fp32, _ = self._gradients(encoder, tokens, "fp32")
            half, half_slope = self._gradients(encoder, tokens, "bf16")
            off = float((fp32 - expected).abs().max())
            cosine = float((half * expected).sum(1).min())
            slopes = float(F.cosine_similarity(half_slope, slope, dim=0))
            self.say(
                off < 1e-4 and cosine > 0.999 and slopes > 0.99,
                f"numbers {family}",
                f"fp32 differs by {off:.0e}; bf16: cosine {cosine:.5f}, of gradients {slopes:.4f}",
            )

    def _gradients(
        self, encoder: Encoder, tokens: TokenArrays, precision: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        encoder.zero_grad()
        found = encoder.embed(tokens, precision)
        weights = np.linspace(-1, 1, encoder.dimension, dtype=np.float32)
        (found * upload(weights, found.device)).sum().backward()
        return found.detach().cpu(), _flat_gradient(encoder)

    def replay(self) -> None:
        """Gradient caching with dropout is the plain computation on the same masks."""
        folder = write_tiny_model(self.folder / "replay", "xlm-roberta", hidden=64, dropout=0.1)
        encoder = Encoder.load(str(folder)).to(self.device).train()
        tokens = _sequences(24, 100)
        for precision, bound in (("fp32", 1e-4), ("bf16", 2e-2)):
            budget = 400
            embed = self._embed(encoder, precision)
            encoder.zero_grad()
            cache = GradientCache(embed, list(encoder.parameters()), budget, device=self.device)
            cached = cache.backward(tokens, _any_loss, lambda number: number).item()
            one = _flat_gradient(encoder)
            encoder.zero_grad()
            parts, rows = split(tokens.lengths, budget), []
            for number, part in enumerate(parts):
                with dropout_seed(number, self.device):
                    rows.append(embed(tokens.take(part)))
            order = upload(np.argsort(np.concatenate(parts)), self.device)
            plain = _any_loss(torch.cat(rows).index_select(0, order))
            plain.backward()
            other = _flat_gradient(encoder)
            off = float((one - other).norm() / other.norm())
            self.say(
                abs(cached - plain.item()) < 1e-3 * abs(plain.item()) and off < bound,
                f"replay {precision}",
                f"{len(parts)} micro-batches; gradients differ by {off:.1e}",
            )

    def _embed(self, encoder: Encoder, precision: Any) -> Callable[[TokenArrays], torch.Tensor]:
        return lambda tokens: encoder.embed(tokens, precision)

    def memory(self) -> None:
        """The bytes that are counted for a token are those that it takes, and memory that runs out
        halves the micro-batches.
        """
        if self.device.type != "cuda":
            self.say(None, "memory", "is counted on a GPU only")
            return
        for shape in SHAPES:
            ours = self._ours(shape, 256)
            trainer = ours.trainer
            tokens = trainer.batches[0].tokens
            trainer.encoder.train()
            counted = kept_bytes(trainer.cache.embed, tokens)
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            before = torch.cuda.memory_allocated(self.device)
            held = trainer.cache.embed(tokens)
            taken = (torch.cuda.memory_allocated(self.device) - before) / len(tokens.ids)
            del held
            self.say(
                0.8 < counted / taken < 1.25,
                f"memory {shape}",
                f"{counted / 1024:.0f} KiB a token counted, {taken / 1024:.0f} KiB taken",
                counted=counted,
                taken=taken,
            )
            losses, seed = [], trainer._dropout_seed
            for fraction in (1.0, self._little(ours)):
                return_freed_memory()
                torch.cuda.set_per_process_memory_fraction(fraction, self.device)
                trainer.use_budget(1 << 30)
                loss = trainer.cache.backward(tokens, _any_loss, partial(seed, 0))
                losses.append(loss.item())
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)
            self.say(
                trainer.cache.budget < 1 << 30,
                f"memory that runs out, {shape}",
                f"goes on with {trainer.cache.budget:,} of {len(tokens.ids):,} tokens",
                losses=losses,
            )

    def _little(self, ours: Ours) -> float:
        """A share of the GPU in which weights and a third of the batch fit."""
        gpu = GpuMemory.of(self.device)
        tokens = ours.trainer.batches[0].tokens
        states, _ = ours.trainer.optimizer.bytes_of_states()
        third = kept_bytes(ours.trainer.cache.embed, tokens) * len(tokens.ids) / 3
        return min(1.0, (states + third + (1 << 30)) / gpu.total)

    def speed(self) -> None:
        """Pairs/s against sentence-transformers, share of the peak, kernels and waits of a step."""
        shapes, sizes = (SHAPES, BATCHES) if not self.small else (("e5-small",), (16,))
        for batch in sizes:
            for shape in shapes:
                if self.late:
                    self.say(None, f"speed {shape} {batch}", "left out, the time is over")
                else:
                    self._speed(shape, batch)

    def _speed(self, shape: str, batch: int) -> None:
        ours = self._ours(shape, batch)
        ours.step()
        ours.step()
        started = time.perf_counter()
        while time.perf_counter() - started < (0.1 if self.small else SECONDS):
            if ours.trainer.progress.step >= len(ours.trainer.batches) - 1:
                break
            ours.step()
        seconds = median(ours.seconds[2:])
        progress = ours.trainer.progress
        per_step = progress.work / progress.step
        precision = "bf16" if self.device.type == "cuda" else "fp32"
        peak = measured_peak(self.device, precision, torch.get_num_threads())
        share = per_step / seconds / peak
        kernels, waits = self._profile(ours)
        check = f"speed {shape} {batch}"
        target = OF_PEAK if (shape, batch) == ("xlmr-base", 1024) else None
        self.say(
            None if target is None or self.small else share >= target,
            check,
            f"{batch / seconds:,.0f} pairs/s, {share:.0%} of the peak, {1e3 * seconds:.1f} ms a step",
            pairs_per_second=batch / seconds,
            share_of_peak=share,
            tokens_per_forward_pass=progress.token_budget,
        )
        if kernels:
            few = kernels <= MOST_KERNELS and waits <= MOST_WAITS + 1  # the clock's own
            self.say(
                few, f"{check}, kernels", f"{kernels} kernels, {waits} waits", kernels=kernels
            )
        del ours
        return_freed_memory()
        for attention in ("flash_attention_2", None):
            self._peer(shape, batch, attention, batch / seconds)

    def _peer(self, shape: str, batch: int, attention: str | None, mine: float) -> None:
        name = f"against sentence-transformers {'with' if attention else 'without'} flash attention 2"
        check = f"speed {shape} {batch} {name}"
        needed = ["sentence_transformers", "datasets", "accelerate"]
        needed += ["flash_attn"] if attention else []
        if missing := [package for package in needed if not _installed(package)]:
            self.say(None, check, f"{', '.join(missing)}: not installed")
            return
        steps = 3 if self.small else 8
        train = self._bench(shape, batch)
        texts = make_texts(train, steps * batch, "mixed")
        config = settings(batch, "bf16" if self.device.type == "cuda" else "fp32", steps)
        pairs = {
            "anchor": [f"query: {text}" for text in texts[0]],
            "positive": [f"passage: {text}" for text in texts[1]],
        }
        options = {"attn_implementation": attention} if attention else {}
        seconds, _ = run_peer(
            config, train.start, pairs, self.device, after=lambda encoder: None, model_options=options
        )  # fmt: skip
        theirs = batch / median(seconds[2:])
        ratio = mine / theirs
        wanted = bool(attention) and not self.small
        self.say(
            ratio >= AHEAD if wanted else None,
            check,
            f"{ratio:.2f}x ({mine:,.0f} against {theirs:,.0f} pairs/s)",
            ratio=ratio,
        )

    def _bench(self, shape: str, batch: int) -> argparse.Namespace:
        """The settings of `bench_train` and its random model."""
        found = argparse.Namespace(
            shape=shape, layers=2 if self.small else 12, vocabulary=2000 if self.small else 250_037, batch=batch,
            device=str(self.device), start=self.folder / f"start-{shape}",
        )  # fmt: skip
        saved = Path(f"{found.start}-saved")
        if saved.exists():
            found.start = saved
        else:
            write_model(found)
        return found

    def _ours(self, shape: str, batch: int) -> Ours:
        train = self._bench(shape, batch)
        steps = 6 if self.small else max(8, 6000 // batch)
        texts = make_texts(train, steps * batch, "mixed")
        precision = "bf16" if self.device.type == "cuda" else "fp32"
        return Ours(train, texts, batch, precision, "mixed", None)

    def _profile(self, ours: Ours) -> tuple[int, int]:
        """Kernels and waits of a step more; (0, 0) without a GPU."""
        if self.device.type != "cuda":
            return 0, 0
        kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=kinds) as found:
            ours.step()
        names = [event.name for event in found.events()]
        launched = sum("LaunchKernel" in name for name in names)
        return launched, sum("Synchronize" in name for name in names)

    def encoding(self) -> None:
        """Texts/s of encoding for search; real vectors as on the CPU."""
        if self.encoder is None:
            self.say(None, "encoding", "needs --bundle")
            return
        encoder = Encoder.load(str(self.encoder))
        passages = [pair["passage"] for pair in self.texts]
        sample = passages[:64]
        expected = encoder.encode(sample, "passage", precision="fp32")
        encoder.to(self.device)
        found = encoder.encode(sample, "passage")
        cosine = float((expected * found).sum(1).min())
        self.say(cosine > 0.999, "encoding, real", f"least cosine with the CPU {cosine:.5f}")
        times, most = (1, 500) if self.small else (10, len(passages))
        many = [f"{text} {n}" for n in range(times) for text in passages[:most]]
        encoder.encode(many[:500], "passage")
        started = time.perf_counter()
        tokens = encoder.tokenise(many, "passage")
        tokenising = time.perf_counter() - started
        started = time.perf_counter()
        encoder.encode(many, "passage")
        seconds = time.perf_counter() - started
        self.say(
            None,
            "encoding",
            f"{len(many) / seconds:,.0f} texts/s, {len(tokens.ids) / seconds:,.0f} tokens/s; tokenising"
            f" alone takes {tokenising / seconds:.0%} of that time",
            texts_per_second=len(many) / seconds,
        )

    def searching(self) -> None:
        """Exact search: the CPU's answers, ties included, and its speed."""
        corpus = RANDOM.integers(-2, 3, (50_000, 4)).astype(np.float32)
        queries = RANDOM.integers(-2, 3, (100, 4)).astype(np.float32)
        rows = [search(queries, corpus, 100, device=each).rows for each in ("cpu", self.device)]
        self.say(
            bool(np.array_equal(*rows)), "search", "finds what the CPU finds, ties included"
        )
        many = RANDOM.standard_normal(
            (5_000 if self.small else 1_000_000, 384), dtype=np.float32
        )
        asked = RANDOM.standard_normal((4096, 384), dtype=np.float32)
        started = time.perf_counter()
        search(asked, many, 100, device=self.device)
        seconds = time.perf_counter() - started
        self.say(
            None,
            "search",
            f"{len(asked):,} queries in {len(many):,} passages: {seconds:.1f} s",
            seconds=seconds,
        )

    def cell(self) -> None:
        """A short training on real pairs gets better; one that is resumed has the same losses."""
        if self.encoder is None:
            self.say(None, "cell", "needs --bundle")
            return
        from hybridbatch.training.batches import Batches
        from hybridbatch.training.loop import Machine, Trainer
        from hybridbatch.training.validation import Validation

        steps, batch = (4, 16) if self.small else (40, 100)
        config = settings(batch, "bf16", steps).model_copy(
            update={"checkpoint_every": steps // 2}
        )
        rows = np.arange(steps * batch).reshape(steps, batch) % len(self.texts)
        schedule = Ours.schedule_of(rows)
        texts = MadeUp([t["query"] for t in self.texts], [t["passage"] for t in self.texts])

        def trainer() -> Trainer:
            encoder = Encoder.load(str(self.encoder)).to(self.device)
            batches = Batches(schedule, texts, encoder.tokenise)
            precision = "bf16" if self.device.type == "cuda" else "fp32"
            with join(self.device) as workers:
                machine = Machine(workers, precision, 1 << 20)
            return Trainer(
                encoder, batches, Validation({}), config, self.folder / "run", machine
            )

        whole = trainer()
        started = time.perf_counter()
        whole.train()
        seconds = time.perf_counter() - started
        again = trainer()
        again.resume(steps // 2)
        again.train()
        off = max(abs(a - b) for a, b in zip(whole.losses, again.losses, strict=True))
        self.say(
            off < 1e-2,
            "cell",
            f"{steps} steps in {seconds:.1f} s, loss {whole.losses[0]:.3f} -> {whole.losses[-1]:.3f};"
            f" resumed half-way, losses differ by {off:.0e}",
        )

    def compiled(self) -> None:
        """Compiled layers: replayed dropout, the losses of the plain ones, and their speed."""
        if self.device.type == "cpu" and shutil.which("g++") is None:
            self.say(None, "compiled", "needs a C++ compiler")
            return
        batch = 16 if self.small else 256
        taken, losses = [], []
        for compiles in (False, True):
            ours = self._ours("e5-small", batch)
            if compiles:
                ours.trainer.encoder.compile_layers()
                ours.trainer._try_compiled_layers()
            for _ in range(5 if self.small else 20):
                ours.step()
            ours.trainer.encoder.restore_layers()
            taken.append(median(ours.seconds[3:]))
            losses.append(ours.trainer.losses[0])
            del ours
            return_freed_memory()
        self.say(
            abs(losses[0] - losses[1]) < 0.05,
            "compiled",
            f"{taken[0] / taken[1]:.2f}x the plain layers' speed; first losses {losses[0]:.3f} and"
            f" {losses[1]:.3f}, whose dropout differs",
            ratio=taken[0] / taken[1],
        )

    def sweep(self) -> None:
        """A cell of a sweep through the command line, on the atlas."""
        if self.encoder is None or not _installed("babel"):
            self.say(None, "sweep", "needs --bundle and the package babel")
            return
        out = self.folder / "sweep"
        command = [
            sys.executable,
            "-m",
            "hybridbatch",
            "scale-sweep",
            "--mix",
            "0.5",
            "--seeds",
            "13",
        ]
        command += ["--pairs", "100", "--train-languages", "eng,deu", "--languages", "swa,yor"]
        command += ["--steps", "2" if self.small else "40", "--batch-size", "16", "--model"]
        command += [str(self.encoder), "--out", str(out)]
        places = {"HYBRIDBATCH_CACHE": str(self.folder / "cache")}
        started = time.perf_counter()
        found = subprocess.run(
            command, env=os.environ | places, cwd=self.folder, capture_output=True, text=True,
            timeout=max(60.0, self.options.until - time.time()), check=False,
        )  # fmt: skip
        cells = list(out.glob("cells/*.json"))
        last = (found.stderr.strip().splitlines() or [""])[-1]
        self.say(
            found.returncode == 0 and len(cells) == 2,  # untrained and trained
            "sweep",
            f"{len(cells)} cells in {time.perf_counter() - started:.1f} s"
            + (f"; {last:.200}" if found.returncode else ""),
        )

    def collectives(self) -> None:
        """The calls of several processes over NCCL, by one: several need several GPUs."""
        import torch.distributed as dist

        if self.device.type != "cuda":
            self.say(None, "collectives", "need a GPU")
            return
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29541"}
        dist.init_process_group("nccl", rank=0, world_size=1, device_id=self.device)
        with contextlib.closing(_Group()):
            flag = torch.tensor(1, device=self.device)
            dist.all_reduce(flag, dist.ReduceOp.MAX)
            rows = torch.randn(5, 8, device=self.device)
            everywhere = [torch.empty_like(rows)]
            dist.all_gather(everywhere, rows)
            self.say(
                int(flag) == 1 and torch.equal(everywhere[0], rows), "collectives", "over NCCL"
            )


class _Group:
    """The group of processes, to be closed."""

    def close(self) -> None:
        torch.distributed.destroy_process_group()


PARTS = ("facts", "numbers", "replay", "memory", "cell", "searching", "encoding", "sweep", "speed", "compiled", "collectives")  # fmt: skip


def _flat_gradient(encoder: Encoder) -> torch.Tensor:
    found = [p.grad.detach().float().cpu().flatten() for p in encoder.parameters() if p.grad is not None]  # fmt: skip
    return torch.cat(found)


def _any_loss(embeddings: torch.Tensor) -> torch.Tensor:
    return (embeddings @ embeddings.T).square().mean() + embeddings[:, 0].mean()


def _sequences(count: int, vocabulary: int) -> TokenArrays:
    lengths = np.clip(RANDOM.lognormal(np.log(40), 0.7, count).astype(int), 4, 120)
    return TokenArrays.of(
        [RANDOM.integers(4, vocabulary, length).tolist() for length in lengths]
    )


def _installed(package: str) -> bool:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(package))
    return False


def main() -> int:
    """Run the parts; the number of FAILs."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--device", default="cuda:0")
    made.add_argument("--bundle", type=Path, help="folder that gpu_bundle.py made")
    made.add_argument(
        "--small", action="store_true", help="sizes for a look at the script itself"
    )
    made.add_argument("--parts", default=",".join(PARTS))
    made.add_argument("--seconds", type=float, default=570.0, help="for all parts together")
    made.add_argument("--out", type=Path, help="JSON file to write")
    # of the process that runs the parts: the file for its lines, and when the time is over
    made.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = made.parse_args()
    if options.child:
        run_parts(options)
        return 0
    if unknown := set(options.parts.split(",")) - set(PARTS):
        sys.exit(f"unknown part {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}")
    if options.bundle and not options.bundle.is_dir():
        sys.exit(f"{options.bundle}: no such folder; make gpu-bundle packs one")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here; --device cpu --small shows that the script works")
    started = time.time()
    options.until = started + options.seconds
    lines: list[dict[str, Any]] = []
    waiting = [name for name in PARTS if name in options.parts.split(",")]
    while waiting:
        found, broken = in_process(options, waiting)
        lines += [line for line in found if "check" in line]
        if broken:
            lines.append({"check": broken, "result": "FAIL", "text": "its process has ended"})
            print(f"FAIL {broken}: its process has ended", flush=True)
        done = {line["done"] for line in found if "done" in line} | {broken}
        waiting = [name for name in waiting if name not in done]
    failed = [line["check"] for line in lines if line["result"] == "FAIL"]
    print(f"{len(failed)} failed: {', '.join(failed)}" if failed else "all passed")
    told = {"device": options.device, "small": options.small, "parts": options.parts}
    figures = {"checks": lines, "seconds": time.time() - started}
    try:
        finish("gpu-accept", told, figures, options.out, options.device)
    except RuntimeError:  # the GPU does not even tell its name any more
        finish("gpu-accept", told, figures, options.out)
    return len(failed)


def in_process(
    options: argparse.Namespace, parts: list[str]
) -> tuple[list[dict[str, Any]], str | None]:
    """The lines of a process that runs these parts, and the part in which it ended, if it did."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines.jsonl"
        command = [
            sys.executable,
            __file__,
            "--device",
            options.device,
            "--parts",
            ",".join(parts),
        ]
        command += ["--child", str(lines), "--until", str(options.until)]
        command += ["--small"] if options.small else []
        command += ["--bundle", str(options.bundle)] if options.bundle else []
        process = subprocess.Popen(command)
        try:
            process.wait(timeout=max(120.0, options.until + 60 - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        text = lines.read_text() if lines.exists() else ""
    found = [json.loads(line) for line in text.splitlines()]
    begun = [line["begun"] for line in found if "begun" in line]
    done = [line["done"] for line in found if "done" in line]
    if process.returncode and not done and not begun:
        return found, parts[0]  # it could not even start
    return found, next((name for name in begun if name not in done), None)


def run_parts(options: argparse.Namespace) -> None:
    """Run the parts in this process."""
    with tempfile.TemporaryDirectory() as folder:
        checks = Acceptance(options, Path(folder))
        for name in options.parts.split(","):
            checks.run(name)


if __name__ == "__main__":
    sys.exit(main())
