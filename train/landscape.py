"""The error landscape of a recurrent network around its weights (Higuchi et al. 2025, eq. 10).

    f(alpha, beta) = L(theta + alpha eta + beta xi)

theta are the input and recurrent weights, everything else stays. eta and xi are standard normal and
filter-normalised (Li et al. 2018): every row d of a matrix is scaled to the norm of the row w that it moves,
d |w| / |d|. Many points run at once, as one more axis of every array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.adaptive import Adaptation, adaptive_step
from snn_compile.train.recurrent import RecurrentNetwork
from snn_compile.train.resonators import damping, izhikevich_step, resonator_step

Numbers = npt.NDArray[np.float64]

POINTS = 51
AT_ONCE = 1 << 20
"""States of neurons that are run at once."""


@dataclass(frozen=True, eq=False)
class Landscape:
    """Losses (len(alphas), len(betas)); the middle, alpha = beta = 0, is the network itself."""

    alphas: Numbers
    betas: Numbers
    losses: Numbers

    def negative_curvature(self) -> float:
        """Return the share of inner points where the smallest eigenvalue of the Hessian is negative."""
        f = self.losses
        h, k = self.alphas[1] - self.alphas[0], self.betas[1] - self.betas[0]
        aa = (f[2:, 1:-1] - 2 * f[1:-1, 1:-1] + f[:-2, 1:-1]) / h**2
        bb = (f[1:-1, 2:] - 2 * f[1:-1, 1:-1] + f[1:-1, :-2]) / k**2
        ab = (f[2:, 2:] - f[2:, :-2] - f[:-2, 2:] + f[:-2, :-2]) / (4 * h * k)
        smallest = (aa + bb) / 2 - np.sqrt(((aa - bb) / 2) ** 2 + ab**2)
        return float((smallest < 0).mean())

    def minima(self) -> int:
        """Return how many inner points are below all eight neighbours."""
        f, rows, columns = self.losses, *self.losses.shape
        around = [
            f[1 + i : rows - 1 + i, 1 + j : columns - 1 + j]
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if (i, j) != (0, 0)
        ]
        return int((f[1:-1, 1:-1] < np.min(around, axis=0)).sum())

    def roughness(self) -> float:
        """Return the mean absolute second difference along both axes by the range of the losses."""
        f = self.losses
        both = np.concatenate([np.abs(np.diff(f, 2, axis=axis)).ravel() for axis in (0, 1)])
        span = float(f.max() - f.min())
        return float(both.mean()) / span if span else 0.0


def error_landscape(
    network: RecurrentNetwork,
    inputs: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    points: int = POINTS,
    span: float = 1.0,
    seed: int = 0,
) -> Landscape:
    """Return the landscape on `points` x `points` places of [-span, span] squared.

    `inputs` (batch, steps, *shape) and `labels` (batch,) or (batch, steps) are run at every point; the loss
    is the cross-entropy of the read-out, a mean over samples and steps. Raises SnnCompileError for an LSTM
    and for fewer than 3 points.
    """
    if points < 3:
        raise SnnCompileError(f"a landscape of {points} points an axis has no inside; use 3 or more")
    if network.config.neuron == "lstm":
        raise SnnCompileError("error_landscape: an lstm has no input and recurrent weights of this kind")
    x = torch.tensor(np.asarray(inputs), dtype=torch.float32).flatten(2).transpose(0, 1)
    wanted = torch.tensor(np.asarray(labels))
    wanted = (wanted[:, None].expand(-1, len(x)) if wanted.ndim == 1 else wanted).t()
    generator = torch.Generator().manual_seed(seed)
    weights = [network.weight_in.detach(), network.weight_rec.detach()]
    eta, xi = ([normalised(w, generator) for w in weights] for _ in range(2))
    places = np.linspace(-span, span, points)
    grid = torch.tensor([(a, b) for a in places for b in places], dtype=torch.float32)
    together = max(1, AT_ONCE // (x.shape[1] * network.config.hidden))
    losses = []
    with torch.no_grad():
        for first in range(0, len(grid), together):
            some = grid[first : first + together]
            a, b = some[:, 0, None, None], some[:, 1, None, None]
            moved = [w + a * d + b * e for w, d, e in zip(weights, eta, xi, strict=True)]
            losses.append(_losses(network, moved, x, wanted))
    return Landscape(places, places.copy(), torch.cat(losses).double().reshape(points, points).numpy())


def normalised(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return a standard normal direction, every row scaled to the norm of the weight's row."""
    direction = torch.randn(weight.shape, generator=generator)
    lengths = [rows.square().sum(dim=1, keepdim=True).sqrt() for rows in (weight, direction)]
    scaled: Tensor = direction * (lengths[0] / lengths[1])
    return scaled


def _losses(network: RecurrentNetwork, weights: Sequence[Tensor], x: Tensor, wanted: Tensor) -> Tensor:
    """Return the losses of networks that differ in input and recurrent weights, (networks, size, from)."""
    config, (inward, back) = network.config, weights
    count, batch = len(inward), x.shape[1]
    z = x.new_zeros(count, batch, config.hidden)
    y, total = x.new_zeros(count, batch, config.classes), x.new_zeros(count)
    states: tuple[Tensor, ...] = (z, z, z)
    decay = torch.exp(-1 / network.readout.tau.abs())
    for now, label in zip(x, wanted, strict=True):
        arrives = now @ inward.transpose(1, 2) + torch.bmm(z, back.transpose(1, 2))
        z, states = _step(network, arrives, states)
        y = decay * y + (1 - decay) * nn.functional.linear(z, network.readout.weight)
        every = nn.functional.cross_entropy(y.flatten(0, 1), label.repeat(count), reduction="none")
        total += every.view(count, batch).mean(1)
    return total / len(x)


def _step(
    network: RecurrentNetwork, x: Tensor, states: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    config = network.config
    if config.neuron == "alif":
        shares = [torch.exp(-1 / tau.abs()) for tau in (network.tau_membrane, network.tau_adaptation)]
        kind = Adaptation(config.adaptive_reset, surrogate=config.surrogate)
        return adaptive_step(x, (states[0], states[1], states[2]), shares[0], shares[1], kind)
    resonance = config.resonance()
    omega, b = damping(network.omega, network.offset, resonance)
    if config.neuron == "rf_iz":
        return izhikevich_step(x, (states[0], states[1]), omega, b, resonance)
    return resonator_step(x, (states[0], states[1], states[2]), omega, b, resonance)
