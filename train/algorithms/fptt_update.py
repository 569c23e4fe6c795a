"""Forward propagation through time: an update of the weights after every block of steps of a sequence.

For each block, from states that no gradient flows through:

    1. the gradient of the block's loss (`fptt_losses.py`) and of the penalty (`fptt_regularizer.py`)
    2. one step of the optimizer, the gradient's norm clipped
    3. the running means and stored gradients follow

Blocks of one step are FPTT as published, longer ones FPTT-K. One block with alpha = 0 is backpropagation
through time, more of them with alpha = 0 truncated backpropagation. Memory for gradients is that of a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snn_compile.targets.errors import SnnCompileError, TrainingDiverged
from snn_compile.train.algorithms.fptt_losses import Objective
from snn_compile.train.algorithms.fptt_regularizer import DynamicRegularizer
from snn_compile.train.networks.blocks import cuts, detached, run_block


@dataclass(frozen=True)
class Update:
    """What one batch of sequences gave: `loss` of the last block without penalty, of all blocks its mean."""

    loss: float
    mean_loss: float


class ForwardPropagation:
    """Trains any network that runs block by block (see `blocks.run_block`).

    `block` is the number of steps between two updates of the weights, `clip_norm` the largest norm of a
    gradient (0 clips nothing). `sequences` counts batches of sequences, `updates` those of the weights.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        objective: Objective,
        block: int,
        *,
        alpha: float = 0.5,
        beta: float = 0.5,
        form: str = "public",
        clip_norm: float = 1.0,
    ) -> None:
        if block < 1:
            raise SnnCompileError(f"a block has {block} steps; it needs at least 1")
        self.network, self.optimizer, self.objective, self.block = network, optimizer, objective, block
        self.regularizer = DynamicRegularizer(network.parameters(), alpha, beta, form)
        self.clip_norm = clip_norm
        self.sequences = self.updates = 0

    def update(self, inputs: Tensor, targets: Tensor) -> Update:
        """Train on one batch of sequences (batch, steps, *shape), its states starting anew.

        Raises TrainingDiverged, naming update and block, when a loss or its gradient is not finite; the
        weights are then those before that block.
        """
        states, losses = None, []
        parts = cuts(inputs.shape[1], self.block)
        for number, part in enumerate(parts):
            made = run_block(self.network, inputs[:, part], detached(states))
            states = made.states
            loss = self.objective.loss(made.outputs, targets, part, number, len(parts))
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(float(loss.detach()))
            self._step(losses[-1], number, len(parts))
            del made, loss
        self.sequences += 1
        return Update(losses[-1], sum(losses) / len(losses))

    def _step(self, loss: float, number: int, blocks: int) -> None:
        self.regularizer.add_gradients()
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm or math.inf))
        if not (math.isfinite(norm) and math.isfinite(loss)):
            raise TrainingDiverged(
                f"training: the loss is {loss} and its gradient {norm} at update {self.sequences + 1}, block "
                f"{number + 1} of {blocks}; training stops, try a lower learning_rate or shorter blocks",
                update=self.sequences + 1,
                block=number + 1,
            )
        self.optimizer.step()
        self.regularizer.after_step()
        self.updates += 1

    def restart(self) -> None:
        """Begin an epoch: stored gradients at 0, running means at the weights, distributions refreshed."""
        self.regularizer.restart()
        self.objective.restart()

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the network's own state that training goes on from."""
        return {
            "regularizer": self.regularizer.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sequences": self.sequences,
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; the network's own has to be loaded too."""
        self.regularizer.load_state_dict(state["regularizer"])
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(dict(state["optimizer"]))
        self.sequences, self.updates = int(state["sequences"]), int(state["updates"])
