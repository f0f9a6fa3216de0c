"""Transformer forward passes without padding: sequences laid end to end, attention in groups.

Everything in a transformer except attention works token by token. So an unmodified transformers
model computes a *pack* (all sequences as one row of T tokens, each sequence with its own positions)
exactly as it computes a padded batch, provided that attention stays inside each sequence.
`packed_attention`, registered as an attention implementation of transformers, does this. It sorts
the sequences of a pack by length. Groups of similar lengths are padded to their longest sequence,
for the attention products alone. On a GPU that supports it, flash attention takes the pack as it
is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AttentionInterface, PreTrainedModel

from hybridbatch.common.device import upload
from hybridbatch.model.dropout import dropout as drop
from hybridbatch.model.inference import fused_attention

IMPLEMENTATION = "hybridbatch_packed"
# Families whose tokens interact in attention only, through transformers' attention interface, with
# plain multi-head attention in both directions. Tests compare values and gradients of each with its
# padded forward pass.
PACKABLE = frozenset(
    ("bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie", "gte", "jina_embeddings_v3", "modernbert",
     "nomic_bert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl")
)  # fmt: skip
# The cost of one more group, in the unit that counts padding. In attention it is the cost of a
# dozen kernel launches, in score elements (query-key pairs). For models that cannot be packed it is
# the cost of a whole forward pass, in tokens.
ATTENTION_GROUP_COST = 4096
FORWARD_GROUP_COST = 256
STEP = 8  # tokens; lengths are rounded up to it if they must not depend on other sequences


def use_packed_attention(model: PreTrainedModel) -> bool:
    """Switch `model` to packed attention for good.

    Returns: False, without a change, if the model's family is not known to allow it.
    """
    if model.config.model_type not in PACKABLE or getattr(model.config, "is_decoder", False):
        return False
    model.set_attn_implementation(IMPLEMENTATION)
    return True


def length_groups(
    lengths: np.ndarray, cost: Callable[[int, np.ndarray], np.ndarray], per_group: float
) -> list[int]:
    """The cheapest cut of sorted sequences into groups, each padded to its longest sequence.

    A dynamic programme over the U distinct lengths finds it, with U^2 numpy elements.

    Args:
        lengths: int [n], ascending, n >= 1.
        cost: (length, numbers of sequences) -> costs of groups with these numbers of sequences,
            padded to `length`.
        per_group: cost of one more group.
    Returns: the number of sequences in each group.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    # number of sequences shorter than the i-th distinct length
    before = np.concatenate([[0], np.cumsum(counts)])
    best, start = np.zeros(len(distinct) + 1), np.zeros(len(distinct) + 1, np.int64)
    for end in range(1, len(distinct) + 1):
        options = (
            best[:end] + cost(int(distinct[end - 1]), before[end] - before[:end]) + per_group
        )
        start[end] = int(np.argmin(options))
        best[end] = options[start[end]]
    sizes, end = [], len(distinct)
    while end:
        sizes.append(int(before[end] - before[start[end]]))
        end = int(start[end])
    return sizes[::-1]


class Pack:
    """The layout of T tokens of n sequences, ascending by length, for `packed_attention`.

    Flash attention needs only the bounds of the sequences. The other ways need the padded layout:
    `slots`, group after group, sequence after sequence, P >= T slots. Each part is made only when
    it is asked for.

    Args:
        lengths: int64 [n], ascending, >= 1; they stay on the host, where reading them is free.
        device: device of the tokens.
        own_lengths: whether the padded length of a sequence depends on its length alone. Then the
            bits of its attention do not depend on the other sequences. Else sequences share the
            groups that take the least time.
    """

    def __init__(
        self, lengths: np.ndarray, device: torch.device, *, own_lengths: bool = False
    ) -> None:
        self.lengths, self.device, self.own_lengths = lengths, device, own_lengths
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._places = np.arange(self._starts[-1]) - np.repeat(self._starts[:-1], lengths)
        self.positions = upload(
            self._places, device
        )  # int64 [T]: place in the sequence, from 0
        self._biases: dict[Any, list[Tensor | None]] = {}

    @cached_property
    def bounds(self) -> Tensor:
        """int32 [n + 1]: the first token of each sequence, and T."""
        return upload(self._starts.astype(np.int32), self.device)

    @cached_property
    def groups(self) -> list[tuple[int, int]]:
        """(sequences, padded length) of every group."""
        if self.own_lengths:
            padded, counts = np.unique(-(-self.lengths // STEP) * STEP, return_counts=True)
            return list(zip(counts.tolist(), padded.tolist(), strict=True))
        sizes = length_groups(
            self.lengths, lambda length, count: count * float(length) ** 2, ATTENTION_GROUP_COST
        )
        longest = self.lengths[np.cumsum(sizes) - 1]
        return [(int(size), int(length)) for size, length in zip(sizes, longest, strict=True)]

    @cached_property
    def _slots(self) -> tuple[Tensor, Tensor]:
        sizes, longest = (np.array(part) for part in zip(*self.groups, strict=True))
        widths = np.repeat(longest, sizes)  # slots of each sequence
        slot_starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
        place = np.arange(widths.sum()) - np.repeat(slot_starts, widths)
        last = np.repeat(self.lengths, widths) - 1
        token_of_slot = np.repeat(self._starts[:-1], widths) + np.minimum(place, last)
        slot_of_token = np.repeat(slot_starts, self.lengths) + self._places
        return upload(token_of_slot, self.device), upload(slot_of_token, self.device)

    @property
    def token_of_slot(self) -> Tensor:
        """int64 [P]: the token of each slot; for padding, some token of the same sequence."""
        return self._slots[0]

    @property
    def slot_of_token(self) -> Tensor:
        """int64 [T]: the slot of each token."""
        return self._slots[1]

    @property
    def padded(self) -> bool:
        """Whether any group holds sequences of different lengths."""
        return len(self.token_of_slot) > len(self.slot_of_token)

    def biases(self, window: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """For each group, the numbers to add to the scores.

        They are -inf for padding and for keys outside the sliding window. The shape is [n, 1, 1, L]
        or [n, 1, L, L], broadcast over heads; None if nothing is hidden. `window` counts the query
        itself: a query sees the keys that are fewer than `window` tokens away.
        """
        if (window, dtype) not in self._biases:
            self._biases[window, dtype] = list(self._make_biases(window, dtype))
        return self._biases[window, dtype]

    def _make_biases(self, window: int | None, dtype: torch.dtype) -> Iterator[Tensor | None]:
        everyone, first = upload(self.lengths, self.device), 0
        for size, length in self.groups:
            shortest = int(self.lengths[first])
            lengths, first = everyone[first : first + size], first + size
            place = torch.arange(length, device=self.device)
            hidden = None
            if shortest < length:
                hidden = (place >= lengths[:, None])[:, None, None, :]
            if window is not None and length > window:
                far = ((place[:, None] - place).abs() >= window)[None, None]
                if hidden is None:
                    hidden = far
                else:
                    # A padded query must see some key, or its row would be NaN. Its result is
                    # dropped.
                    hidden = (far | hidden) & (place < lengths[:, None])[:, None, :, None]
            if hidden is None:
                yield None
                continue
            visible = torch.zeros(hidden.shape, dtype=dtype, device=self.device)
            yield visible.masked_fill(hidden, float("-inf"))


class _Pad(torch.autograd.Function):
    """Tokens [T, ...] to slots [P, ...].

    Padding slots get no gradient, because they are hidden as keys and dropped as queries. So the
    backward pass is a plain selection instead of a scatter-add.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, pack: Pack) -> Tensor:
        ctx.pack = pack
        return tokens.index_select(0, pack.token_of_slot)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].index_select(0, ctx.pack.slot_of_token), None


class _Unpad(torch.autograd.Function):
    """Slots [P, ...] to tokens [T, ...]."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, pack: Pack) -> Tensor:
        ctx.pack = pack
        return slots.index_select(0, pack.slot_of_token)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        slots = gradients[0].new_zeros((len(ctx.pack.token_of_slot), *gradients[0].shape[1:]))
        return slots.index_copy_(0, ctx.pack.slot_of_token, gradients[0].contiguous()), None


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    pack: Pack | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention inside each sequence of `pack`.

    The signature is the one of transformers' `AttentionInterface`.

    Args:
        query, key, value: [1, H, T, d].
        attention_mask: None; the pack decides which tokens see each other.
        options: ``scaling``, the factor on the scores (default d ** -0.5); ``dropout``, the
            probability that an attention probability is dropped, drawn from torch's current
            generator; ``sliding_window``: a query sees keys that are fewer than this number of
            tokens away (None: all).
    Returns: [1, T, H, d], and None for the probabilities.
    """
    if pack is None:
        raise RuntimeError(
            "this model is set up for packed sequences (Encoder.embed); call"
            " model.set_attn_implementation('sdpa') before using it with padded ones"
        )
    scaling = options.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    dropout, window = options.get("dropout", 0.0), options.get("sliding_window")
    tokens = [states.transpose(1, 2).squeeze(0) for states in (query, key, value)]  # [T, H, d]
    half = flash_type(query)
    if half is not None:
        tokens = [states.to(half) for states in tokens]
        return flash_attention(tokens, pack, scaling, dropout, window)[None], None
    slots = [_Pad.apply(states, pack) for states in tokens] if pack.padded else tokens
    sizes = [size * length for size, length in pack.groups]
    mixed = []
    for group, bias, *parts in zip(
        pack.groups,
        pack.biases(window, query.dtype),
        *(s.split(sizes) for s in slots),
        strict=True,
    ):
        q, k, v = (part.unflatten(0, group).transpose(1, 2) for part in parts)  # [n, H, L, d]
        mixed.append(_attend(q, k, v, bias, scaling, dropout).transpose(1, 2).flatten(0, 1))
    output = torch.cat(mixed)
    return (_Unpad.apply(output, pack) if pack.padded else output)[None], None


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scaling: float, dropout: float
) -> Tensor:
    """Attention of one group, [n, H, L, d], as explicit products.

    torch's fused CPU kernel has a backward pass that is several times slower than these products
    (4.5 s against 0.8 s in a step of 64 pairs).
    """
    if q.is_cuda or fused_attention():
        return F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scaling)
    scores = torch.matmul(q * scaling, k.transpose(2, 3))
    if bias is not None:
        scores.add_(bias)
    return torch.matmul(drop(F.softmax(scores, dim=-1), dropout), v)


def flash_type(states: Tensor) -> torch.dtype | None:
    """The half-precision type in which torch's flash attention takes `states` [..., d].

    None means that flash attention is not possible. It needs a CUDA build that has it, an Ampere
    GPU or a later one, half precision (of the states or of autocast), and heads of at most 256. For
    heads above 192, its backward pass is limited to the GPUs of data centres (8.0, 9.0, 10.0).
    """
    if not states.is_cuda or torch.version.hip or not flash_is_built():
        return None
    dtype = states.dtype
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    if dtype not in (torch.bfloat16, torch.float16):
        return None
    properties = torch.cuda.get_device_properties(states.device)
    able = properties.major >= 8
    if states.shape[-1] > 192:
        able = properties.minor == 0 and properties.major in (8, 9, 10)
    return dtype if able and states.shape[-1] <= 256 else None


def flash_is_built() -> bool:
    """Whether this torch has flash attention."""
    return torch.backends.cuda.is_flash_attention_available()


def flash_attention(
    tokens: Sequence[Tensor], pack: Pack, scaling: float, dropout: float, window: int | None
) -> Tensor:
    """Flash attention 2 (Dao 2023, arXiv:2307.08691) over sequences of any length, [T, H, d].

    It calls torch's own kernel directly, because `torch.nn.attention.varlen`, the layer above it,
    takes no dropout. The kernel draws dropout from the device's generator, so restoring its state
    repeats the mask. The kernel needs head widths that are multiples of 8. Other heads get zeros at
    the end, which change no score and are cut off again.

    Args:
        tokens: query, key and value, [T, H, d] in half precision, d <= 256.
    """
    width = tokens[0].shape[-1]
    if width % 8:
        tokens = [F.pad(states, (0, -width % 8)) for states in tokens]
    longest = int(pack.lengths[-1])
    reach = -1 if window is None else window - 1
    with torch.autocast("cuda", enabled=False):
        mixed = torch.ops.aten._flash_attention_forward(
            *tokens, pack.bounds, pack.bounds, longest, longest, dropout, False, False,
            scale=scaling, window_size_left=reach, window_size_right=reach,
        )[0]  # fmt: skip
    return mixed[..., :width] if width % 8 else mixed


AttentionInterface.register(IMPLEMENTATION, packed_attention)


def forward_packed(
    model: PreTrainedModel, ids: Tensor, lengths: np.ndarray, first_position: int
) -> Tensor:
    """Last hidden states [T, D] of sequences laid end to end.

    No padding is computed outside attention.

    Args:
        model: a model that `use_packed_attention` accepted.
        ids: int64 [T], read only through the model's input embeddings.
        lengths: int64 [n], ascending, >= 1, with sum T.
        first_position: position id of the first token of a sequence.
    """
    pack = Pack(lengths, ids.device, own_lengths=fused_attention())
    inputs = model.get_input_embeddings()(ids)[None]
    positions = (pack.positions + first_position)[None]
    with attention_kernels(ids.device):
        output = model(inputs_embeds=inputs, position_ids=positions, pack=pack)
    return output.last_hidden_state[0]


def forward_padded(model: PreTrainedModel, ids: Tensor, lengths: np.ndarray) -> Tensor:
    """The result of `forward_packed` for any model.

    The sequences run in groups of similar lengths, each padded to its longest sequence.
    """
    embed, hidden, start = model.get_input_embeddings(), [], 0
    first = 0
    for size in length_groups(
        lengths, lambda length, count: count * float(length), FORWARD_GROUP_COST
    ):
        group = lengths[first : first + size]
        longest, stop = int(group[-1]), start + int(group.sum())
        # Made on the host, because counting the selection of a mask would mean waiting for a GPU.
        real = np.arange(longest) < group[:, None]
        places = upload(np.flatnonzero(real), ids.device)
        padded = ids.new_zeros(size * longest).index_copy(0, places, ids[start:stop])
        mask = upload(real.astype(np.int64), ids.device)
        with attention_kernels(ids.device):
            output = model(inputs_embeds=embed(padded.view(size, longest)), attention_mask=mask)
        hidden.append(output.last_hidden_state.flatten(0, 1).index_select(0, places))
        first, start = first + size, stop
    return torch.cat(hidden)


@contextmanager
def attention_kernels(device: torch.device) -> Iterator[None]:
    """Keep torch's fused attention from using cuDNN inside the block.

    cuDNN makes a plan for every new shape, which takes longer than the attention of a batch, and
    almost every batch has new shapes.
    """
    if device.type != "cuda":
        yield
        return
    kernels = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(kernels):
        yield
