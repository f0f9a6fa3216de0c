"""The dense layers that some encoders put after pooling (LaBSE: 768 -> 768 with tanh)."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import PositiveInt
from safetensors.torch import load_file, save_file
from torch import nn

from hybridbatch.common.documents import Shape, read_shape
from hybridbatch.common.errors import ModelError
from hybridbatch.common.files import make_folder, write_json
from hybridbatch.model.layout import FETCH
from hybridbatch.model.loading import Source, first_line


class DenseSettings(Shape):
    """The ``config.json`` of a dense layer."""

    what: ClassVar[str] = "settings of a dense layer"

    in_features: PositiveInt
    out_features: PositiveInt
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"


class Dense(nn.Sequential):
    """``activation(linear(x))``, as sentence-transformers' module of the same name."""

    def __init__(self, linear: nn.Linear, activation: nn.Module):
        super().__init__(linear, activation)

    @property
    def linear(self) -> nn.Linear:
        """The linear layer, which holds the weights."""
        return self[0]


def load_head(source: Source, paths: Sequence[str]) -> nn.Sequential:
    """The dense layers in the folders `paths` of a model, in order; without any, the identity.

    Raises: `ModelError` for options that `Dense` does not have and for weights that do not fit.
    """
    return nn.Sequential(*(_load_dense(source, path) for path in paths))


def _load_dense(source: Source, path: str) -> Dense:
    place = f"{source.name}: {path}"
    config_path = source.find(f"{path}/config.json")
    if config_path is None:
        raise ModelError(f"{place}/config.json is missing, but modules.json names it")
    config = read_shape(config_path, DenseSettings, FETCH)
    if (
        config.get("use_residual")
        or config.get("module_input_name", "sentence_embedding") != "sentence_embedding"
    ):
        raise ModelError(
            f"{place}: is not a plain dense layer on the pooled embedding, which is the only"
            " kind supported"
        )
    kind = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = (
        getattr(nn, kind.rpartition(".")[2], None) if kind.startswith("torch.nn.") else None
    )
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise ModelError(f"{place}: its activation {kind!r} is not one of torch.nn")
    weights = {
        name.removeprefix("linear."): weight.float()
        for name, weight in _weights(source, path).items()
    }
    try:
        # sizes come from a file: no memory is taken before the weights are seen to fit
        linear = nn.Linear(
            config["in_features"],
            config["out_features"],
            bias=config.get("bias", True),
            device="meta",
        )
        linear.load_state_dict(weights, assign=True)
        return Dense(linear, activation())
    except (RuntimeError, TypeError) as error:
        raise ModelError(
            f"{place}: its weights or its activation cannot be used ({first_line(error)})"
        ) from error


def _weights(source: Source, path: str) -> dict[str, torch.Tensor]:
    try:
        if file := source.find(f"{path}/model.safetensors"):
            return load_file(file)
        if file := source.find(f"{path}/pytorch_model.bin"):
            # tensors only: runs no code of the file
            return dict(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # readers of damaged files raise anything
        raise ModelError(
            f"{source.name}: {path}: its weights cannot be loaded ({first_line(error)}); {FETCH}"
        ) from error
    raise ModelError(f"{source.name}: {path} has no model.safetensors")


def write_head(folder: Path, head: nn.Sequential) -> list[str]:
    """Write the layers as folders ``2_Dense`` ... of a model folder; returns their names."""
    paths = []
    for number, layer in enumerate(head, start=2):
        paths.append(f"{number}_Dense")
        place = make_folder(folder / paths[-1])
        activation = type(layer[1])
        write_json(
            place / "config.json",
            {
                "in_features": layer.linear.in_features,
                "out_features": layer.linear.out_features,
                "bias": layer.linear.bias is not None,
                "activation_function": f"{activation.__module__}.{activation.__qualname__}",
            },
        )
        weights = {
            f"linear.{name}": w.detach().cpu().contiguous()
            for name, w in layer.linear.state_dict().items()
        }
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return paths
