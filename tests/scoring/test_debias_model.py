"""A saved model that carries its language vectors gives the same embeddings elsewhere."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from hybridbatch.common.errors import ConfigError, ModelError, OutputError
from hybridbatch.debias.methods import unit_rows
from hybridbatch.debias.vectors_file import read_vectors
from hybridbatch.model import Encoder
from hybridbatch.scoring.debias import estimate
from hybridbatch.scoring.debias_settings import DebiasConfig
from tests.helpers.tiny import write_tiny_model

WORDS = {
    "eng": ["river stone bread", "window letter", "morning garden bottle", "a stone"],
    "deu": ["fluss stein brot", "fenster brief", "morgen garten flasche", "ein stein"],
}


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    for language, lines in WORDS.items():
        (folder / f"{language}.txt").write_text("\n".join(lines))
    return folder


def saved(model: Path, text: Path, tmp_path: Path, **settings) -> tuple[Path, Path]:
    """The folder of the language vectors, and of the model."""
    config = DebiasConfig(
        model=str(model), text=(str(text),), out=tmp_path / "vectors", cache=tmp_path / "cache",
        save_model=tmp_path / "model", **settings,
    )  # fmt: skip
    return estimate(config), tmp_path / "model"


@pytest.mark.parametrize(
    "method",
    [
        "centre",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("lir", "lsar", "whiten", "shift")),
    ],
)
def test_sentence_transformers_gives_the_debiased_vectors_of_each_language(
    tiny_model, text, tmp_path, method
):
    folder, model = saved(tiny_model, text, tmp_path, method=method, pivot="eng")
    vectors, loaded = (
        read_vectors(folder),
        SentenceTransformer(str(model), device="cpu", trust_remote_code=True),
    )
    encoder = Encoder.load(str(tiny_model))
    for language, lines in WORDS.items():
        for side in ("query", "passage"):
            raw = encoder.encode(lines, side, precision="fp32")
            made = loaded.encode(lines, prompt_name=f"{side}-{language}")
            np.testing.assert_allclose(made, vectors.apply(raw, side, language), atol=2e-5)


def test_without_a_language_in_the_prompt_it_is_identified(tiny_model, text, tmp_path):
    folder, model = saved(tiny_model, text, tmp_path)
    loaded = SentenceTransformer(str(model), device="cpu", trust_remote_code=True)
    sentence = "der fluss fliesst durch die alte stadt und unter drei bruecken hindurch"
    identified = loaded.encode([sentence], prompt_name="passage")
    named = loaded.encode([sentence], prompt_name="passage-deu")
    np.testing.assert_allclose(identified, named, atol=1e-6)
    np.testing.assert_allclose(
        loaded.encode_query([sentence]),
        loaded.encode([sentence], prompt_name="query-deu"),
        atol=1e-6,
    )
    np.testing.assert_allclose(loaded.encode_document([sentence]), named, atol=1e-6)
    raw = Encoder.load(str(tiny_model)).encode([sentence], "passage", precision="fp32")
    expected = read_vectors(folder).sides["passage"].offsets["deu"]
    np.testing.assert_allclose(identified, unit_rows(raw - expected), atol=2e-5)


def test_a_language_without_text_has_the_vector_of_its_relatives(tiny_model, text, tmp_path):
    folder, model = saved(tiny_model, text, tmp_path)
    loaded = SentenceTransformer(str(model), device="cpu", trust_remote_code=True)
    vectors = read_vectors(folder)
    assert "eng" in vectors.borrowed("query", ["nld"])["nld"]
    raw = Encoder.load(str(tiny_model)).encode(["een steen"], "query", precision="fp32")
    np.testing.assert_allclose(
        loaded.encode(["een steen"], prompt_name="query-nld"),
        vectors.apply(raw, "query", "nld"),
        atol=2e-5,
    )


def test_a_saved_model_can_be_saved_again_by_sentence_transformers(tiny_model, text, tmp_path):
    _, model = saved(tiny_model, text, tmp_path)
    loaded = SentenceTransformer(str(model), device="cpu", trust_remote_code=True)
    loaded.save_pretrained(str(tmp_path / "again"))
    again = SentenceTransformer(str(tmp_path / "again"), device="cpu", trust_remote_code=True)
    np.testing.assert_allclose(
        again.encode(WORDS["deu"], prompt_name="query-deu"),
        loaded.encode(WORDS["deu"], prompt_name="query-deu"),
        atol=1e-6,
    )


def test_without_this_package_it_is_refused_and_names_it(tiny_model, text, tmp_path):
    _, model = saved(tiny_model, text, tmp_path)
    script = (
        "import sys\n"
        "sys.modules['hybridbatch'] = None\n"
        "from sentence_transformers import SentenceTransformer\n"
        f"SentenceTransformer({str(model)!r}, device='cpu', trust_remote_code=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode != 0
    assert "hybridbatch" in done.stderr.strip().splitlines()[-1]
    assert "pip install hybridbatch" in (model / "README.md").read_text()


def test_the_own_encoder_says_how_such_a_folder_is_used(tiny_model, text, tmp_path):
    _, model = saved(tiny_model, text, tmp_path)
    with pytest.raises(ModelError, match="--debias"):
        Encoder.load(str(model))
    assert read_vectors(model).languages == ("deu", "eng")


@pytest.mark.parametrize(
    "family",
    [
        "bert",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("xlm-roberta", "distilbert", "modernbert")
        ),
    ],
)
def test_the_folded_mean_reaches_every_reader_of_the_folder(text, tmp_path, family):
    plain = write_tiny_model(tmp_path / "plain", family)
    saved(plain, text, tmp_path, fold="global")
    encoder, folded = Encoder.load(str(plain)), Encoder.load(str(tmp_path / "model"))
    means = []
    for side in ("passage", "query"):
        pooled = [encoder.pooled(encoder.tokenise(lines, side)) for lines in WORDS.values()]
        means.append(torch.stack([own.double().mean(dim=0) for own in pooled]).mean(dim=0))
    mean = torch.stack(means).mean(dim=0)
    lines = [line for own in WORDS.values() for line in own]
    wanted = encoder.pooled(encoder.tokenise(lines, "query")) - mean
    expected = unit_rows(wanted.detach().numpy())
    np.testing.assert_allclose(
        folded.encode(lines, "query", precision="fp32"), expected, atol=2e-4
    )
    elsewhere = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    np.testing.assert_allclose(
        elsewhere.encode(lines, prompt_name="query"), expected, atol=2e-4
    )


def test_automodel_users_have_the_folded_mean_by_mean_pooling(tiny_model, text, tmp_path):
    _, model = saved(tiny_model, text, tmp_path, fold="global")
    expected = SentenceTransformer(str(model), device="cpu", trust_remote_code=True).encode(
        ["a stone"], prompt="query: "
    )
    tokens = AutoTokenizer.from_pretrained(model)(["query: a stone"], return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(model)(**tokens).last_hidden_state
    pooled = torch.nn.functional.normalize(hidden.mean(dim=1), dim=1)
    np.testing.assert_allclose(pooled.numpy(), expected, atol=2e-5)


def test_only_a_mean_can_be_folded(tiny_model, text, tmp_path):
    with pytest.raises(ConfigError, match="works only for a mean"):
        saved(tiny_model, text, tmp_path, fold="global", method="lir")


@pytest.mark.parametrize("method", ["centre", "whiten"])
def test_a_mean_of_all_languages_is_not_saved_by_language(tiny_model, text, tmp_path, method):
    with pytest.raises(ConfigError, match="--scope language"):
        saved(tiny_model, text, tmp_path, scope="global", method=method)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("fold", ["language", "global"])
def test_only_a_model_saved_before_is_replaced(tiny_model, text, tmp_path, fold):
    for _ in range(2):
        saved(tiny_model, text, tmp_path, fold=fold)
    (tmp_path / "model" / "precious.txt").write_text("keep")
    with pytest.raises(OutputError, match="holds something other"):
        saved(tiny_model, text, tmp_path, fold=fold)
    assert (tmp_path / "model" / "precious.txt").read_text() == "keep"


def test_neither_other_files_nor_the_model_itself_are_replaced(tiny_model, text, tmp_path):
    (tmp_path / "model").mkdir()
    saved(tiny_model, text, tmp_path, fold="global")
    folded = tmp_path / "folded"
    (tmp_path / "model").rename(folded)
    (tmp_path / "model").symlink_to(folded)
    with pytest.raises(OutputError, match="is the model itself"):
        saved(folded, text, tmp_path)
    (tmp_path / "model").unlink()
    write_tiny_model(tmp_path / "model", "bert")
    with pytest.raises(OutputError, match="holds something other"):
        saved(tiny_model, text, tmp_path)
