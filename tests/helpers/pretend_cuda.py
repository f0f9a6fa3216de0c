"""A pretended CUDA device on a torch without CUDA: the project's own GPU paths, run and watched.

A tensor "on the GPU" is a wrapper that says ``cuda:0`` and holds its values on the CPU. It goes
through CUDA's real autocast and autograd. Every operation is counted as a kernel, every wait of the
host for the device is noted, and an operation with tensors of both devices is refused, as a GPU
refuses it. Flash attention is computed plainly, after the checks that the real kernel makes.

It cannot show NCCL, the allocator, the choice of kernels, or atomics.

`build` compiles a library that a child process must be started with (`environment`); the child
calls `install` first and works inside `PretendCuda()`.
"""

import collections
import hashlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

SOURCE = Path(__file__).with_suffix(".cpp")
DEVICE = torch.device("cuda", 0)
# operations that only look at memory in another way, or reserve it
NO_KERNEL = frozenset(
    ("view", "transpose", "t", "slice", "select", "unsqueeze", "squeeze", "expand", "permute",
     "detach", "alias", "split", "split_with_sizes", "unbind", "as_strided", "_unsafe_view",
     "_reshape_alias", "unflatten", "diagonal", "lift_fresh", "empty", "empty_like", "new_empty",
     "empty_strided", "new_empty_strided")
)  # fmt: skip
# operations whose result has a size that only the device knows
WAITING = frozenset(
    ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim",
     "unique_consecutive", "equal", "bincount")
)  # fmt: skip
LOOKUPS = frozenset(("embedding", "index_select", "gather", "index"))
PRODUCTS = frozenset(("mm", "addmm", "bmm"))
INDEXING = frozenset(("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"))


def build(folder: Path) -> Path | None:
    """The library, compiled into `folder` unless it is there; None where there is no compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    torch_folder = Path(torch.__file__).parent
    include, libraries = torch_folder / "include", torch_folder / "lib"
    made_of = f"{SOURCE.read_text()} {torch.__version__} {torch_folder} {compiler}"
    library = folder / f"pretend_cuda-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    if library.exists():
        return library
    unfinished = library.with_suffix(f".{os.getpid()}")
    subprocess.run(
        [
            compiler, "-O0", "-std=c++20", "-shared", "-fPIC", str(SOURCE), "-o", str(unfinished),
            f"-I{include}", f"-I{include}/torch/csrc/api/include", f"-L{libraries}",
            "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{libraries}",
        ],
        check=True,
        capture_output=True,
        text=True,
    )  # fmt: skip
    unfinished.replace(library)
    return library


def environment(library: Path) -> dict[str, str]:
    """The environment of a child process with the pretended device."""
    root = str(Path(__file__).parents[2])
    return os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}


class Watch:
    """What the pretended device has been asked to do since the last `reset`."""

    def __init__(self) -> None:
        self.kernels = 0
        self.multiplied = 0  # floating-point operations of matrix products
        self.moved = 0  # bytes that the other kernels read and write
        self.waits: collections.Counter[str] = collections.Counter()
        self.operations: collections.Counter[str] = collections.Counter()

    def reset(self) -> None:
        """Forget everything."""
        self.__init__()

    def work(self, name: str, read: Any, written: Any) -> None:
        """Count the work of a kernel with these tensors."""
        if name in PRODUCTS:
            first = _tensors(read)[-2]  # addmm begins with the bias
            self.multiplied += 2 * first.shape[-1] * written.numel()
            return
        read_bytes, written_bytes = (
            sum(each.numel() * each.element_size() for each in _tensors(part))
            for part in (read, written)
        )
        if name in LOOKUPS:  # of a table, only what is asked for is read
            read_bytes = written_bytes
        if (
            name == "_fused_adamw_"
        ):  # of weights, gradients and two moments, all but the gradients
            written_bytes = read_bytes * 3 // 4
        self.moved += read_bytes + written_bytes


WATCH = Watch()


class OnGpu(Tensor):
    """A tensor on the pretended device; its values are those of `held`, on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor):
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=DEVICE,
            requires_grad=False,
        )
        wrapper.held = held
        return wrapper

    def __repr__(self) -> str:
        return f"OnGpu({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, arguments=(), options=None):
        return _run(operation, arguments, options or {})


class PretendCuda(TorchDispatchMode):
    """Inside the block, tensors can be made on the pretended device and moved to it."""

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        options = options or {}
        tensors = _tensors((arguments, options))
        device = options.get("device")
        to_gpu = device is not None and torch.device(device).type == "cuda"
        if to_gpu or any(isinstance(each, OnGpu) for each in tensors):
            return _run(operation, arguments, options)
        return operation(*arguments, **options)


def _tensors(tree: Any) -> list[Tensor]:
    return [each for each in tree_flatten(tree)[0] if isinstance(each, Tensor)]


def _held(value: Any) -> Any:
    return value.held if isinstance(value, OnGpu) else value


def _run(operation: Any, arguments: tuple, options: dict[str, Any]) -> Any:
    name = operation.overloadpacket.__name__
    WATCH.operations[name] += 1
    special = SPECIAL.get(name)
    if special is not None:
        return special(operation, *arguments, **options)
    _note_waits(name, arguments, options)
    _refuse_mixed(name, arguments, options)
    if name not in NO_KERNEL:
        # A fused operation on many tensors takes a few kernels, not one for each tensor.
        WATCH.kernels += 2 if name.startswith(("_foreach", "_fused")) else 1
    on_gpu = [each for each in _tensors((arguments, options)) if isinstance(each, OnGpu)]
    if "device" in options and torch.device(options["device"] or "cpu").type == "cuda":
        options = options | {"device": torch.device("cpu")}
    options = {key: value for key, value in options.items() if key != "pin_memory"}
    found = operation(*tree_map(_held, arguments), **tree_map(_held, options))
    if name not in NO_KERNEL:
        WATCH.work(name, (arguments, options), found)
    # An operation in place gives back the tensor that it was given.
    known = {id(each.held): each for each in on_gpu}

    def wrap(value: Any) -> Any:
        if not isinstance(value, Tensor) or isinstance(value, OnGpu):
            return value
        return known[id(value)] if id(value) in known else OnGpu(value)

    return tree_map(wrap, found)


def _note_waits(name: str, arguments: tuple, options: dict[str, Any]) -> None:
    if name in WAITING:
        WATCH.waits[name] += 1
    if name == "segment_reduce" and not options.get("unsafe", False):
        WATCH.waits["segment_reduce checks its lengths"] += 1
    if name == "repeat_interleave" and options.get("output_size") is None:
        WATCH.waits[name] += 1
    if name in INDEXING:
        for index in arguments[1]:
            if isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8):
                WATCH.waits[f"{name} by a mask"] += 1
            elif isinstance(index, Tensor) and not isinstance(index, OnGpu):
                WATCH.waits[f"{name} by an index of the host"] += 1


def _refuse_mixed(name: str, arguments: tuple, options: dict[str, Any]) -> None:
    """CUDA takes numbers of the host (tensors of no dimension), and indices into its tensors."""
    tensors = _tensors((arguments, options))
    if not any(isinstance(each, OnGpu) for each in tensors):
        return
    allowed: list[Tensor] = []
    if name in INDEXING and isinstance(arguments[0], OnGpu):
        allowed = [index for index in arguments[1] if isinstance(index, Tensor)]
    for each in tensors:
        if isinstance(each, OnGpu) or each.dim() == 0:
            continue
        if not any(each is index for index in allowed):
            raise RuntimeError(
                f"{name}: expected all tensors to be on the same device, but found a"
                f" {tuple(each.shape)} on the CPU"
            )


def _to_copy(operation: Any, source: Tensor, **options: Any) -> Tensor:
    target = torch.device(options.pop("device", None) or source.device)
    asynchronous = options.pop("non_blocking", False)
    copy = operation(_held(source), **options)
    if isinstance(source, OnGpu) and target.type == "cpu":
        if not asynchronous:
            WATCH.waits["a copy to the host"] += 1
        return copy
    if isinstance(source, OnGpu):
        WATCH.kernels += 1
        WATCH.work("_to_copy", source, copy)
        return OnGpu(copy)
    if target.type == "cuda":
        if not asynchronous:
            WATCH.waits["a copy from the host"] += 1
        return OnGpu(copy)
    return copy


def _copy(operation: Any, target: Tensor, source: Tensor, *rest: Any, **options: Any) -> Tensor:
    if isinstance(target, OnGpu) and isinstance(source, OnGpu):
        WATCH.kernels += 1
        WATCH.work("copy_", source, target)
    elif isinstance(target, OnGpu) or isinstance(source, OnGpu):
        WATCH.waits["copy_ between host and device"] += 1
    operation(_held(target), _held(source), *rest, **options)
    return target


def _pinned(operation: Any, tensor: Tensor, *rest: Any, **options: Any) -> Any:
    return tensor


def _flash_forward(
    operation: Any, query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, key_bounds: Tensor,
    longest: int, longest_key: int, dropout: float, causal: bool, debug: bool, *, scale: float,
    window_size_left: int, window_size_right: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    _check_flash((query, key, value), (bounds, key_bounds), longest)
    WATCH.kernels += 1
    WATCH.work("flash", (query, key, value), query)
    # As on the device: a call's masks follow from a state of the generator, kept for the backward.
    seed = torch.randint(1 << 60, (2,)) if dropout else torch.zeros(2, dtype=torch.int64)
    mixed = []
    for _, _, v, weights, kept in _flash(
        (query, key, value), bounds, dropout, seed, scale, window_size_left
    ):
        mixed.append(((weights * kept) @ v).transpose(0, 1))
    empty = OnGpu(torch.zeros(query.shape[1], query.shape[0]))
    rest = (OnGpu(seed), OnGpu(torch.zeros(())), OnGpu(torch.zeros(0)))
    return OnGpu(torch.cat(mixed).to(query.dtype)), empty, *rest


def _flash_backward(
    operation: Any, gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor,
    logsumexp: Tensor, bounds: Tensor, key_bounds: Tensor, longest: int, longest_key: int,
    dropout: float, causal: bool, seed: Tensor, unused: Tensor, *, scale: float,
    window_size_left: int, window_size_right: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    if gradient.dtype != query.dtype:
        raise RuntimeError("query and dout must have the same dtype")
    WATCH.kernels += 3
    WATCH.work("flash", (gradient, query, key, value, output), (query, key, value))
    found: tuple[list[Tensor], ...] = ([], [], [])
    states, start = (query, key, value), 0
    parts = _flash(states, bounds, dropout, seed.held, scale, window_size_left)
    for q, k, v, weights, kept in parts:
        own = gradient.held[start : start + q.shape[1]].float().transpose(0, 1)
        start += q.shape[1]
        of_weights = own @ v.transpose(1, 2) * kept
        mean = (of_weights * weights).sum(-1, keepdim=True)
        of_scores = weights * (of_weights - mean) * scale
        found[0].append(of_scores @ k)
        found[1].append(of_scores.transpose(1, 2) @ q)
        found[2].append((weights * kept).transpose(1, 2) @ own)
    return tuple(
        OnGpu(torch.cat([part.transpose(0, 1) for part in parts]).to(query.dtype))
        for parts in found
    )


def _flash(
    states: Sequence[Tensor],
    bounds: Tensor,
    dropout: float,
    seed: Tensor,
    scale: float,
    window: int,
) -> Iterator[tuple[Tensor, ...]]:
    """Of each sequence: query, key and value [H, L, d], the attention's weights, and the factors of
    dropout on them.
    """
    generator = torch.Generator().manual_seed(int(seed[0]))
    edges = bounds.held.tolist()
    for start, end in itertools.pairwise(edges):
        q, k, v = (each.held[start:end].float().transpose(0, 1) for each in states)
        scores = q @ k.transpose(1, 2) * scale
        if window >= 0:
            place = torch.arange(end - start)
            scores = scores.masked_fill((place[:, None] - place).abs() > window, -torch.inf)
        weights = scores.softmax(-1)
        kept = torch.ones_like(weights)
        if dropout:
            kept = (torch.rand(weights.shape, generator=generator) >= dropout) / (1 - dropout)
        yield q, k, v, weights, kept


def _check_flash(states: Sequence[Tensor], bounds: Sequence[Tensor], longest: int) -> None:
    """What the real kernel checks, and what it does not check but needs."""
    for each in states:
        assert isinstance(each, OnGpu)
        assert each.dim() == 3
        assert each.stride(-1) == 1, "the last dimension must be contiguous"
        assert each.dtype in (torch.float16, torch.bfloat16), each.dtype
        assert each.dtype == states[0].dtype
        assert each.shape[-1] % 8 == 0, f"heads of {each.shape[-1]}"
        assert each.shape[-1] <= 256
    for each in bounds:
        assert isinstance(each, OnGpu)
        assert each.dtype == torch.int32
        assert each.is_contiguous()
        assert int(each.held.diff().max()) <= longest, "would give garbage without a word"


SPECIAL: dict[str, Callable[..., Any]] = {
    "_to_copy": _to_copy,
    "copy_": _copy,
    "_pin_memory": _pinned,
    "_flash_attention_forward": _flash_forward,
    "_flash_attention_backward": _flash_backward,
}

EVENT = SimpleNamespace(synchronize=lambda: None)
# what a test may change: compute capability, bytes of memory
CARD = SimpleNamespace(
    name="Pretended GPU", total_memory=80 << 30, multi_processor_count=132, major=9, minor=0
)


def install() -> None:
    """Make torch believe in the device; for the rest of the process."""
    answers: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "_lazy_init": lambda: None,
        "init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda device: None,
        "get_device_name": lambda device=None: CARD.name,
        "get_device_properties": lambda device=None: CARD,
        "is_bf16_supported": lambda including_emulation=True: (
            including_emulation or CARD.major >= 8
        ),
        "mem_get_info": lambda device=None: (CARD.total_memory - (1 << 30), CARD.total_memory),
        "max_memory_allocated": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "synchronize": lambda device=None: None,
        "current_stream": lambda device=None: SimpleNamespace(record_event=lambda: EVENT),
        "manual_seed_all": lambda seed: None,
        # Kernels draw from the CPU's generator, which is saved and restored with it.
        "get_rng_state": lambda device=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda state, device=None: None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.version.cuda = "13.0"
    torch.backends.cuda.is_flash_attention_available = lambda: True
    torch.Tensor.pin_memory = lambda self, device=None: self
    _foreach_utils._foreach_supported_types.append(OnGpu)
    torch.autograd.set_multithreading_enabled(False)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
