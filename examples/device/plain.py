"""A device in plain Python: LIF and LI populations of Lava's rule, one neuron at a time.

    snn-run PROGRAM --data DATA --device plain:Plain

in this folder. A distribution declares it by name instead, in the entry point group `snn_compile.devices`.
"""

from __future__ import annotations

import numpy as np

from snn_compile.targets import DeviceRun, Overflow
from snn_compile.targets.devices.events import SpikeEvents
from snn_compile.targets.errors import DeviceError


class Plain:
    """Runs programs in integers of Python's own; slow, and short enough to read."""

    name = "plain"

    def run(self, program, messages, device_steps, probes):
        """Return spikes and probed states in device time; see `snn_compile.targets.Device.run`."""
        if other := [p.name for p in program.populations if not p.plain]:
            raise DeviceError(f"device plain has no rule for population {other[0]!r}", device=self.name)
        batch = next(iter(messages.values())).shape[0]
        shapes = {node.name: (batch, device_steps, node.size) for node in program.nodes}
        sent = {name: messages.get(name, np.zeros(shape, int)) for name, shape in shapes.items()}
        traces = {p.name: np.zeros((2, *shapes[p.name]), int) for p in program.populations}
        overflows = {p.name: Overflow() for p in program.populations}
        for sample in range(batch):
            now = {p.name: ([0] * p.size, each(p, "v_init")) for p in program.populations}
            for step in range(device_steps):
                for p in program.populations:
                    if step >= p.start_step and (step - p.start_step) % program.period == 0:
                        a = received(program, p, {name: rows[sample] for name, rows in sent.items()}, step)
                        now[p.name], sent[p.name][sample, step] = stepped(p, *now[p.name], a, program.formats)
                    traces[p.name][:, sample, step] = now[p.name]
        return DeviceRun(
            {p.name: SpikeEvents.from_dense(sent[p.name], p.graded) for p in program.senders},
            {probe: traces[probe[:-2]]["uv".index(probe[-1])] for probe in probes},
            overflows,
        )


def each(population, key):
    """Return a parameter for each neuron."""
    return [int(n) for n in np.broadcast_to(population.parameters[key], population.size)]


def wrapped(x, bits):
    """Return x as a signed integer of so many bits."""
    return (x + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1)


def kept(x, share, formats):
    """Return share / 2**decay_bits of x, rounded toward zero."""
    return (abs(x) * share >> formats.decay_bits) * (1 if x >= 0 else -1)


def received(program, population, sent, step):
    """Return the weighted sum of messages that reaches each neuron."""
    bits, totals = program.formats.accumulator_bits, [0] * population.size
    for edge in program.projections:
        if edge.target == population.name and step > edge.delay_steps:
            messages = [int(m) for m in sent[edge.source][step - 1 - edge.delay_steps]]
            for table in edge.tables:
                values = messages if table.message_bits else [m != 0 for m in messages]
                for i, row in enumerate(table.dense()):
                    total = wrapped(sum(int(w) * m for w, m in zip(row, values, strict=True) if m), bits)
                    e = table.exponent
                    totals[i] += wrapped(total << e, bits) if e > 0 else total >> -e
    return [wrapped(total, bits) for total in totals]


def stepped(p, u, v, inputs, formats):
    """Return the states (u, v) of the neurons after a step, and what each sends."""
    du, dv, bias = each(p, "du"), each(p, "dv"), [int(b) for b in np.broadcast_to(p.bias, p.size)]
    one, half, shift, sent = formats.decay_one, formats.state_half, formats.synaptic_shift, []
    for i, a in enumerate(inputs):
        x = wrapped(kept(u[i], one - du[i] - 1, formats) + (a << shift), 32)
        u[i] = x - 2 * half if x > half else x + 2 * half if x <= -half else x
        y = wrapped(kept(v[i], one - dv[i], formats) + u[i] + bias[i], 32)
        v[i] = max(1 - half, min(half - 1, y))
        if p.model == "li":
            sent.append(v[i] >> each(p, "message_shift")[i])
            continue
        threshold = each(p, "vth")[i] << shift
        sent.append(int(v[i] > threshold))
        if sent[i] and p.reset != "none":
            v[i] = 0 if p.reset == "value" else v[i] - threshold
    return (u, v), sent
