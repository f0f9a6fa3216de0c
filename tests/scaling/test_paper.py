"""The configurations of the paper's experiment stay ones that the stages take."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hybridbatch.common.files import read_json
from hybridbatch.common.settings import build
from hybridbatch.data.choice import choose_sources, named_sources
from hybridbatch.data.download import sizes
from hybridbatch.data.settings import PrepareConfig
from hybridbatch.data.sources.registry import source
from hybridbatch.data.tasks.registry import is_task
from hybridbatch.scaling.reproduce import dry_run, plan, scaled
from hybridbatch.scaling.settings import ReproduceConfig
from hybridbatch.training.settings import TrainConfig
from tests.helpers import chat_server as server
from tests.helpers.chat_server import chat_server
from tests.helpers.paper import translated, write_paper_hub

FOLDER = Path(__file__).parents[2] / "experiments" / "paper"


@pytest.mark.parametrize("name", ["xlm-r", "labse"])
def test_the_papers_settings_are_understood_by_every_stage(name: str):
    config = build(ReproduceConfig, FOLDER / f"{name}.yaml")
    assert [source(entry).name for entry in config.sources][1] == "mrtydi"
    assert all(map(is_task, config.tasks))
    preparation = build(PrepareConfig, None, {"sources": config.sources, **config.preparation})
    assert len(preparation.translate_to) == 9
    chosen = choose_sources(preparation.sources)
    translated = named_sources("", preparation.translate_sources, chosen)
    own = {"mmarco", "squadshifts-full"}  # has most languages; validates in English
    assert {one.name for one in chosen} - set(translated) == own
    train = build(TrainConfig, None, config.train)
    assert (train.batch_size, train.learning_rate, train.weight_decay) == (100, 3e-5, 0.01)
    assert [training.mix for training, _ in plan(config).values() if training] == [
        1.0,
        0.0,
        0.5,
    ]
    assert config.published["xquad-r"]["rank distance"]["hybrid 0.5"] in (287, 221)


def test_a_scale_makes_every_part_smaller():
    config = build(ReproduceConfig, FOLDER / "xlm-r.yaml", {"scale": 0.01})
    small = scaled(config)
    assert (small.name, small.out) == ("paper-xlm-r-scale-0.01", FOLDER_OF_SMALL)
    assert small.preparation["record_share"] == 0.01
    training, evaluation = list(plan(small).values())[1]
    assert training is not None
    assert (training.steps, training.validate_every) == (1000, 50)
    assert evaluation.passage_share == 0.01
    assert scaled(small) == small


FOLDER_OF_SMALL = Path("experiments/paper/xlm-r-scale-0.01")


def test_the_cost_is_told_before_anything_is_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYBRIDBATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sizes, "_listing", lambda name, revision: None)
    monkeypatch.setattr(sizes, "_content_length", lambda address: None)
    told = dry_run(build(ReproduceConfig, FOLDER / "labse.yaml", {"scale": 0.01}))
    cost = told["cost"]
    assert set(cost) == {"to download", "disk", "memory", "a step", "translation", "training",
                         "evaluation"}  # fmt: skip
    assert "its time comes on top" in cost["translation"]
    assert cost["to download"].startswith("57 GB (and model facebook/nllb")
    assert cost["training"].startswith("3 runs of 1,000 steps")
    assert cost["memory"].startswith("7.5 GB")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xlm-r", "labse"])
def test_the_recipe_runs_end_to_end_on_small_files_in_true_layouts(
    name: str, hub_mirror: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """One percent of the experiment from a mirror of the hub, with tiny models of the same
    classes, and a translator behind a chat address.
    """
    root, place = tmp_path / "hub", tmp_path / "work"
    write_paper_hub(root)
    place.mkdir()
    monkeypatch.setattr(server, "says", translated)
    with hub_mirror.HubMirror(root) as url, chat_server() as translator:
        environment = {
            "HF_ENDPOINT": url,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(tmp_path / "hf"),
            "HYBRIDBATCH_CACHE": str(tmp_path / "cache"),
            "WEB": f"{url}/datasets/web/files/resolve/main",
        }
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tests.helpers.paper", "--config"),
                *(str(FOLDER / f"{name}.yaml"), "--scale", "0.01", "--out"),
                *(str(tmp_path / "run"), "--data-root", str(root / "evaluation")),
                *("--preparation", f"translator={translator.address}#m"),
                *("--train", "batch_size=8,micro_tokens=512,steps=3000,validate_every=1500"),
            ],
            cwd=place,
            env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "run-scale-0.01"
    result = read_json(folder / "results.json")
    text = (folder / "report.md").read_text()
    assert result["config"]["scale"] == 0.01
    assert [arm["batches"] for arm in result["arms"]] == [
        "untrained",
        "monolingual",
        "cross-lingual",
        "hybrid 0.5",
    ]
    assert [task["name"] for task in result["arms"][0]["tasks"]] == [
        "xquad-r",
        "mlqa-r",
        "miracl",
    ]
    manifest = read_json(
        Path(json.loads(done.stdout.splitlines()[-1])["data"]) / "manifest.json"
    )
    counts = manifest["splits"]["train"]["counts"]
    nine = {"arb", "deu", "eng", "hin", "rus", "spa", "tha", "tur", "zho"}
    assert set(counts["wikiqa"]) == nine
    assert set(counts["mrtydi"]) == nine
    assert set(counts["mmarco"]) == nine - {"tha", "tur"}
    assert set(manifest["splits"]["validation"]["counts"]) == {"squadshifts-full"}
    assert "## Published values and ours" in text
    assert "This run is 0.01 of the experiment" in text
    published = {"xlm-r": "0.7980", "labse": "0.8170"}[name]
    assert published in text
    assert "hybrid 0.5 - monolingual" in text
    assert "rank distance" in text
    assert "to download" in done.stderr
