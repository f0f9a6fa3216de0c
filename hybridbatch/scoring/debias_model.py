"""A model folder that contains its language vectors. There are two ways:

- *global*: the one mean of all texts goes into the last bias of the transformer, or into a dense
  layer if the architecture has no such bias. `SentenceTransformer`, `AutoModel` and other readers
  of the folder then apply it without this package.
- *language*: the folder has all vectors, as modules of `hybridbatch.model.language_module`.
  sentence-transformers loads these modules if this package is installed.
"""

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from hybridbatch.common.errors import ConfigError, ModelError, OutputError
from hybridbatch.common.files import atomic_folder, make_folder, read_json, write_json
from hybridbatch.common.integrity import SUMS, read_sums, write_sums
from hybridbatch.debias.fit import Method
from hybridbatch.debias.methods import EVERY
from hybridbatch.debias.vectors_file import LanguageVectors, Side, with_loans, write_vectors
from hybridbatch.model.head import Dense

if TYPE_CHECKING:
    from hybridbatch.model import Encoder
    from hybridbatch.model.language_module import LanguageVectors as Module

TEXTS = 32  # texts of each language and side, to estimate the mean before normalisation
PROBES = 4  # texts on which the folded model is checked
CARD = "README.md"
TITLE = "without what tells languages apart"  # ends the first line of the model card


def save_global(
    encoder: "Encoder", texts: Mapping[Side, Mapping[str, Sequence[str]]], folder: Path
) -> str:
    """Save the model with the mean of all its texts folded in; returns in words where it went.

    The model subtracts the mean of the pooled vectors *before* normalisation, over languages and
    sides with equal weight. Queries and passages share one vector, because a model has one set of
    weights.

    Raises:
        OutputError: the file cannot be written.
    """
    mean = _pooled_mean(encoder, texts)
    folded = copy.deepcopy(encoder)
    place = _fold(encoder, folded, mean, next(iter(texts["passage"].values())))
    folded.save(folder, _card(encoder.name, GLOBAL_CARD.format(place=place)))
    return place


def save_by_language(encoder: "Encoder", vectors: LanguageVectors, folder: Path) -> None:
    """Save the model with modules that subtract the vector of each text's side and language.

    The modules have a vector for every language that they can identify, too: of its nearest
    relatives, else the global one.

    Raises:
        OutputError: a file cannot be written.
        ModelError: sentence-transformers, whose modules these are, is not installed.
    """
    try:
        from hybridbatch.model.language_module import LanguageVectors as Module
        from hybridbatch.model.language_module import identifiable
    except ImportError as error:
        raise ModelError(
            f"{folder}: saving this model needs sentence-transformers ({error}); run pip"
            " install sentence-transformers, or use --fold global"
        ) from error
    own = vectors.languages
    languages = list(dict.fromkeys([*own, *identifiable()]))
    tensors = _tensors(vectors, languages)
    shapes = {name: list(values.shape) for name, values in tensors.items()}
    module = Module(languages, vectors.dimension, shapes).fill(tensors)
    card = _card(encoder.name, LANGUAGE_CARD.format(example=own[0], count=len(own)))
    staged = folder.with_name(f".{folder.name}.staged")
    encoder.save(staged, card)
    try:
        _add_modules(staged, module, vectors)
        with atomic_folder(folder) as temporary:
            for path in list(staged.iterdir()):
                path.rename(temporary / path.name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _add_modules(folder: Path, module: "Module", vectors: LanguageVectors) -> None:
    """Add the modules that subtract language vectors to the saved model in `folder`."""
    from hybridbatch.model.language_module import LanguageTransformer, marked

    steps = read_json(folder / "modules.json")
    place = f"{len(steps) - 1}_LanguageVectors"
    here = LanguageTransformer.__module__
    steps[0]["type"] = f"{here}.LanguageTransformer"
    steps.insert(-1, {"path": place, "type": f"{here}.LanguageVectors"})
    for number, step in enumerate(steps):
        step.update({"idx": number, "name": str(number)})
    write_json(folder / "modules.json", steps)
    make_folder(folder / place)
    module.save(str(folder / place))
    write_vectors(folder, vectors)
    settings = read_json(folder / "config_sentence_transformers.json")
    prompts = {side: settings["prompts"].get(side, "") for side in ("query", "passage")}
    marks = {side: marked(side, text) for side, text in prompts.items()}
    marks["document"] = marked("passage", prompts["passage"])
    for language in module.languages:
        for side, text in prompts.items():
            marks[f"{side}-{language}"] = marked(f"{side}-{language}", text)
    write_json(folder / "config_sentence_transformers.json", {**settings, "prompts": marks})
    config = read_json(folder / "config.json")
    write_json(folder / "config.json", {**config, "language_vectors": list(module.languages)})
    write_sums(folder)


def _pooled_mean(
    encoder: "Encoder", texts: Mapping[Side, Mapping[str, Sequence[str]]]
) -> Tensor:
    """float32 [D]: mean over sides and languages of the pooled vectors before normalisation."""
    sides = []
    for side, by_language in texts.items():
        means = []
        for own in by_language.values():
            tokens = encoder.tokenise(list(own)[:TEXTS], side)
            with torch.no_grad():
                means.append(encoder.pooled(tokens).double().mean(dim=0))
        sides.append(torch.stack(means).mean(dim=0))
    return torch.stack(sides).mean(dim=0).float()


def _fold(encoder: "Encoder", folded: "Encoder", mean: Tensor, probes: Sequence[str]) -> str:
    """Put the mean into `folded`: into the last bias, if this has exactly the wanted effect."""
    norms = [
        module
        for module in folded.model.modules()
        if isinstance(module, nn.LayerNorm) and module.bias is not None
    ]
    tokens = encoder.tokenise(list(probes)[:PROBES], "passage")
    with torch.no_grad():
        wanted = encoder.pooled(tokens) - mean
        if norms and not len(folded.head) and norms[-1].bias.shape == mean.shape:
            norms[-1].bias.sub_(mean)
            if torch.allclose(folded.pooled(tokens), wanted, atol=1e-4, rtol=1e-4):
                return "the bias of the transformer's last layer norm"
            norms[-1].bias.add_(mean)
        width = len(mean)
        layer = nn.Linear(width, width)
        layer.weight.copy_(torch.eye(width))
        layer.bias.copy_(-mean)
    folded.head.append(Dense(layer, nn.Identity()))
    return "a dense layer after pooling, which AutoModel users must apply themselves"


def _tensors(vectors: LanguageVectors, languages: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of the module, with a row for every language on both sides."""
    tensors = {}
    names = [EVERY, *languages]
    for side, own in vectors.sides.items():
        turn = with_loans(own, languages)
        tensors[f"{side}_offsets"] = _rows(turn.offsets, names)
        if turn.directions:
            tensors[f"{side}_directions"] = _rows(turn.directions, names)
        if turn.matrix is not None:
            tensors[f"{side}_matrix"] = torch.from_numpy(np.ascontiguousarray(turn.matrix))
    return tensors


def _rows(table: Mapping[str, np.ndarray], names: Sequence[str]) -> Tensor:
    return torch.from_numpy(np.stack([table[name] for name in names]))


def require_savable(folder: Path, fold: str, method: Method, model: str) -> None:
    """Check, before any text is encoded, that a model can be saved as the settings say.

    Raises:
        ConfigError: `fold` does not go with the method.
        OutputError: the folder holds something other than a model saved here before.
    """
    if fold == "global" and method.name != "centre":
        raise ConfigError(
            f"fold = global: works only for a mean, but the method is {method.name};"
            " use --method centre, or --fold language"
        )
    if fold == "language" and method.of_all_languages:
        raise ConfigError(
            "scope = global: gives no vector of a language for the saved model; use --fold"
            " global with --method centre, or --scope language"
        )
    if folder.exists() and Path(model).exists() and folder.samefile(model):
        raise OutputError(
            f"{folder}: is the model itself; choose another folder with --save-model"
        )
    if folder.exists() and not _is_replaceable(folder):
        raise OutputError(
            f"{folder}: holds something other than a model that --save-model wrote; choose"
            " another folder"
        )


def _is_replaceable(folder: Path) -> bool:
    """Whether a folder is empty, or holds the files of a model saved here and nothing else."""
    if not folder.is_dir():
        return False
    files = [path for path in folder.rglob("*") if not path.is_dir()]
    card = folder / CARD
    if not files:
        return True
    if not card.is_file() or TITLE not in card.read_text(encoding="utf-8", errors="replace"):
        return False
    known = {CARD, SUMS, *read_sums(folder)}
    return all(path.relative_to(folder).as_posix() in known for path in files)


def _card(name: str, about: str) -> str:
    """The model card."""
    return (
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\n---\n\n"
        f"# {Path(name).name} {TITLE}\n\n{about}"
    )


GLOBAL_CARD = """The mean vector of all languages' texts is subtracted before normalisation, by
{place}. Queries are encoded with the prompt `query`, passages with `passage`.

```python
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("FOLDER")
model.encode("...", prompt_name="query")
```
"""
LANGUAGE_CARD = """The mean vector of each text's language ({count} languages) is taken off its
embedding. Other languages take the vector of their nearest relatives, else the global one. The
modules that do it are in the package hybridbatch: `pip install hybridbatch`.

```python
from sentence_transformers import SentenceTransformer
model = SentenceTransformer("FOLDER", trust_remote_code=True)  # code of hybridbatch, none of the folder
model.encode("...", prompt_name="query-{example}")    # a query in a known language
model.encode("...", prompt_name="passage-{example}")
model.encode("...", prompt_name="query")              # the language is identified
```
"""
