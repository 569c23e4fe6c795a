"""Feedback networks on integer devices: one layer in real time, several at a c-th of the speed or relaxed.

What a device does is held against an integer network that is stepped in logical time and knows no device.
"""

import importlib.util

import numpy as np
import pytest
from support import comparing, feedback_networks, logical

from snn_compile import compiler, runtime
from snn_compile.compiler.lowering.simplify import simplify
from snn_compile.compiler.pipeline import Options, compile_stages
from snn_compile.targets.devices.device import open_device
from snn_compile.targets.errors import TimingInfeasible
from snn_compile.train import to_nir

SINGLE = ("dense", "convolution")
SEVERAL = {"two dense": 2, "three, transposed feedback": 3}


@pytest.fixture(scope="module")
def deployed():
    """Return run(kind, options): a compiled random network that every device steps as it is defined."""

    def run(kind, decay, **options):
        net = feedback_networks.network(kind, 21, decay=decay)
        inputs = feedback_networks.still(net, 4, 12)
        done = compile_stages(to_nir(net, inputs), options=Options(**options), calibration=inputs.numpy())
        data = {"input": inputs.numpy()}
        record = comparing.run_all(done.program, data, open_device("oracle", strict=True))
        network = done.retimed.network if done.retimed.relaxed else simplify(done.network)
        wanted = logical.step_logically(
            network,
            done.quantized,
            {port.name: port.encode(data[port.name])[0] for port in done.program.inputs},
        )
        for (name, state), values in comparing.traces(record).items():
            np.testing.assert_array_equal(values, wanted[name][state[0]], f"{name}.{state}")
        for name in net.layer_names:
            assert 0 < wanted[name]["s"].mean() < 1
        devices = ["loihi2-sim"]
        if importlib.util.find_spec("lava.magma") is not None:
            devices += ["lava-stepped", "lava"] if kind == "dense" else ["lava-stepped"]
        for device in devices:
            other = comparing.run_all(done.program, data, open_device(device))
            assert comparing.first_difference(record, other, overflows=device == "loihi2-sim") == "", device
        return net, inputs, done

    return run


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("decay", [0.95, 1.0])
def test_one_layer_runs_in_real_time(deployed, kind, decay):
    net, inputs, done = deployed(kind, decay)
    assert done.program.period == 1 and not done.retimed.relaxed
    (loop,) = (e for e in done.network.projections if e.source == e.target)
    assert loop.source == "hidden" and loop.delay_steps == 1 and done.retimed.delay_steps[loop.name] == 0


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_layers_are_too_short_a_cycle(kind):
    net = feedback_networks.network(kind, 21)
    inputs = feedback_networks.still(net, 2, 5)
    with pytest.raises(TimingInfeasible, match="missing") as error:
        compiler.compile_graph(to_nir(net, inputs), calibration=inputs.numpy())
    assert error.value.facts["c_slow"] == SEVERAL[kind]
    assert error.value.facts["missing_steps"] == SEVERAL[kind] - 1


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("decay", [0.95, 1.0])
def test_several_layers_run_exactly_at_a_part_of_the_speed(deployed, kind, decay):
    _, _, done = deployed(kind, decay, c_slow=None)
    assert done.program.period == SEVERAL[kind] and not done.retimed.relaxed


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_layers_run_in_real_time_with_more_delay(deployed, kind):
    _, _, done = deployed(kind, 0.95, relax_timing=True)
    assert done.program.period == 1
    assert sum(done.retimed.relaxed.values()) == SEVERAL[kind] - 1


def equilibrium_of(done, logical, inputs):
    """Return the rates of the first layer at the equilibrium of a program's integers, with IF neurons."""
    (port,) = done.program.inputs
    rates = {port.name: port.encode(inputs[:, :1])[0][:, 0].astype(np.float64)}
    spiking = [p for p in done.quantized.populations if p.spiking]
    rates |= {p.name: np.zeros((len(inputs), p.size)) for p in spiking}
    for _ in range(500):
        for p in spiking:
            current = p.parameters["bias_mant"] * 2.0 ** p.parameters["bias_exp"]
            for edge in done.quantized.projections:
                if edge.target == p.name:
                    for table in edge.tables:
                        total = rates[edge.source] @ logical.dense(table).T * 2.0**table.exponent
                        if edge.source == port.name:
                            total = np.floor(total)  # the shift of a sum that is the same at every step
                        else:
                            assert table.exponent >= 0
                        current = current + 64 * total
            rates[p.name] = np.clip(current / (64.0 * p.parameters["vth"]), 0, 1)
    return rates[spiking[0].name]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("timing", [{"c_slow": 2}, {"relax_timing": True}])
def test_rates_go_to_the_equilibrium_of_the_integers_whatever_the_delay(bits, timing):
    net = feedback_networks.network("two dense", 22, decay=1.0, contraction=0.7)
    times = np.array([16, 64, 256, 1024, 4096])
    inputs = feedback_networks.still(net, 8, int(times[-1]))
    options = Options(weight_bits=bits, tables="one", rounding="nearest", **timing)
    done = compile_stages(to_nir(net, inputs), options=options, calibration=inputs[:, :64].numpy())
    record = runtime.simulate(done.program, inputs.numpy(), record=("hidden1",), threads=1)
    counts = np.cumsum(record.spikes("hidden1"), axis=1)[:, times - 1]
    rates = np.moveaxis(counts, 1, 0) / times[:, None, None]
    own = equilibrium_of(done, logical, inputs.numpy())
    left = np.linalg.norm(rates - own, axis=(1, 2)) / np.linalg.norm(own)
    assert np.polyfit(np.log(times), np.log(left), 1)[0] == pytest.approx(-1, abs=0.15)
    # What rounding moved the equilibrium by, which no time takes away.
    wanted = net.equilibrium(net.currents(inputs)[:, 0], tolerance=1e-12).numpy()
    assert np.linalg.norm(own - wanted) / np.linalg.norm(wanted) < {4: 0.15, 8: 0.01}[bits]
