"""From what `--model` says to a transformer and its tokenizer, with every failure as one line."""

import json
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import _CACHED_NO_EXIST, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub import errors as hub_errors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from hybridbatch.common.errors import ModelError, nearest
from hybridbatch.common.files import sha256_file
from hybridbatch.common.progress import Reporter
from hybridbatch.model.builtin import BUILTIN, builtin_location

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "vocab.json",
)
KEPT_TOKENIZERS = 4  # reading one takes two seconds; those of a sweep's runs are all alike
_tokenizers: OrderedDict[tuple[tuple[str, str], ...], PreTrainedTokenizerFast] = OrderedDict()


@dataclass(frozen=True)
class Source:
    """Where a model's files are: a folder, or a repository of the hub at one commit."""

    name: str  # as the user gave it, for messages
    location: str  # folder or hub id
    commit: str | None = None  # of a hub model

    def find(self, file: str) -> Path | None:
        """The local path of one of its files, downloaded if need be; None where it has no such
        file.
        """
        if self.commit is None:
            path = Path(self.location, file)
            return path if path.is_file() else None
        cached = try_to_load_from_cache(self.location, file, revision=self.commit)
        if isinstance(cached, str):
            return Path(cached)
        if cached is _CACHED_NO_EXIST:
            return None
        with _hub_errors(self.name):
            try:
                return Path(hf_hub_download(self.location, file, revision=self.commit))
            except hub_errors.LocalEntryNotFoundError as error:
                if constants.HF_HUB_OFFLINE:  # the user's word that the cache holds all there is
                    return None
                raise ModelError(
                    f"{self.name}: the hub cannot be asked for its {file}; check the network, or"
                    " set HF_HUB_OFFLINE=1 to"
                    " take what the hub's local cache holds as all there is"
                ) from error
            except hub_errors.EntryNotFoundError:
                return None


def locate(name: str, report: Reporter) -> Source:
    """The source of a built-in model, a model folder, a run folder (holding ``model/``), or a hub
    id (``id@revision``).

    Raises: `ModelError` naming what is missing and the nearest built-in name.
    """
    if name in BUILTIN:
        location = builtin_location(name, report)
        return (
            _hub_source(name, location)
            if isinstance(location, str)
            else Source(name, str(location))
        )
    folder = Path(name).expanduser()
    if folder.exists():
        for candidate in (folder, folder / "model"):
            if (candidate / "config.json").is_file():
                return Source(name, str(candidate))
        raise ModelError(
            f"{name}: has neither config.json nor model/config.json, so it is no model or finished"
            " run"
        )
    if name.startswith(("/", ".", "~")) or name.partition("@")[0].count("/") > 1:
        raise ModelError(f"{name}: no such folder{nearest(name, list(BUILTIN))}")
    if "/" not in name:
        raise ModelError(
            f"{name}: neither a built-in model ({', '.join(BUILTIN)}) nor a"
            f" folder{nearest(name, list(BUILTIN))};"
            " a hub id has the form organisation/name"
        )
    return _hub_source(name, name)


def _hub_source(name: str, repository: str) -> Source:
    repository, _, revision = repository.partition("@")
    with _hub_errors(name):
        path = Path(hf_hub_download(repository, "config.json", revision=revision or None))
    return Source(name, repository, commit=path.parent.name)


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    known = nearest(name, list(BUILTIN))
    try:
        yield
    except hub_errors.GatedRepoError as error:
        raise ModelError(
            f"{name}: is gated; ask for access on its page on the hub, then set HF_TOKEN"
        ) from error
    except hub_errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name}: no folder and no public model of the hub has this name{known}"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise ModelError(f"{name}: the hub's model has no such revision") from error
    except hub_errors.LocalEntryNotFoundError as error:
        raise ModelError(
            f"{name}: no folder has this name, it is not in the hub's local cache, and the hub"
            " cannot be reached;"
            f" check the network, or use a folder or a built-in model ({', '.join(BUILTIN)})"
        ) from error
    except hub_errors.EntryNotFoundError as error:
        raise ModelError(
            f"{name}: the hub's repository has no config.json, so it is no transformers model"
        ) from error
    except hub_errors.HFValidationError as error:
        raise ModelError(f"{name}: neither a folder nor a possible hub id{known}") from error
    except (hub_errors.HfHubHTTPError, OSError) as error:
        raise ModelError(
            f"{name}: cannot be fetched from the hub ({first_line(error)}); try again later"
        ) from error


def load_tokenizer(source: Source) -> PreTrainedTokenizerFast:
    """The fast tokenizer, one object for folders whose files are the same. Raises `ModelError`
    where there is none.
    """
    # Asked before loading: transformers makes an empty tokenizer up where the files are missing.
    if not any(source.find(file) for file in TOKENIZER_FILES):
        raise ModelError(
            f"{source.name}: has no tokenizer (such as tokenizer.json); copy that of its base model"
            " there"
        )
    content = _tokenizer_content(source)
    if content in _tokenizers:
        _tokenizers.move_to_end(content)
        return _tokenizers[content]
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(
                source.location, revision=source.commit or "main"
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
    _tokenizers[content] = tokenizer
    if len(_tokenizers) > KEPT_TOKENIZERS:
        _tokenizers.popitem(last=False)
    return tokenizer


def _tokenizer_content(source: Source) -> tuple[tuple[str, str], ...]:
    """All that decides a tokenizer: the hashes of a folder's files beside the weights; id and
    commit on the hub.
    """
    if source.commit is not None:
        return ((source.location, source.commit),)
    files = sorted(path for path in Path(source.location).iterdir() if path.is_file())
    return tuple(
        (path.name, sha256_file(path))
        for path in files
        if path.suffix in (".json", ".txt", ".model", ".jinja")
    )


def load_transformer(source: Source) -> PreTrainedModel:
    """The transformer in fp32, with every weight from the source.

    A pooler that the source lacks is set to zero: retrieval does not use it, and random values
    would make two loads of one model differ. Raises `ModelError`.
    """
    config = load_config(source)
    if config.is_encoder_decoder:
        raise ModelError(
            f"{source.name}: is an encoder-decoder ({config.model_type}); an encoder is needed"
        )
    model, missing = load_weights(AutoModel, source, config, optional="pooler.")
    with torch.no_grad():
        for key in missing:
            model.get_parameter(key).zero_()
    return model


def load_config(source: Source) -> PreTrainedConfig:
    """What a model is. Raises `ModelError`."""
    try:
        with quiet():
            return AutoConfig.from_pretrained(source.location, revision=source.commit or "main")
    except Exception as error:  # third-party readers raise anything
        raise ModelError(f"{source.name}: {_config_problem(source, error)}") from error


def load_weights(
    kind: Any,
    source: Source,
    config: PreTrainedConfig,
    dtype: torch.dtype = torch.float32,
    optional: str | None = None,
) -> tuple[Any, list[str]]:
    """A model of an Auto class, and the names of weights that the source lacks, which start with
    `optional`.

    Raises: `ModelError` for other weights that are missing, and for misshapen ones.
    """
    try:
        with quiet():
            model, loading = kind.from_pretrained(
                source.location,
                config=config,
                revision=source.commit or "main",
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # judged below, by name
            )
    except Exception as error:  # third-party readers raise anything
        raise ModelError(
            f"{source.name}: its weights cannot be loaded ({first_line(error)}); fetch it again"
        ) from error
    missing = list(loading["missing_keys"])
    needed = [key for key in missing if optional is None or not key.startswith(optional)]
    wrong = needed or [str(key[0]) for key in loading["mismatched_keys"]]
    if wrong:
        raise ModelError(
            f"{source.name}: {len(wrong)} weights of the {config.model_type} are missing or"
            " misshapen"
            f" (first: {sorted(wrong)[0]})"
        )
    return model.eval(), missing


def _config_problem(source: Source, error: Exception) -> str:
    path = source.find("config.json")
    try:
        config = json.loads(path.read_bytes()) if path else {}
    except ValueError:
        return "its config.json is not valid JSON; fetch it again"
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind and kind not in transformers.CONFIG_MAPPING:
        return (
            f"its model type {kind!r} is not part of transformers {transformers.__version__},"
            " and code that comes with a model is not run"
        )
    return f"its config.json cannot be used ({first_line(error)})"


def first_line(error: Exception) -> str:
    """The first line of what an error says, cut to 300 letters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and remarks on unused heads: what matters is checked here
    and raised.
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
