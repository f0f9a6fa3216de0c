"""How a model was trained, for machines (``train.json``) and for people (the model card)."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import hybridbatch
from hybridbatch.common.provenance import hardware, versions
from hybridbatch.model import Encoder
from hybridbatch.training.loop import Trainer

SCHEMA = 1


def train_json(
    trainer: Trainer, encoder: Encoder, facts: Mapping[str, Any], identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything about a finished run.

    Args:
        facts: ``trained_languages``, ``data``, ``schedule`` and ``notes``.
        identity: as in the ``run.json`` of the run.
    """
    progress, config, curve = trainer.progress, trainer.config, trainer.curve()
    seconds = max(progress.seconds, 1e-9)
    pairs = progress.step * trainer.batches.schedule.batch_size
    return {
        "schema_version": SCHEMA,
        "kind": "train",
        "hybridbatch": hybridbatch.__version__,
        "seed": config.seed,
        "config": config.as_json(),
        "model": {
            "name": encoder.name,
            "commit": encoder.commit,
            "fingerprint_before": identity["model_fingerprint"],
            "prompts": encoder.prompts,
            "pooling": encoder.pooling,
            "max_tokens": encoder.max_tokens,
            "trained_weights": sum(
                parameter.numel() for parameter in trainer.optimizer.named.values()
            ),
        },
        **facts,
        "steps": progress.step,
        "stopped_early": progress.stopped_early,
        "skipped_steps": [
            entry["step"] for entry in curve if None in (entry["loss"], entry["grad_norm"])
        ],
        "best_step": progress.best,
        "temperature": trainer.objective.temperature,
        "curve": curve,
        "validation": progress.validations,
        "throughput": {
            "pairs_per_second": pairs / seconds,
            "tokens_per_second": progress.tokens / seconds,
            "seconds": progress.seconds,
            "tokens": progress.tokens,
            "padding_tokens_avoided": progress.padded_tokens - progress.tokens,
            "operations_per_second": progress.work / seconds,
            "peak_operations_per_second": trainer.peak,
            "share_of_peak": progress.work / seconds / trainer.peak if trainer.peak else None,
        },
        "memory": {
            "peak_bytes": peak_memory(trainer.workers.device),
            "saved_by_touched_rows_bytes": trainer.cut.bytes_saved if trainer.cut else 0,
            "word_rows_trained": len(trainer.cut.ids) if trainer.cut else None,
            "tokens_per_forward_pass": progress.token_budget,
        },
        "precision": trainer.precision,
        "processes": trainer.workers.size,
        "versions": versions(),
        "hardware": hardware(str(trainer.workers.device)),
    }


def peak_memory(device: torch.device) -> int:
    """Bytes: of the GPU for CUDA, else the most of this process that has been in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):  # getrusage would count what the process was forked from
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


def _teaching(config: Mapping[str, Any]) -> list[str]:
    """The line about distillation, if there was any."""
    if not config["teacher"] or not config["distill_weight"]:
        return []
    language = config["teacher_language"] or "the language of each text"
    return [
        f"- distillation: {config['distill_weight']:.0%} of the loss, from the"
        f" {config['distill_from']} of"
        f" {config['teacher']}, which read the records in {language}"
    ]


def batches_in_words(config: Mapping[str, Any]) -> str:
    """What the batches of a run hold, without the settings that its strategy does not use."""
    copies = f"up to {config['copies']}" if config["copies"] else "all"
    return (
        f"{config['batch_size']} pairs; strategy {config['strategy']}; "
        + {
            "hybrid": f"mix {config['mix']}",
            "mixed": "every pair in one language, drawn for each",
            "mtt": f"every record in {copies} of its languages, never its own negatives",
        }[config["strategy"]]
    )


def model_card(result: Mapping[str, Any]) -> str:
    """The README.md of a trained model, from its train.json."""
    config, data, model = result["config"], result["data"], result["model"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in result["schedule"]["kinds"].items())
    sources = "\n".join(
        f"- {name}: {sum(rows.values()):,} rows; {data['licences'].get(name, 'licence not stated')}"
        for name, rows in data["rows_by_source_and_language"].items()
    )
    loss = f"InfoNCE, temperature {result['temperature']:.4g}" + "".join(
        part
        for part, on in (
            (", symmetric", config["symmetric"]),
            (f", margin {config['margin']}", config["margin"]),
            (f", {config['hard_negatives']} hard negatives per pair", config["hard_negatives"]),
            (f", Matryoshka dimensions {config['matryoshka_dims']}", config["matryoshka_dims"]),
            (
                f", plus {config['align_weight']:g} x alignment with translations",
                config["align_weight"],
            ),
        )
        if on
    )
    chosen = (
        f"step {result['best_step']}, the best on validation ({config['validation_metric']})"
        if result["best_step"]
        else f"the last step, {result['steps']}"
    )
    rank = config["lora_rank"]
    updates = (
        f"; low-rank updates, rank {rank}, alpha {config['lora_alpha'] or 2 * rank:g}, merged"
        if rank
        else ""
    )
    lines = [
        f"- started from: {model['name']}",
        f"- languages ({len(result['trained_languages'])}):"
        f" {', '.join(result['trained_languages'])}",
        f"- batches: {batches_in_words(config)} ({kinds})",
        f"- loss: {loss}",
        *_teaching(config),
        f"- optimizer: AdamW, learning rate {config['learning_rate']:g} ({config['lr_schedule']}),"
        " weight decay"
        f" {config['weight_decay']:g}, {result['steps']} steps, seed {config['seed']},"
        f" {result['precision']}",
        f"- weights: {chosen}"
        + (f"; moving average with decay {config['ema']}" if config["ema"] else "")
        + updates,
        f"- data: {data['name']}, fingerprint {data['fingerprint']}",
        "- versions: "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    ]
    recipe = "\n".join(lines)
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- feature-extraction
- hybridbatch
---

# {config["name"] or "A retrieval encoder"} trained by hybridbatch

A dual encoder for multilingual retrieval. Put `{model["prompts"]["query"]}` before queries and
`{model["prompts"]["passage"]}` before passages; embeddings have unit length, their dot product is the score.

## Recipe

{recipe}

The complete settings and curves are in `train.json` beside this folder.

## Data

{sources}

## Limits

Languages outside the list above were not trained on here; what the starting model knew of them may have changed.
"""
