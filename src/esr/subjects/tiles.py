"""What every latent of a dictionary does over some texts, without ever holding the dictionary's activations.

Tokens are streamed and latents are taken a tile at a time, so that a tile of activations stays in the processor's cache
until its sums are taken. TopK compares all latents of a token: there a tile updates each token's best k.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from esr.errors import UserError
from esr.subjects.latents import Activity, LatentReader

TOKENS = 2048  # tokens of a tile at most
LATENTS = 1024  # latents of a tile at most
MIN_TOKENS = 16  # below this, BLAS on the CPU switches kernels with the number of rows

Piece = tuple[int, int, int]
"""Of which text, and from which of its tokens to which."""


@torch.no_grad()
def activities(reader: LatentReader, texts: Sequence[Tensor]) -> list[Activity]:
    """Every latent's activity over each text, given as residual vectors [tokens, d_in].

    Beside the results it takes some tens of MiB, whatever the sizes of texts and dictionary. A text's result does not
    depend on the other texts (CPU, float32). Raises UserError for a text without a token.
    """
    if any(len(h) == 0 for h in texts):
        raise UserError("latents are read at one token at least", "none")
    sums = [_Sums(len(h), reader.d_sae, h.device) for h in texts]
    for pieces in _chunks([len(h) for h in texts]):
        h = torch.cat([texts[text][start:end] for text, start, end in pieces])
        if len(h) < MIN_TOKENS and h.device.type == "cpu":
            h = torch.cat([h, h.new_zeros(MIN_TOKENS - len(h), h.shape[1])])
        x = reader.prepared(h)
        if reader.architecture == "topk":
            values, latents = _best(reader, x)
            row = 0
            for text, start, end in pieces:
                sums[text].add_sparse(values[row : row + end - start], latents[row : row + end - start])
                row += end - start
            continue
        for first in range(0, reader.d_sae, LATENTS):
            tile = slice(first, min(first + LATENTS, reader.d_sae))
            activations, row = reader.columns(x, tile).float(), 0
            for text, start, end in pieces:
                sums[text].add(activations[row : row + end - start], tile)
                row += end - start
    return [s.activity() for s in sums]


class _Sums:
    """The running statistics of one text."""

    def __init__(self, tokens: int, latents: int, device: torch.device) -> None:
        self.tokens = tokens
        self.maximum = torch.zeros(latents, device=device)
        self.total = torch.zeros(latents, dtype=torch.float64, device=device)
        self.active = torch.zeros(latents, dtype=torch.long, device=device)

    def add(self, activations: Tensor, tile: slice) -> None:
        """activations: [tokens, latents of the tile], >= 0."""
        activations = activations.to(self.maximum.device)
        self.maximum[tile] = torch.maximum(self.maximum[tile], activations.amax(0))
        self.total[tile] += activations.sum(0)
        self.active[tile] += activations.sign().sum(0).long()  # exact below 2^24, and faster than counting

    def add_sparse(self, values: Tensor, latents: Tensor) -> None:
        """values, >= 0, of the latents, both [tokens, k]; all others are 0."""
        flat, where = values.flatten().to(self.maximum.device), latents.flatten().to(self.maximum.device)
        self.maximum.scatter_reduce_(0, where, flat, "amax")
        self.total.index_add_(0, where, flat.double())
        self.active.index_add_(0, where, (flat > 0).long())

    def activity(self) -> Activity:
        return Activity(self.tokens, self.maximum.cpu().numpy(), self.total.cpu().numpy(), self.active.cpu().numpy())


def _best(reader: LatentReader, x: Tensor) -> tuple[Tensor, Tensor]:
    """The activations of a TopK SAE's active latents, and which they are, both [tokens, k]."""
    k = min(int(reader.sae.cfg.k), reader.d_sae)
    values = x.new_empty(len(x), 0)
    latents = torch.empty(len(x), 0, dtype=torch.long, device=x.device)
    for first in range(0, reader.d_sae, LATENTS):
        tile = slice(first, min(first + LATENTS, reader.d_sae))
        new, places = torch.topk(reader.pre_activations(x, tile), min(k, tile.stop - first), sorted=False)
        values, latents = torch.cat([values, new], 1), torch.cat([latents, places + first], 1)
        if values.shape[1] > k:
            values, kept = torch.topk(values, k, sorted=False)
            latents = latents.gather(1, kept)
    return values.relu().float(), latents


def _chunks(lengths: Sequence[int]) -> Iterator[list[Piece]]:
    """All tokens of all texts in order, at most ``TOKENS`` at a time; a text is cut only at multiples of that, its own,
    so that its sums are rounded alike whatever it is read with."""
    chunk: list[Piece] = []
    room = TOKENS
    for text, length in enumerate(lengths):
        for start in range(0, length, TOKENS):
            end = min(start + TOKENS, length)
            if end - start > room:
                yield chunk
                chunk, room = [], TOKENS
            chunk.append((text, start, end))
            room -= end - start
    if chunk:
        yield chunk
