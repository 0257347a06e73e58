"""Activations of the latents that are clamped, row by row, and what changing them does to the residual stream.

Every row has a list of latents of its own; short lists are filled up. All sums run over fixed dimensions of that row's
own numbers (the width of the residual stream, the row's list), so that on the CPU in float32 no bit of a row depends on
which latents its neighbours clamp, nor on how many. A matrix product over the latents of the whole batch would be as
fast and would not keep that promise: its kernel, and so the last bits, change with the number of latents.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from esr.steering.rows import MIN_ROWS
from esr.subjects.latents import LatentReader

_MOST_NUMBERS = 2**24
"""Most numbers of the gathered weights (rows x tokens x latents x width) held at once: 64 MiB in float32."""
_FEW = 10  # up to as many latents are compared with the dictionary one by one, which is cheaper than sorting


class ClampedLatents:
    """The clamped latents of a batch, ``latents`` [B, c] (long), for an SAE of any supported architecture.

    The weights of the distinct latents are gathered once, in at least float32.
    """

    def __init__(self, reader: LatentReader, latents: Tensor) -> None:
        sae = reader.sae
        self._reader, self._sae, self._kind = reader, sae, reader.architecture
        distinct, self._place = torch.unique(latents.to(reader.device), return_inverse=True)
        self.latents = latents.to(reader.device)
        self._gathered: dict[str, Tensor] = {}
        self._encoder = _wide(sae.W_enc[:, distinct].T)
        self._decoder = _wide(sae.W_dec[distinct])
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            self._decoder = self._decoder / self._decoder.norm(dim=-1, keepdim=True)

    def of(self, rows: Tensor) -> ClampedLatents:
        """The same for these rows, [N]; a row may come several times."""
        other = object.__new__(ClampedLatents)
        other.__dict__.update(self.__dict__)
        rows = rows.to(self.latents.device)
        other.latents, other._place, other._gathered = self.latents[rows], self._place[rows], {}
        return other

    @torch.no_grad()
    def activations(self, h: Tensor) -> Tensor:
        """The SAE's own activations of each row's latents, [B, T, c] in its dtype; h: [B, T, d_model]."""
        x = self._reader.prepared(h)
        if self._kind == "topk":
            return self._of_top_k(x).to(h.device)
        sae, latents = self._sae, self.latents.unsqueeze(1)
        pre = self._products(x).to(sae.dtype)
        if self._kind == "gated":
            gate = (pre + sae.b_gate[latents] > 0).to(sae.dtype)
            magnitude = self._products(x, sae.r_mag.exp()).to(sae.dtype) + sae.b_mag[latents]
            out = gate * sae.activation_fn(magnitude)
        else:
            pre = pre + sae.b_enc[latents]
            out = sae.activation_fn(pre)
            if self._kind == "jumprelu":
                out = out * (pre > sae.threshold[latents]).to(out.dtype)
        result: Tensor = out.to(h.device)
        return result

    def delta(self, h: Tensor, change: Tensor) -> Tensor:
        """What changing the latents by ``change`` [B, T, c] does to h [B, T, d_model]: same shape and dtype as h.

        Decoding is linear in the activations given h, whose norm the run-time normalisations take off before encoding
        and put back after decoding. Summed in at least float32, since the difference is the result.
        """
        change = change.to(self._reader.device, self._decoder.dtype)
        parts = []
        for rows in self._chunks(change.shape[1]):
            decoder = self._gather("_decoder", rows).unsqueeze(1)  # [b, 1, c, d_model]
            parts.append((change[rows].unsqueeze(-1) * decoder).sum(-2))
        return self._reader.renormalised(h, torch.cat(parts) if len(parts) > 1 else parts[0])

    def _products(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Each row's inputs times its latents' encoder columns, [B, T, c]; ``scale``: a factor per latent."""
        parts, x = [], _wide(x)
        for rows in self._chunks(x.shape[1]):
            encoder = self._gather("_encoder", rows)
            if scale is not None:
                encoder = encoder * _wide(scale[self.latents[rows]]).unsqueeze(-1)
            parts.append((x[rows].unsqueeze(2) * encoder.unsqueeze(1)).sum(-1))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _gather(self, name: str, rows: slice) -> Tensor:
        """Weights of the latents of these rows, [b, c, d_model]; kept if one chunk holds all rows."""
        if rows != slice(0, len(self._place)):
            weights: Tensor = getattr(self, name)[self._place[rows]]
            return weights
        if name not in self._gathered:
            self._gathered[name] = getattr(self, name)[self._place]
        return self._gathered[name]

    def _chunks(self, tokens: int) -> list[slice]:
        rows, latents = self._place.shape
        each = max(1, _MOST_NUMBERS // (tokens * latents * self._decoder.shape[1]))
        return [slice(at, min(rows, at + each)) for at in range(0, rows, each)]

    def _of_top_k(self, x: Tensor) -> Tensor:
        """The latents among the k largest of the whole dictionary, 0 elsewhere. One below 0 is 0 whatever the others
        are, so on the CPU only the other positions are encoded; on a GPU, finding out which costs more than encoding.
        """
        flat, own = x.flatten(0, 1), self.latents
        if x.shape[1] > 1:
            own = own.unsqueeze(1).expand(-1, x.shape[1], -1).flatten(0, 1)
        shape = *x.shape[:2], own.shape[1]
        if not _looks_first(x.device):
            return self._among_top_k(flat, own).view(shape)
        needed = (self._products(x) > self._least()).any(-1).flatten().nonzero().squeeze(1)
        count = len(needed)
        if 2 * max(count, MIN_ROWS) > len(flat):
            return self._among_top_k(flat, own).view(shape)
        out = flat.new_zeros(own.shape)
        if count:
            filled = needed if count >= MIN_ROWS else torch.cat([needed, needed[:1].expand(MIN_ROWS - count)])
            out.index_copy_(0, needed, self._among_top_k(flat[filled], own[filled])[:count])
        return out.view(shape)

    def _least(self) -> Tensor:
        """What each row's products have to be more than for its latents to be above 0, [B, 1, c]."""
        if "least" not in self._gathered:
            self._gathered["least"] = -_wide(self._sae.b_enc[self.latents]).unsqueeze(1)
        return self._gathered["least"]

    def _among_top_k(self, x: Tensor, latents: Tensor) -> Tensor:
        """Activations of each position's own latents, both [N, c]; x: [N, d_model]. A latent counts if fewer than k
        pre-activations are larger: all are needed, sorting them is not."""
        sae: Any = self._sae
        parts = []
        each = max(2 * MIN_ROWS, _MOST_NUMBERS // sae.cfg.d_sae)  # half a chunk has rows enough
        for part, wanted in zip(*(t.tensor_split(-(-len(x) // each)) for t in (x, latents)), strict=True):
            pre = self._reader.pre_activations(part, slice(None))
            own = pre.gather(-1, wanted)
            if own.shape[-1] <= _FEW:
                # written out as float32, which is several times as fast as summing booleans and exact below 2**24
                buffer = torch.empty(pre.shape, dtype=torch.float32, device=pre.device)
                larger = [torch.gt(pre, own[:, j : j + 1], out=buffer).sum(-1) for j in range(own.shape[-1])]
                among = torch.stack(larger, -1) < sae.cfg.k
            else:
                among = own >= torch.topk(pre, sae.cfg.k, sorted=False).values.amin(-1, keepdim=True)
            parts.append(torch.where(among, own.relu(), 0))
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def _looks_first(device: torch.device) -> bool:
    """Whether looking where a latent may be active, which waits for the device, is cheaper than encoding everywhere; a
    recorded decoding step cannot wait."""
    return device.type == "cpu"


def _wide(weights: Tensor) -> Tensor:
    return weights.to(torch.promote_types(weights.dtype, torch.float32)).contiguous()
