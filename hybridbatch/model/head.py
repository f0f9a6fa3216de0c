"""The dense layers that some encoders put after pooling (LaBSE: 768 -> 768 with tanh)."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from hybridbatch.common.errors import ModelError
from hybridbatch.common.files import make_folder, read_json, write_json
from hybridbatch.model.loading import Source


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
    config = read_json(config_path)
    if (
        config.get("use_residual")
        or config.get("module_input_name", "sentence_embedding") != "sentence_embedding"
    ):
        raise ModelError(
            f"{place}: is not a plain dense layer on the pooled embedding, which is the only"
            " kind supported"
        )
    kind = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = (
        getattr(nn, kind.rpartition(".")[2], None) if kind.startswith("torch.nn.") else None
    )
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        raise ModelError(f"{place}: its activation {kind!r} is not one of torch.nn")
    linear = nn.Linear(
        config["in_features"], config["out_features"], bias=config.get("bias", True)
    )
    try:
        linear.load_state_dict(
            {
                name.removeprefix("linear."): w.float()
                for name, w in _weights(source, path).items()
            }
        )
    except (RuntimeError, SafetensorError, EOFError) as error:
        raise ModelError(
            f"{place}: its weights cannot be loaded ({str(error).splitlines()[0]})"
        ) from error
    return Dense(linear, activation())


def _weights(source: Source, path: str) -> dict[str, torch.Tensor]:
    if file := source.find(f"{path}/model.safetensors"):
        return load_file(file)
    if file := source.find(f"{path}/pytorch_model.bin"):
        # tensors only: runs no code of the file
        return torch.load(file, map_location="cpu", weights_only=True)
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
