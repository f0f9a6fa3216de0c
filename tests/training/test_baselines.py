"""Alignment with translations and distillation: equal to plain float64 computations, on any number
of processes.
"""

import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.special import log_softmax
from scipy.stats import chisquare
from torch.nn import functional
from transformers import AutoModel

from hybridbatch.common.errors import ConfigError, DataError, Interrupted
from hybridbatch.common.files import read_json
from hybridbatch.common.settings import build
from hybridbatch.data.store.reader import Store
from hybridbatch.data.store.writer import write_store
from hybridbatch.sampling.index import HAS_PASSAGE, HAS_QUERY
from hybridbatch.sampling.plan import plan_schedule
from hybridbatch.training import checkpoint
from hybridbatch.training.alignment import alignment, plan_translations
from hybridbatch.training.distillation import (
    Targets,
    Teacher,
    cosine_loss,
    embedding_loss,
    read_vectors,
    score_loss,
)
from hybridbatch.training.inputs import Inputs
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.train import train
from tests.helpers.parallel import Table, rows
from tests.helpers.recording import RecordingReporter
from tests.helpers.tiny import write_tiny_model
from tests.helpers.trainers import equal, make_trainer, weights
from tests.sampling.test_schedule import BOTH, make_index, parallel, record_of
from tests.training.test_distributed import on_ranks
from tests.training.test_kill import run_child, train_and_die, weights_of
from tests.training.test_loop import interrupt_in

SIZE = 8


def units(rows: int, seed: int, size: int = SIZE) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, size))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# The losses against NumPy, one query at a time


def kl(teacher: np.ndarray, student: np.ndarray, masked: np.ndarray) -> float:
    """Mean over queries of KL(teacher || student) over the passages that are not masked."""
    total = 0.0
    for t, s, m in zip(teacher, student, masked, strict=True):
        log_t, log_s = log_softmax(t[~m]), log_softmax(s[~m])
        total += float(np.sum(np.exp(log_t) * (log_t - log_s)))
    return total / len(teacher)


def test_score_loss_is_the_divergence_of_the_student_from_the_teacher():
    student, teacher = (np.random.default_rng(seed).normal(size=(6, 6)) * 5 for seed in (0, 1))
    masked = np.zeros((6, 6), bool)
    masked[0, 3] = masked[3, 0] = masked[2, 4] = True
    s = torch.tensor(student, requires_grad=True)
    loss = score_loss(s, torch.tensor(teacher), torch.tensor(masked))
    assert loss.item() == pytest.approx(kl(teacher, student, masked), abs=1e-12)
    loss.backward()
    for i, j in np.ndindex(6, 6):
        moved = [student.copy(), student.copy()]
        moved[0][i, j] -= 1e-6
        moved[1][i, j] += 1e-6
        low, high = (kl(teacher, each, masked) for each in moved)
        assert s.grad[i, j].item() == pytest.approx((high - low) / 2e-6, abs=1e-8)
    assert (
        score_loss(torch.tensor(teacher), torch.tensor(teacher), torch.tensor(masked)).item()
        == 0
    )


def test_embedding_loss_is_the_mean_squared_distance_of_what_is_known():
    student, teacher = units(7, 0), units(7, 1)
    known = np.array([True, True, False, True, False, True, True])
    expected = np.mean(
        [np.sum((s - t) ** 2) for s, t, k in zip(student, teacher, known, strict=True) if k]
    )
    s = torch.tensor(student, requires_grad=True)
    loss = embedding_loss(s, torch.tensor(teacher), torch.tensor(known))
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.backward()
    np.testing.assert_allclose(
        s.grad.numpy(), 2 * (student - teacher) * known[:, None] / known.sum(), atol=1e-12
    )


def test_cosine_loss_is_the_mean_distance_of_what_is_known():
    student, teacher = units(7, 0), units(7, 1)
    known = np.array([True, True, False, True, False, True, True])
    expected = np.mean(
        [1 - float(s @ t) for s, t, k in zip(student, teacher, known, strict=True) if k]
    )
    s = torch.tensor(student, requires_grad=True)
    loss = cosine_loss(s, torch.tensor(teacher), torch.tensor(known))
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    loss.backward()
    np.testing.assert_allclose(
        s.grad.numpy(), -teacher * known[:, None] / known.sum(), atol=1e-12
    )


def test_alignment_is_two_less_twice_the_mean_cosine():
    left, right = units(9, 0), units(9, 1)
    cosines = [float(a @ b) for a, b in zip(left, right, strict=True)]
    assert alignment(torch.tensor(left), torch.tensor(right)).item() == pytest.approx(
        2 - 2 * np.mean(cosines)
    )


def test_nothing_known_costs_nothing():
    none = torch.zeros(0, SIZE, dtype=torch.float64, requires_grad=True)
    for loss in (
        alignment(none, none),
        score_loss(none @ none.T, none @ none.T, torch.zeros(0, 0, dtype=torch.bool)),
        embedding_loss(
            torch.ones(2, SIZE), torch.zeros(2, SIZE), torch.zeros(2, dtype=torch.bool)
        ),
    ):
        assert loss.item() == 0


# What is planned: translations and the texts of the teacher


def irregular():
    """200 records in random languages, some one-sided."""
    rng = np.random.default_rng(5)
    records = []
    for number in range(200):
        languages = np.flatnonzero(rng.random(5) < 0.6)
        sides = {
            int(code): int(rng.choice([BOTH, BOTH, HAS_QUERY, HAS_PASSAGE]))
            for code in languages
        }
        records.append((0, number, sides))
    return make_index(records, languages=5)


@pytest.mark.parametrize("strategy", ["hybrid", "mixed", "mtt"])
def test_translations_are_other_rows_of_the_record_that_have_the_side(strategy):
    index = irregular()
    schedule = plan_schedule(index, mix=0.5, batch_size=8, steps=60, seed=1, strategy=strategy)
    for own, found, side in zip(
        (schedule.query_row, schedule.passage_row), plan_translations(index, schedule, 1), (HAS_QUERY, HAS_PASSAGE),
        strict=True,
    ):  # fmt: skip
        for row, other in zip(own.ravel().tolist(), found.ravel().tolist(), strict=True):
            record = int(record_of(index, np.array(row)))
            possible = {
                r for r in range(index.record_start[record], index.record_start[record + 1])
                if r != row and index.has[r] & side
            }  # fmt: skip
            assert other in possible if possible else other == -1


def test_translations_are_drawn_evenly_and_do_not_depend_on_the_number_of_steps():
    index = make_index(parallel(50, 4))
    schedule = plan_schedule(index, mix=1.0, batch_size=10, steps=300, seed=1)
    queries, passages = plan_translations(index, schedule, 1)
    for found in (queries, passages):
        pairs = 4 * index.language[schedule.query_row].astype(int) + index.language[found]
        counts = np.bincount(pairs.ravel(), minlength=16).reshape(4, 4)
        assert (counts.diagonal() == 0).all()
        for language in range(4):
            assert chisquare(np.delete(counts[language], language)).pvalue > 1e-3
    assert not np.array_equal(queries, passages)
    first = plan_translations(index, schedule.slice(0, 7), 1)
    assert all(
        np.array_equal(part, whole[:7])
        for part, whole in zip(first, (queries, passages), strict=True)
    )


def test_alignment_of_one_language_is_refused():
    index = make_index(parallel(30, 1))
    with pytest.raises(DataError, match=r"align_weight: no training record"):
        plan_translations(
            index, plan_schedule(index, mix=1.0, batch_size=5, steps=3, seed=1), 1
        )


def test_the_teacher_reads_the_record_in_its_language_even_if_that_is_not_trained_on():
    whole = make_index(
        [
            (0, 0, {0: BOTH, 1: BOTH}),
            (0, 1, {1: BOTH}),
            (0, 2, {0: HAS_QUERY, 1: BOTH, 2: BOTH}),
        ]
    )
    scheduled = {"query": np.array([[1, 2, 5]]), "passage": np.array([[1, 2, 4]])}
    targets = Targets.plan(whole, scheduled, "l00")
    assert targets.rows["query"].tolist() == [[0, -1, 3]]
    assert targets.rows["passage"].tolist() == [[0, -1, -1]]
    assert targets.coverage == pytest.approx(1 / 3)
    assert targets.distinct("query").tolist() == [0, 3]
    own = Targets.plan(whole, scheduled, None)
    assert own.rows["query"].tolist() == [[1, 2, 5]]
    assert own.coverage == 1
    with pytest.raises(DataError, match=r"teacher_language = 'l0'.*did you mean l0"):
        Targets.plan(whole, scheduled, "l0")
    with pytest.raises(DataError, match="'l03': no training record"):
        Targets.plan(whole, scheduled, "l03")


@pytest.mark.parametrize("form", ["scores", "embeddings"])
def test_a_teacher_finds_the_vectors_of_every_batch(form):
    rows_of = {
        "query": np.array([[7, -1, 3, 7], [3, 9, -1, 7]]),
        "passage": np.array([[2, 5, 5, 8], [8, -1, 2, 5]]),
    }
    vectors = {side: torch.tensor(units(3, number)) for number, side in enumerate(rows_of)}
    teacher = Teacher(Targets(rows_of), vectors, form, 0.2)
    place = {"query": {3: 0, 7: 1, 9: 2}, "passage": {2: 0, 5: 1, 8: 2}}
    queries, positives, keys = units(4, 5), units(4, 6), np.array([0, 1, 0, 3])
    for step in range(2):
        known = [[row >= 0 for row in rows_of[side][step]] for side in rows_of]
        of = [
            [
                vectors[side][place[side][row]].numpy() if row >= 0 else None
                for row in rows_of[side][step].tolist()
            ]
            for side in rows_of
        ]
        if form == "scores":
            both = [i for i in range(4) if known[0][i] and known[1][i]]
            t = np.array([[of[0][i] @ of[1][j] / 0.2 for j in both] for i in both])
            s = np.array([[queries[i] @ positives[j] / 0.1 for j in both] for i in both])
            expected = kl(
                t, s, np.array([[i != j and keys[i] == keys[j] for j in both] for i in both])
            )
        else:
            pairs = [*zip(queries, of[0], strict=True), *zip(positives, of[1], strict=True)]
            expected = np.mean([np.sum((s - t) ** 2) for s, t in pairs if t is not None])
        found = teacher.loss(
            step, torch.tensor(queries), torch.tensor(positives), torch.tensor(keys), 0.1
        )
        assert found.item() == pytest.approx(expected, abs=1e-12)


# The whole of training


def baseline_trainer(
    model: Path, run: Path, *, teacher: str | None = None, size: int = 32, **changes
):
    """As `make_trainer`; `teacher` is the form of distillation, from random vectors of `size`."""
    if teacher:
        changes |= {"teacher": "random", "distill_from": teacher}
    return make_trainer(model, run, teacher_vectors=size if teacher else None, **changes)


VARIANTS = {
    "mtt": {"strategy": "mtt", "copies": 2, "hard_negatives": 1, "symmetric": True},
    "alignment": {"align_weight": 0.7, "hard_negatives": 1},
    "scores": {
        "teacher": "scores",
        "size": 12,
        "distill_weight": 0.4,
        "teacher_temperature": 0.2,
    },
    "embeddings": {"teacher": "embeddings", "distill_weight": 1.0},
    "mimo": {"mix": 0.0, "teacher": "cosines", "distill_weight": 0.8, "temperature": 0.05},
    "all": {"strategy": "mtt", "align_weight": 0.3, "teacher": "scores"},
}


def plain_loss(trainer, step: int, model, table: Table) -> torch.Tensor:
    """The loss of a step from the texts' tokens by padded forward passes and double loops; `model`
    in float64.
    """
    config, schedule, encoder = trainer.config, trainer.batches.schedule, trainer.encoder

    def embed(texts, side):
        tokens = encoder.tokenise(list(texts), side)
        ids = [torch.tensor(tokens[i].astype("int64")) for i in range(len(tokens))]
        ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=1)
        mask = (torch.arange(ids.shape[1]) < torch.tensor(tokens.lengths)[:, None]).long()
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        return functional.normalize(
            (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=1
        )

    own = (
        [table.rows[row] for row in schedule.query_row[step]],
        [table.rows[row] for row in schedule.passage_row[step]],
    )
    batch = trainer.batches[step]
    negatives = [
        (i, text) for i, text in zip(batch.owner[batch.pairs:].tolist(), negative_texts(batch, own, encoder), strict=True)
    ]  # fmt: skip
    texts = [row.passage for row in own[1]] + [text for _, text in negatives]
    records = [row.record_id for row in own[1]] + [None] * len(negatives)
    q, p = embed([row.query for row in own[0]], "query"), embed(texts, "passage")
    count, temperature = len(q), config.temperature

    def excluded(i, j):
        if i == j:
            return False
        same_record = records[i] == records[j]
        copies = {texts[k] for k in range(count) if records[k] == records[i]}
        return same_record or texts[j] in copies or texts[i] == texts[j]

    scores = q @ p.T / temperature
    masked = torch.tensor([[excluded(i, j) for j in range(len(texts))] for i in range(count)])
    logits = scores.masked_fill(masked, -torch.inf)
    loss = -logits.log_softmax(1).diagonal().mean()
    if config.symmetric:
        loss = (loss - logits[:, :count].T.log_softmax(1).diagonal().mean()) / 2
    if trainer.teacher:
        taught = {
            side: trainer.teacher._vectors[side].double()[
                np.searchsorted(trainer.teacher.targets.distinct(side), at)
            ]
            for side, at in (
                (side, trainer.teacher.targets.rows[side][step])
                for side in ("query", "passage")
            )
        }
        if config.distill_from == "scores":
            t = (
                taught["query"]
                @ taught["passage"].T
                / (config.teacher_temperature or config.temperature)
            )
            total = 0.0
            for i in range(count):
                kept = [j for j in range(count) if not excluded(i, j)]
                of_teacher, of_student = (
                    t[i, kept].log_softmax(0),
                    scores[i, kept].log_softmax(0),
                )
                total = total + (of_teacher.exp() * (of_teacher - of_student)).sum() / count
        elif config.distill_from == "cosines":
            sides = ((q, taught["query"]), (p[:count], taught["passage"]))
            total = sum((1 - sum(x * y for x, y in zip(a, b, strict=True))) for s, t in sides for a, b in zip(s, t, strict=True)) / (2 * count)  # fmt: skip
        else:
            total = sum(((a - b) ** 2).sum() for a, b in zip(q, taught["query"], strict=True))
            total = total + sum(
                ((a - b) ** 2).sum() for a, b in zip(p[:count], taught["passage"], strict=True)
            )
            total = total / (2 * count)
        loss = (1 - config.distill_weight) * loss + config.distill_weight * total
    if config.align_weight:
        others = plan_translations(table.index, schedule, config.seed)
        translated = (
            [table.rows[row] for row in others[0][step]],
            [table.rows[row] for row in others[1][step]],
        )
        tq, tp = (
            embed([r.query for r in translated[0]], "query"),
            embed([r.passage for r in translated[1]], "passage"),
        )
        cosines = torch.cat([(q * tq).sum(1), (p[:count] * tp).sum(1)])
        loss = loss + config.align_weight * (2 - 2 * cosines.mean())
    return loss


def negative_texts(batch, own, encoder) -> list[str]:
    """The hard negatives of a batch as texts, found by their tokens among those of the passage's
    row.
    """
    found = []
    for place in range(batch.pairs, len(batch.passages)):
        candidates = own[1][batch.owner[place]].negatives
        tokens = encoder.tokenise(candidates, "passage")
        found.append(
            next(
                t
                for i, t in enumerate(candidates)
                if np.array_equal(tokens[i], batch.passages[place])
            )
        )
    return found


@pytest.mark.parametrize("micro_tokens", [None, 60])
@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients_equal_a_plain_padded_computation(
    tiny_model, tmp_path, variant, micro_tokens
):
    trainer = baseline_trainer(
        tiny_model, tmp_path, double=True, dropout=0.0, validate=False, steps=2, batch_size=7,
        micro_tokens=micro_tokens, learning_rate=1e-9, **VARIANTS[variant],
    )  # fmt: skip
    found = []
    step = trainer.optimizer.step

    def keep(number, norm):
        found.append(
            {
                name: p.grad.clone()
                for name, p in trainer.optimizer.named.items()
                if p.grad is not None
            }
        )
        step(number, norm)

    trainer.optimizer.step = keep
    trainer.train()
    model = AutoModel.from_pretrained(tiny_model).double().eval()
    for number in range(2):
        model.zero_grad()
        expected = plain_loss(trainer, number, model, Table(rows(24)))
        expected.backward()
        assert trainer.losses[number] == pytest.approx(
            expected.item(), abs=1e-7 if number else 1e-9
        )
        if number:
            continue  # the weights have moved by about 1e-9
        named = dict(model.named_parameters())
        compared = 0
        for name, gradient in found[0].items():
            plain = named.get(name.removeprefix("model."))
            if plain is not None and plain.shape == gradient.shape:
                torch.testing.assert_close(gradient, plain.grad, rtol=0, atol=1e-9, msg=name)
                compared += 1
        assert compared > 20


def first_gradients(
    workers, model: Path, out: Path, variant: str, micro_tokens: int | None
) -> None:
    trainer = baseline_trainer(
        model, out / f"run-{workers.size}", double=True, workers=workers, dropout=0.0, steps=2, batch_size=7,
        micro_tokens=micro_tokens, learn_temperature=True, **VARIANTS[variant],
    )  # fmt: skip
    step, found = trainer.optimizer.step, {}

    def keep(number: int, norm: float) -> None:
        found.update(
            {
                f"{number} {name}": p.grad.clone()
                for name, p in trainer.optimizer.named.items()
                if p.grad is not None
            }
        )
        step(number, norm)

    trainer.optimizer.step = keep
    trainer.train()
    losses = torch.tensor(
        [*trainer.losses, *(entry["loss"] for entry in trainer.progress.validations)]
    )
    save_file(found | {"losses": losses}, out / f"{workers.size}-{workers.rank}.safetensors")


@pytest.mark.parametrize(
    ("variant", "micro_tokens"), [("all", 60), pytest.param("mtt", None, marks=pytest.mark.slow),
                                  pytest.param("embeddings", None, marks=pytest.mark.slow)],
)  # fmt: skip
def test_two_processes_compute_what_one_does(tiny_model, tmp_path, variant, micro_tokens):
    for size in (1, 2):
        on_ranks(size, first_gradients, tiny_model, tmp_path, variant, micro_tokens)
    alone = load_file(tmp_path / "1-0.safetensors")
    for rank in range(2):
        shared = load_file(tmp_path / f"2-{rank}.safetensors")
        assert shared.keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(
                shared[name], value, rtol=0, atol=1e-9, msg=f"{rank} {name}"
            )


def test_a_resumed_run_ends_with_the_same_bits(tiny_model, tmp_path):
    settings = {**VARIANTS["all"], "micro_tokens": 80, "hard_negatives": 1}
    whole = baseline_trainer(tiny_model, tmp_path / "whole", **settings)
    whole.train()
    first = baseline_trainer(tiny_model, tmp_path / "cut", **settings)
    interrupt_in(first, 5)
    with pytest.raises(Interrupted):
        first.train()
    second = baseline_trainer(tiny_model, tmp_path / "cut", **settings)
    second.resume(checkpoint.newest(tmp_path / "cut", second.report))
    second.train()
    assert second.losses == whole.losses
    assert equal(weights(second), weights(whole))


def test_weights_of_nothing_change_nothing(tiny_model, tmp_path):
    found = []
    for number, changes in enumerate(({}, {"teacher": "scores", "distill_weight": 0.0})):
        trainer = baseline_trainer(tiny_model, tmp_path / str(number), **changes)
        trainer.train()
        found.append(weights(trainer))
    assert equal(*found)


def test_alignment_brings_translations_together(tiny_model, tmp_path):
    distances = []
    for weight in (0.0, 5.0):
        trainer = baseline_trainer(
            tiny_model,
            tmp_path / str(weight),
            align_weight=weight,
            learning_rate=3e-3,
            steps=20,
            validate=False,
        )
        trainer.train()
        trained = Table(rows(24)).rows
        embeddings = torch.from_numpy(
            trainer_encode(trainer, [row.passage for row in trained])
        ).view(24, 3, -1)
        distances.append((embeddings[:, 0] - embeddings[:, 1]).square().sum(1).mean().item())
    assert distances[1] < 0.8 * distances[0]


def trainer_encode(trainer, texts: list[str]) -> np.ndarray:
    return trainer.finish().encode(texts, "passage")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"align_weight": -1}, "align_weight"),
        ({"distill_weight": 1.5}, "distill_weight"),
        ({"teacher_temperature": 0}, "teacher_temperature"),
        ({"distill_from": "ranks"}, "distill_from"),
    ],
)
def test_settings_out_of_bounds_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, None, values)


def test_settings_without_effect_are_named(tmp_path):
    write_store(tmp_path / "data", [*rows(24)], provenance={})
    report = RecordingReporter()
    Inputs.plan(
        TrainConfig(strategy="mixed", mix=0.3, copies=4, batch_size=6, steps=1),
        Store.open(tmp_path / "data"),
        report,
    )
    assert "settings without effect here: copies, mix" in report.notes


def test_a_teacher_takes_part_when_it_has_a_weight():
    assert TrainConfig(teacher="x").distils
    assert not TrainConfig(teacher="x", distill_weight=0).distils
    assert not TrainConfig().distils
    assert build(TrainConfig, None, {"teacher_language": "none"}).teacher_language is None


# From settings to a run folder


@pytest.fixture(scope="module")
def job(tmp_path_factory, tiny_model):
    """Settings of a run with a teacher of another size, alignment and mtt batches, its weights and
    file operations.
    """
    folder = tmp_path_factory.mktemp("baselines")
    write_store(folder / "data", [*rows(24), *rows(9, "validation")], provenance={})
    teacher = write_tiny_model(folder / "teacher", hidden=16, seed=3)
    config = TrainConfig(
        data=str(folder / "data"), model=str(tiny_model), out=folder / "whole", steps=4, batch_size=6, copies=2,
        strategy="mtt", precision="fp32", learning_rate=1e-3, checkpoint_every=1, align_weight=0.2,
        teacher=str(teacher), languages="deu,swh", log_to="none",
    )  # fmt: skip
    assert run_child(train_and_die, config, None, folder / "count") == 0
    return config, weights_of(config.out), int((folder / "count").read_text())


def test_a_run_says_how_it_was_taught_and_keeps_no_vectors(job):
    config, _, _ = job
    result = read_json(config.out / "train.json")
    assert result["schedule"]["kinds"] == {"mtt": 4}
    assert result["trained_languages"] == ["deu", "swh"]
    assert (
        "distillation: the teacher reads eng; 100.0% of the pairs have both texts for it"
        in result["notes"]
    )
    assert (
        "alignment: 100.0% of the queries and passages have a translation to be near to"
        in result["notes"]
    )
    card = (config.out / "model" / "README.md").read_text()
    for phrase in (
        "every record in up to 2 of its languages",
        "plus 0.2 x alignment",
        "50% of the loss, from the scores",
    ):
        assert phrase in card
    assert "mix 0.5" not in card
    assert (
        sorted(path.name for path in config.out.iterdir() if path.suffix == ".safetensors")
        == []
    )


@pytest.mark.parametrize(
    "share", [0.12, *(pytest.param(s, marks=pytest.mark.slow) for s in (0.03, 0.06, 0.5, 0.8))]
)
def test_killed_and_gone_on_with_ends_with_the_same_bits(job, tmp_path, share):
    config, expected, operations = job
    killed = config.model_copy(update={"out": tmp_path / "run"})
    assert run_child(train_and_die, killed, int(share * operations)) == -signal.SIGKILL
    assert run_child(train_and_die, killed, None) == 0
    assert weights_of(killed.out) == expected


def test_another_teacher_under_the_same_name_is_refused(job, tmp_path):
    config, _, operations = job
    teacher = tmp_path / "teacher"
    shutil.copytree(config.teacher, teacher)
    killed = config.model_copy(update={"out": tmp_path / "run", "teacher": str(teacher)})
    assert run_child(train_and_die, killed, operations // 2) == -signal.SIGKILL
    write_tiny_model(teacher, hidden=16, seed=4)
    with pytest.raises(ConfigError, match="teacher_fingerprint: "):
        train(killed)


def train_together(workers, config: TrainConfig) -> None:
    """`train`, which finds the process group that is there already."""
    with mock.patch("hybridbatch.training.train.join", return_value=nullcontext(workers)):
        train(config)


def test_two_processes_share_one_teacher(job, tmp_path):
    config, _, _ = job
    for size in (1, 2):
        on_ranks(
            size,
            train_together,
            config.model_copy(update={"out": tmp_path / str(size), "dropout": 0.0}),
        )
    curves = [
        [entry["loss"] for entry in read_json(tmp_path / name / "train.json")["curve"]]
        for name in ("1", "2")
    ]
    np.testing.assert_allclose(curves[0], curves[1], rtol=0, atol=1e-5)  # in float32


def test_embeddings_of_another_size_are_refused(job, tmp_path):
    config = job[0].model_copy(update={"out": tmp_path / "run", "distill_from": "embeddings"})
    with pytest.raises(
        ConfigError,
        match=r"have 16 dimensions, but the model's have 32; use --distill-from scores",
    ):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("language", "message"),
    [("fra", "has no such language"), ("klingonese", "unknown language")],
)
def test_a_teacher_needs_texts(job, tmp_path, language, message):
    with pytest.raises(DataError, match=message):
        train(job[0].model_copy(update={"out": tmp_path / "run", "teacher_language": language}))


def test_damaged_vectors_are_named(tmp_path):
    (tmp_path / "teacher.safetensors").write_bytes(b"short")
    with pytest.raises(DataError, match=r"teacher.safetensors: is damaged"):
        read_vectors(tmp_path / "teacher.safetensors")
