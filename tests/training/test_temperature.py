"""`--temperature auto`: the rule on starts of known spread, and a run that finds and keeps it."""

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from hybridbatch.common.errors import ConfigError
from hybridbatch.common.files import read_json, write_json
from hybridbatch.common.settings import build
from hybridbatch.data.store.writer import write_store
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.temperature import FALLBACK, HIGHEST, LOWEST, find_temperature
from hybridbatch.training.train import start_temperature, train
from tests.helpers.parallel import rows
from tests.helpers.trainers import make_trainer


@pytest.fixture(scope="module")
def parallel_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared") / "toy"
    write_store(
        folder, rows(24), provenance={"sources": [{"name": "toy", "licence": "CC0-1.0"}]}
    )
    return folder


def start(spread: float, shared: float, noise: float, size: int = 256, seed: int = 0):
    """Queries and passages of unit length: a part that all texts share, and a part of each pair's
    own, blurred by noise. E5 shares much (cosines in 0.7 to 1), LaBSE little.
    """
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(1, 48, generator=generator, dtype=torch.float64) * shared
    own = torch.randn(size, 48, generator=generator, dtype=torch.float64)
    sides = []
    for _ in range(2):
        blur = torch.randn(size, 48, generator=generator, dtype=torch.float64) * noise
        sides.append(normalize(common + spread * (own + blur), dim=1))
    return sides[0], sides[1], torch.arange(size)


def batches(embedded, size=32):
    for begin in range(0, len(embedded[0]), size):
        yield tuple(part[begin : begin + size] for part in embedded)


def loss_at(embedded, temperature):
    queries, passages, _ = embedded
    target = torch.arange(len(queries))
    return float(cross_entropy(queries @ passages.T / temperature, target))


@pytest.mark.parametrize("shared", [0.0, 1.0, 3.0])
def test_it_is_where_the_loss_of_the_untrained_encoder_is_least(shared):
    embedded = start(1.0, shared, 1.5)
    found = find_temperature([embedded])
    assert found.known
    around = [loss_at(embedded, found.temperature * factor) for factor in (0.8, 1, 1.25)]
    assert around[1] == min(around)
    assert found.loss == pytest.approx(around[1], abs=1e-3)
    assert found.uniform == pytest.approx(np.log(256))


def test_an_encoder_whose_cosines_lie_close_together_gets_a_lower_one():
    """As multilingual-e5 beside LaBSE: the more texts share, the less their cosines differ."""
    wide, close = (find_temperature(batches(start(1.0, shared, 1.5))) for shared in (0.0, 3.0))
    assert close.temperature < wide.temperature / 3


def test_a_fresh_encoder_has_none_and_gets_the_fallback_and_a_word_about_it():
    found = find_temperature(batches(start(1.0, 0.0, 1000.0)))
    assert not found.known
    assert found.temperature == FALLBACK
    assert "does not tell pairs apart" in found.about


def test_copies_of_a_passage_are_no_rivals():
    queries, passages, _ = start(1.0, 0.0, 1.5, size=64)
    keys = torch.arange(64) // 2
    twins = passages[keys * 2]
    expected = find_temperature([(queries[::2], passages[::2], torch.arange(32))])
    found = find_temperature([(queries[::2], twins[::2], keys[::2])])
    assert found.temperature == expected.temperature
    alone = find_temperature([(queries, twins, keys)])
    assert np.isfinite(alone.loss)


def test_it_stays_within_bounds_even_for_a_perfect_start():
    found = find_temperature(batches(start(1.0, 0.0, 0.0)))
    assert found.temperature == LOWEST < HIGHEST


def test_few_pairs_give_about_the_same_answer_as_many():
    many = find_temperature(batches(start(1.0, 2.0, 1.5, size=512)))
    few = find_temperature(batches(start(1.0, 2.0, 1.5, size=128)))
    assert few.temperature == pytest.approx(many.temperature, rel=0.35)


def config_of(tiny_model, data, out, **changes):
    return build(TrainConfig, None, {
        "model": str(tiny_model), "data": str(data), "out": out, "steps": 3, "batch_size": 4,
        "validate_every": 1, "log_to": "none", **changes,
    })  # fmt: skip


def test_a_run_finds_its_temperature_names_it_and_trains_with_it(
    tiny_model, parallel_data, tmp_path
):
    run = train(config_of(tiny_model, parallel_data, tmp_path / "found"))
    kept = read_json(run / "run.json")
    result = read_json(run / "train.json")
    assert kept["config"]["temperature"] == "auto"
    assert result["temperature"] == kept["temperature_found"]["value"]
    assert kept["temperature_found"]["loss_of_chance"] > 0
    named = train(config_of(tiny_model, parallel_data, tmp_path / "named",
                            temperature=result["temperature"]))  # fmt: skip
    same = read_json(named / "train.json")
    assert [step["loss"] for step in same["curve"]] == [
        step["loss"] for step in result["curve"]
    ]
    assert (
        f"temperature {result['temperature']:.4g}" in (run / "model" / "README.md").read_text()
    )


def test_it_is_found_without_a_run_as_a_run_finds_it(tiny_model, parallel_data, tmp_path):
    config = config_of(tiny_model, parallel_data, tmp_path / "run", mix=0.5)
    found = start_temperature(config)
    assert not list(tmp_path.iterdir())
    kept = read_json(train(config) / "run.json")["temperature_found"]
    assert (found.temperature, found.loss, found.pairs) == (
        kept["value"], kept["loss"], kept["pairs"],
    )  # fmt: skip


def test_a_run_that_goes_on_keeps_the_temperature_it_began_with(
    tiny_model, parallel_data, tmp_path
):
    run = train(config_of(tiny_model, parallel_data, tmp_path / "run"))
    kept = read_json(run / "run.json")
    (run / "train.json").unlink()
    write_json(
        run / "run.json",
        kept | {"temperature_found": kept["temperature_found"] | {"value": 0.123}},
    )
    train(config_of(tiny_model, parallel_data, tmp_path / "run"))
    assert read_json(run / "train.json")["temperature"] == 0.123


def test_auto_may_be_written_in_capitals_and_numbers_keep_their_messages():
    assert build(TrainConfig, None, {"temperature": "AUTO"}).temperature == "auto"
    assert build(TrainConfig, None, {"temperature": "0.02"}).temperature == 0.02
    for value, message in (("0", "greater than 0"), ("nan", "finite"), ("1e4", "far too large"),
                           ("warm", "number")):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            build(TrainConfig, None, {"temperature": value})


def test_the_loss_itself_wants_a_number(tiny_model, tmp_path):
    with pytest.raises(AssertionError):
        make_trainer(tiny_model, tmp_path, temperature="auto")
