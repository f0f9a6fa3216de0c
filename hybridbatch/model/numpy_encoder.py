"""Query embeddings without torch: the forward pass of BERT and RoBERTa in NumPy.

Loading torch and transformers takes five seconds of a CPU, embedding a query a twentieth of a
second. A search whose passages are stored embeds only queries, so it uses this file. `remember`
admits a model: its family and its tokenizer must be known here, and its vectors of texts in several
scripts must equal the encoder's. `recall` gives the model back as long as its files are the same.

Source: Devlin et al., "BERT", NAACL 2019, section 3.
"""

import math
import platform
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hybridbatch import __version__
from hybridbatch.common.documents import Shape, read_document
from hybridbatch.common.errors import DataError, OutputError
from hybridbatch.common.files import cache_folder, fingerprint, make_folder, write_json
from hybridbatch.common.integrity import check_sums
from hybridbatch.common.progress import SILENT, Reporter
from hybridbatch.model.builtin import BUILTIN

if TYPE_CHECKING:
    from hybridbatch.model.encoder import Encoder

FAMILIES = ("bert", "camembert", "roberta", "xlm-roberta")
FEW = 64  # queries; for more, torch is faster in spite of its start
TOLERANCE = 1e-5  # of every number of a unit vector
FORM = 1  # of the remembered facts
PROBES = (
    "how long may I keep a film",
    "Mto mrefu zaidi Afrika ni upi?",
    "የኢትዮጵያ ዋና ከተማ ማን ናት",
    "भारत की राजधानी क्या है",
    "世界で一番高い山",
    "ما هي عاصمة مصر؟ Cafe\u0301 ﬁn ½ Ⅳ",
    "x",
    "a long text, which is cut at the model's length; " * 60,
)


class QueryFacts(Shape):
    """What `recall` needs to know of a model."""

    kind_name: ClassVar[str] = "query encoder"
    versions: ClassVar[tuple[int, ...]] = (FORM,)
    what: ClassVar[str] = "description of a model for queries"

    folder: str
    files: dict[str, list[int]]  # size and time of change
    fingerprint: str
    precision: str
    kernels: str
    prompt: str
    pooling: str
    max_tokens: int
    prefix: str  # of the names of weights
    first_position: int
    layers: int
    heads: int
    epsilon: float
    dimension: int


class NumpyEncoder:
    """Embeds few queries itself, in fp32, and loads the encoder for all else."""

    def __init__(self, name: str, facts: Mapping[str, Any], load: "Callable[[], Encoder]"):
        self.name, self.facts, self._load = name, facts, load
        self.dimension: int = facts["dimension"]
        self.precision: Any = facts["precision"]  # of the encoder, for passages
        self.kernels: str = facts["kernels"]
        self._whole: Encoder | None = None
        self._weights: _Weights | None = None

    def fingerprint(self) -> str:
        """The fingerprint of the encoder."""
        return str(self.facts["fingerprint"])

    def encode(
        self,
        texts: Sequence[str],
        side: str,
        *,
        precision: Any = "fp32",
        kernels: Any = "plain",
        report: Reporter = SILENT,
    ) -> np.ndarray:
        """float32 [n, D], as `Encoder.encode`. Raises: as that."""
        if side == "query" and len(texts) <= FEW:
            with suppress(UnicodeEncodeError, TypeError):  # the encoder tells what is wrong
                return self.queries(texts)
        if self._whole is None:
            self._whole = self._load()
        whole: Any = self._whole
        return whole.encode(texts, side, precision=precision, kernels=kernels, report=report)

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [n, D] of n queries, rows L2-normalised."""
        if self._weights is None:
            self._weights = _Weights(self.facts)
        return np.stack([self._weights.embed(text) for text in texts])


class _Weights:
    """Tokenizer and weights; a row of the vocabulary is read when a query has it."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        from safetensors import safe_open
        from tokenizers import Tokenizer

        self.facts = facts
        folder = Path(facts["folder"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(facts["max_tokens"])
        self.file = safe_open(folder / "model.safetensors", "np")
        names = [name for name in self.file.keys() if ".layer." in name]  # noqa: SIM118
        self.layer_weights = {name: self._whole(name) for name in names}

    def embed(self, text: str) -> np.ndarray:
        """float32 [D], of length 1."""
        composed = unicodedata.normalize("NFC", self.facts["prompt"] + text)
        ids = self.tokenizer.encode(composed).ids
        if not ids:
            raise TypeError(f"{text!r} has no token")
        states = self._embedded(ids)
        for number in range(self.facts["layers"]):
            states = self._layer(states, f"{self.facts['prefix']}encoder.layer.{number}.")
        pooling = self.facts["pooling"]
        if pooling == "mean":
            vector = states.mean(axis=0)
        else:
            vector = states[0 if pooling == "cls" else -1]
        return vector / np.linalg.norm(vector)

    def _embedded(self, ids: Sequence[int]) -> np.ndarray:
        """[T, D] of T tokens: word, position and type, normalised."""
        table = self.facts["prefix"] + "embeddings."
        first = self.facts["first_position"]
        words = self._rows(table + "word_embeddings.weight", ids)
        places = self._rows(
            table + "position_embeddings.weight", range(first, first + len(ids))
        )
        kinds = self._rows(table + "token_type_embeddings.weight", [0])
        gain, shift = (self._whole(f"{table}LayerNorm.{part}") for part in ("weight", "bias"))
        return self._normal(words + kinds + places, gain, shift)

    def _layer(self, states: np.ndarray, at: str) -> np.ndarray:
        """One layer of the transformer: [T, D] to [T, D]."""
        heads = self.facts["heads"]

        def split(part: str) -> np.ndarray:
            found = self._linear(states, f"{at}attention.self.{part}")
            return found.reshape(len(states), heads, -1).transpose(1, 0, 2)

        query, key, value = split("query"), split("key"), split("value")
        scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(query.shape[2]))
        shares = np.exp(scores - scores.max(axis=2, keepdims=True))
        shares /= shares.sum(axis=2, keepdims=True)
        mixed = (shares @ value).transpose(1, 0, 2).reshape(states.shape)
        states = self._add(
            states, self._linear(mixed, f"{at}attention.output.dense"), f"{at}attention."
        )
        inner = self._linear(states, f"{at}intermediate.dense")
        inner = inner * (1 + _erf(inner * np.float32(np.sqrt(0.5)))) * np.float32(0.5)
        return self._add(states, self._linear(inner, f"{at}output.dense"), at)

    def _add(self, states: np.ndarray, change: np.ndarray, at: str) -> np.ndarray:
        """The normalised sum at the end of a half of a layer."""
        norm = [
            self.layer_weights[f"{at}output.LayerNorm.{part}"] for part in ("weight", "bias")
        ]
        return self._normal(states + change, *norm)

    def _linear(self, states: np.ndarray, at: str) -> np.ndarray:
        return states @ self.layer_weights[f"{at}.weight"].T + self.layer_weights[f"{at}.bias"]

    def _normal(self, states: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> np.ndarray:
        centred = states - states.mean(axis=1, keepdims=True)
        variance = (centred**2).mean(axis=1, keepdims=True)
        return centred / np.sqrt(variance + np.float32(self.facts["epsilon"])) * gain + shift

    def _whole(self, name: str) -> np.ndarray:
        return self.file.get_tensor(name).astype(np.float32)

    def _rows(self, name: str, rows: Iterable[int]) -> np.ndarray:
        table = self.file.get_slice(name)
        return np.concatenate([table[row : row + 1] for row in rows]).astype(np.float32)


def _erf(values: np.ndarray) -> np.ndarray:
    """The error function; a query has too few numbers to be worth loading scipy."""
    return np.frompyfunc(math.erf, 1, 1)(values).astype(np.float32)


def recall(
    name: str, settings: Mapping[str, Any], load: "Callable[[], Encoder]"
) -> NumpyEncoder | None:
    """The model of this name and these settings, if it was admitted and has not changed since.

    Args:
        name: a built-in model, a model folder or a run folder.
        settings: all that decides an embedding beside the name, as JSON values.
        load: loads the encoder.
    """
    place = _place(name, settings)
    if not place.is_file():
        return None
    mend = f"delete {place}; it is written anew"
    facts = read_document(place, QueryFacts, mend)
    folder = Path(facts["folder"])
    if (name not in BUILTIN and folder != _folder(name)) or _stamps(folder) != facts["files"]:
        return None
    try:
        check_sums(folder, mend)
    except DataError:
        return None  # the encoder says what is wrong
    return NumpyEncoder(name, facts, load)


def remember(
    encoder: "Encoder",
    name: str,
    settings: Mapping[str, Any],
    *,
    precision: str,
    kernels: str,
    fingerprint: str,
) -> NumpyEncoder | None:
    """Admit a model for `recall`.

    Args:
        encoder: the model, as loaded.
        name, settings: as for `recall`.
        precision, kernels: with which its passages are embedded.
        fingerprint: of the encoder.
    Returns: the model; None if its queries cannot be embedded here to within `TOLERANCE`.
    """
    folder, config = Path(encoder.source.location), encoder.model.config
    if (
        encoder.source.repository is not None  # a branch of the hub may move
        or encoder.source.trusted
        or encoder.device.type != "cpu"
        or len(encoder.head)
        or not encoder.usage.composed
        or config.model_type not in FAMILIES
        or getattr(config, "is_decoder", False)
        or config.hidden_act != "gelu"
        or getattr(config, "position_embedding_type", "absolute") not in (None, "absolute")
    ):
        return None
    prefix = _prefix(folder)
    if prefix is None or not _same_tokenizer(encoder, folder):
        return None
    facts = {
        "schema_version": FORM,
        "kind": QueryFacts.kind_name,
        "folder": str(folder.resolve()),
        "files": _stamps(folder),
        "fingerprint": fingerprint,
        "precision": precision,
        "kernels": kernels,
        "prompt": encoder.prompts["query"],
        "pooling": encoder.pooling,
        "max_tokens": encoder.max_tokens["query"],
        "prefix": prefix,
        "first_position": encoder._first_position,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "epsilon": config.layer_norm_eps,
        "dimension": encoder.dimension,
    }
    found = NumpyEncoder(name, facts, lambda: encoder)
    expected = encoder.encode(PROBES, "query", precision="fp32")
    if not np.abs(found.queries(PROBES) - expected).max() <= TOLERANCE:
        return None
    place = _place(name, settings)
    with suppress(OutputError):  # without it, the next search is slower
        make_folder(place.parent)
        write_json(place, facts, sealed=True)
    return found


def _place(name: str, settings: Mapping[str, Any]) -> Path:
    """The file of a model's facts, with all in its name on which they depend."""
    packages = ["torch", "transformers", "tokenizers"]
    packages += [BUILTIN[name].package] if name in BUILTIN else []
    own = name if name in BUILTIN else str(Path(name).expanduser().resolve())
    parts = [FORM, __version__, platform.node(), own, dict(settings)]
    return (
        cache_folder() / "queries" / f"{fingerprint([*parts, *map(_version, packages)])}.json"
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _folder(name: str) -> Path | None:
    """The model folder that `locate` finds, of a folder or a run."""
    folder = Path(name).expanduser().resolve()
    places = (folder, folder / "model")
    return next(
        (place.resolve() for place in places if (place / "config.json").is_file()), None
    )


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of change of every file of a model."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _prefix(folder: Path) -> str | None:
    """What stands before the names of weights; None: the weights are in no form known here."""
    from safetensors import safe_open

    file, key = folder / "model.safetensors", "embeddings.word_embeddings.weight"
    if not file.is_file():
        return None
    with safe_open(file, "np") as weights:
        for prefix in ("", "bert.", "roberta."):
            if prefix + key in weights.keys():  # noqa: SIM118
                kind = weights.get_slice(prefix + key).get_dtype()
                return prefix if kind in ("F16", "F32") else None
    return None


def _same_tokenizer(encoder: "Encoder", folder: Path) -> bool:
    """Whether the folder's file alone gives the tokens of the encoder."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        return False
    plain = Tokenizer.from_file(str(file))
    plain.no_truncation()
    plain.no_padding()
    own = encoder._plain_tokenizer()
    return own.truncation_side == "right" and plain.to_str() == own.backend_tokenizer.to_str()
