"""Networks of one hidden layer of spiking neurons, trained by a convex program over what neurons can do.

With the columns c_i of candidate neurons as data, the best read-out and the neurons it needs are the solution
of a group Lasso (`group_lasso.py`),

    minimise   1/2 || sum_i c_i V_i + v0 - Y ||^2 + beta sum_i || V_i ||

which is the training of a network whose neurons have amplitudes, under weight decay beta on amplitudes and
read-out (Ergen et al. 2023 for threshold units). The guarantee depends on the candidates; the certificate
states it:

    global        all patterns of neurons without reset, enumerated: no network of this kind is better
    dictionary    the optimum over the candidates at hand, to the stated gap; any neuron, any depth below
    none          no solve, or one that missed its gap

Only neurons without reset whose rows are in general position can have `global`. It speaks of the training
objective, not of data not seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.network import Float
from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.convex.group_lasso import TOLERANCE, GroupLasso, group_lasso
from snn_compile.train.convex.patterns import arrangement, enumerate_patterns, widest_witness
from snn_compile.train.convex.witnesses import SpikingUnit, columns, margin, priced, random_witnesses

WORTH = 1.001
"""How far above beta a price has to be for a witness to join: its part in the optimum is else nothing."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed network, and what is known of it.

    `weights` (neurons, size), `bias` and `threshold` (neurons,) of the hidden neurons; `readout` (outputs,
    neurons) and `offset` (outputs,). `objective` is the regularised training objective and at most `gap`
    above the optimum that `certificate` speaks of. `active` are the witnesses that were kept, of those given
    or found; `margin` the least distance of a membrane from its threshold over the data, relative to the
    length of (weights, bias, threshold). `objectives`: of every round.
    """

    unit: SpikingUnit
    weights: Float
    bias: Float
    threshold: Float
    readout: Float
    offset: Float
    objective: float
    gap: float
    certificate: str
    active: npt.NDArray[np.intp]
    margin: float
    beta: float
    objectives: tuple[float, ...] = ()

    @property
    def witnesses(self) -> Float:
        """Return the neurons as rows (weights, bias) for a threshold of 1; they need positive thresholds."""
        if (self.threshold <= 0).any():
            raise SnnCompileError("reconstruction: a threshold that is not positive cannot be scaled to 1")
        return np.column_stack([self.weights, self.bias]) / self.threshold[:, None]

    def columns(self, inputs: npt.NDArray[np.generic]) -> Float:
        """Return what the hidden neurons do (samples, neurons) for inputs (samples, steps, size)."""
        # Membranes are relative to the threshold, which need not be positive.
        return _read(inputs, self.weights, self.bias, self.threshold, self.unit)

    def predict(self, inputs: npt.NDArray[np.generic]) -> Float:
        """Return the outputs (samples, outputs) of the simulated network."""
        return self.columns(inputs) @ self.readout.T + self.offset


Tell = Callable[[int, float, float, int], None]
"""Called after each round with its number, objective, gap and active neurons."""


def reconstruct(
    inputs: npt.NDArray[np.generic],
    targets: Float,
    unit: SpikingUnit,
    beta: float,
    *,
    witnesses: Float | None = None,
    fresh: int = 256,
    rounds: int = 3,
    climbs: int = 64,
    climb_steps: int = 30,
    intercept: bool = True,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    tell: Tell | None = None,
) -> Reconstruction:
    """Return the network that is best over a dictionary which grows by column generation.

    `inputs` (samples, steps, size), `targets` (samples, outputs). The dictionary is `witnesses` (count,
    size + 1), rows (weights, bias) for a threshold of 1, and as many `fresh` random ones. After each of the
    `rounds` but the last the best of `climbs` searches for what the residual lacks join it. The objective
    falls from round to round. Raises what `group_lasso` raises.
    """
    generator = np.random.default_rng(seed)
    given = np.zeros((0, inputs.shape[2] + 1)) if witnesses is None else witnesses
    known = np.concatenate([given, random_witnesses(inputs, unit, fresh, generator)])
    made = columns(inputs, known, unit)
    start, objectives, kept = None, [], np.arange(len(known))
    for number in range(1, rounds + 1):
        solved = group_lasso(made, targets, beta, intercept=intercept, tolerance=tolerance, start=start)
        objectives.append(solved.objective)
        kept = solved.active
        if tell is not None:
            tell(number, solved.objective, solved.gap, len(kept))
        if number == rounds:
            break
        tried = random_witnesses(inputs, unit, climbs, generator)
        found, score = priced(inputs, solved.residual, unit, tried, steps=climb_steps)
        found = found[score > WORTH * beta]
        if not len(found):
            break
        start = np.concatenate([solved.weights[kept], np.zeros((len(found), targets.shape[1]))])
        known = np.concatenate([known[kept], found])
        made = np.concatenate([made[:, kept], columns(inputs, found, unit)], axis=1)
    chosen = known[kept]
    return _made(unit, chosen, solved, kept, margin(inputs, chosen, unit), beta, tuple(objectives))


def _made(
    unit: SpikingUnit,
    witnesses: Float,
    solved: GroupLasso,
    kept: npt.NDArray[np.intp],
    distance: float,
    beta: float,
    objectives: tuple[float, ...],
) -> Reconstruction:
    return Reconstruction(
        unit,
        witnesses[:, :-1],
        witnesses[:, -1],
        np.ones(len(witnesses)),
        solved.weights[kept].T,
        solved.intercept,
        solved.objective,
        solved.gap,
        "dictionary",
        kept,
        distance,
        beta,
        objectives,
    )


def reconstruct_exactly(
    inputs: npt.NDArray[np.generic],
    targets: Float,
    unit: SpikingUnit,
    beta: float,
    *,
    current: bool = False,
    intercept: bool = False,
    tolerance: float = 1e-12,
) -> Reconstruction:
    """Return the globally best network of neurons without reset, by enumerating all that they can do.

    Exponential in the number of features: for few inputs. Neurons have a threshold of any sign, and a bias
    current if `current`. The certificate is `global` if rows are in general position, else `dictionary`.
    Each neuron's weights, bias and threshold are those of the largest margin for its pattern. Raises
    SnnCompileError for neurons with a reset and for too many patterns.
    """
    if unit.reset != "none":
        raise SnnCompileError(
            f"reconstruction: neurons with reset {unit.reset!r} are not linear in their weights, and their "
            "patterns cannot be enumerated; use reset none, or a dictionary"
        )
    samples, steps, size = inputs.shape
    rows = arrangement(inputs.astype(np.float64), unit.decay, current=current)
    patterns = enumerate_patterns(rows)
    shares = unit.shares(steps)
    made = patterns.signs.reshape(-1, samples, steps) @ shares
    _, first = np.unique(np.round(made, 12), axis=0, return_index=True)
    solved = group_lasso(made[first].T, targets, beta, intercept=intercept, tolerance=tolerance)
    active = first[solved.active]
    found = [widest_witness(rows, patterns.signs[i]) for i in active]
    tilde = np.array([w for w, _ in found]).reshape(len(active), rows.shape[1])
    return Reconstruction(
        unit,
        tilde[:, :size],
        tilde[:, size] if rows.shape[1] > size + 1 else np.zeros(len(active)),
        tilde[:, -1],
        solved.weights[solved.active].T,
        solved.intercept,
        solved.objective,
        solved.gap,
        "global" if patterns.complete else "dictionary",
        active,
        min((distance for _, distance in found), default=np.inf),
        beta,
        (solved.objective,),
    )


def _read(
    inputs: npt.NDArray[np.generic], weights: Float, bias: Float, threshold: Float, unit: SpikingUnit
) -> Float:
    """Return columns of neurons with thresholds of any sign (then without a reset)."""
    if (threshold > 0).all():
        return columns(inputs, np.column_stack([weights, bias]) / threshold[:, None], unit)
    shares, found = unit.shares(inputs.shape[1]), np.zeros((len(inputs), len(weights)))
    u = np.zeros((len(inputs), len(weights)))
    for t in range(inputs.shape[1]):
        u = unit.decay * u + np.asarray(inputs[:, t], np.float64) @ weights.T + bias
        found += shares[t] * (u > threshold)
    return found
