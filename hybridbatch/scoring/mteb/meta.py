"""mteb's description of a model (``model_meta.json``), as far as its files say."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridbatch.common.errors import DataError
from hybridbatch.common.files import plain_name, read_json
from hybridbatch.common.languages import language
from hybridbatch.data.tasks.mteb import fenced
from hybridbatch.model import BUILTIN

if TYPE_CHECKING:
    from hybridbatch.model import Encoder

_FRONT_MATTER = re.compile(r"\A---\n(.*?)\n---", re.DOTALL)
# Our sources under the names that mteb's tasks have: by them mteb tells what a model has seen.
_TASKS = {
    "miracl": ("MIRACLRetrieval", "MIRACLRetrievalHardNegatives", "MIRACLReranking"),
    "mrtydi": ("MrTidyRetrieval",),
    "mmarco": ("MSMARCO", "mMARCO-NL"),
    "mmarco-triples": ("MSMARCO", "mMARCO-NL"),
    "mkqa": ("MKQARetrieval",),
    "mkqa-full": ("MKQARetrieval",),
    "mintaka": ("MintakaRetrieval",),
    "webfaq": ("WebFAQRetrieval",),
    "ntrex": ("NTREXBitextMining",),
    "nq": ("NQ",),
    "tydiqa": ("TyDiQA",),
    "xor-tydi": ("XOR-TyDi",),
}


def model_meta(
    name: str,
    fingerprint: str,
    dimension: int,
    experiment: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Any:
    """mteb's description of a model: a name and the hash of its content, so that no two checkpoints
    are taken for one.

    Args:
        facts: further fields of mteb's `ModelMeta`, as `facts_of` gives them.
    """
    with fenced():
        from mteb.models import ModelMeta
        from mteb.models.model_meta import ScoringFunction

        similarity = (facts or {}).get("similarity_fn_name", "cosine")
        plain = plain_name(name).strip("-") or "model"
        return ModelMeta.create_empty(
            overwrites={
                "use_instructions": True,
                "framework": ["PyTorch"],
                **(facts or {}),
                "name": f"hybridbatch/{plain}",
                "revision": fingerprint,
                "embed_dim": dimension,
                "similarity_fn_name": ScoringFunction(similarity),
                "open_weights": True,
                "experiment_kwargs": dict(experiment) if experiment else None,
            }
        )


def facts_of(encoder: "Encoder") -> dict[str, Any]:
    """What the files of a model say of it: parameters, length, similarity, licence, languages, the
    model it started from, and the data it was trained on. A field that nothing is known of is left out.
    """
    total = sum(weight.numel() for weight in encoder.parameters())
    words = encoder.model.get_input_embeddings().weight.numel()
    facts: dict[str, Any] = {
        "n_parameters": total,
        "n_embedding_parameters": words,
        "memory_usage_mb": round(total * 4 / 2**20, 1),
        "max_tokens": encoder.usage.own_max_tokens,
        "use_instructions": any(encoder.usage.stated.prompts.values()),
        "similarity_fn_name": encoder.usage.stated.similarity,
        "framework": ["Sentence Transformers", "PyTorch"],
    }
    folder = Path(encoder.source.location)
    facts |= _from_card(folder)
    known = _registered(encoder.source.repository or facts.get("adapted_from"))
    for field in ("languages", "license"):
        if known.get(field):
            facts.setdefault(field, known[field])
    facts |= _from_run(folder.parent / "train.json")
    return facts


def _from_card(folder: Path) -> dict[str, Any]:
    """Licence and base model of a model card's head."""
    import yaml

    card = folder / "README.md"
    head = _FRONT_MATTER.match(card.read_text(encoding="utf-8")) if card.is_file() else None
    try:
        said = yaml.safe_load(head[1]) if head else {}
    except yaml.YAMLError:
        return {}
    if not isinstance(said, Mapping):
        return {}
    found: dict[str, Any] = {}
    if isinstance(said.get("license"), str):
        found["license"] = said["license"].lower()
    base = said.get("base_model")
    if isinstance(base, list):
        base = base[0] if base else None
    if isinstance(base, str):
        found["adapted_from"] = base
    return found


def _registered(name: str | None) -> dict[str, Any]:
    """What mteb's own registry says of a model; nothing for one that it does not have."""
    if name is None:
        return {}
    with fenced():
        from mteb.models.model_implementations import MODEL_REGISTRY

        meta = MODEL_REGISTRY.get(name.partition("@")[0])
        return {"languages": meta.languages, "license": meta.license} if meta else {}


def _from_run(path: Path) -> dict[str, Any]:
    """Languages, start and data of a model that was trained here."""
    if not path.is_file():
        return {}
    run = read_json(path)
    if not isinstance(run, Mapping):
        return {}
    found: dict[str, Any] = {}
    languages = [_with_script(code) for code in run.get("trained_languages") or ()]
    if all(languages) and languages:
        found["languages"] = languages
    start = (run.get("model") or {}).get("name")
    if isinstance(start, str):
        built_in = BUILTIN.get(start)
        found["adapted_from"] = (built_in.hub if built_in else None) or start
    sources = ((run.get("data") or {}).get("sources")) or []
    trained: set[str] = set()
    for source in sources:
        name = source.get("name") if isinstance(source, Mapping) else source
        trained.update(_TASKS.get(str(name), (str(name),)))
    if trained:
        found["training_datasets"] = trained
    return found


def _with_script(code: str) -> str | None:
    """``swh-Latn`` of a canonical language; None where its script is not known."""
    try:
        known = language(code)
    except DataError:
        return None
    return f"{known.id.partition('-')[0]}-{known.script}" if known.script else None
