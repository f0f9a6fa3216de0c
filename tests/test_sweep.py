"""A sweep is a list of content-addressed cells, each done once, whatever happens in between."""

import pytest

from hybridbatch.config import SweepConfig, build
from hybridbatch.errors import ConfigError
from hybridbatch.scaling.grid import Facts, nested_order, plan_cells, spread

LANGUAGES = ("eng", "deu", "fin", "swh", "yor", "hin")
RECORDS = 50


def facts(**changes):
    known = {
        "data": "d1", "training_languages": LANGUAGES, "records": lambda codes: RECORDS if codes else 0,
        "tasks": {"atlas": "t1", "other": "t2"}, "task_languages": (*LANGUAGES, "zul"),
        "models": {"e5-small-q4": "m1", "labse": "m2"},
    }  # fmt: skip
    return Facts(**known | changes)


def sweep_config(**changes):
    values = {
        "languages": "swh,zul",
        "mix": "0,0.5,1",
        "pairs": "10,20",
        "batch_size": "4",
        "steps": "2",
        "seeds": "13",
    }
    return build(SweepConfig, None, values | changes)


def cells_of(**changes):
    return plan_cells(sweep_config(**changes), facts())


def test_axes_are_written_as_text():
    config = build(SweepConfig, None, {"pairs": "500,2k,1.5M,all", "train_languages": "ar,zh;4;family:Bantu"})
    assert config.pairs == (500, 2000, 1_500_000, None)
    assert config.train_languages == ("ar,zh", 4, "family:Bantu")
    assert build(SweepConfig, None, {"train_languages": "2,4"}).train_languages == (2, 4)
    assert build(SweepConfig, None, {"set": "learning_rate=1e-5,3e-5; margin=0.1"}).set == {
        "learning_rate": ("1e-5", "3e-5"), "margin": ("0.1",)
    }  # fmt: skip


def test_the_grid_is_the_product_of_its_axes_and_the_untrained_models():
    cells = cells_of(seeds="13,14", model="e5-small-q4,labse")
    assert len(cells) == 3 * 2 * 2 * 2 + 2
    assert [cell.axes["model"] for cell in cells if cell.train is None] == ["e5-small-q4", "labse"]
    assert len({cell.key for cell in cells}) == len(cells)
    assert sweep_config(seeds="13,14", model="e5-small-q4,labse").cells == 24


def test_targets_are_evaluated_and_kept_out_of_training():
    for cell in cells_of():
        assert cell.evaluation.languages == "swh,zul"
        assert cell.train is None or cell.train.languages == "eng,deu,fin,yor,hin"
    assert cells_of(allow_seen=True)[1].train.languages == ",".join(LANGUAGES)


def test_numbers_of_languages_are_nested_sets_the_best_resourced_first():
    assert nested_order(["yor", "swh", "eng", "fin", "hin"])[:2] == ["eng", "fin"]
    sets = {
        cell.axes["train_languages"]: cell.train.languages.split(",") for cell in cells_of(train_languages="2,3,5")[1:]
    }
    assert [len(codes) for codes in sets.values()] == [2, 3, 5]
    assert set(sets[2]) < set(sets[3]) < set(sets[5])
    assert "deu" in sets[2]


def test_a_key_changes_with_all_that_determines_the_result_and_nothing_else():
    def key(config=None, **changes):
        return plan_cells(sweep_config(**(config or {})), facts(**changes))[1].key

    assert key() == key({"seeds": "13,14"}) == key({"data_root": "elsewhere"}) == key({"launcher": "ray"})
    assert key() == key({"pairs": "10,all"}), "a grown grid keeps the keys of its old cells"
    others = [key(data="d2"), key(tasks={"atlas": "t9"}), key(models={"e5-small-q4": "m9"}), key({"steps": "3"}),
              key({"set": "temperature=0.1"}), key({"languages": "swh"})]  # fmt: skip
    assert len({key(), *others}) == 7


def test_all_records_and_their_number_are_one_cell():
    assert len(cells_of(pairs=f"{RECORDS},all")) == len(cells_of(pairs="all"))


def test_epochs_become_steps():
    cells = plan_cells(build(SweepConfig, None, {"languages": "swh", "mix": "1", "pairs": "10,50", "batch_size": "4",
                                                "epochs": "2", "seeds": "1"}), facts())[1:]  # fmt: skip
    assert {cell.axes["pairs"]: cell.train.steps for cell in cells} == {10: 5, 50: 25}


def test_any_training_setting_can_be_an_axis():
    cells = cells_of(set="learning_rate=1e-5,3e-5")[1:]
    assert len(cells) == 12
    assert (
        {cell.axes["learning_rate"] for cell in cells} == {cell.train.learning_rate for cell in cells} == {1e-5, 3e-5}
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_languages": "swh,eng"}, "names targets of the evaluation \\(swh\\)"),
        ({"train_languages": "7"}, "ask for 1 to 5"),
        ({"train_languages": "1"}, "cross-lingual batches, but train_languages = 1 is one language"),
        ({"languages": "all"}, "say --allow-seen"),
        ({"languages": "swh,fra"}, "fra"),
        ({"pairs": "51"}, "has 50 training records"),
        ({"pairs": "3"}, "batch_size = 4 is more than pairs = 3"),
        ({"mix": "1.5"}, "mix = 1.5"),
        ({"mix": "0,0"}, "names a value twice"),
        ({"mix": ""}, "has no value"),
        ({"pairs": "5x"}, "'5x' is not a size"),
        ({"epochs": "1"}, "give one of them"),
        ({"budget": "soon"}, "not a duration"),
        ({"set": "mix=0.5"}, "use --mix"),
        ({"set": "learning_rat=1"}, "did you mean learning_rate"),
        ({"set": "learning_rate=fast"}, "learning_rate"),
    ],
)
def test_contradictions_are_one_clear_line(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        cells_of(**changes)
    assert "\n" not in str(caught.value)


def test_any_beginning_of_the_spread_order_covers_the_grid():
    cells = cells_of(mix="0,0.25,0.5,0.75,1", pairs="10,20,30,40,50")[1:]
    order = spread(cells)
    assert sorted(cell.key for cell in order) == sorted(cell.key for cell in cells)
    corners = {(cell.axes["mix"], cell.axes["pairs"]) for cell in order[:5]}
    assert {(0, 10), (1, 50), (0, 50), (1, 10)} < corners
