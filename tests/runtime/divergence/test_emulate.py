"""The emulator at its two ends: the float reference, and the program bit for bit."""

from __future__ import annotations

import numpy as np
from support import random_networks

from snn_compile.compiler import Options, compile_graph
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.compiler.reference import as_inputs, run_float
from snn_compile.runtime.divergence.emulator import NETWORK, PROGRAM, Selection, emulate
from snn_compile.runtime.divergence.pairing import pair
from snn_compile.targets.devices.device import execute

UNITS = Selection({("truncation", ""): True})
"""No ingredient of any population, in the program's units."""


def test_it_is_the_reference_and_the_program() -> None:
    fired = 0
    for seed in range(60):
        case = random_networks.random_network(seed)
        rng = np.random.default_rng(seed)
        options = Options(
            weight_bits=int(rng.integers(3, 9)),
            tables=str(rng.choice(["one", "sign", "group", "residual"])),
            c_slow=int(rng.choice([1, 1, 3])),
        )
        program = compile_graph(case.network, options=options, calibration=case.data)
        side, flat = pair(program, case.network), as_inputs(case.network, case.data)
        names = [p.name for p in program.populations]
        ideal = run_float(simplify(case.network), flat, names)
        spiking = [p.name for p in program.populations if p.spiking]
        record = execute(program, case.data, record=spiking, probes=[f"{name}.u" for name in names])
        ends = emulate(side, NETWORK, flat), emulate(side, PROGRAM, flat, [f"{name}.u" for name in names])
        scaled = emulate(side, UNITS, flat)
        for name in names:
            where = f"network {seed}, {name}"
            np.testing.assert_allclose(
                scaled.messages[name], ideal.messages[name], 1e-9, 1e-12, err_msg=where
            )
            np.testing.assert_array_equal(ends[0].messages[name], ideal.messages[name], where)
            np.testing.assert_array_equal(
                np.rint(ends[1].probes[f"{name}.u"] * side.scale[name]), record.states(f"{name}.u"), where
            )
            assert ends[1].overflows[name] == record.overflows[name], where
            if name in spiking:
                np.testing.assert_array_equal(ends[1].messages[name], record.spikes(name), where)
                fired += int(record.spikes(name).sum())
        found = ends[1].predictions
        if case.network.outputs[0].readout.task == "regress" and program.outputs[0].signal == "membrane":
            found = found * side.scale[program.outputs[0].population]  # a record's membrane is in integers
        np.testing.assert_allclose(found, record.predictions, 1e-12, 1e-6, err_msg=f"network {seed}")
    assert fired > 1000
