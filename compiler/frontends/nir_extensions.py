"""Extension nodes: neurons that NIR 1.0.8 has no node for.

They are nodes to nir like its own: `nir.write` writes them, and edges and shapes are checked. `read_nir`
looks a node's type up in `EXTENSIONS` and never imports what a file names; a plain `nir.read` refuses the
file (nir 1.0.8 asserts that a type is one of its own). A new extension node is a class here and a function in
`lowering/extensions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import nir
import numpy as np

EXTENSIONS: dict[str, type[ExtensionNode]] = {}
"""Extension nodes by the type that a file names; every subclass of `ExtensionNode` is one."""


class ExtensionNode(nir.NIRNode):  # type: ignore[misc]
    """A neuron node whose parameters are arrays of the neurons' shape, `theta` among them."""

    needs: ClassVar[tuple[str, ...]] = ()
    """Items of the contract that give the node its meaning, so that they must be known."""

    def __init_subclass__(cls) -> None:
        EXTENSIONS[cls.__name__] = cls

    @classmethod
    def entries(cls) -> tuple[str, ...]:
        """Return the names of the parameters."""
        return tuple(cls.__annotations__)

    @classmethod
    def per_neuron(cls) -> tuple[str, ...]:
        """Return the names of the parameters that have the neurons' shape."""
        return cls.entries()

    @classmethod
    def mismatch(cls, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Return what is wrong with the shapes of the parameters, "" if nothing is."""
        if len(set(shapes.values())) > 1:
            return f"parameters of shapes {dict(shapes)}; all share that of the neurons"
        return ""

    def __post_init__(self) -> None:
        if text := self.mismatch({key: np.shape(getattr(self, key)) for key in self.entries()}):
            raise ValueError(text)
        shape = np.array(np.shape(self.theta))
        self.input_type = {"input": shape}
        self.output_type = {"output": shape}


@dataclass(eq=False)
class MaxPool(ExtensionNode):
    """The largest value of each window of an input (channels, length) or (channels, height, width).

    `kernel_size`, `stride`, `padding` and `dilation` have an entry per axis; padding never wins. `ceil_mode`
    (0 or 1) adds windows that reach over the edge, as torch does. Values are numbers, not only spikes.
    """

    input_shape: Any
    kernel_size: Any
    stride: Any
    padding: Any
    dilation: Any
    ceil_mode: Any

    @classmethod
    def per_neuron(cls) -> tuple[str, ...]:
        """Return no name: no parameter is a neuron's."""
        return ()

    @classmethod
    def mismatch(cls, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Return what is wrong with the shapes of the parameters, "" if nothing is."""
        axes, whole = shapes["kernel_size"], shapes["input_shape"]
        each = {key: shapes[key] for key in ("stride", "padding", "dilation")}
        if axes not in ((1,), (2,)) or set(each.values()) != {axes} or whole != (axes[0] + 1,):
            return (
                f"kernel_size of shape {axes}, {each} and input_shape {whole}; (n,) and (n + 1,) with n 1 or "
                "2 are possible"
            )
        return ""

    def __post_init__(self) -> None:
        if text := self.mismatch({key: np.shape(getattr(self, key)) for key in self.entries()}):
            raise ValueError(text)
        self.output_shape = self.after()
        self.input_type = {"input": np.asarray(self.input_shape)}
        self.output_type = {"output": self.output_shape}

    def after(self) -> Any:
        """Return the shape of the output; raises ValueError where a window does not fit."""
        shape, kernel, stride, padding, dilation = (
            [int(n) for n in np.asarray(getattr(self, key)).reshape(-1)]
            for key in ("input_shape", "kernel_size", "stride", "padding", "dilation")
        )
        found = shape[:1]
        for n, k, s, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True):
            if min(n, k, s, d) < 1 or p < 0 or 2 * p > d * (k - 1) + 1:
                raise ValueError(f"a window of {k}, stride {s}, padding {p} and dilation {d} on {n} values")
            room = n + 2 * p - d * (k - 1) - 1
            count = room // s + 1
            if int(np.asarray(self.ceil_mode).reshape(-1)[0]) and room % s and count * s < n + p:
                count += 1
            if count < 1:
                raise ValueError(f"a window of {k} and dilation {d} on {n} values with padding {p}")
            found.append(count)
        return np.array(found)


@dataclass(eq=False)
class SparseLinear(ExtensionNode):
    """An affine map y = W x + b of flattened signals, W by its entries that are not zero.

    `rows`, `columns` and `values`: (entries,), W[rows, columns] = values, of which equal places add up;
    `bias`: one per output; `input_shape` and `output_shape`: the shapes of x and y.
    """

    rows: Any
    columns: Any
    values: Any
    bias: Any
    input_shape: Any
    output_shape: Any

    @classmethod
    def per_neuron(cls) -> tuple[str, ...]:
        """Return no name: no parameter is a neuron's."""
        return ()

    @classmethod
    def mismatch(cls, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Return what is wrong with the shapes of the parameters, "" if nothing is."""
        entries = {shapes[key] for key in ("rows", "columns", "values")}
        if len(entries) > 1 or any(len(shape) != 1 for shape in shapes.values()):
            return f"parameters of shapes {dict(shapes)}; rows, columns and values have one length"
        return ""

    def __post_init__(self) -> None:
        if text := self.mismatch({key: np.shape(getattr(self, key)) for key in self.entries()}):
            raise ValueError(text)
        sizes = [
            [int(n) for n in np.asarray(self.input_shape)],
            [int(n) for n in np.asarray(self.output_shape)],
        ]
        columns, rows = (prod(size) for size in sizes)
        if min([*sizes[0], *sizes[1], 1]) < 1 or len(np.asarray(self.bias)) != rows:
            raise ValueError(f"a bias of {len(np.asarray(self.bias))} values from {sizes[0]} to {sizes[1]}")
        for key, most in (("rows", rows), ("columns", columns)):
            index = np.asarray(getattr(self, key))
            if (index != np.rint(index)).any() or index.min(initial=0) < 0 or index.max(initial=0) >= most:
                raise ValueError(f"{key} span {index.min()}..{index.max()}; 0..{most - 1} is possible")
        self.input_type = {"input": np.asarray(self.input_shape)}
        self.output_type = {"output": np.asarray(self.output_shape)}


@dataclass(eq=False)
class BRF(ExtensionNode):
    """Balanced resonate-and-fire neurons (Higuchi et al. 2024, 2025), by their step of `delta` s.

        b <- (-1 + sqrt(1 - (delta omega)^2)) / delta - b_offset - smooth_reset q
        u <- u + delta (b u - omega v + x)
        v <- v + delta (omega u + b v)            from the old u
        z = 1 if u > theta + refractory q else 0
        q <- gamma q + z                          of the step before in the lines above

    `omega` in rad/s, `b_offset` in 1/s; `gamma` is the fraction of q kept per step. `smooth_reset` and
    `refractory` weigh q, 1 or 0 (no such part). All have the neurons' shape.
    """

    needs = ("dt",)

    omega: Any
    b_offset: Any
    gamma: Any
    theta: Any
    delta: Any
    smooth_reset: Any
    refractory: Any


@dataclass(eq=False)
class RF_IZ(ExtensionNode):
    """Resonate-and-fire neurons that a spike resets (Izhikevich 2001), by their step of `delta` s.

        u <- u + delta (b u - omega v + x)
        v <- v + delta (omega u + b v)            from the old u
        z = 1 if v > theta else 0
        u, v <- 0, theta                          where z

    `omega` in rad/s, `b` in 1/s: below 0, or the state grows. All have the neurons' shape; theta is one
    number in all of them if the chip is to have them (Lava's RF_IZ).
    """

    omega: Any
    b: Any
    theta: Any
    delta: Any


@dataclass(eq=False)
class ALIF(ExtensionNode):
    """Adaptive leaky neurons (Yin et al. 2021); time constants in the unit of the graph's.

        tau_adaptation da/dt = -a + z             z: the spike of the step before
        tau du/dt = -u + r x
        z = 1 if u > theta + adaptation a else 0
        u <- u - reset (theta + adaptation a) z   reset: 1, or 2 as Lava's ATRLIF has it

    All have the neurons' shape.
    """

    needs = ("dt", "rule")

    tau: Any
    r: Any
    theta: Any
    tau_adaptation: Any
    adaptation: Any
    reset: Any


@dataclass(eq=False)
class LSN(ExtensionNode):
    """A layer of liquid spiking neurons (Yin, Corradi and Bohte 2023), by their step; x is the input.

        m   = sigma(w_membrane [x; u] + b_membrane)           sigma: the logistic function
        rho = sigma(w_adaptation [x; b] + b_adaptation)
        b <- rho b + (1 - rho) s                              s: the spike of the step before
        u <- u + (x - u) m
        s = 1 if u > theta + rise b else 0
        u <- (1 - s) u

    The two weights are (neurons, 2 neurons), the rest (neurons,). A `rise` of 0 is a fixed threshold.
    """

    w_membrane: Any
    b_membrane: Any
    w_adaptation: Any
    b_adaptation: Any
    theta: Any
    rise: Any

    @classmethod
    def per_neuron(cls) -> tuple[str, ...]:
        """Return the names of the parameters that have the neurons' shape."""
        return tuple(key for key in cls.entries() if not key.startswith("w_"))

    @classmethod
    def mismatch(cls, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Return what is wrong with the shapes of the parameters, "" if nothing is."""
        neurons = shapes["theta"]
        for key, shape in shapes.items():
            size = neurons[0] if len(neurons) == 1 else 0
            if shape != ((size, 2 * size) if key.startswith("w_") else (size,)):
                return f"{key!r} has shape {shape} and theta {neurons}; (n, 2 n) and (n,) are possible"
        return ""


@dataclass(eq=False)
class LSNConv2d(ExtensionNode):
    """A layer of liquid spiking neurons whose gates are convolutions, otherwise as `LSN`.

        m   = sigma(w_membrane * (x + u) + b_membrane)             *: a correlation that keeps the shape
        rho = sigma(w_adaptation * (x + b) + b_adaptation)

    The two weights are (channels, channels, height, width) of odd height and width, padded with zeros by half
    of them, their biases (channels,), theta and rise (channels, rows, columns).
    """

    w_membrane: Any
    b_membrane: Any
    w_adaptation: Any
    b_adaptation: Any
    theta: Any
    rise: Any

    @classmethod
    def per_neuron(cls) -> tuple[str, ...]:
        """Return the names of the parameters that have the neurons' shape."""
        return ("theta", "rise")

    @classmethod
    def mismatch(cls, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """Return what is wrong with the shapes of the parameters, "" if nothing is."""
        neurons = shapes["theta"]
        if len(neurons) != 3 or shapes["rise"] != neurons:
            return f"theta has shape {neurons} and rise {shapes['rise']}; both are (channels, rows, columns)"
        for key in ("membrane", "adaptation"):
            kernel, bias = shapes[f"w_{key}"], shapes[f"b_{key}"]
            if len(kernel) != 4 or kernel[:2] != 2 * neurons[:1] or any(n % 2 == 0 for n in kernel[2:]):
                return (
                    f"'w_{key}' has shape {kernel} and theta {neurons}; (channels, channels, height, width) "
                    "of odd height and width is possible"
                )
            if bias != neurons[:1]:
                return f"'b_{key}' has shape {bias} and theta {neurons}; (channels,) is possible"
        return ""
