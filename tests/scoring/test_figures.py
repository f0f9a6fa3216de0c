"""Figures of evaluations and comparisons: everything is drawn, in order, and the same content gives
the same bytes.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.languages import known_languages, language
from hybridbatch.scoring.compare import compare, write
from hybridbatch.scoring.evaluate import evaluate
from hybridbatch.scoring.figures import draw, heat_map, order, profile, task_figures
from hybridbatch.scoring.settings import EvalConfig
from tests.scoring.test_compare import write_run
from tests.scoring.test_evaluate import write_folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    task = write_folder(root / "mine", ("en", "sw", "de"))
    folder = evaluate(
        EvalConfig(model="bm25", tasks=(str(task),), out=root / "bm25", device="cpu")
    )
    draw(folder)
    return folder


def test_an_evaluation_has_its_figures_as_svg_and_png(drawn):
    names = ["mine-pairs-mAP", "mine-pool-languages", "mine-pool-mlrs", "mine-pool-profile"]
    found = sorted(path.name for path in (drawn / "figures").iterdir())
    assert found == sorted(f"{name}.{kind}" for name in names for kind in ("png", "svg"))
    text = (drawn / "figures" / "mine-pairs-mAP.svg").read_text()
    assert all(
        word in text for word in ("Swahili", "swh", "query language", ">high<", "mine, bm25")
    )
    assert not re.search(r"\d{4}-\d\d-\d\dT", text)


def test_drawing_again_gives_the_same_bytes(drawn):
    before = {path.name: path.read_bytes() for path in (drawn / "figures").iterdir()}
    draw(drawn)
    assert {path.name: path.read_bytes() for path in (drawn / "figures").iterdir()} == before


def test_languages_are_ordered_by_resource_class_then_family():
    found = order(["swh", "deu", "yor", "eng", "ell", "arb", "zul"])
    assert [language(code).resource_class for code in found.codes] == list(found.classes)
    assert list(found.classes) == sorted(
        found.classes, key=["high", "mid", "low", "unknown"].index
    )
    assert (
        found.codes.index("arb")
        < found.codes.index("eng")
        < found.codes.index("deu")
        < found.codes.index("ell")
    )
    assert [(kind, end - start) for kind, start, end in found.spans()] == [
        ("high", 3),
        ("mid", 1),
        ("low", 3),
    ]


@pytest.mark.parametrize(("rows", "columns"), [(2, 205), (205, 205), (1, 3)])
def test_a_heat_map_takes_up_to_all_languages(rows, columns):
    codes = known_languages()
    values = np.random.default_rng(0).random((rows, columns))
    values[0, 0] = np.nan
    figure = heat_map(values, order(codes[:rows]), order(codes[:columns]), "title", "mAP")
    axes = figure.axes[0]
    turned = 6 * rows < columns
    assert axes.get_ylabel() == ("corpus language" if turned else "query language")
    assert len(axes.get_yticklabels()) == (columns if turned else rows)
    shown = axes.images[0].get_array()
    assert np.array_equal(shown.filled(np.nan), values.T if turned else values, equal_nan=True)
    assert max(figure.get_size_inches()) < 25


def test_the_profile_stacks_shares_to_one_and_draws_only_what_is_there():
    codes = ["eng", "swh", "ell"]
    bias = {
        "query_languages": codes, "corpus_languages": codes, "pool_share": [0.5, 0.25, 0.25],
        "measures": {"language_distribution@10": [[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]]},
    }  # fmt: skip
    figure = profile(
        {code: {"same_language_share@10": 0.6} for code in codes}, bias, order(codes), "t"
    )
    assert [axes.get_title() for axes in figure.axes] == ["languages of the first 10"]
    bars = figure.axes[0].patches
    assert sum(bar.get_width() for bar in bars) == pytest.approx(3)
    assert [bar.get_width() for bar in bars] == pytest.approx(
        [0.8, 0.2, 0.3, 0.1, 0.6, 0.1, 0.1, 0.2, 0.6]
    )


def test_a_task_without_pool_or_metric_has_fewer_figures(drawn, tmp_path):
    task = {
        "name": "t",
        "pairs": {"query_languages": ["eng"], "corpus_languages": ["deu"], "metrics": {}},
    }
    assert list(task_figures({**task, "bias": {}}, {"name": "m"}, "mAP")) == []
    with pytest.raises(DataError, match="ndcg@10"):
        draw(drawn, "ndcg@11")
    with pytest.raises(DataError, match=r"eval\.json"):
        draw(tmp_path)


def test_a_comparison_is_drawn_with_its_intervals(tmp_path):
    runs = [
        write_run(tmp_path / "hybrid", {"multilingual": 0.1}),
        write_run(tmp_path / "mono", {}),
    ]
    result = compare(runs, draws=500)
    for name in ("c.svg", "c.png"):
        write(result, tmp_path / name)
    text = (tmp_path / "c.svg").read_text()
    row = next(row for row in result["rows"] if row["setting"] == "multilingual")
    half = 100 * (row["high"] - row["low"]) / 2
    assert f"{100 * row['difference']:+.1f} ± {half:.1f}" in text
    assert "toy: hybrid − mono" in text
    write(result, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == text
    from hybridbatch.scoring.drawing import write_figure
    from hybridbatch.scoring.figures import forest

    with pytest.raises(ConfigError, match=r"\.svg or \.png"):
        write_figure(
            forest(result, "mAP", scale=100, higher_is_better=True), tmp_path / "c.gif"
        )


def test_a_summary_tells_every_setting_in_one_sentence(tmp_path):
    runs = [
        write_run(tmp_path / "hybrid", {"multilingual": 0.1}),
        write_run(tmp_path / "mono", {}),
    ]
    (sentence,) = compare(runs, draws=6000)["summaries"]
    assert re.fullmatch(
        r"toy: hybrid beats mono on the pool by 10\.\d ± 0\.\d mAP, p < 0\.001;"
        r" there is no significant difference in monolingual retrieval and in cross-lingual retrieval"
        r"( \(a difference of \d\.\d mAP would have been found with a chance of 80 %\))?",
        sentence,
    )
    (sentence,) = compare([runs[1], write_run(tmp_path / "mon2", {})], draws=500)["summaries"]
    assert sentence.startswith(
        "toy: there is no significant difference between mono and mon2 in monolingual retrieval"
    )
    (sentence,) = compare(runs, "rank_distance", draws=2000)["summaries"]
    assert re.match(
        r"toy: hybrid beats mono on the pool by 10\.\d ± 0\.\d ranks of rank distance", sentence
    )
