"""The error landscape of a recurrent network around its weights (Higuchi et al. 2025, eq. 10).

    f(alpha, beta) = L(theta + alpha eta + beta xi)

theta are the input and recurrent weights, everything else stays. eta and xi are standard normal and
filter-normalised (Li et al. 2018): every row d of a matrix is scaled to the norm of the row w that it moves,
d |w| / |d|. All samples of a point run at once, through all steps, by the compiled passes of `fused`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.algorithms.training import single_thread
from snn_compile.train.networks.recurrent import RecurrentNetwork

Numbers = npt.NDArray[np.float64]

POINTS = 51
MOVED = ("weight_in", "weight_rec")


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
    x = torch.tensor(np.asarray(inputs), dtype=torch.float32)
    wanted = torch.tensor(np.asarray(labels))
    wanted = (wanted[:, None].expand(-1, x.shape[1]) if wanted.ndim == 1 else wanted).flatten()
    generator = torch.Generator().manual_seed(seed)
    weights = [network.get_parameter(name).detach() for name in MOVED]
    eta, xi = ([normalised(w, generator) for w in weights] for _ in range(2))
    places = np.linspace(-span, span, points)
    losses = np.empty((points, points))
    with torch.no_grad(), single_thread():
        for i, alpha in enumerate(places):
            for j, beta in enumerate(places):
                moved = [w + alpha * d + beta * e for w, d, e in zip(weights, eta, xi, strict=True)]
                outputs = functional_call(network, dict(zip(MOVED, moved, strict=True)), x)
                losses[i, j] = float(nn.functional.cross_entropy(outputs.flatten(0, 1), wanted))
    return Landscape(places, places.copy(), losses)


def normalised(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Return a standard normal direction, every row scaled to the norm of the weight's row."""
    direction = torch.randn(weight.shape, generator=generator)
    lengths = [rows.square().sum(dim=1, keepdim=True).sqrt() for rows in (weight, direction)]
    scaled: Tensor = direction * (lengths[0] / lengths[1])
    return scaled
