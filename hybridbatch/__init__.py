"""Hybrid monolingual and cross-lingual batches for multilingual dense retrieval.

The names below are loaded when they are first used, so that ``import hybridbatch`` costs nothing:
torch comes with the first encoder or training.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hybridbatch.api import (
        Comparison,
        Evaluation,
        PreparedData,
        Run,
        compare,
        evaluate,
        prepare,
        train,
    )
    from hybridbatch.common.errors import HybridBatchError
    from hybridbatch.model import Encoder
    from hybridbatch.sampling.index import RecordIndex
    from hybridbatch.sampling.plan import plan_schedule
    from hybridbatch.sampling.schedule import Schedule

_HOMES = {
    "prepare": "api",
    "train": "api",
    "evaluate": "api",
    "compare": "api",
    "PreparedData": "api",
    "Run": "api",
    "Evaluation": "api",
    "Comparison": "api",
    "HybridBatchError": "common.errors",
    "Encoder": "model",
    "RecordIndex": "sampling.index",
    "Schedule": "sampling.schedule",
    "plan_schedule": "sampling.plan",
}

__all__ = [
    "Comparison",
    "Encoder",
    "Evaluation",
    "HybridBatchError",
    "PreparedData",
    "RecordIndex",
    "Run",
    "Schedule",
    "__version__",
    "compare",
    "evaluate",
    "plan_schedule",
    "prepare",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a name of the public face when it is first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'hybridbatch' has no attribute {name!r}")
    value = getattr(import_module(f"hybridbatch.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
