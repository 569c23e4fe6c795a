"""Converted networks: their float model, and accuracy and energy against the number of steps.

The output of a converted network is a membrane that only integrates, so one run of n steps holds the
prediction of every shorter run as well. Energies are measured by running for each number of steps shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snn_compile.compiler.onnx.rate_coding import Conversion, shown
from snn_compile.compiler.onnx.relu_network import RectifierNetwork
from snn_compile.runtime.execution.run import simulate_batches
from snn_compile.runtime.reports.accuracy import Accuracy, score
from snn_compile.runtime.reports.energy import energy
from snn_compile.targets.devices.record import RunRecord, read_out
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.output import write_whole
from snn_compile.targets.program.program import Program

if TYPE_CHECKING:
    from snn_compile.targets.devices.device import Device

GRID = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Numbers of steps that the curve shows, up to the longest run."""

BATCH = 256
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}

ENERGY_SAMPLES = 128
"""Samples on which the energy of every number of steps is measured."""


def float_record(network: RectifierNetwork, inputs: npt.ArrayLike) -> RunRecord:
    """Return the float model's scores for inputs (batch, *shape) as a record of one step.

    onnxruntime computes them, or the float64 evaluation of the folded network where it is not installed;
    the record's `device` names which.
    """
    by, scores = _onnxruntime(network, network.flat(inputs).reshape(-1, *network.input_shape))
    outputs = scores[:, None, :]
    predictions, ties = read_out(outputs, "last", "classify")
    return RunRecord(by, network.digest, outputs, predictions, ties, None, {}, 0, 0.0)


def _onnxruntime(network: RectifierNetwork, inputs: npt.NDArray[np.float64]) -> tuple[str, Any]:
    try:
        import onnxruntime
    except ModuleNotFoundError:
        return "float64 evaluation (onnxruntime is not installed)", network.scores(inputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # Beyond the basic ones, a product with integer weights takes activations of 8 bits.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        session = onnxruntime.InferenceSession(network.model, options, providers=["CPUExecutionProvider"])
        port = session.get_inputs()[0]
        scores = _in_batches(session, port.name, inputs.astype(TYPES[port.type]), port.shape[0] == 1)
    except Exception as error:  # onnxruntime's errors have no base of their own
        reason = " ".join(str(error).split())[:120]
        return f"float64 evaluation (onnxruntime fails: {reason})", network.scores(inputs)
    return f"onnxruntime {onnxruntime.__version__}", scores.reshape(len(inputs), -1).astype(np.float64)


def _in_batches(session: Any, name: str, data: npt.NDArray[Any], single: bool) -> npt.NDArray[Any]:
    """Run a session on samples together, or one by one where the model is made for a batch of one."""
    try:
        size = 1 if single else BATCH
        parts = [session.run(None, {name: data[i : i + size]})[0] for i in range(0, len(data), size)]
        if sum(len(part) for part in parts) == len(data):
            return np.concatenate(parts)
    except Exception:  # a shape inside may be fixed although the batch is left open
        if single:
            raise
    return _in_batches(session, name, data, True)


@dataclass(frozen=True)
class Point:
    """A number of steps: accuracy against the float model, agreement with it, picojoules per sample."""

    steps: int
    accuracy: Accuracy | None
    agreement: float
    energy_pj: Mapping[str, float]


@dataclass(frozen=True)
class StepCurve:
    """Accuracy and energy against steps on `samples` samples; energies on the first `energy_samples`.

    `chosen`: the steps of the program's report. `limit`: the drop in points that they had to meet, if they
    were searched for; `met`: whether they do.
    """

    points: tuple[Point, ...]
    samples: int
    energy_samples: int
    chosen: int
    limit: float | None
    met: bool
    reference: str

    def json(self) -> dict[str, Any]:
        """Return the curve as plain values."""
        return {
            "reference": self.reference,
            "samples": self.samples,
            "energy_samples": self.energy_samples,
            "chosen": self.chosen,
            "limit": self.limit,
            "met": self.met,
            "points": [
                {
                    "steps": p.steps,
                    "accuracy": None if p.accuracy is None else p.accuracy.deployed,
                    "drop": None if p.accuracy is None else p.accuracy.drop,
                    "interval": None if p.accuracy is None else p.accuracy.interval,
                    "agreement": p.agreement,
                    "energy_pj": dict(p.energy_pj),
                }
                for p in self.points
            ],
        }

    def png(self) -> bytes:
        """Return a figure: accuracy (or agreement) and energy against steps."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.2), layout="constrained")
        FigureCanvasAgg(figure)
        left = figure.subplots()
        steps = [p.steps for p in self.points]
        known = [p.accuracy for p in self.points if p.accuracy is not None]
        shares = [100 * a.deployed for a in known] or [100 * p.agreement for p in self.points]
        left.plot(steps, shares, "o-", color="#1b3a5c", label="deployed")
        if known and known[0].reference is not None:
            left.axhline(100 * known[0].reference, color="#7a8794", linestyle="--", label=self.reference)
        left.axvline(self.chosen, color="#c4cad2")
        left.set_xscale("log", base=2)
        left.set_xticks(steps, [str(s) for s in steps])
        left.set_xlabel(f"steps (chosen: {self.chosen}; {self.samples} samples)")
        left.set_ylabel("accuracy, %" if known else "agreement with the float model, %")
        right = left.twinx()
        for name, style in zip(self.points[0].energy_pj, (":", "-.", "--"), strict=False):
            right.plot(steps, [p.energy_pj[name] / 1e6 for p in self.points], style, color="#a33", label=name)
        right.set_ylabel("energy per sample, µJ (proxies)")
        lines = [*left.get_lines()[: 1 + bool(known)], *right.get_lines()]
        left.legend(lines, [str(line.get_label()) for line in lines], loc="lower right", fontsize=8)
        out = BytesIO()
        figure.savefig(out, format="png", dpi=120, metadata={"Software": None})
        return out.getvalue()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure to a file, whole or not at all; raises WrongInput where it cannot be written."""
        image = self.png()

        def write(part: Path) -> None:
            part.write_bytes(image)

        write_whole(path, write, WrongInput)


def step_curve(
    program: Program,
    conversion: Conversion,
    inputs: npt.ArrayLike,
    labels: npt.ArrayLike | None = None,
    max_drop: float | None = None,
    device: str | Device = "loihi2-sim",
    threads: int | None = None,
) -> tuple[StepCurve, RunRecord, RunRecord]:
    """Run inputs (batch, *shape) for the conversion's steps; return the curve, the record and the float's.

    With `max_drop` (points) the smallest number of steps whose drop does not exceed it is searched for; where
    there is none, the number with the least drop is taken and `met` is False. The record is that of the
    chosen number of steps. Raises WrongInput where a search has no labels.
    """
    if max_drop is not None and labels is None:
        raise WrongInput("searching for the number of steps needs labels; give labelled data to check on")
    ideal = float_record(conversion.source, inputs)
    most = conversion.options.steps
    images = np.asarray(inputs, np.float64)
    longest = simulate_batches(program, shown(images, most), device, threads)
    outputs = longest.outputs.reshape(*longest.outputs.shape[:2], -1)
    predicted = outputs.argmax(axis=-1)
    scores = [
        None if labels is None else score(predicted[:, t], labels, ideal.predictions) for t in range(most)
    ]
    chosen, met = most, True
    if max_drop is not None:
        drops = [a.drop for a in scores if a is not None and a.drop is not None]
        meeting = [t for t, drop in enumerate(drops) if drop <= max_drop + 1e-9]
        met = bool(meeting)
        chosen = 1 + (meeting[0] if met else int(np.argmin(drops)))
    few = images[:ENERGY_SAMPLES]
    points = []
    for steps in sorted({*(g for g in GRID if g < most), most, chosen}):
        record = simulate_batches(program, shown(few, steps), device, threads)
        assert record.counts is not None
        cost = {e.name: e.per_sample_pj for e in energy(program, record.counts)}
        agreement = float((predicted[:, steps - 1] == ideal.predictions).mean())
        points.append(Point(steps, scores[steps - 1], agreement, cost))
    record = longest if chosen == most else simulate_batches(program, shown(images, chosen), device, threads)
    curve = StepCurve(tuple(points), len(images), len(few), chosen, max_drop, met, ideal.device)
    return curve, record, ideal


def lowering_error(network: RectifierNetwork, inputs: npt.ArrayLike) -> dict[str, Any]:
    """Return how far the folded network's scores are from the float model's on inputs (batch, *shape).

    `relative`: root mean square difference over root mean square score, None where a softmax was dropped;
    `agreement`: share of equal predictions.
    """
    ideal, own = float_record(network, inputs), network.scores(inputs)
    scores = np.asarray(ideal.outputs, np.float64)[:, 0]
    dropped = any("dropped" in note for note in network.notes)
    size = float(np.sqrt(np.mean(scores**2))) or 1.0
    return {
        "reference": ideal.device,
        "samples": len(own),
        "relative": None if dropped else float(np.sqrt(np.mean((own - scores) ** 2))) / size,
        "agreement": float((own.argmax(axis=1) == ideal.predictions).mean()),
    }
