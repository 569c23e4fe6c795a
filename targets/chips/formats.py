"""Number formats of a chip: the widths of states, registers, weights and sums, in bits.

Devices, limits and quantization take every width from here. The defaults are those of Loihi and Loihi 2, as
Lava 0.10.0's fixed-point process models have them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from snn_compile.targets.errors import ChipError
from snn_compile.targets.schema import entry


@dataclass(frozen=True)
class Formats:
    """Widths of a chip's integers in bits; raises ChipError where a width is outside its range.

    `state_bits`: membrane, synaptic current and every other neuron state, with their sign.
    `decay_bits`: fraction bits of a decay: a register d stands for d / 2**decay_bits.
    `accumulator_bits`: sums of weights and messages, which wrap around.
    `synaptic_shift`: such a sum is shifted left by it on its way to a state, and so is a threshold register.
    `threshold_bits`: threshold register, without sign.
    `bias_mantissa_bits`, `bias_exponent`: bias mantissa with its sign, and its lowest and highest exponent.
    `weight_bits`, `weight_exponent`: lowest and highest width and exponent of a weight table.
    """

    state_bits: int = entry("neuron.state_bits", 8, 24, 24)
    decay_bits: int = entry("neuron.decay_bits", 1, 12, 12)
    accumulator_bits: int = entry("synapse.accumulator_bits", 16, 32, 32)
    synaptic_shift: int = entry("synapse.shift", 0, 8, 6)
    threshold_bits: int = entry("neuron.threshold_bits", 1, 23, 17)
    bias_mantissa_bits: int = entry("neuron.bias_mantissa_bits", 2, 24, 13)
    bias_exponent: tuple[int, int] = entry("neuron.bias_exponent", 0, 16, (0, 7))
    weight_bits: tuple[int, int] = entry("synapse.weight_bits", 1, 8, (1, 8))
    weight_exponent: tuple[int, int] = entry("synapse.weight_exponent", -16, 16, (-8, 7))

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            low, high = item.metadata["range"]
            pair = isinstance(item.default, tuple)
            ends = value if isinstance(value, tuple) else (value,)
            within = all(type(end) is int and low <= end <= high for end in ends)
            if not within or len(ends) != 1 + pair or ends[0] > ends[-1]:
                what = "two integers, lowest and highest," if pair else "an integer"
                raise ChipError(
                    f"{item.name} is {value!r}; it must be {what} from {low} to {high}", key=item.name
                )
        if self.threshold_bits + self.synaptic_shift > self.state_bits - 1:
            raise ChipError(
                f"threshold_bits is {self.threshold_bits}: shifted left by {self.synaptic_shift}, a "
                f"threshold is wider than the {self.state_bits - 1} bits and sign of a state",
                key="threshold_bits",
            )

    @property
    def state_half(self) -> int:
        """Half the range of a state, 2**(state_bits - 1); a current lives in (-state_half, state_half]."""
        return 1 << (self.state_bits - 1)

    @property
    def state_max(self) -> int:
        """Largest membrane, state_half - 1; the lowest is -state_max."""
        return self.state_half - 1

    @property
    def decay_one(self) -> int:
        """What stands for a decay of 1: 2**decay_bits."""
        return 1 << self.decay_bits

    @property
    def decay_max(self) -> int:
        """Largest decay register, decay_one - 1."""
        return self.decay_one - 1

    @property
    def accumulator_half(self) -> int:
        """Half the range of a sum: sums wrap into [-accumulator_half, accumulator_half)."""
        return 1 << (self.accumulator_bits - 1)

    @property
    def threshold_unit(self) -> int:
        """Membrane units per unit of a threshold register or of a weighted sum: 2**synaptic_shift."""
        return 1 << self.synaptic_shift

    @property
    def threshold_max(self) -> int:
        """Largest threshold register."""
        return (1 << self.threshold_bits) - 1

    @property
    def bias_mantissa_max(self) -> int:
        """Largest magnitude that fits the bias mantissa with either sign."""
        return (1 << (self.bias_mantissa_bits - 1)) - 1


LOIHI = Formats()
"""The formats of Loihi and Loihi 2."""
