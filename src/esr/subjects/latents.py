"""Reading and changing the latents of one SAELens SAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esr.errors import UserError
from esr.subjects.linear import linear

ARCHITECTURES = ("standard", "jumprelu", "topk", "gated")
"""At inference. SAELens turns the BatchTopK kinds into JumpReLU with the threshold learned in training."""

_RUN_TIME_NORMS = ("constant_norm_rescale", "layer_norm")
_RUN_TIME_STATE = ("x_norm_coeff", "ln_mu", "ln_std")

MOST_ACTIVATIONS = 2**24
"""Most activations (tokens x latents) of a whole TopK dictionary held at once: 64 MiB in float32."""

Pool = Literal["max", "mean"]
"""How the activations of a latent over the tokens of a text become one number."""


@dataclass(frozen=True)
class Activity:
    """What every latent does over some token positions. Two of them add up; a latent is *active* above 0."""

    tokens: int
    """Positions read, at least 1."""
    maximum: NDArray[np.float32]
    """Largest activation, shape [latents], >= 0."""
    total: NDArray[np.float64]
    """Sum of activations, [latents], >= 0."""
    active: NDArray[np.int64]
    """Positions at which it is active, [latents], 0..tokens."""

    def pooled(self, pool: Pool) -> NDArray[np.float32]:
        """The largest or the mean activation over the positions, [latents]."""
        return self.maximum if pool == "max" else (self.total / self.tokens).astype(np.float32)

    @property
    def density(self) -> NDArray[np.float64]:
        """Share of positions at which it is active, [latents], in [0, 1]."""
        return np.asarray(self.active / self.tokens)

    @property
    def mean_active(self) -> NDArray[np.float64]:
        """Mean activation over the positions at which it is active, [latents]; 0 for a latent that never is."""
        return np.asarray(self.total / np.maximum(self.active, 1))

    def __add__(self, other: Activity) -> Activity:
        return Activity(
            self.tokens + other.tokens,
            np.maximum(self.maximum, other.maximum),
            self.total + other.total,
            self.active + other.active,
        )


def check_latent(latent: int, d_sae: int) -> int:
    """The latent, if the SAE has it. Raises UserError otherwise."""
    if not 0 <= latent < d_sae:
        raise UserError(f"a latent of this SAE lies in 0..{d_sae - 1}", latent)
    return latent


class LatentReader:
    """An SAE that answers for single latents without encoding its whole dictionary where the architecture
    allows.

    Raises UserError when made from an SAE that is none of ``ARCHITECTURES``, does not take the residual
    stream as it is, or awaits a normalisation that SAELens applies only once folded into the weights.
    """

    sae: Any
    """The SAELens SAE."""
    d_in: int
    """Width of the residual stream."""
    d_sae: int
    """How many latents."""
    architecture: str
    """One of ``ARCHITECTURES``."""

    def __init__(self, sae: Any) -> None:
        self.sae = sae
        self._norms: Tensor | None = None
        self.d_in, self.d_sae = int(sae.cfg.d_in), int(sae.cfg.d_sae)
        self.architecture = sae.cfg.architecture()
        if self.architecture not in ARCHITECTURES:
            raise UserError(
                f"an SAE's architecture is one of {', '.join(ARCHITECTURES)} (or BatchTopK)",
                self.architecture,
            )
        if sae.cfg.reshape_activations != "none":
            raise UserError(
                "an SAE reads the residual stream, not attention heads",
                f"reshape_activations={sae.cfg.reshape_activations}",
            )
        norm = sae.cfg.normalize_activations
        if norm not in ("none", *_RUN_TIME_NORMS):
            raise UserError(
                "an SAE's input scaling is folded into its weights",
                f"normalize_activations={norm}",
                "Fold it with SAELens (fold_activation_norm_scaling_factor) and save the SAE again",
            )
        for name, parameter in sae.named_parameters():
            if not all(bool(torch.isfinite(x)) for x in torch.aminmax(parameter.detach())):
                raise UserError("an SAE's weights are finite", f"NaN or infinity in {name}")

    @property
    def device(self) -> torch.device:
        """Where the SAE lies. Inputs are moved here, results go back to the input's device."""
        return torch.device(self.sae.W_dec.device)

    def to(self, device: torch.device) -> None:
        """Move the SAE."""
        self.sae.to(device=device)
        self._norms = None

    def _decoder_norms(self) -> Tensor:
        """[d_sae], computed once: at every token of a clamped request it would take longer than the encoder."""
        if self._norms is None:
            self._norms = self.sae.W_dec.norm(dim=-1)
        return self._norms

    @property
    def hook_name(self) -> str | None:
        """The place in the model the SAE was trained on, as SAELens recorded it."""
        name = self.sae.cfg.metadata.hook_name
        return None if name is None else str(name)

    @torch.no_grad()
    def encode(self, h: Tensor) -> Tensor:
        """All activations, shape [..., d_sae], of residual vectors h, shape [..., d_in]; the SAE's dtype."""
        out: Tensor = self.sae.encode(h.to(self.device))
        self._forget()
        return out.to(h.device)

    @torch.no_grad()
    def activations(self, h: Tensor, latents: Tensor) -> Tensor:
        """``encode(h)[..., latents]``, shape [..., k], at the SAE's own definition and dtype.

        ``latents`` is a LongTensor [k] with values in 0..d_sae-1 (not checked here: this runs at every
        token). For standard, JumpReLU and gated SAEs only the k columns of the encoder are used; TopK
        compares all latents.
        """
        if self.architecture == "topk":
            return self.encode(h)[..., latents.to(h.device)]
        return self.columns(self.prepared(h), latents.to(self.device)).to(h.device)

    @torch.no_grad()
    def prepared(self, h: Tensor) -> Tensor:
        """What the encoder multiplies: h [..., d_in] after SAELens' own normalisation and bias, on the SAE's device."""
        x: Tensor = self.sae.process_sae_in(h.to(self.device))
        self._forget()
        return x

    @torch.no_grad()
    def columns(self, x: Tensor, latents: Tensor | slice) -> Tensor:
        """The activations of some latents, [..., k], of ``prepared`` vectors; not for TopK."""
        sae = self.sae
        pre = self.pre_activations(x, latents)
        if self.architecture == "gated":
            magnitude = x @ (sae.W_enc[:, latents] * sae.r_mag[latents].exp()) + sae.b_mag[latents]
            gated: Tensor = (pre > 0).to(sae.dtype) * sae.activation_fn(magnitude)
            return gated
        out: Tensor = sae.activation_fn(pre)
        return out * (pre > sae.threshold[latents]).to(out.dtype) if self.architecture == "jumprelu" else out

    @torch.no_grad()
    def pre_activations(self, x: Tensor, latents: Tensor | slice) -> Tensor:
        """What the activation function (for gated SAEs: the gate) is applied to, [..., k], of ``prepared`` vectors."""
        sae = self.sae
        bias = sae.b_gate if self.architecture == "gated" else sae.b_enc
        pre: Tensor = linear(x, sae.W_enc[:, latents].T) + bias[latents]
        if self.architecture == "topk" and sae.cfg.rescale_acts_by_decoder_norm:
            pre = pre * self._decoder_norms()[latents]
        return pre

    def bounded_activations(self, h: Tensor, latents: Tensor) -> Tensor:
        """``activations`` of residual vectors h [tokens, d_in], a chunk of tokens at a time where the whole dictionary
        has to be encoded for it."""
        if self.architecture != "topk":
            return self.activations(h, latents)
        chunks = torch.split(h, max(1, MOST_ACTIVATIONS // self.d_sae))
        return torch.cat([self.activations(chunk, latents) for chunk in chunks])

    @torch.no_grad()
    def decode_change(self, h: Tensor, change: Tensor, latents: Tensor) -> Tensor:
        """``decode(f + change) - decode(f)`` for any f: what changing the latents does to the residual
        stream.

        Shapes: h [..., d_in], change [..., k], latents [k]; result [..., d_in] in h's dtype. Decoding is
        linear in f given h, whose norm the run-time normalisations take off before encoding and put back
        after decoding. Summed in at least float32, since the difference is the result.
        """
        sae = self.sae
        latents = latents.to(self.device)
        rows = sae.W_dec[latents]
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
            rows = rows / rows.norm(dim=-1, keepdim=True)
        return self.renormalised(h, change.to(self.device, rows.dtype) @ rows)

    @torch.no_grad()
    def renormalised(self, h: Tensor, delta: Tensor) -> Tensor:
        """A change of the decoded residual vector, [..., d_in], on the scale of h, in h's dtype and on its device: the
        run-time normalisations take the norm of h off before encoding and put it back after decoding."""
        sae = self.sae
        if sae.cfg.normalize_activations in _RUN_TIME_NORMS:
            # SAELens' norm-out is affine in its input and drops what norm-in left: set it anew each time.
            x = h.to(self.device)
            sae.process_sae_in(x)
            moved = sae.run_time_activation_norm_fn_out(delta)
            sae.process_sae_in(x)
            delta = moved - sae.run_time_activation_norm_fn_out(torch.zeros_like(delta))
        return delta.to(h.device, h.dtype)

    def direction(self, latent: int) -> NDArray[np.float32]:
        """The latent's decoder row as stored, float32, shape [d_in]. Raises UserError for an unknown
        latent."""
        row = self.sae.W_dec[check_latent(latent, self.d_sae)]
        vector: NDArray[np.float32] = row.detach().float().cpu().numpy().copy()
        return vector

    def _forget(self) -> None:
        """Drop what norm-in keeps for a norm-out that does not come."""
        if self.sae.cfg.normalize_activations in _RUN_TIME_NORMS:
            for name in _RUN_TIME_STATE:
                if hasattr(self.sae, name):
                    delattr(self.sae, name)
