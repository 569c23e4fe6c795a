"""Gradients at an equilibrium a = f(a) by implicit differentiation, without what led to it.

With J = df/da and the gradient v of a loss by a, the gradient by a parameter is x df/dparameter where x
solves x = J^T x + v. J is never formed: every solver asks for products J^T x alone, each a walk back through
one evaluation of f, so that what is stored does not depend on how many steps found the equilibrium.

    fixed-point   x <- J^T x + v
    damped        x <- (x + J^T x + v) / 2
    broyden       Broyden's good method per sample with limited memory, from the inverse -1 of J^T - 1
    direct        forms J; for small systems, to compare with

Xiao et al. 2021, "Training feedback spiking neural networks by implicit differentiation on the equilibrium
state", section 4.2; Broyden 1965.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from snn_compile.targets.errors import SnnCompileError

Product = Callable[[Tensor], Tensor]
"""J^T times a tensor of the shape of a, (batch, *shape)."""

DIRECT_MAX = 4096
"""Unknowns of the largest system that `direct` forms."""

MEMORY = 27
"""Pairs of vectors that Broyden's method keeps, as in the paper's supplement; with more it starts anew."""

LOST = 1e4
"""Broyden's method starts anew from its best iterate where a residual is so much larger than the best."""


@dataclass(frozen=True)
class Settings:
    """How the system is solved: until the residual is `tolerance` of v, or `iterations` are done."""

    solver: str = "broyden"
    tolerance: float = 1e-3
    iterations: int = 30

    def __post_init__(self) -> None:
        """Raise SnnCompileError for an unknown solver or values out of range."""
        if self.solver not in SOLVERS:
            raise SnnCompileError(f"no solver {self.solver!r}; use one of {', '.join(SOLVERS)}")
        if not self.tolerance > 0 or self.iterations < 1:
            raise SnnCompileError(
                f"solver {self.solver}: tolerance {self.tolerance} and {self.iterations} iterations; give a "
                "positive tolerance and at least 1 iteration"
            )


@dataclass(frozen=True, eq=False)
class Solution:
    """The best x found, in how many products of J^T, and its residual relative to v."""

    x: Tensor
    iterations: int
    residual: float

    def converged(self, settings: Settings) -> bool:
        """Whether the residual is as small as was asked for."""
        return self.residual <= settings.tolerance


def solve(product: Product, v: Tensor, settings: Settings | None = None) -> Solution:
    """Return the solution x (batch, *shape) of x = J^T x + v, by one of the module's solvers."""
    settings = settings or Settings()
    size = float(v.norm())
    if size == 0:
        return Solution(torch.zeros_like(v), 0, 0.0)
    return SOLVERS[settings.solver](product, v, size, settings)


def _iterated(damping: float) -> Callable[[Product, Tensor, float, Settings], Solution]:
    def run(product: Product, v: Tensor, size: float, settings: Settings) -> Solution:
        x, best = v, Solution(v, 0, float("inf"))
        for done in range(1, settings.iterations + 1):
            step = product(x) + v - x
            residual = float(step.norm()) / size
            if residual < best.residual:
                best = Solution(x, done, residual)
            if residual <= settings.tolerance:
                break
            x = x + step if damping == 1 else x + damping * step
        return best

    return run


def _broyden(product: Product, v: Tensor, size: float, settings: Settings) -> Solution:
    flat = v.reshape(len(v), -1)

    def residual_of(x: Tensor) -> Tensor:
        return (product(x.reshape(v.shape)) + v).reshape(flat.shape) - x

    # The inverse is -1 plus the sum of u w^T over the pairs kept, for each sample.
    us: list[Tensor] = []
    ws: list[Tensor] = []
    x = flat
    g = residual_of(x)
    best = Solution(v, 1, float(g.norm()) / size)
    for done in range(2, settings.iterations + 1):
        if best.residual <= settings.tolerance:
            break
        step = g - _sum(us, ws, g)
        x = x + step
        before, g = g, residual_of(x)
        residual = float(g.norm()) / size
        if residual < best.residual:
            best = Solution(x.reshape(v.shape), done, residual)
        if len(us) == MEMORY or not residual < LOST * best.residual:
            us, ws = [], []
            x = best.x.reshape(flat.shape)
            g = residual_of(x)
            continue
        change = g - before
        moved = _sum(us, ws, change) - change
        w = _sum(ws, us, step) - step
        pivot = (w * change).sum(dim=1, keepdim=True)
        u = torch.where(pivot != 0, (step - moved) / pivot, torch.zeros_like(step))
        us.append(u)
        ws.append(w)
    return best


def _sum(us: list[Tensor], ws: list[Tensor], y: Tensor) -> Tensor:
    """Return the sum of u (w . y) over the pairs, sample by sample."""
    total = torch.zeros_like(y)
    for u, w in zip(us, ws, strict=True):
        total.addcmul_(u, (w * y).sum(dim=1, keepdim=True))
    return total


def _direct(product: Product, v: Tensor, size: float, settings: Settings) -> Solution:
    n = v.numel()
    if n > DIRECT_MAX:
        raise SnnCompileError(f"solver direct: {n} unknowns; at most {DIRECT_MAX}, use another solver")
    rows = torch.eye(n, dtype=v.dtype).unbind(0)
    transposed = torch.stack([product(row.reshape(v.shape)).flatten() for row in rows], dim=1)
    x = torch.linalg.solve(torch.eye(n, dtype=v.dtype) - transposed, v.flatten()).reshape(v.shape)
    return Solution(x, n, float((product(x) + v - x).norm()) / size)


SOLVERS: dict[str, Callable[[Product, Tensor, float, Settings], Solution]] = {
    "fixed-point": _iterated(1.0),
    "damped": _iterated(0.5),
    "broyden": _broyden,
    "direct": _direct,
}


def at_equilibrium(
    rates: Tensor,
    start: Tensor,
    outcome: Tensor,
    image: Tensor,
    settings: Settings | None = None,
    observe: Callable[[Solution], None] | None = None,
) -> Tensor:
    """Return `rates` with the gradient that they have as h(a) at the equilibrium a = f(a).

    `start` (batch, *shape) is a, a leaf that requires a gradient; `outcome` = h(a) has the shape of `rates`,
    and `image` = f(a) that of a. Both are evaluated once, and the parameters of both get their gradient.
    `observe` receives each solution in the backward pass.
    """
    settings = settings or Settings()

    def pull(gradient: Tensor) -> Tensor:
        def product(x: Tensor) -> Tensor:
            (found,) = torch.autograd.grad(image, start, x, retain_graph=True)
            return found

        v = gradient
        if outcome is not start:
            (v,) = torch.autograd.grad(outcome, start, gradient, retain_graph=True)
        solution = solve(product, v, settings)
        if observe is not None:
            observe(solution)
        return solution.x

    made: Tensor = _Implicit.apply(outcome, image, rates, pull)  # type: ignore[no-untyped-call]
    return made


class _Implicit(torch.autograd.Function):
    """The value of the rates; back go the gradient to h's parameters and its solution to f's."""

    @staticmethod
    def forward(ctx: Any, outcome: Tensor, image: Tensor, rates: Tensor, pull: Product) -> Tensor:
        ctx.pull = pull
        return rates.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = gradients
        return gradient, ctx.pull(gradient), None, None
