"""Search for mixed precision with accuracy measured on labelled data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from snn_compile.runtime.execution.run import Inputs, reference_batches, simulate_batches
from snn_compile.runtime.reports.accuracy import score
from snn_compile.targets.chips.chip import load_chip
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import Program

if TYPE_CHECKING:
    from snn_compile.compiler.calibration.mixed_precision import Accuracy, Search
    from snn_compile.compiler.pipeline import Options


def search_precision(
    graph: Any,
    target: str,
    options: Options,
    calibration: Inputs,
    inputs: Inputs | None = None,
    labels: npt.ArrayLike | None = None,
    max_drop: float | None = None,
    max_cores: int | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Search:
    """Return the search for the cheapest program of a graph within limits; see
    `compiler/calibration/mixed_precision.py`.

    `calibration`, `inputs`: (batch, steps, *shape) or a mapping of such; `labels` (batch,), or (batch,
    steps) for a read-out per step, where the drop itself stands for the upper end of its interval. Compile
    with `Options(plan=found.chosen.plan)`. Raises WrongInput for a limit on the drop without labels or
    without a network that classifies, CompileError where there is nothing to choose.
    """
    from snn_compile.compiler.calibration.mixed_precision import Accuracy, search
    from snn_compile.compiler.pipeline import compile_stages
    from snn_compile.compiler.quantization.quantize import Plan
    from snn_compile.compiler.reference import as_inputs

    # With a plan, as the program will be compiled: fixed integers of QAT are released.
    done = compile_stages(graph, target, replace(options, plan=Plan()), stop_after="retime")
    assert done.retimed is not None
    network = done.network
    measure: Callable[[Program], Accuracy] | None = None
    classifies = network.outputs[0].readout.task == "classify"
    if max_drop is not None and not classifies:
        raise WrongInput("--max-drop needs a network that classifies; this one has no accuracy")
    if inputs is not None and labels is not None and classifies:
        data, truth = inputs, labels
        ideal = reference_batches(network, data).predictions

        def measure(program: Program) -> Accuracy:
            found = score(simulate_batches(program, data).predictions, truth, ideal)
            assert found.drop is not None
            upper = found.drop if found.interval is None else found.interval[1]
            return Accuracy(found.deployed, found.drop, upper, found.samples)

    return search(
        done.retimed,
        load_chip(target),
        options.input_bits,
        options.rounding,
        as_inputs(network, calibration),
        measure,
        max_drop,
        max_cores,
        tell,
    )
