"""Convert a ReLU model for the compiler, and measure the result: shared by the commands.

Data for such a model are static: images or vectors (batch, *shape), each presented for a number of steps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from snn_compile.compiler.cli.model import calibration_and_check
from snn_compile.compiler.cli.protocols import Division
from snn_compile.compiler.onnx.rate_coding import (
    Conversion,
    ConversionOptions,
    conversion_options,
    convert,
    shown,
)
from snn_compile.compiler.onnx.relu_network import RectifierNetwork
from snn_compile.runtime.data.registry import Dataset, load_still
from snn_compile.runtime.evaluation.compare import check_labels, report
from snn_compile.runtime.evaluation.step_curve import StepCurve, lowering_error, step_curve
from snn_compile.runtime.reports.report import Report
from snn_compile.targets.errors import CompileError, WrongInput
from snn_compile.targets.program.program import Program


@dataclass(frozen=True, eq=False)
class Prepared:
    """A converted model with the data to check it on: `checked.inputs` are (batch, 1, *shape).

    `division`: how one data set was divided into that and calibration data, if it was.
    """

    conversion: Conversion
    checked: Dataset | None
    lowering: Mapping[str, Any]
    division: Division | None = None

    def provenance(self) -> dict[str, str]:
        """Return the provenance of the program: steps per sample, and the data."""
        facts = {"steps": str(self.conversion.options.steps)}
        if self.checked is not None:
            facts["data"] = _spec_text(self.checked, self.conversion.options.steps)
        return facts

    def json(self, curve: StepCurve | None) -> dict[str, Any]:
        """Return the conversion and its curve as plain values."""
        from snn_compile.compiler.cli.conversion_tables import conversion_json

        return {
            "conversion": conversion_json(self.conversion, self.lowering),
            "curve": None if curve is None else curve.json(),
        }

    def measure(self, program: Program, max_drop: float | None) -> tuple[Program, Report, StepCurve]:
        """Run the check data; return the program that names its steps, its report and the curve.

        `max_drop`: search for the smallest number of steps that meets it. Raises WrongInput without data.
        """
        if self.checked is None:
            raise WrongInput("there are no data to measure the converted model on")
        images, labels = self.checked.inputs[:, 0], self.checked.labels
        check_labels(program, images, labels)
        curve, record, ideal = step_curve(program, self.conversion, images, labels, max_drop)
        facts = {"steps": str(curve.chosen), "data": _spec_text(self.checked, curve.chosen)}
        spec = shown_spec(self.checked, curve.chosen)
        program = replace(program, provenance={**program.provenance, **facts})
        record = replace(record, digest=program.digest())
        return program, report(program, record, labels, ideal, spec, shown(images, curve.chosen)), curve


def prepare(
    network: RectifierNetwork, calibrate: str, check: str | None, options: ConversionOptions
) -> Prepared:
    """Convert a model on the calibration split of one data set; the other's test split is for checking.

    Both are names or `.npz` files, see `load_still`. Raises WrongInput for data that do not fit.
    """
    calibration = load_still(calibrate, "calibration", network.input_shape)
    checked = None if check is None else load_still(check, "test", network.input_shape)
    return _prepared(network, calibration, checked, options)


def _prepared(
    network: RectifierNetwork,
    calibration: Dataset,
    checked: Dataset | None,
    options: ConversionOptions,
    division: Division | None = None,
) -> Prepared:
    conversion = convert(network, calibration.inputs[:, 0], options)
    lowering = lowering_error(network, conversion.calibration)
    return Prepared(conversion, checked, lowering, division)


def prepare_from_arguments(network: RectifierNetwork, arguments: argparse.Namespace) -> Prepared:
    """As `prepare`, from the arguments of `snn-compile`; raises CompileError on conflicting ones."""
    if arguments.steps == "auto" and (arguments.max_drop is None or arguments.check is None):
        raise CompileError(
            "--steps auto searches for steps that meet --max-drop PP on --check DATA: add both"
        )
    if arguments.curve and (arguments.check is None or arguments.stop_after):
        raise CompileError("--curve needs a program and data to run it on: add --check DATA")
    options = conversion_options(arguments.steps, arguments.balance)

    def load(name: str | None, split: str) -> Dataset | None:
        return None if name is None else load_still(name, split, network.input_shape)

    calibration, checked, division = calibration_and_check(arguments, None, load)
    if calibration is None:
        raise CompileError(f"{network.name}: balancing rates needs data; add --calibrate DATA")
    return _prepared(network, calibration, None if arguments.stop_after else checked, options, division)


def shown_spec(data: Dataset, steps: int) -> dict[str, Any]:
    """Return the spec of static data presented for `steps` steps."""
    return {"name": data.name, "options": {**data.options, "steps": steps}}


def _spec_text(data: Dataset, steps: int) -> str:
    return json.dumps(shown_spec(data, steps), sort_keys=True)
