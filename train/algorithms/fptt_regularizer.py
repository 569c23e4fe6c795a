"""What FPTT adds to a loss: weights are held near a running mean, and the last gradient is subtracted.

With w_ the running mean and lam the stored gradient of each parameter (Yin, Corradi and Bohte 2023; Kag and
Saligrama 2021), the penalty and what follows an optimizer's step are

    public   alpha/2 |w - w_|^2 - <w, lam>                     lam <- lam - alpha (w - w_)
    paper    alpha/2 |w - w_ - lam / (2 alpha)|^2              lam <- lam/2 - alpha (w - w_)
    both     w_ <- (1 - beta) w_ + beta w - (beta / alpha) lam

`public` is the form of the authors' code, `paper` eq. 1 as printed, whose cross term is half as large. In
both lam is the loss's gradient at the new w if the step reached the minimum of loss + penalty, for there
grad loss + grad penalty = 0: so the gradient needs no second pass. With beta = 1/2 the mean is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.configs.fptt import ALPHA, LARGEST_ALPHA, LEAST_ALPHA

FORMS = ("public", "paper")


class DynamicRegularizer:
    """The running means and stored gradients of parameters; `alpha` 0 leaves the loss alone.

    Raises SnnCompileError for an unknown form, and for alpha or beta out of range.
    """

    def __init__(
        self, parameters: Iterable[Tensor], alpha: float = 0.5, beta: float = 0.5, form: str = "public"
    ) -> None:
        if form not in FORMS:
            raise SnnCompileError(f"form is {form!r}; use one of {', '.join(FORMS)}")
        if not ((alpha == 0 or LEAST_ALPHA <= alpha <= LARGEST_ALPHA) and 0 < beta <= 1):
            raise SnnCompileError(
                f"alpha {alpha}, beta {beta}: the first must be {ALPHA}, the second in (0, 1]"
            )
        self.alpha, self.beta, self.form = alpha, beta, form
        self.parameters = [p for p in parameters if p.requires_grad]
        self.means = [p.detach().clone() for p in self.parameters]
        self.gradients = [torch.zeros_like(p) for p in self.means]

    def penalty(self) -> Tensor:
        """Return the penalty at the present parameters; for the record, training adds its gradient."""
        share = 1.0 if self.form == "public" else 0.5
        total = torch.zeros((), dtype=torch.float64)
        for w, mean, lam in zip(self.parameters, self.means, self.gradients, strict=True):
            way = w.detach() - mean
            total += (self.alpha / 2 * way.square() - share * way * lam).sum(dtype=torch.float64)
            if self.form == "public":
                total -= (mean * lam).sum(dtype=torch.float64)
            elif self.alpha:
                total += (lam.square() / (8 * self.alpha)).sum(dtype=torch.float64)
        return total

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add the penalty's gradient to those of the parameters."""
        share = 1.0 if self.form == "public" else 0.5
        if not self.alpha:
            return
        for w, mean, lam in zip(self.parameters, self.means, self.gradients, strict=True):
            own = self.alpha * (w - mean) - share * lam
            w.grad = own if w.grad is None else w.grad.add_(own)

    @torch.no_grad()
    def after_step(self) -> None:
        """Update stored gradients and means; to be called after each step of the optimizer."""
        if not self.alpha:
            return
        share = 1.0 if self.form == "public" else 0.5
        for w, mean, lam in zip(self.parameters, self.means, self.gradients, strict=True):
            lam.mul_(share).sub_(self.alpha * (w - mean))
            mean.mul_(1 - self.beta).add_(w, alpha=self.beta).sub_(lam, alpha=self.beta / self.alpha)

    @torch.no_grad()
    def restart(self) -> None:
        """Begin an epoch: stored gradients at 0, means at the present parameters."""
        for w, mean, lam in zip(self.parameters, self.means, self.gradients, strict=True):
            mean.copy_(w)
            lam.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Return means and stored gradients, copied."""
        return {"means": [m.clone() for m in self.means], "gradients": [g.clone() for g in self.gradients]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of a regularizer of the same parameters; raises SnnCompileError for another's."""
        for own, given in ((self.means, state["means"]), (self.gradients, state["gradients"])):
            if [t.shape for t in own] != [t.shape for t in given]:
                raise SnnCompileError("the state of FPTT is of parameters of other shapes")
            for tensor, value in zip(own, given, strict=True):
                tensor.copy_(value)
