"""What an experiment of `hybridbatch reproduce` takes, told before it starts."""

from dataclasses import dataclass
from pathlib import Path

from hybridbatch.common.sizes import duration, free_bytes, gigabytes
from hybridbatch.data.needs import Needs
from hybridbatch.data.prepare import plan as plan_data
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.store.reader import Store
from hybridbatch.data.tasks.registry import is_here, load_task
from hybridbatch.model.reckoning import BYTES_A_TOKEN, Reckoning, absent_bytes, reckon
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY
from hybridbatch.scoring.forecast import Forecast, of_absent, of_task
from hybridbatch.scoring.planning import split_names
from hybridbatch.scoring.settings import EvalConfig
from hybridbatch.training.settings import TrainConfig

QUERY_BYTES, PASSAGE_BYTES = 40.0, 340.0  # of MS MARCO's texts, for data that is not here
SAMPLE = 300  # rows of the data, for their lengths
CHECKPOINTS = 12  # bytes of a checkpoint for each parameter: weights and moments
MODEL = 4  # bytes of a saved model for each parameter


@dataclass(frozen=True)
class Cost:
    """What the whole experiment takes. Bytes and seconds; None: unknown.

    Attributes:
        download: to download, as far as it is known.
        unknown: what has an unknown size.
        data: bytes of prepared data.
        disk: at most in use at one time, on the disks of the data, the runs and the cache.
        step: seconds of a training step.
        training, evaluation: seconds of all arms together.
        memory: of training, without activations.
        translator: the model that translates the data first; None: nothing is translated.
    """

    download: float
    unknown: tuple[str, ...]
    data: float
    disk: float
    step: float | None
    training: float | None
    evaluation: float | None
    memory: float | None
    steps: int
    arms: int
    translator: str | None = None

    def lines(self, folder: Path) -> dict[str, str]:
        """For people, by name."""
        unknown = f" (and {', '.join(self.unknown)}: unknown)" if self.unknown else ""
        told = {
            "to download": gigabytes(self.download) + unknown,
            "disk": f"about {gigabytes(self.disk)}; {gigabytes(free_bytes(folder))} are free",
        }
        if self.translator:
            told["translation"] = (
                f"by {self.translator}, before training; its time comes on top and is not known"
            )
        if self.step is None or self.training is None or self.evaluation is None:
            return told | {"time": "unknown before the model is here"}
        told["memory"] = (
            f"{gigabytes(self.memory)} for weights and optimizer, and the activations"
        )
        told["a step"] = f"about {_seconds(self.step)} on this machine"
        told["training"] = (
            f"{self.arms} runs of {self.steps:,} steps: {duration(self.training)}"
        )
        told["evaluation"] = f"{self.arms + 1} models: {duration(self.evaluation)}"
        return told


def cost_of(
    preparation: PrepareConfig,
    trainings: list[TrainConfig],
    evaluation: EvalConfig,
    is_prepared: bool,
) -> Cost:
    """The cost of an experiment; it downloads nothing.

    Args:
        trainings: the settings of all training runs, which share the model and the steps.
        evaluation: the settings of the untrained model's evaluation.
        is_prepared: whether the data is there already.
    """
    first = trainings[0]
    model = reckon(first.model, first.device, first.precision)
    needs = None if is_prepared else plan_data(preparation)
    tasks = _tasks(evaluation)
    models = [first.model, *([preparation.translator] if preparation.translator else [])]
    sizes = {f"model {name}": _absent(name) for name in models}
    if needs is not None:
        sizes |= {f"source {need.source}": need.absent for need in needs.sources}
    sizes |= {f"task {name}": forecast.absent for name, forecast in tasks.items()}
    download = sum(size or 0.0 for size in sizes.values())
    data = 0.0 if needs is None else float(needs.stored)
    step = _step_seconds(first, preparation, model, needs)
    arms = len(trainings)
    tokens = sum(forecast.tokens for forecast in tasks.values())
    texts = sum(forecast.texts for forecast in tasks.values())
    kept = vectors = 0.0
    if model is not None:
        kept = model.parameters * (MODEL * arms + CHECKPOINTS)
        vectors = 4.0 * texts * model.width * (arms + 1)
    return Cost(
        download=download,
        unknown=tuple(name for name, size in sizes.items() if size is None),
        data=data,
        disk=download + 2 * data + kept + vectors,
        step=step,
        training=None if step is None else step * first.steps * arms,
        evaluation=None if model is None else model.encode_seconds(tokens) * (arms + 1),
        memory=None if model is None else model.train_bytes,
        steps=first.steps,
        arms=arms,
        translator=None if is_prepared else preparation.translator,
    )


def _absent(model: str) -> float | None:
    return 0.0 if model.startswith(("http://", "https://")) else absent_bytes(model)


def _tasks(config: EvalConfig) -> dict[str, Forecast]:
    """The forecasts of the built-in tasks and folders; mteb's tasks are not counted."""
    found = {}
    for name in split_names(config)[0]:
        if is_here(name, config.data_root):
            task = load_task(
                name,
                data_root=config.data_root,
                languages=config.task_languages,
                parallel=config.parallel,
                passage_share=config.passage_share,
            )
            found[name] = of_task(task, config)
        else:
            found[name] = of_absent(name, config, ())
    return found


def _step_seconds(
    train: TrainConfig, preparation: PrepareConfig, model: Reckoning | None, needs: Needs | None
) -> float | None:
    """Seconds of a training step, from the lengths of the data's texts."""
    if model is None:
        return None
    query, passage = QUERY_BYTES, PASSAGE_BYTES
    if needs is None and preparation.out is not None:
        query, passage = _mean_bytes(preparation.out)
    tokens = min(train.max_query_tokens, 3 + query / BYTES_A_TOKEN)
    a_passage = min(train.max_passage_tokens, 3 + passage / BYTES_A_TOKEN)
    tokens += a_passage * (1 + train.hard_negatives)
    return model.train_seconds(tokens * train.batch_size)


def _mean_bytes(folder: Path) -> tuple[float, float]:
    """The mean bytes of some queries and passages of prepared data."""
    import numpy as np

    store = Store.open(folder)
    has = store.index("train").has
    means = []
    for side, read in ((HAS_QUERY, store.queries), (HAS_PASSAGE, store.passages)):
        rows = np.flatnonzero(has & side)
        texts = read("train", rows[:: max(1, len(rows) // SAMPLE)])
        means.append(sum(len(text.encode()) for text in texts) / max(1, len(texts)))
    return means[0], means[1]


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 60 else duration(value)
