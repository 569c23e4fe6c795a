"""The rule of a neuron: in which order a step happens, what fires, and what a spike resets and when.

One vocabulary for the float network, the integer program and every device. With u the current, v the
membrane, x the synaptic input, k the shares kept a step, theta the threshold, n the spikes of a step and
`last` those of the step before, one step is

    current      decay "before":  u = k_u u + x             drive = u, or the old u if "membrane_first"
                 decay "after":   y = u + x ; u = k_u y     drive = y, or the old u if "membrane_first"
    reset        if timing is "next_before":  R(v, last)
    membrane     v = k_v v + drive + bias
    reset        if timing is "next_after":   R(v, last)
    spikes       n = 1 if v > theta (or >= theta), else 0; with "floor", n is how many thresholds v has
                 passed: the largest n with v > n theta, or with v >= n theta, which is floor(v / theta);
                 with "pending", a membrane that began the step past theta must pass 2 theta
    reset        if timing is "same_step" or "pending":  R(v, n)
    clip         v = max(v, v_min)

R(v, n) sets v to 0 where n > 0 (reset "value"), takes n theta off ("subtract"), or does nothing ("none").
"Past" is the rule's comparison in all of it. Before its first step a neuron has spiked in none: `last`
is 0 even if v starts past theta, which "pending" alone looks at. "pending" is the rule of snnTorch's
subtraction with `reset_delay=False`. Populations without spikes take the current and membrane lines only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from snn_compile.targets.errors import SnnCompileError

CHOICES: dict[str, tuple[str, ...]] = {
    "reset": ("value", "subtract", "none"),
    "reset_timing": ("same_step", "next_before", "next_after", "pending"),
    "comparison": (">", ">="),
    "spikes_per_step": ("one", "floor"),
    "update_order": ("synapse_first", "membrane_first"),
    "current_decay": ("before", "after"),
}
"""The items of a rule and their words; the first is what Lava's LIF does."""


@dataclass(frozen=True)
class Rule:
    """See the file's docstring; raises SnnCompileError on an unknown word."""

    reset: str = "value"
    reset_timing: str = "same_step"
    comparison: str = ">"
    spikes_per_step: str = "one"
    update_order: str = "synapse_first"
    current_decay: str = "before"

    def __post_init__(self) -> None:
        for item in fields(self):
            value, words = getattr(self, item.name), CHOICES[item.name]
            if value not in words:
                raise SnnCompileError(
                    f"{item.name} is {value!r}; use one of {', '.join(words)}", item=item.name, value=value
                )
        if self.reset_timing == "pending" and (self.reset, self.spikes_per_step) != ("subtract", "one"):
            raise SnnCompileError(
                "reset timing 'pending' exists for single spikes that subtract the threshold"
            )

    @property
    def stock(self) -> bool:
        """Whether this is the rule of Lava's LIF, up to the kind of reset."""
        return self == Rule(reset=self.reset)
