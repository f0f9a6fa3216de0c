"""A trained model in other hands: its card, the hub, ONNX."""

import base64
import json
import re
import shutil
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from huggingface_hub import ModelCard
from sentence_transformers import SentenceTransformer

from hybridbatch.common.errors import ConfigError, DataError
from hybridbatch.common.files import read_json, write_json
from hybridbatch.common.integrity import forget
from hybridbatch.data.store.writer import write_store
from hybridbatch.model import Encoder
from hybridbatch.training.licences import licence
from hybridbatch.training.model_card import start_facts
from hybridbatch.training.settings import TrainConfig
from hybridbatch.training.sharing import export_onnx, push
from hybridbatch.training.train import train
from tests.helpers.hub_mirror import HubMirror
from tests.helpers.parallel import rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    source = {
        "name": "toy",
        "licence": "CC BY-SA 4.0",
        "url": "https://huggingface.co/datasets/o/toy",
    }
    write_store(
        folder / "data", [*rows(24), *rows(9, "validation")], provenance={"sources": [source]}
    )
    config = TrainConfig(
        data=str(folder / "data"), model=str(tiny_model), out=folder / "run", steps=2, batch_size=6, log_to="none"
    )  # fmt: skip
    return train(config)


@pytest.fixture
def evaluation(tmp_path: Path, run: Path) -> Path:
    return write_evaluation(tmp_path / "eval", Encoder.load(str(run)).fingerprint())


def write_evaluation(folder: Path, fingerprint: str, **config: Any) -> Path:
    metrics = {"mAP": 0.61234567, "ndcg@10": 0.7}
    facts = {
        "schema_version": 1,
        "kind": "eval",
        "config": config,
        "model": {"name": "a/model", "fingerprint": fingerprint},
        "tasks": [{"name": "atlas", "settings": {"multilingual": {"metrics": metrics}}}],
    }
    write_json(folder / "eval.json", facts)
    return folder


def test_the_files_of_a_model_are_readable_by_all(run: Path) -> None:
    expected = (run / "model").stat().st_mode & 0o444
    for path in (run / "model").rglob("*"):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) & 0o444 == expected, path


def test_the_card_has_the_metadata_of_the_hub(run: Path) -> None:
    card = ModelCard.load(run / "model" / "README.md")
    assert card.data.library_name == "sentence-transformers"
    assert card.data.pipeline_tag == "sentence-similarity"
    assert card.data.datasets == ["o/toy"]
    assert card.data.license == "other"  # nobody knows that of the tiny model
    assert card.data.license_name
    languages = read_json(run / "train.json")["trained_languages"]
    assert len(card.data.language) == len(languages)
    assert {"de", "en"} & set(card.data.language) or all(
        len(c) <= 3 for c in card.data.language
    )


def test_the_snippet_of_the_card_runs_as_it_stands(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (run / "model" / "README.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    place: dict[str, Any] = {}
    exec(snippet, place)
    assert "tensor" in capsys.readouterr().out
    ours = Encoder.load(str(run)).encode(["Where do pandas live?"], "query", precision="fp32")
    assert abs(place["queries"] - ours).max() < 1e-5  # the prompt stands there once


class Hub(BaseHTTPRequestHandler):
    """What the client asks of the hub to check a card and to take a commit."""

    told: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            content = json.loads(body)["content"]
            faults = [] if re.search(r"^license: \S+$", content, re.MULTILINE) else ["license"]
            return self._answer({"errors": faults}, 400 if faults else 200)
        if self.headers.get("Authorization") != "Bearer hf_good":
            return self._answer({"error": "no such token"}, 401)
        if "frozen" in json.dumps(self.path + body.decode("latin-1")):
            return self._answer({"error": "you may not"}, 403)
        if self.path == "/api/repos/create":
            if "there" in json.loads(body)["name"]:
                url = f"http://{self.headers['Host']}/me/there"
                return self._answer({"error": "You already created this repo", "url": url}, 409)
            Hub.told["repository"] = json.loads(body)
            return self._answer({"url": f"http://{self.headers['Host']}/me/encoder"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            ways = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in files
            ]
            return self._answer({"files": ways})
        lines = [json.loads(line) for line in body.decode().splitlines()]
        Hub.told["files"] = {
            line["value"]["path"]: base64.b64decode(line["value"]["content"])
            for line in lines
            if line["key"] == "file"
        }
        address = f"http://{self.headers['Host']}/me/encoder/commit/c"
        return self._answer({"commitOid": "c" * 40, "commitUrl": address})

    def do_GET(self) -> None:
        info = {"id": self.path.removeprefix("/api/models/"), "siblings": [], "tags": []}
        self._answer({**info, "private": "public" not in self.path})

    def _answer(self, value: Any, status: int = 200) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    Hub.told.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    yield Hub.told
    server.shutdown()
    server.server_close()


def test_push_sends_the_model_with_a_card_of_its_scores(
    run: Path, evaluation: Path, hub: dict[str, Any]
) -> None:
    address = push(run, "me/encoder", evaluations=[evaluation])
    assert address.endswith("/commit/c")
    assert hub["repository"]["name"] == "encoder"
    sent = hub["files"]
    local = {
        p.relative_to(run / "model").as_posix()
        for p in (run / "model").rglob("*")
        if p.is_file()
    }
    assert set(sent) == local | {"train.json"}
    assert sent["model.safetensors"] == (run / "model" / "model.safetensors").read_bytes()
    card = ModelCard(sent["README.md"].decode())
    scores = {(each.metric_type, each.metric_value) for each in card.data.eval_results}
    assert scores == {("mAP", 0.61235), ("ndcg@10", 0.7)}
    assert "SentenceTransformer('me/encoder')" in card.text


def test_the_scores_of_another_model_are_not_pushed(
    run: Path, tmp_path: Path, hub: dict[str, Any]
) -> None:
    other = write_evaluation(tmp_path / "other", "0" * 64)
    with pytest.raises(DataError, match=r"model\.fingerprint: is that of a/model \(0{12}\)"):
        push(run, "me/encoder", evaluations=[other])
    assert not hub
    options = {"max_query_tokens": 9, "query_prompt": "ask: "}
    encoder = Encoder.load(str(run), **options)
    own = [
        write_evaluation(tmp_path / "options", encoder.fingerprint(), **options),
        write_evaluation(tmp_path / "in-memory", encoder.weights_checksum()),
    ]
    push(run, "me/encoder", evaluations=own)
    assert "README.md" in hub["files"]


def test_nothing_damaged_is_pushed(run: Path, evaluation: Path, hub: dict[str, Any]) -> None:
    forget()
    for file, problem in {
        "model/model.safetensors": r"model\.safetensors: is damaged",
        "train.json": r"train\.json: is damaged",
    }.items():
        raw = (run / file).read_bytes()
        (run / file).write_bytes(raw.replace(b"e", b"f", 1))
        with pytest.raises(DataError, match=problem):
            push(run, "me/encoder")
        (run / file).write_bytes(raw)
    facts = read_json(run / "train.json")
    raw = (run / "train.json").read_bytes()
    for wrong in ({**facts, "versions": 3}, {**facts, "trained_languages": "eng"}):
        write_json(run / "train.json", wrong)
        with pytest.raises(DataError, match=r"train\.json: (cannot be used|an entry)"):
            push(run, "me/encoder")
    (run / "train.json").write_bytes(raw)
    write_json(evaluation / "eval.json", {"schema_version": 1, "kind": "eval", "tasks": [3]})
    with pytest.raises(DataError, match=r"eval\.json: cannot be used"):
        push(run, "me/encoder", evaluations=[evaluation])
    assert not hub


def test_mistakes_of_a_push_are_one_line(
    run: Path, tmp_path: Path, hub: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="not the folder of a finished training"):
        push(tmp_path, "me/encoder")
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        push(run, "me/en coder//x")
    with pytest.raises(ConfigError, match="is there and public; add --public"):
        push(run, "me/public-there")
    assert "files" not in hub
    push(run, "me/public-there", private=False)
    push(run, "me/private-there")
    with pytest.raises(ConfigError, match="may not write there"):
        push(run, "others/frozen")
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(ConfigError, match=r"does not know the token.*HF_TOKEN"):
        push(run, "me/encoder")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with pytest.raises(ConfigError, match=r"there is no token|or there is none"):
        push(run, "me/encoder")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="cannot be reached"):
        push(run, "me/encoder")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["mit", "CC0 1.0"], "mit"),
        (["apache-2.0", "MIT (passages: Wikipedia, CC BY-SA)"], "cc-by-sa-4.0"),
        (["mit", "CC BY 4.0", "CC BY-SA 3.0"], "cc-by-sa-3.0"),
        (["mit", "CC BY-NC 4.0 (data set)", "CC BY-SA 4.0"], "cc-by-nc-4.0"),
        (["mit", "Unicode License v3"], "mit"),
        (["mit", "yours to know"], "other"),
        (["mit", "CC BY 4.0", "Microsoft Research Data License: research only"], "other"),
        (["mit", "a licence of my own"], "other"),
        (["not stated", "mit"], "other"),
        (["mit", "cc-by-nc-nd-4.0", "CC BY-NC-SA 4.0"], "cc-by-nc-nd-4.0"),
        (["cc-by-nc-2.0", "CC BY 4.0"], "cc-by-nc-2.0"),
        (["CC BY-NC 2.0", "CC BY-NC"], "cc-by-nc-4.0"),
        (["cc by\u2011nc\u00a04.0"], "cc-by-nc-4.0"),
        (["Apache License, Version 2.0"], "apache-2.0"),
        (["mit, gpl-3.0"], "other"),
        (["Apache-1.1"], "other"),
        (["CC-BY-4.0 and ODbL"], "other"),
        (["cc-by-nd-4.0"], "other"),
        (["CC BY-NC 7.0"], "other"),
        ([], "other"),
    ],
)
def test_the_strictest_licence_counts(texts: list[str], expected: str) -> None:
    found, reasons = licence({f"part {i}": text for i, text in enumerate(texts)})
    assert found == expected
    assert reasons


def test_all_licences_that_a_card_lists_count(tmp_path: Path, tiny_model: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    (model / "README.md").write_text("---\nlicense: [mit, gpl-3.0]\n---\n")
    assert start_facts(str(model))["licence"] == "mit, gpl-3.0"


def test_large_weights_go_the_way_of_large_files(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub of other tests, whose client sends large files apart from the commit."""
    monkeypatch.setattr("tests.helpers.hub_mirror.LARGE", 10_000)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    with HubMirror(tmp_path) as url:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        push(run, "me/encoder")
    there = tmp_path / "models" / "me" / "encoder"
    sent = there / "model.safetensors"
    assert sent.read_bytes() == (run / "model" / "model.safetensors").read_bytes()
    assert list((tmp_path / "large").iterdir()) == []
    assert SentenceTransformer(str(there)).encode_query("dera").shape == (32,)


def like_labse(folder: Path) -> Path:
    """Transformer, CLS pooling, a dense layer with tanh, normalisation."""
    from sentence_transformers import models

    from tests.helpers.tiny import write_tiny_model

    transformer = models.Transformer(str(write_tiny_model(folder / "start", "bert")))
    dense = models.Dense(32, 24, activation_function=torch.nn.Tanh())
    parts = [transformer, models.Pooling(32, pooling_mode="cls"), dense, models.Normalize()]
    SentenceTransformer(modules=parts).save(str(folder / "labse"))
    return folder / "labse"


def with_last_token(folder: Path) -> Path:
    """Pooling of the last token, as models made from language models have it."""
    from tests.helpers.tiny import write_tiny_model

    model = write_tiny_model(folder / "last", "xlm-roberta")
    write_json(model / "1_Pooling" / "config.json", {"pooling_mode": "lasttoken"})
    return model


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "labse", "lasttoken"])
def test_onnx_gives_the_vectors_of_the_model(kind: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from tests.helpers.tiny import write_tiny_model

    if kind == "labse":
        model = like_labse(tmp_path)
    elif kind == "lasttoken":
        model = with_last_token(tmp_path)
    else:
        model = write_tiny_model(tmp_path / kind, kind)
    file = export_onnx(model)
    assert file == model / "onnx" / "model.onnx"
    encoder = Encoder.load(str(model))
    assert (encoder.pooling, encoder.dimension) == {
        "labse": ("cls", 24), "lasttoken": ("lasttoken", 32)
    }.get(kind, ("mean", 32))  # fmt: skip
    texts = ["baden 12", "lokus " * 9, "dera", "ba ba ba ba"]
    expected = encoder.encode(texts, "query", precision="fp32")
    prompted = [encoder.prompts["query"] + text for text in texts]
    tokens = encoder.tokenizer(prompted, padding=True, return_tensors="np")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    fed = {name: tokens[name].astype("int64") for name in ("input_ids", "attention_mask")}
    assert abs(session.run(None, fed)[0] - expected).max() < 1e-4


def test_export_without_its_packages_names_the_extra(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"hybridbatch\[onnx\]"):
        export_onnx(run)
