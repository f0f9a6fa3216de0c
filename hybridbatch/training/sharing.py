"""Share a trained model: on the hub, or as ONNX."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

from hybridbatch.common.documents import Shape, read_document, read_training
from hybridbatch.common.errors import ConfigError, DataError, ModelError
from hybridbatch.common.files import atomic_path, make_folder
from hybridbatch.common.integrity import check_sums
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.common.remarks import without_remarks
from hybridbatch.common.settings import EncoderSettings, build
from hybridbatch.training.model_card import model_card

TOLERANCE = 1e-4  # largest difference of a coordinate between ONNX and PyTorch
PROBE = (
    "Where do pandas live?",
    "Pandas live in the mountains of central China.",
    "ኢትዮጵያ በአፍሪካ ቀንድ የምትገኝ ሀገር ናት።",
)


class SettingScores(Shape):
    """Averages of one setting."""

    metrics: dict[str, float | int | None]


class TaskScores(Shape):
    """A task of an evaluation."""

    name: str
    settings: dict[str, SettingScores]


class ScoredModel(Shape):
    """The model of an evaluation."""

    name: str
    fingerprint: str


class Scores(Shape):
    """``eval.json``: the part that a model card shows."""

    kind_name: ClassVar[str] = "eval"
    versions: ClassVar[tuple[int, ...]] = (1,)
    what: ClassVar[str] = "JSON of an evaluation"

    config: dict[str, Any]
    model: ScoredModel
    tasks: list[TaskScores]


def push(
    run: Path,
    repository: str,
    *,
    evaluations: Sequence[Path] = (),
    private: bool = True,
    message: str = "Add the model",
    report: Reporter = SILENT,
) -> str:
    """Put a trained model on the Hugging Face hub, with a card that the hub has checked.

    Args:
        run: folder of `hybridbatch train`.
        repository: its id there, ``organisation/name``; made if it is not there.
        evaluations: folders of `hybridbatch eval`, whose scores go into the card.
        private: whether a new repository is seen by its owners only. A public repository that is
            there already is then refused.
        message: of the commit.
        report: progress.
    Returns: the address of the commit.
    Raises: `DataError` for a folder that holds no finished run or evaluation, an evaluation of
        another model, or a card that the hub refuses; `ConfigError` for a repository that cannot
        be written.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    result = trained(run)
    check_sums(run / "model", "train the model again, and push nothing else")
    card = _card(run, result, repository, [_evaluation(folder, run) for folder in evaluations])
    operations = [CommitOperationAdd("README.md", card.encode())]
    size = len(card.encode())
    for path in sorted((run / "model").rglob("*")):
        name = path.relative_to(run / "model").as_posix()
        if path.is_file() and name != "README.md":
            operations.append(CommitOperationAdd(name, path))
            size += path.stat().st_size
    operations.append(CommitOperationAdd("train.json", run / "train.json"))
    api = HfApi()
    with _refusals(repository):
        _validate(card, run)
        api.create_repo(repository, private=private, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ConfigError(
                f"{repository}: is there and public; add --public to push to it, or name a new"
                " repository"
            )
        report.note(f"{repository}: sending {len(operations)} files, {size / 1e6:,.0f} MB")
        done = api.create_commit(repository, operations, commit_message=message)
    return str(done.commit_url)


def _validate(card: str, run: Path) -> None:
    """Let the hub check a model card.

    Raises: `DataError` for a card that it refuses.
    """
    from huggingface_hub import ModelCard

    try:
        ModelCard(card).validate(repo_type="model")
    except ValueError as error:
        raise DataError(f"{run}: the hub refuses the model card: {_line(error)}") from error


@contextmanager
def _refusals(repository: str) -> Iterator[None]:
    """Turn the errors of the hub's client into `ConfigError`, in one line with the remedy."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
    )

    try:
        yield
    except HFValidationError as error:
        raise ConfigError(
            f"{repository!r} is not the name of a repository; write OWNER/NAME"
        ) from error
    except LocalTokenNotFoundError as error:
        raise ConfigError(f"{repository}: there is no token; {LOGIN}") from error
    except HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise ConfigError(f"{repository}: {_refusal(status, error)}") from error
    except (OSError, _network_errors()) as error:
        raise ConfigError(
            f"{repository}: the hub cannot be reached ({_line(error)}); check the network, and"
            " push again"
        ) from error
    except (RuntimeError, ValueError) as error:  # what the transfer of large files raises
        raise ConfigError(
            f"{repository}: the files did not arrive ({_line(error)}); push again"
        ) from error


def _refusal(status: int | None, error: Exception) -> str:
    """Why the hub refuses a request, and what to do."""
    if status == 401:
        return f"the hub does not know the token, or there is none; {LOGIN}"
    if status == 403:
        return f"the token may not write there; {LOGIN}, or push to your own name"
    if status is not None and 500 > status >= 400:
        return f"the hub refuses the request ({_line(error)}); check the name of the repository"
    return f"the hub does not answer as it should ({_line(error)}); push again later"


def _network_errors() -> type[Exception]:
    """The errors that the hub's client raises without a network."""
    from huggingface_hub.utils import get_session

    client = import_module(type(get_session()).__module__.partition(".")[0])
    return getattr(client, "HTTPError", OSError)


LOGIN = "set HF_TOKEN to a token that may write there, or run `hf auth login`"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:200]


def trained(run: Path) -> Mapping[str, Any]:
    """The train.json of a finished run. Raises `DataError`."""
    if not (run / "model" / "config.json").is_file() or not (run / "train.json").is_file():
        raise DataError(
            f"{run}: is not the folder of a finished training, which holds model/ and train.json"
        )
    return read_training(run)


def _card(
    run: Path,
    result: Mapping[str, Any],
    repository: str,
    evaluations: Sequence[Mapping[str, Any]],
) -> str:
    try:
        return model_card(result, repository, evaluations)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{run / 'train.json'}: an entry that the model card needs is missing or of another"
            f" type ({type(error).__name__}: {_line(error)}); train the model again"
        ) from error


def _evaluation(folder: Path, run: Path) -> Mapping[str, Any]:
    """The eval.json of a folder. Raises `DataError` if it is of another model than the run's."""
    from hybridbatch.model import Encoder

    path = folder / "eval.json"
    evaluation = read_document(path, Scores, "run `hybridbatch eval` again")
    config, model = evaluation["config"], evaluation["model"]
    given = {name: config[name] for name in EncoderSettings.model_fields if name in config}
    options = build(EncoderSettings, None, given).encoder_options
    encoder = Encoder.load(str(run), **{**options, "trust_remote_code": False})
    # reproduce and sweeps name a model in memory by the checksum of its weights
    if model["fingerprint"] not in (encoder.fingerprint(), encoder.weights_checksum()):
        raise DataError(
            f"{path}: model.fingerprint: is that of {model['name']}"
            f" ({model['fingerprint'][:12]}), not of {run / 'model'}; score the run with"
            f" `hybridbatch eval {run}`"
        )
    return evaluation


def export_onnx(run: Path, out: Path | None = None, report: Reporter = SILENT) -> Path:
    """Write a model's transformer as ONNX, for runtimes without PyTorch.

    The graph takes ``input_ids`` and ``attention_mask`` (int64 [texts, tokens]) and gives
    ``sentence_embedding`` (float32 [texts, dimensions], of unit length): pooling, dense layers and
    normalisation are in it. Prompts are not: they are text.

    Args:
        run: folder of a run, or of a model.
        out: the file; default: ``onnx/model.onnx`` in the model's folder.
        report: notes.
    Returns: the file.
    Raises: `ConfigError` without the packages of the extra ``onnx``; `ModelError` where the
        vectors of the written file differ by more than 1e-4 from those of the model.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - the exporter needs it
    except ImportError as error:
        raise ConfigError(
            f"export needs the extra onnx ({error.name} is not installed); run pip install"
            " 'hybridbatch[onnx]'"
        ) from error
    import numpy as np
    import torch

    from hybridbatch.model import Encoder
    from hybridbatch.model.loading import quiet

    encoder = Encoder.load(str(run), report=report)
    folder = _model_folder(run)
    target = out or folder / "onnx" / "model.onnx"
    expected = encoder.encode(PROBE, "passage", precision="fp32")
    prompted = [encoder.prompts["passage"] + text for text in PROBE]
    encoder.tokenizer.backend_tokenizer.no_truncation()
    tokens = encoder.tokenizer(prompted, padding=True, return_tensors="pt")
    inputs = (tokens["input_ids"], tokens["attention_mask"])
    report.note("tracing the model")
    make_folder(target.parent)
    with atomic_path(target) as temporary:
        texts_axis, tokens_axis = torch.export.Dim("texts"), torch.export.Dim("tokens")
        with torch.inference_mode(), quiet(), without_remarks("torch.onnx"):
            torch.onnx.export(
                _embeddings(encoder, folder),
                inputs,
                str(temporary),
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                dynamic_shapes=({0: texts_axis, 1: tokens_axis},) * 2,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        session = onnxruntime.InferenceSession(
            temporary.read_bytes(), providers=["CPUExecutionProvider"]
        )
        worst = 0.0
        for rows in (slice(0, 3), slice(1, 2)):  # padded, and one text alone
            width = int(inputs[1][rows].sum(1).max())
            ids, mask = (each[rows, :width].numpy() for each in inputs)
            found = session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
            worst = max(worst, float(np.abs(found - expected[rows]).max()))
        if not worst <= TOLERANCE:
            raise ModelError(
                f"{run}: the vectors of the ONNX file differ from the model's by up to {worst:.2g}"
            )
    report.note(f"the largest difference from the model is {worst:.1e}")
    return target


def _model_folder(run: Path) -> Path:
    """The folder of the model's files.

    Raises: `ConfigError` for a model that is not in a folder.
    """
    from hybridbatch.model.loading import locate

    folder = Path(locate(str(run), SILENT).location)
    if not folder.is_dir():
        raise ConfigError(
            f"{run}: is neither the folder of a run nor of a model; export needs one of them"
        )
    return folder


def _embeddings(encoder: Any, folder: Path) -> Any:
    """A module from tokens to unit vectors, of plain operations, which ONNX has."""
    import torch
    from transformers import AutoModel

    class Embeddings(torch.nn.Module):
        """Transformer, pooling, dense layers, normalisation."""

        def __init__(self) -> None:
            super().__init__()
            self.model = AutoModel.from_pretrained(
                folder, attn_implementation="eager", dtype=torch.float32
            )
            self.head = encoder.head

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            """Unit vectors, float32 [texts, dimensions]."""
            states = self.model(input_ids=input_ids, attention_mask=attention_mask)
            hidden = states.last_hidden_state
            if encoder.pooling == "cls":
                pooled = hidden[:, 0]
            elif encoder.pooling == "lasttoken":
                places = torch.arange(attention_mask.shape[1]) * attention_mask
                last = places.argmax(dim=1).view(-1, 1, 1).expand(-1, 1, hidden.shape[2])
                pooled = hidden.gather(1, last).squeeze(1)
            else:
                weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
                pooled = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(self.head(pooled), dim=-1)

    return Embeddings().eval()
