"""How a model was trained, for machines (``train.json``) and for people (the model card)."""

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import hybridbatch
from hybridbatch.common.errors import HybridBatchError
from hybridbatch.common.languages import language
from hybridbatch.common.progress import SILENT
from hybridbatch.common.provenance import hardware, versions
from hybridbatch.common.tables import markdown_table
from hybridbatch.model import Encoder
from hybridbatch.sampling.strategies import MIXING
from hybridbatch.training.licences import OTHER, licence
from hybridbatch.training.loop import Trainer

SCHEMA = 1
SCORES = ("mAP", "ndcg@10")  # of an evaluation, in the card
HUB_DATA = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)")


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
        "start": start_facts(config.model),
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


def start_peak_memory(device: torch.device) -> None:
    """Reset the memory peak, because a process may train several models (cells of a sweep)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # no Linux, or not allowed
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> int:
    """The peak of memory since `start_peak_memory`, in bytes.

    It is the GPU's memory for CUDA, and otherwise the largest part of this process in main memory.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM:"):  # getrusage would count what the process was forked from
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, others KiB


def _teaching(config: Mapping[str, Any]) -> list[str]:
    """The line about distillation, if a teacher was used."""
    if not config["teacher"] or not config["distill_weight"]:
        return []
    language = config["teacher_language"] or "the language of each text"
    return [
        f"- distillation: {config['distill_weight']:.0%} of the loss, from the"
        f" {config['distill_from']} of {config['teacher']}, which read the records in {language}"
    ]


def _averaged(config: Mapping[str, Any]) -> list[str]:
    """The line about the average with the start's weights, if there is one."""
    share = config.get("average_start")
    return [f"- weights: {share:.0%} of the start's, the rest trained"] if share else []


def batches_in_words(config: Mapping[str, Any]) -> str:
    """The contents of the batches of a run, without settings that its strategy does not use."""
    copies = f"up to {config['copies']}" if config["copies"] else "all"
    return (
        f"{config['batch_size']} pairs; strategy {config['strategy']}; "
        + {
            **dict.fromkeys(MIXING, f"mix {config['mix']}"),
            "mixed": "every pair in one language, drawn for each",
            "mtt": f"every record in {copies} of its languages, never its own negatives",
        }[config["strategy"]]
    )


def model_card(
    result: Mapping[str, Any], place: str, evaluations: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The README.md of a trained model: metadata for the hub, use, recipe, data, licence, scores.

    Args:
        result: its train.json.
        place: what `SentenceTransformer` is given to load it: a folder or a hub id.
        evaluations: eval.json of its evaluations.
    """
    config, data = result["config"], result["data"]
    start = result.get("start", {})
    parts = {f"start {result['model']['name']}": start.get("licence") or "not stated"}
    for name in data["rows_by_source_and_language"]:
        parts[f"data {name}"] = data["licences"].get(name, "not stated")
    identifier, reasons = licence(parts)
    metadata = _metadata(result, start, identifier, evaluations)
    sources = []
    for name, rows in data["rows_by_source_and_language"].items():
        sources.append(f"- {name}: {sum(rows.values()):,} rows; {parts[f'data {name}']}")
    sections = {
        f"# {config['name'] or 'A retrieval encoder'} trained by hybridbatch": [
            "A dual encoder for multilingual retrieval. Embeddings have unit length; their dot"
            " product is the score."
        ],
        "## Use": _use(place, result["model"]["prompts"]),
        "## Recipe": [
            "\n".join(_recipe(result)),
            "The complete settings and curves are in `train.json`.",
        ],
        "## Data": ["\n".join(sources)],
        "## Licence": [
            f"`{identifier}`, because of:",
            "\n".join(f"- {reason}" for reason in reasons),
        ],
        "## Scores": _scores(evaluations),
        "## Limits": [
            "Languages outside the list above were not trained on here. What the starting model"
            " knew of them may have changed."
        ],
    }
    told = [f"---\n{metadata}\n---"]
    for heading, paragraphs in sections.items():
        if paragraphs:
            told += [heading, *paragraphs]
    return "\n\n".join(told) + "\n"


def _metadata(
    result: Mapping[str, Any],
    start: Mapping[str, Any],
    identifier: str,
    evaluations: Sequence[Mapping[str, Any]],
) -> str:
    """The YAML block that the hub reads."""
    from huggingface_hub import ModelCardData

    found = [each for evaluation in evaluations for each in _eval_results(evaluation)]
    other: dict[str, Any] = {}
    if identifier == OTHER:
        other = {"license_name": "several", "license_link": "README.md"}
    data = ModelCardData(
        language=[_hub_language(code) for code in result["trained_languages"]],
        license=identifier,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        base_model=start.get("base_model"),
        datasets=_hub_data_sets(result["data"]) or None,
        tags=["sentence-transformers", "feature-extraction", "multilingual", "hybridbatch"],
        model_name=result["config"]["name"] or "hybridbatch encoder" if found else None,
        eval_results=found or None,
        **other,
    )
    return data.to_yaml().strip()


def _hub_language(code: str) -> str:
    """The hub's id of a language: two letters if there is such an id, else three."""
    aliases = language(code).aliases
    return next((alias for alias in aliases if len(alias) == 2 and alias.islower()), code[:3])


def _hub_data_sets(data: Mapping[str, Any]) -> list[str]:
    """Ids of the hub's data sets among the sources."""
    found = []
    for source in data["provenance"].get("sources", ()):
        match = HUB_DATA.match(str(source.get("url", "")))
        if match:
            found.append(match[1])
    return list(dict.fromkeys(found))


def _eval_results(evaluation: Mapping[str, Any]) -> Iterator[Any]:
    """The main scores of an evaluation, as the hub's leaderboards read them."""
    from huggingface_hub import EvalResult

    for task in evaluation["tasks"]:
        for setting, part in task["settings"].items():
            for metric in SCORES:
                if part["metrics"].get(metric) is not None:
                    yield EvalResult(
                        task_type="text-retrieval",
                        task_name=f"{setting} retrieval",
                        dataset_type=task["name"],
                        dataset_name=f"{task['name']}, {setting}",
                        metric_type=metric,
                        metric_name=metric,
                        metric_value=round(part["metrics"][metric], 5),
                    )


def _scores(evaluations: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of the same scores for people."""
    rows = []
    for evaluation in evaluations:
        for task in evaluation["tasks"]:
            for setting, part in task["settings"].items():
                scores = {name: part["metrics"].get(name) for name in SCORES}
                rows.append({"task": task["name"], "setting": setting, **scores})
    if not rows:
        return []
    return ["Averages over languages.", markdown_table(rows, right=SCORES)]


def _use(place: str, prompts: Mapping[str, str]) -> list[str]:
    """How to encode; sentence-transformers puts the prompts in front by itself."""
    snippet = f"""```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({place!r})
queries = model.encode_query(["Where do pandas live?"])
passages = model.encode_document(["Pandas live in the mountains of China.", "Rice is a grain."])
print(model.similarity(queries, passages))
```"""
    told = "The model was trained without prompts."
    if any(prompts.values()):
        told = (
            f"`encode_query` puts `{prompts['query']}` before each text and `encode_document`"
            f" `{prompts['passage']}`: give them the texts alone."
        )
    return [snippet, told]


def _recipe(result: Mapping[str, Any]) -> list[str]:
    """The settings that matter, a line each."""
    config, data = result["config"], result["data"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in result["schedule"]["kinds"].items())
    trained = result["trained_languages"]
    return [
        f"- started from: {result['model']['name']}",
        f"- languages ({len(trained)}): {', '.join(trained)}",
        f"- batches: {batches_in_words(config)} ({kinds})",
        f"- loss: {_loss(config, result['temperature'])}",
        *_teaching(config),
        *_averaged(config),
        f"- optimizer: AdamW, learning rate {config['learning_rate']:g} ({config['lr_schedule']}),"
        f" weight decay {config['weight_decay']:g}, {result['steps']} steps, seed {config['seed']},"
        f" {result['precision']}",
        f"- weights: {_weights(result)}",
        f"- data: {data['name']}, fingerprint {data['fingerprint']}",
        "- versions: "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
    ]


def _loss(config: Mapping[str, Any], temperature: float) -> str:
    told = [f"InfoNCE, temperature {temperature:.4g}"]
    if config["symmetric"]:
        told.append("symmetric")
    if config["margin"]:
        told.append(f"margin {config['margin']}")
    if config["hard_negatives"]:
        told.append(f"{config['hard_negatives']} hard negatives per pair")
    if config["matryoshka_dims"]:
        told.append(f"Matryoshka dimensions {config['matryoshka_dims']}")
    if config["align_weight"]:
        told.append(f"plus {config['align_weight']:g} x alignment with translations")
    return ", ".join(told)


def _weights(result: Mapping[str, Any]) -> str:
    config, rank = result["config"], result["config"]["lora_rank"]
    told = [f"the last step, {result['steps']}"]
    if result["best_step"]:
        metric = config["validation_metric"]
        told = [f"step {result['best_step']}, the best on validation ({metric})"]
    if config["ema"]:
        told.append(f"moving average with decay {config['ema']}")
    if rank:
        alpha = config["lora_alpha"] or 2 * rank
        told.append(f"low-rank updates, rank {rank}, alpha {alpha:g}, merged")
    return "; ".join(told)


def start_facts(name: str) -> dict[str, str | None]:
    """Licence and hub id of the model that a training starts from, as its own card says."""
    from huggingface_hub import metadata_load

    from hybridbatch.model.loading import locate

    source = locate(name, SILENT)
    try:
        card = source.find("README.md")
        metadata = (metadata_load(card) if card else None) or {}
    except (HybridBatchError, ValueError, OSError):  # no network, or a card that is no YAML
        metadata = {}
    base = metadata.get("base_model")
    if source.commit:  # a model of the hub is the base itself
        base = source.location
    stated = metadata.get("license")
    if isinstance(stated, list):
        stated = ", ".join(map(str, stated))
    return {
        "licence": str(stated) if stated else None,
        "base_model": base if isinstance(base, str) else None,
    }
