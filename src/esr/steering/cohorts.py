"""Keys and values of rows that were started together, and the attention over them.

A *cohort* is a set of rows with prompts of one padded length that are decoded in step: the k-th new token of each lies
in the same column of the cache. So a step attends over the columns that are filled (on a CPU up to the next multiple
of ``_ALIGNED``, the rest hidden), whatever other cohorts are in flight, nothing is copied, and what a row sees (how
many columns, where its padding ends) follows from the row alone. The model's linear layers run over the rows of all
cohorts at once.

The model finds this through transformers' own interfaces: a cache that is handed each layer's new keys and values, and
an attention function that calls the model's own (``sdpa`` or ``eager``) cohort by cohort, or ``_one_token``.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from esr.errors import UserError
from esr.subjects.linear import is_exact

_NAME = "esr_cohorts"
_running = threading.local()  # the cache of the forward pass in progress, for the attention function
_KINDS = ("full_attention", "sliding_attention")
_ALIGNED = 16
"""On the CPU a step attends over a multiple of so many columns, hidden ones included: 64 bytes in float32. MKL rounds a
product by where in memory its rows begin, so all have to begin alike."""


class Cohort:
    """The keys and values of its rows.

    padding: how many columns in front are padding, per row; length: columns of the padded prompt; room: columns for new
    tokens.
    """

    def __init__(self, padding: Sequence[int], length: int, room: int) -> None:
        self.filled = 0
        """Columns that hold tokens; the engine raises it when a forward pass has gone through."""
        self.allocated = len(padding)
        """Rows that memory is held for: at most twice the rows."""
        self._needed = length + room
        self._capacity = -(-self._needed // _ALIGNED) * _ALIGNED
        self._padding = torch.tensor(padding)
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        self._masks: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def __len__(self) -> int:
        return len(self._padding)

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Drop all rows but these; their new order. Rows from the end fill the gaps, which copies the least."""
        kept = set(rows)
        order, spare = list(range(len(kept))), sorted(r for r in kept if r >= len(kept))
        gaps = [place for place in order if place not in kept]
        for place in gaps:
            order[place] = spare.pop()
        smaller = 2 * len(order) <= self.allocated
        source = torch.tensor(order if smaller else [order[place] for place in gaps], dtype=torch.long)
        for store in (self._keys, self._values):
            for layer, old in store.items():
                moved = old[source.to(old.device), :, : self.filled]
                if smaller:
                    store[layer] = _room(old, len(order), self._capacity)
                    store[layer][:, :, : self.filled] = moved
                elif gaps:
                    old[torch.tensor(gaps, device=old.device), :, : self.filled] = moved
        self.allocated = len(order) if smaller else self.allocated
        index = torch.tensor(order)
        self._padding = self._padding[index]
        self._masks = {place: mask[index.to(mask.device)] for place, mask in self._masks.items()}
        return order

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a layer, [b, heads, capacity, d_head], the new ones behind those filled. Repeatable:
        the new columns count only when ``filled`` is raised."""
        end, rows = self.filled + keys.shape[2], len(self)
        for store, new in ((self._keys, keys), (self._values, values)):
            if layer not in store:
                store[layer] = _room(new, rows, self._capacity)
            store[layer][:rows, :, self.filled : end] = new
        return self._keys[layer][:rows], self._values[layer][:rows]

    def mask(self, new: int, window: int | None, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, slice]:
        """What is added to the attention scores, [b, 1, new, columns], and which columns these are."""
        end = min(self.filled + new, self._needed)  # rows that have ended may be taken along further
        mask = self._mask_of_padding(device, dtype)
        if new == 1:
            first = 0 if window is None else max(0, end - window)
            if device.type != "cpu":
                return mask[..., first:end], slice(first, end)
            columns = slice(first // _ALIGNED * _ALIGNED, -(-end // _ALIGNED) * _ALIGNED)
            beside = torch.full((columns.stop - columns.start,), -torch.inf, dtype=dtype)
            beside[first - columns.start : end - columns.start].zero_()
            return mask[..., columns] + beside, columns
        row, column = torch.arange(self.filled, end).unsqueeze(1), torch.arange(end)
        hidden = column > row if window is None else (column > row) | (row - column >= window)
        whole = mask[..., :end] + torch.zeros(hidden.shape, dtype=dtype).masked_fill_(hidden, -torch.inf).to(device)
        # padding attends to itself, since a row of nothing but -inf has no softmax; nobody attends to it
        return whole.masked_fill_((column == row).to(device), 0), slice(0, end)

    def _mask_of_padding(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """-inf on padding, [b, 1, 1, all columns]."""
        if (device, dtype) not in self._masks:
            padded = torch.arange(self._capacity) < self._padding.unsqueeze(1)
            mask = torch.zeros(padded.shape, dtype=dtype).masked_fill_(padded, -torch.inf)
            self._masks[device, dtype] = mask[:, None, None].to(device)
        return self._masks[device, dtype]

    # ---- the same for steps that are recorded: fixed columns, and a tensor that says which is the new one

    @property
    def left(self) -> int:
        """Most steps after the coming one; the last token drawn takes no column."""
        return self._needed - 2 - self.filled

    def reach(self, ahead: int) -> int:
        """The columns filled and up to so many more."""
        return min(self._needed, self.filled + ahead)

    def insert(self, layer: int, keys: Tensor, values: Tensor, at: Tensor, columns: int) -> tuple[Tensor, Tensor]:
        """As ``extend`` for one new column, the ``at``-th (long, [1]): a layer's first ``columns`` columns."""
        stores = [store[layer][: len(self), :, :columns] for store in (self._keys, self._values)]
        return stores[0].index_copy_(2, at, keys), stores[1].index_copy_(2, at, values)

    def mask_at(self, at: Tensor, columns: int, window: int | None, device: torch.device, dtype: torch.dtype) -> Tensor:
        """As ``mask`` for the ``at``-th column (long, [1]), over the first ``columns`` columns: [b, 1, 1, columns]."""
        column = torch.arange(columns, device=device)
        hidden = column > at if window is None else (column > at) | (column <= at - window)
        return self._mask_of_padding(device, dtype)[..., :columns].masked_fill(hidden, -torch.inf)


def _room(like: Tensor, rows: int, capacity: int) -> Tensor:
    """Memory for keys or values, [rows, heads, capacity, d_head], 0 where nothing is written: hidden columns are read,
    and 0 times what memory happens to hold may be NaN.

    In float32 on a CPU the columns lie side by side, which batched products are fast at (``_one_token``); elsewhere the
    numbers of a column do, which attention kernels ask for.
    """
    heads, d_head = like.shape[1], like.shape[3]
    if is_exact(like):
        return like.new_zeros(rows, heads, d_head, capacity).transpose(2, 3)
    return like.new_zeros(rows, heads, capacity, d_head)


def _is_plain_step(query: Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether ``_one_token`` does what is asked for. One product by itself (a row with one head) takes a kernel of
    other last bits than several."""
    special = any(kwargs.get(name) is not None for name in ("softcap", "position_bias"))
    return is_exact(query) and query.shape[2] == 1 < query.shape[1] and not special


def _one_token(
    _module: Any,
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    *,
    scaling: float | None = None,
    **_rest: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention of one token per row in two batched products that read every number once and in
    order: 1.2 to 2 times as fast on a CPU as PyTorch's kernel, which is made for many queries.

    query: [b, heads, 1, d_head]; keys, values: [b, key heads, columns, d_head]; result: [b, 1, heads, d_head].
    """
    rows, heads, _, d_head = query.shape
    grouped = query.reshape(rows, keys.shape[1], -1, d_head) * (d_head**-0.5 if scaling is None else scaling)
    weights = (grouped @ keys.transpose(2, 3) + mask).softmax(-1)  # [b, key heads, group, columns]
    out = values.transpose(2, 3) @ weights.transpose(2, 3)  # [b, key heads, d_head, group]
    return out.transpose(2, 3).reshape(rows, 1, heads, -1), None


class Attention:
    """How a model attends: its own function, and the window of each layer (None: no window).

    Raises UserError for a model with layers that are not attention over all tokens or over a window.
    """

    def __init__(self, model: Any) -> None:
        self.config = model.config.get_text_config(decoder=True)
        kinds = getattr(self.config, "layer_types", None) or ["full_attention"] * self.config.num_hidden_layers
        other = sorted(set(kinds) - set(_KINDS))
        if other or getattr(self.config, "attention_chunk_size", None):
            rule = f"the hf engine generates with models whose layers are {' or '.join(_KINDS)}"
            raise UserError(rule, ", ".join(other) or "attention in chunks", "This model class is not supported")
        self.windows = [self.config.sliding_window if kind == "sliding_attention" else None for kind in kinds]
        self._name = "eager" if self.config._attn_implementation == "eager" else "sdpa"
        self._functions: dict[type, Callable[..., tuple[Tensor, Any]]] = {}

    def function(self, module: Any) -> Callable[..., tuple[Tensor, Any]]:
        """The model's own attention: eager stands in the file of its class."""
        kind = type(module)
        if kind not in self._functions:
            eager = getattr(sys.modules[kind.__module__], "eager_attention_forward", None)
            self._functions[kind] = ALL_ATTENTION_FUNCTIONS.get_interface(self._name, eager)
        return self._functions[kind]


class CohortCache(Cache):  # type: ignore[misc]
    """What the model is handed as its cache for one forward pass: the cohorts, one after another along the rows.

    Rows beyond the cohorts' are filler: they attend to nothing and get zeros.
    """

    def __init__(self, cohorts: Sequence[Cohort], attention: Attention) -> None:
        super().__init__(layers=[])
        self.cohorts = cohorts
        self.attention = attention
        self._layer = -1
        self._handed = self._attended = 0
        self._masks: dict[tuple[int, int | None, torch.device], tuple[Tensor, slice]] = {}

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Remember the layer; its keys and values are stored by the attention function, which comes next."""
        self._layer = layer_idx
        self._handed += 1
        return key_states, value_states

    def get_seq_length(self, *_: Any) -> int:
        """0: positions are always given to the model."""
        return 0

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, None]:
        """Attention of every cohort over its own columns; [rows, new, heads, d_head]."""
        self._attended += 1
        window = kwargs["sliding_window"] if "sliding_window" in kwargs else self.attention.windows[self._layer]
        function = self._function(module, query, kwargs)
        outs, at = [], 0
        for k, cohort in enumerate(self.cohorts):
            rows = slice(at, at + len(cohort))
            at = rows.stop
            keys, values, mask = self._seen(k, query, key[rows], value[rows], window)
            outs.append(function(module, query[rows], keys, values, mask, **kwargs)[0])
        if at < len(query):
            outs.append(outs[0].new_zeros(len(query) - at, *outs[0].shape[1:]))
        return outs[0] if len(outs) == 1 else torch.cat(outs), None

    def _function(self, module: Any, query: Tensor, kwargs: dict[str, Any]) -> Callable[..., tuple[Tensor, Any]]:
        function = self.attention.function(module)
        return _one_token if function is sdpa_attention_forward and _is_plain_step(query, kwargs) else function

    def _seen(
        self, k: int, query: Tensor, key: Tensor, value: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values and mask of the columns that the k-th cohort attends over, its new ones stored."""
        cohort = self.cohorts[k]
        keys, values = cohort.extend(self._layer, key, value)
        at = k, window, query.device
        if at not in self._masks:
            self._masks[at] = cohort.mask(query.shape[2], window, query.device, query.dtype)
        mask, columns = self._masks[at]
        if not cohort.filled:  # what is new is all there is, and lies in order
            return key, value, mask
        return keys[:, :, columns], values[:, :, columns], mask

    def check(self) -> None:
        """Raises UserError if some layer's attention did not come this way, and so saw the last token only."""
        if not self._attended == self._handed > 0:
            raise UserError(
                "a model's attention goes through transformers' attention interface",
                f"a model of which {self._attended} of {self._handed} layers do",
                "This model class is not supported",
            )


@contextmanager
def attention_over(cache: CohortCache) -> Iterator[None]:
    """Let the model of the cache's configuration attend through it for one forward pass."""
    AttentionInterface.register(_NAME, _attend)
    config = cache.attention.config
    before = config._attn_implementation
    config._attn_implementation, _running.cache = _NAME, cache
    try:
        yield
    finally:
        config._attn_implementation, _running.cache = before, None


def _attend(module: Any, query: Tensor, key: Tensor, value: Tensor, _mask: Any, **kwargs: Any) -> tuple[Tensor, None]:
    cache: CohortCache = _running.cache
    return cache.attend(module, query, key, value, kwargs)
