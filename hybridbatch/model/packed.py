"""Transformer forward passes that compute no padding: sequences laid end to end, attention in
groups of like lengths.

Everything in a transformer but attention works token by token, so an unmodified transformers model
computes a *pack* (all sequences as one row of T tokens, each with its own positions) exactly as it
computes a padded batch, once its attention stays inside each sequence. `packed_attention`,
registered as an attention implementation of transformers, does that. The sequences of a pack are
sorted by length; groups of similar lengths are padded to their longest, for the attention products
alone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from hybridbatch.model.dropout import dropout as drop

IMPLEMENTATION = "hybridbatch_packed"
# Families whose tokens meet in attention only, through transformers' attention interface, with
# plain multi-head attention in both directions. Each is compared with its padded forward pass,
# values and gradients, in the tests.
PACKABLE = frozenset(
    ("bert", "camembert", "data2vec-text", "distilbert", "electra", "ernie", "gte", "jina_embeddings_v3", "modernbert",
     "nomic_bert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl")
)  # fmt: skip
# What one more group costs, in the unit its padding is counted in. Attention: a dozen kernel
# launches against score elements (query-key pairs). A whole forward pass, for models that cannot be
# packed: against tokens.
ATTENTION_GROUP_COST = 4096
FORWARD_GROUP_COST = 256


def use_packed_attention(model: PreTrainedModel) -> bool:
    """Switch `model` to packed attention for good; False (and no change) where its family is not
    known to allow it.
    """
    if model.config.model_type not in PACKABLE or getattr(model.config, "is_decoder", False):
        return False
    model.set_attn_implementation(IMPLEMENTATION)
    return True


def length_groups(
    lengths: np.ndarray, cost: Callable[[int, np.ndarray], np.ndarray], per_group: float
) -> list[int]:
    """The cheapest cut of sorted sequences into groups, each padded to its longest sequence.

    Args:
        lengths: int [n], ascending, n >= 1.
        cost: (length, numbers of sequences) -> costs of groups of so many sequences padded to
            `length`.
        per_group: cost of one more group.
    Returns: the number of sequences in each group; dynamic programme over the U distinct lengths,
        U^2 numpy elements.
    """
    distinct, counts = np.unique(lengths, return_counts=True)
    # sequences shorter than the i-th distinct length
    before = np.concatenate([[0], np.cumsum(counts)])
    best, start = np.zeros(len(distinct) + 1), np.zeros(len(distinct) + 1, np.int64)
    for end in range(1, len(distinct) + 1):
        options = best[:end] + cost(int(distinct[end - 1]), before[end] - before[:end]) + per_group
        start[end] = int(np.argmin(options))
        best[end] = options[start[end]]
    sizes, end = [], len(distinct)
    while end:
        sizes.append(int(before[end] - before[start[end]]))
        end = int(start[end])
    return sizes[::-1]


@dataclass
class Pack:
    """The layout of T tokens of n sequences, ascending by length, for `packed_attention`.

    `slots` is the padded layout: group after group, sequence after sequence, P >= T slots.
    """

    lengths: Tensor  # int64 [n]
    groups: list[tuple[int, int]]  # (sequences, padded length) of every group
    positions: Tensor  # int64 [T]: place of each token in its sequence, from 0
    token_of_slot: Tensor  # int64 [P]: some token of the same sequence where the slot is padding
    slot_of_token: Tensor  # int64 [T]
    _biases: dict[Any, list[Tensor | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, lengths: np.ndarray, device: torch.device) -> "Pack":
        """The pack of sequences of `lengths` (int64 [n], ascending, >= 1)."""
        sizes = length_groups(
            lengths, lambda length, count: count * float(length) ** 2, ATTENTION_GROUP_COST
        )
        longest = lengths[np.cumsum(sizes) - 1]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        widths = np.repeat(longest, sizes)  # slots of each sequence
        slot_starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
        positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        place = np.arange(widths.sum()) - np.repeat(slot_starts, widths)
        token_of_slot = np.repeat(starts, widths) + np.minimum(
            place, np.repeat(lengths, widths) - 1
        )
        slot_of_token = np.repeat(slot_starts, lengths) + positions

        def tensor(values: np.ndarray) -> Tensor:
            return torch.from_numpy(values.astype(np.int64)).to(device)

        groups = [(int(size), int(length)) for size, length in zip(sizes, longest, strict=True)]
        return cls(
            tensor(lengths), groups, tensor(positions), tensor(token_of_slot), tensor(slot_of_token)
        )

    @property
    def padded(self) -> bool:
        """Whether any group holds sequences of different lengths."""
        return len(self.token_of_slot) > len(self.slot_of_token)

    def biases(self, window: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """Per group, what is added to the scores: -inf for padding and for keys out of the sliding
        window.

        [n, 1, 1, L] or [n, 1, L, L], broadcast over heads; None where nothing is hidden. `window`
        counts the query itself: keys nearer than `window` tokens are seen.
        """
        if (window, dtype) not in self._biases:
            self._biases[window, dtype] = list(self._make_biases(window, dtype))
        return self._biases[window, dtype]

    def _make_biases(self, window: int | None, dtype: torch.dtype):
        device, first = self.lengths.device, 0
        for size, length in self.groups:
            lengths, first = self.lengths[first : first + size], first + size
            place = torch.arange(length, device=device)
            hidden = None
            if int(lengths[0]) < length:
                hidden = (place >= lengths[:, None])[:, None, None, :]
            if window is not None and length > window:
                far = ((place[:, None] - place).abs() >= window)[None, None]
                # A padded query must see some key, or its row would be NaN; what it computes is
                # dropped.
                hidden = (
                    far
                    if hidden is None
                    else (far | hidden) & (place < lengths[:, None])[:, None, :, None]
                )
            yield (
                None
                if hidden is None
                else torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill(
                    hidden, float("-inf")
                )
            )


class _Pad(torch.autograd.Function):
    """Tokens [T, ...] to slots [P, ...]. Padding slots get no gradient (they are hidden as keys and
    dropped as queries), so the backward pass is a plain selection rather than a scatter-add.
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
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention inside each sequence of `pack`, with the signature of transformers'
    `AttentionInterface`.

    Args:
        query, key, value: [1, H, T, d].
        attention_mask: None; the pack says who sees whom.
        scaling: factor on the scores; default d ** -0.5.
        dropout: chance that an attention probability is dropped, from torch's current generator.
        sliding_window: keys nearer than so many tokens are seen; None: all of the sequence.
    Returns: [1, T, H, d], and None for the probabilities.
    """
    if pack is None:
        raise RuntimeError(
            "this model is set up for packed sequences (Encoder.embed); call"
            " model.set_attn_implementation('sdpa') before using it with padded ones"
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    tokens = tuple(states.transpose(1, 2)[0] for states in (query, key, value))  # [T, H, d]
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and dropout == 0:
        return _flash_attention(tokens, pack, scaling, sliding_window)[None], None
    slots = [_Pad.apply(states, pack) for states in tokens] if pack.padded else tokens
    sizes = [size * length for size, length in pack.groups]
    mixed = []
    for group, bias, *parts in zip(
        pack.groups,
        pack.biases(sliding_window, query.dtype),
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
    """Attention of one group, [n, H, L, d]. Explicit products: torch's fused CPU kernel has a
    backward pass several times slower than these (4.5 s against 0.8 s in a step of 64 pairs).
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scaling)
    scores = torch.matmul(q * scaling, k.transpose(2, 3))
    if bias is not None:
        scores.add_(bias)
    return torch.matmul(drop(F.softmax(scores, dim=-1), dropout), v)


def _flash_attention(
    tokens: tuple[Tensor, ...], pack: Pack, scaling: float, window: int | None
) -> Tensor:
    """torch's variable-length flash attention on query, key, value [T, H, d] (CUDA, half precision,
    no dropout).
    """
    bounds = F.pad(torch.cumsum(pack.lengths, 0), (1, 0)).to(torch.int32)
    longest = pack.groups[-1][1]
    reach = (-1, -1) if window is None else (window - 1, window - 1)
    return varlen_attn(*tokens, bounds, bounds, longest, longest, scale=scaling, window_size=reach)


AttentionInterface.register(IMPLEMENTATION, packed_attention)


def forward_packed(
    model: PreTrainedModel, ids: Tensor, lengths: np.ndarray, first_position: int
) -> Tensor:
    """Last hidden states [T, D] of sequences laid end to end, no padding computed outside
    attention.

    Args:
        model: one that `use_packed_attention` accepted.
        ids: int64 [T], read through the model's input embeddings only.
        lengths: int64 [n], ascending, >= 1, sum T.
        first_position: position id of a sequence's first token.
    """
    pack = Pack.of(lengths, ids.device)
    inputs = model.get_input_embeddings()(ids)[None]
    positions = (pack.positions + first_position)[None]
    return model(inputs_embeds=inputs, position_ids=positions, pack=pack).last_hidden_state[0]


def forward_padded(model: PreTrainedModel, ids: Tensor, lengths: np.ndarray) -> Tensor:
    """The same for any model: groups of like lengths, each padded to its longest and run by itself."""
    embed, hidden, start = model.get_input_embeddings(), [], 0
    first = 0
    for size in length_groups(
        lengths, lambda length, count: count * float(length), FORWARD_GROUP_COST
    ):
        group = torch.from_numpy(lengths[first : first + size]).to(ids.device)
        stop = start + int(lengths[first : first + size].sum())
        real = torch.arange(int(lengths[first + size - 1]), device=ids.device) < group[:, None]
        padded = ids.new_zeros(real.shape).masked_scatter(real, ids[start:stop])
        output = model(inputs_embeds=embed(padded), attention_mask=real.long())
        hidden.append(output.last_hidden_state[real])
        first, start = first + size, stop
    return torch.cat(hidden)
