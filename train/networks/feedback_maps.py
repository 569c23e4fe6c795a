"""The linear maps of feedback networks: forward ones with batch normalisation, and the restricted feedback.

The feedback is W = s V / |V| with a trainable scale s, so that |W| = |s| whatever V is; |V| is the norm of
the map itself, for a convolution that of all its positions together, by one step of power iteration at each
use in training (Miyato et al. 2018 take a kernel's matrix instead, whose norm does not bound the
convolution's).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, svds
from torch import Tensor, nn
from torch.nn import functional

from snn_compile.targets.errors import SnnCompileError

Shape = tuple[int, ...]

FIRST_ITERATIONS = 10
"""Steps of power iteration when a network is made."""


def _rows(weight: Tensor, outputs: int = 0) -> Tensor:
    """Return U(-1, 1) numbers of a weight's shape with unit norm for each output, of axis `outputs`."""
    made = torch.empty_like(weight).uniform_(-1, 1)
    others = [axis for axis in range(made.ndim) if axis != outputs]
    made = made / made.square().sum(dim=others, keepdim=True).sqrt()
    return made.contiguous(memory_format=torch.channels_last) if made.ndim == 4 else made


class Forward(nn.Module):
    """A dense map or a strided convolution from one layer to the next, and its normalisation."""

    def __init__(self, source: Shape, size: int, kernel: int, stride: int, batch_norm: bool) -> None:
        super().__init__()
        self.source, self.kernel, self.stride, self.padding = tuple(source), kernel, stride, kernel // 2
        if kernel and len(source) != 3:
            raise SnnCompileError(
                f"a convolution gets an input of shape {source}; it must be (channels, y, x)"
            )
        self.target: Shape = (size,)
        if kernel:
            places = [(n + 2 * self.padding - kernel) // stride + 1 for n in source[1:]]
            if min(places) < 1:
                raise SnnCompileError(f"nothing is left of an input {source} behind a kernel of {kernel}")
            self.target = (size, *places)
            weight = torch.empty(size, source[0], kernel, kernel)
        else:
            weight = torch.empty(size, math.prod(source))
        self.weight = nn.Parameter(_rows(weight))
        self.norm: nn.BatchNorm1d | nn.BatchNorm2d | None = None
        if batch_norm:
            self.norm = nn.BatchNorm2d(size) if kernel else nn.BatchNorm1d(size)
        else:
            self.bias = nn.Parameter(torch.zeros(size))

    def mapped(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return the map of x (batch, *source) by another weight."""
        if self.kernel:
            return functional.conv2d(x, weight, bias, stride=self.stride, padding=self.padding)
        return functional.linear(x.flatten(1), weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return F x, not normalised, without a bias."""
        return self.mapped(x, self.weight)

    def adjoint(self, y: Tensor, weight: Tensor) -> Tensor:
        """Return the transposed map of y (batch, *target)."""
        if not self.kernel:
            return functional.linear(y, weight.T).reshape(len(y), *self.source)
        more = [
            n - ((m - 1) * self.stride - 2 * self.padding + self.kernel)
            for n, m in zip(self.source[1:], self.target[1:], strict=True)
        ]
        return functional.conv_transpose2d(
            y, weight, stride=self.stride, padding=self.padding, output_padding=more
        )

    def normalised(self, y: Tensor, learning: bool) -> Tensor:
        """Return F x + b for y = F x: normalised by the batch, which is learned from, or as it has been."""
        norm = self.norm
        if norm is None:
            return y + self._spread(self.bias)
        return functional.batch_norm(
            y,
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            learning,
            norm.momentum or 0.0,
            norm.eps,
        )

    def normaliser(self) -> tuple[Tensor, Tensor]:
        """Return the factor and offset that normalisation by what has been seen is, to act on F x."""
        norm = self.norm
        if norm is None:
            return torch.ones((), dtype=self.weight.dtype), self._spread(self.bias)
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        return self._spread(factor), self._spread(norm.bias - norm.running_mean * factor)

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return the weight and the bias (size,) of the map with its normalisation."""
        factor, offset = self.normaliser()
        factor = factor.flatten() if factor.ndim else factor.expand(len(self.weight))
        weight = self.weight * factor.reshape(-1, *([1] * (self.weight.ndim - 1)))
        return weight, offset.flatten()

    def _spread(self, values: Tensor) -> Tensor:
        return values.reshape(-1, 1, 1) if self.kernel else values

    def norm_of_map(self) -> float:
        """Return the spectral norm of the map with its normalisation."""
        weight = self.folded()[0].detach()
        return operator_norm(
            lambda x: self.mapped(x, weight),
            lambda y: self.adjoint(y, weight),
            self.source,
            self.target,
            weight.dtype,
        )


class Feedback(nn.Module):
    """Weights from the last layer to the first: dense, or a convolution, transposed if that is larger."""

    def __init__(self, source: Shape, target: Shape, kernel: int, limit: float) -> None:
        super().__init__()
        self.source, self.target = tuple(source), tuple(target)
        self.kernel = kernel if len(source) == len(target) == 3 else 0
        self.padding = self.kernel // 2
        self.stride, self.more = 1, (0,) * (len(source) - 1)
        if self.kernel:
            self._fit()
            weight = _rows(torch.empty(source[0], target[0], kernel, kernel), outputs=1)
            if self.stride == 1:
                weight = _rows(torch.empty(target[0], source[0], kernel, kernel))
        else:
            weight = _rows(torch.empty(math.prod(target), math.prod(source)))
        self.raw = nn.Parameter(weight)
        right = torch.ones(1, *source)
        self.register_buffer("right", right / right.norm())
        self.register_buffer("left", torch.zeros(1, *target))
        with torch.no_grad():
            for _ in range(FIRST_ITERATIONS):
                self.iterate()
            norm = float(self._norm())
        self.scale = nn.Parameter(torch.tensor(max(-limit, min(limit, norm))))

    def _fit(self) -> None:
        ratios = [round(n / m) for n, m in zip(self.target[1:], self.source[1:], strict=True)]
        self.stride = max(1, ratios[0])
        self.more = tuple(
            n - ((m - 1) * self.stride - 2 * self.padding + self.kernel)
            for n, m in zip(self.target[1:], self.source[1:], strict=True)
        )
        if not all(0 <= more < self.stride for more in self.more):
            raise SnnCompileError(
                f"no feedback convolution of width {self.kernel} leads from {self.source} to {self.target}; "
                "the first layer's sides must be those of the last times a whole number, and the kernel odd"
            )

    def mapped(self, weight: Tensor, a: Tensor) -> Tensor:
        """Return the map of a (batch, *source) by a weight of the feedback's shape."""
        if not self.kernel:
            return functional.linear(a.flatten(1), weight).reshape(len(a), *self.target)
        if self.stride == 1:
            return functional.conv2d(a, weight, padding=self.padding)
        return functional.conv_transpose2d(
            a, weight, stride=self.stride, padding=self.padding, output_padding=self.more
        )

    def adjoint(self, weight: Tensor, y: Tensor) -> Tensor:
        """Return the transposed map of y (batch, *target)."""
        if not self.kernel:
            return functional.linear(y.flatten(1), weight.T).reshape(len(y), *self.source)
        if self.stride == 1:
            return functional.conv_transpose2d(y, weight, padding=self.padding)
        return functional.conv2d(y, weight, stride=self.stride, padding=self.padding)

    @torch.no_grad()
    def iterate(self) -> None:
        """Take one step of power iteration towards the norm of V."""
        left, right = self.get_buffer("left"), self.get_buffer("right")
        made = self.mapped(self.raw, right)
        left.copy_(made / made.norm().clamp(min=1e-30))
        made = self.adjoint(self.raw, left)
        right.copy_(made / made.norm().clamp(min=1e-30))

    def _norm(self) -> Tensor:
        """Return |V| with its gradient: the singular vectors stand still."""
        return (self.get_buffer("left") * self.mapped(self.raw, self.get_buffer("right"))).sum()

    def weight(self) -> Tensor:
        """Return W = s V / |V|."""
        return self.raw * (self.scale / self._norm())

    def forward(self, a: Tensor) -> Tensor:
        """Return W a for rates or spikes (batch, *source)."""
        return self.mapped(self.weight(), a)

    def norm_of_map(self) -> float:
        """Return the spectral norm of W itself, whatever power iteration believes."""
        weight = self.weight().detach()
        return operator_norm(
            lambda x: self.mapped(weight, x),
            lambda y: self.adjoint(weight, y),
            self.source,
            self.target,
            weight.dtype,
        )


@dataclass(frozen=True)
class Restriction:
    """Norms of the weights around the cycle, W first, and the bound on their product: the threshold^N."""

    norms: tuple[float, ...]
    bound: float

    @property
    def product(self) -> float:
        """The product of the norms."""
        return math.prod(self.norms)

    @property
    def holds(self) -> bool:
        """Whether the bound holds, so that the equilibrium is the only one and rates go to it."""
        return self.product < self.bound

    def text(self) -> str:
        """Return the bound in words."""
        norms = " x ".join(f"{norm:.3g}" for norm in self.norms)
        if self.holds:
            return f"norms on the cycle {norms} = {self.product:.3g} < {self.bound:.3g}: one equilibrium"
        return (
            f"norms on the cycle {norms} = {self.product:.3g}, not below {self.bound:.3g}: nothing says that "
            "rates converge, or to one equilibrium"
        )


def restriction(feedback: Feedback, forwards: Sequence[Forward], threshold: float) -> Restriction:
    """Return the norms on the cycle of a feedback and the forward maps behind the first layer."""
    norms = (feedback.norm_of_map(), *(layer.norm_of_map() for layer in forwards))
    return Restriction(norms, threshold ** len(norms))


@torch.no_grad()
def operator_norm(
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    source: Shape,
    target: Shape,
    dtype: torch.dtype,
) -> float:
    """Return the largest singular value of a linear map from (1, *source) to (1, *target), by Lanczos."""
    rows, columns = math.prod(target), math.prod(source)

    def act(function: Callable[[Tensor], Tensor], shape: Shape) -> Callable[[np.ndarray], np.ndarray]:
        def run(x: np.ndarray) -> np.ndarray:
            given = torch.from_numpy(np.ascontiguousarray(x)).to(dtype).reshape(1, *shape)
            return function(given).flatten().double().numpy()

        return run

    if min(rows, columns) == 1:
        found = act(forward, source)(np.ones(1)) if columns == 1 else act(adjoint, target)(np.ones(1))
        return float(np.linalg.norm(found))
    operator = LinearOperator(
        (rows, columns), matvec=act(forward, source), rmatvec=act(adjoint, target), dtype=np.float64
    )
    start = np.ones(min(rows, columns)) / math.sqrt(min(rows, columns))
    (largest,) = svds(operator, k=1, v0=start, return_singular_vectors=False)
    return float(largest)
