"""Populations of a program: integer parameters and the rule by which they step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from snn_compile.targets.errors import SnnCompileError, WrongProgram
from snn_compile.targets.integer import M, effective_bias
from snn_compile.targets.program.models import MODELS, TABLE_MAX, Model
from snn_compile.targets.program.rule import Rule

IntArray = npt.NDArray[np.integer[Any]]


def frozen_integers(array: npt.ArrayLike, dtype: Any) -> npt.NDArray[Any]:
    """Return a read-only copy as `dtype`; raises WrongProgram unless it holds exactly such integers."""
    wanted = np.asarray(array)
    result = wanted.astype(dtype, order="C") if wanted.dtype.kind in "biu" else None
    if result is None or not np.array_equal(result, wanted):
        raise WrongProgram(f"an array of {wanted.dtype} does not hold {np.dtype(dtype).name} integers")
    result.flags.writeable = False
    return result


@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one model; parameters are int32 arrays of length 1 (shared) or size (per neuron).

    `reset` to `current_decay` are the rule's items (`rule.py`). `scale`: membrane units per unit of the
    float network's membrane.
    """

    name: str
    shape: tuple[int, ...]
    model: str
    parameters: Mapping[str, IntArray]
    reset: str = "value"
    start_step: int = 0
    scale: float = 1.0
    reset_timing: str = "same_step"
    comparison: str = ">"
    spikes_per_step: str = "one"
    update_order: str = "synapse_first"
    current_decay: str = "before"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise WrongProgram(f"population {self.name!r}: model {self.model!r}; models are {sorted(MODELS)}")
        try:
            self.rule  # noqa: B018 - checks its words
        except SnnCompileError as error:
            raise WrongProgram(f"population {self.name!r}: {error}") from error
        model = self.kind.registers
        defaults = {key: register.default for key, register in model.items()}
        missing = [key for key, value in defaults.items() if value is None and key not in self.parameters]
        if missing or self.parameters.keys() - model.keys():
            raise WrongProgram(
                f"population {self.name!r}: parameters {sorted(self.parameters)}; model {self.model} has "
                f"{sorted(model)}, and {missing or 'no other'} must be given"
            )
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        given: dict[str, Any] = {**defaults, **self.parameters}
        frozen = {key: self._frozen(key, given[key]) for key in model}
        for key, array in frozen.items():
            if model[key].table:
                self._check_table(key, array)
            elif array.shape not in ((1,), (self.size,)):
                raise WrongProgram(
                    f"population {self.name!r}: {key} has shape {array.shape}; "
                    f"expected (1,) or ({self.size},)"
                )
        object.__setattr__(self, "parameters", frozen)
        if not self.kind.ruled and self.rule != Rule():
            raise WrongProgram(
                f"population {self.name!r}: {self.model} neurons have Lava's rule and no other"
            )
        if several := [key for key, array in frozen.items() if model[key].shared and array.size > 1]:
            raise WrongProgram(f"population {self.name!r}: {self.model} neurons share {', '.join(several)}")
        if self.spikes_per_step == "floor" and self.model == "lif" and (frozen["vth"] < 1).any():
            raise WrongProgram(f"population {self.name!r}: floor(v / threshold) needs thresholds from 1 on")

    def _frozen(self, key: str, value: npt.ArrayLike) -> IntArray:
        try:
            return frozen_integers(np.atleast_1d(np.asarray(value)), np.int32)
        except WrongProgram as error:
            raise WrongProgram(f"population {self.name!r}: {key}: {error}") from error

    def _check_table(self, key: str, array: IntArray) -> None:
        if array.ndim != 1 or array.size not in (1 << k for k in range(1, TABLE_MAX.bit_length())):
            raise WrongProgram(
                f"population {self.name!r}: {key} has shape {array.shape}; a table has 2, 4, 8 .. "
                f"{TABLE_MAX} values"
            )

    @property
    def size(self) -> int:
        """Number of neurons."""
        return prod(self.shape)

    @property
    def kind(self) -> Model:
        """The model's description."""
        return MODELS[self.model]

    @property
    def spiking(self) -> bool:
        """Whether the model emits spikes or other messages by itself."""
        return self.kind.spiking

    @property
    def graded(self) -> bool:
        """Whether messages carry a number: several spikes per step, a sign, or a state."""
        return self.kind.graded or self.spikes_per_step != "one"

    @cached_property
    def largest_message(self) -> int:
        """The largest magnitude of a message."""
        if "message_shift" in self.parameters:
            return -(-self.kind.largest >> int(self.parameters["message_shift"].min()))
        if self.spikes_per_step != "one":
            return (M - 1) // (int(self.parameters["vth"].min()) << 6)
        shift = int(self.parameters["state_exp"][0]) if self.graded and "state_exp" in self.parameters else 0
        return self.kind.largest >> shift

    @cached_property
    def rule(self) -> Rule:
        """The rule of the neurons' step."""
        return Rule(
            self.reset,
            self.reset_timing,
            self.comparison,
            self.spikes_per_step,
            self.update_order,
            self.current_decay,
        )

    @cached_property
    def plain(self) -> bool:
        """Whether a step is that of Lava's LIF up to the kind of reset: no clip, no other order."""
        if self.model == "li":
            return (self.update_order, self.current_decay) == ("synapse_first", "before")
        return self.model == "lif" and self.rule.stock and bool((self.parameters["v_min"] <= -(M - 1)).all())

    @cached_property
    def bias(self) -> npt.NDArray[np.int64]:
        """Bias in membrane units, shape (1,) or (size,); 0 of a model without one."""
        if "bias_mant" not in self.parameters:
            return np.zeros(1, np.int64)
        return effective_bias(
            self.parameters["bias_mant"].astype(np.int64), self.parameters["bias_exp"].astype(np.int64)
        )
