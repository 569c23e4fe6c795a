"""One-line mistakes planted in each device: the comparison of random programs must see every one.

A mutant is a device loaded from its own source with one piece of text replaced. Mutants of the oracle
are compared with `loihi2-sim`, mutants of `loihi2-sim` with the oracle. The kernels of mutants run as
plain Python (numpy's 32-bit scalars wrap as the compiled ones do), which a first test shows to be equal.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from snn_compile import targets

SOURCES = Path(targets.__file__).parent
SEEDS = range(5000, 5060)
CHAINS = {"oracle": ("integer", "oracle"), "loihi2-sim": ("kernels", "loihi2_sim")}


@dataclass(frozen=True)
class Mutant:
    """In `file`, the text `old`, which is there exactly once, becomes `new`."""

    what: str
    file: str
    old: str
    new: str


ORACLE = (
    Mutant("decay floors", "integer", "np.sign(x) * (np.abs(x) >> bits)", "x >> bits"),
    Mutant("decay rounds to nearest", "integer", "(np.abs(x) >> bits)",
           "(np.abs(x) + (1 << bits >> 1) >> bits)"),
    Mutant(">= at the threshold", "oracle", "self.v > self.threshold", "self.v >= self.threshold"),
    Mutant("du without its offset", "oracle", '(parameters["du"] + 1)', 'parameters["du"]'),
    Mutant("dv with an offset", "oracle", 'DECAY_ONE - parameters["dv"]',
           'DECAY_ONE - (parameters["dv"] + 1)'),
    Mutant("u wraps at M itself", "integer", "np.where(x > M,", "np.where(x >= M,"),
    Mutant("u wraps after -M", "integer", "np.where(x <= -M,", "np.where(x < -M,"),
    Mutant("u saturates", "oracle", "self.u = wrap24(wrap32(exact))", "self.u = np.clip(exact, -M, M)"),
    Mutant("u wraps fully", "integer",
           "np.where(x > M, x - 2 * M, np.where(x <= -M, x + 2 * M, x))",
           "-((M - x) % (2 * M) - M)"),
    Mutant("u wraps at 32 bits only", "oracle", "wrap24(wrap32(exact))", "wrap32(exact)"),
    Mutant("u wraps at 24 bits only", "oracle", "wrap24(wrap32(exact))", "wrap24(exact)"),
    Mutant("v saturates at M", "integer", "np.clip(v, -(M - 1), M - 1)", "np.clip(v, -(M - 1), M)"),
    Mutant("v saturates at -M", "integer", "np.clip(v, -(M - 1), M - 1)", "np.clip(v, -M, M - 1)"),
    Mutant("v wraps", "oracle", "self.v = saturate(raw)",
           "self.v = (raw + M - 1) % (2 * M) - (M - 1)"),
    Mutant("v saturates twice", "oracle", "DECAY_BITS) + self.u + self.bias)",
           "DECAY_BITS) + saturate(self.u + self.bias))"),
    Mutant("right shift truncates", "integer", "else total >> -exponent",
           "else shift_toward_zero(total, -exponent)"),
    Mutant("right shift per weight", "oracle",
           "values @ table.weights.T.astype(np.int64), table.exponent",
           "values @ (table.weights.T.astype(np.int64) >> max(0, -table.exponent)), "
           "max(0, table.exponent)"),
    Mutant("right shift on the sum of tables", "oracle",
           "shift_sum(values @ table.weights.T.astype(np.int64), table.exponent)",
           "shift_sum((total := total + (values @ table.weights.T.astype(np.int64))), "
           "table.exponent) - total"),
    Mutant("table sums stay wide", "integer", "    total = wrap32(total)\n", ""),
    Mutant("delay + 1", "oracle", "sent[edge.source][step - 1 - edge.delay_steps]",
           "sent[edge.source][max(0, step - 2 - edge.delay_steps)]"),
    Mutant("delay - 1", "oracle", "sent[edge.source][step - 1 - edge.delay_steps]",
           "sent[edge.source][step - 1 - max(0, edge.delay_steps - 1)]"),
    Mutant("delays ignored", "oracle", "sent[edge.source][step - 1 - edge.delay_steps]",
           "sent[edge.source][step - 1]"),
    Mutant("reset at the next step", "oracle",
           "spikes = self.v > self.threshold\n",
           "spikes = self.v > self.threshold\n        spikes, self.late = getattr("
           "self, 'late', spikes & False), spikes\n"),
    Mutant("reset before the threshold", "oracle", "spikes = self.v > self.threshold",
           "spikes = self.v - self.threshold > self.threshold"),
    Mutant("reset of u as well", "oracle", "return spikes.astype(np.int64)",
           "self.u[spikes] = 0\n        return spikes.astype(np.int64)"),
    Mutant("subtract as value", "oracle", "np.where(spikes, self.v - self.threshold, self.v)",
           "np.where(spikes, 0, self.v)"),
    Mutant("subtract of the register", "oracle", "self.v - self.threshold,",
           "self.v - (self.threshold >> 6),"),
    Mutant("none as value", "oracle", 'self.population.reset == "value"',
           'self.population.reset != "subtract"'),
    Mutant("early bias", "oracle", "if step < self.population.start_step:", "if step < 0:"),
    Mutant("start one step late", "oracle", "if step < self.population.start_step:",
           "if step < self.population.start_step + 1:"),
    Mutant("input not shifted by 6", "oracle", "(a << STATE_SHIFT)", "a"),
    Mutant("bias shifted by 6", "oracle", "self.bias = population.bias",
           "self.bias = population.bias << STATE_SHIFT"),
    Mutant("bias decays", "oracle", "DECAY_BITS) + self.u + self.bias)",
           "DECAY_BITS) + self.u + shift_toward_zero(self.bias * self.keep_v, DECAY_BITS))"),
    Mutant("u of the step before in v", "oracle", "+ self.u + self.bias)",
           "+ np.where(exact > 0, self.u, exact) + self.bias)"),
    Mutant("v_init ignored", "oracle", 'self.u + parameters["v_init"]',
           'self.u + 0 * parameters["v_init"]'),
    Mutant("graded as binary", "oracle", "messages if table.message_bits else (messages != 0)",
           "messages if table.message_bits > 24 else (messages != 0)"),
    Mutant("binary as graded", "oracle", "messages if table.message_bits else (messages != 0)",
           "messages if True else (messages != 0)"),
    Mutant("only the first table", "oracle", "for table in edge.tables:",
           "for table in edge.tables[:1]:"),
    Mutant("overflow of v low forgotten", "oracle", "int((raw < -(M - 1)).sum())", "0"),
)
"""Mutants of the oracle, in its own file and in the arithmetic it imports."""

KEEP_V = "d = keep_v[i]\n"
SIM = (
    Mutant("decay of u floors", "kernels", "kept = np.int32(-np.int32(m)) if x < 0 else np.int32(m)\n"
           "        shifted", "kept = np.int32((np.int64(x) * np.int64(d)) >> 12)\n        shifted"),
    Mutant("decay of v floors", "kernels", "kept = np.int32(-np.int32(m)) if x < 0 else np.int32(m)\n"
           "        y = ", "kept = np.int32((np.int64(x) * np.int64(d)) >> 12)\n        y = "),
    Mutant(">= at the threshold", "kernels", "y > threshold[i]", "y >= threshold[i]"),
    Mutant("du without its offset", "loihi2_sim", '(p.parameters["du"] + 1)', 'p.parameters["du"]'),
    Mutant("dv with an offset", "loihi2_sim", 'DECAY_ONE - p.parameters["dv"]',
           'DECAY_ONE - (p.parameters["dv"] + 1)'),
    Mutant("u wraps at M itself", "kernels", "np.int32(y - full) if y > half",
           "np.int32(y - full) if y >= half"),
    Mutant("u wraps after -M", "kernels", "if y <= -half else y", "if y < -half else y"),
    Mutant("u does not wrap", "kernels", "w = np.int32(y - full) if y > half else",
           "w = y if y > half else"),
    Mutant("u saturates", "kernels", "w = np.int32(y - full) if y > half", "w = half if y > half"),
    Mutant("v saturates at M", "kernels", "top = np.int32((1 << 23) - 1)", "top = np.int32(1 << 23)"),
    Mutant("v saturates at M - 2", "kernels", "top = np.int32((1 << 23) - 1)",
           "top = np.int32((1 << 23) - 2)"),
    Mutant("v saturates at -M", "kernels", "np.int32(-top) if y < -top else y)",
           "np.int32(-top - 1) if y < -top else y)"),
    Mutant("v does not saturate below", "kernels", "(np.int32(-top) if y < -top else y)", "y"),
    Mutant("right shift per table half", "kernels",
           "whole = np.int32(np.int32(sign * total[j]) << doubling)\n"
           "            slot[j] = np.int32(slot[j] + np.int32(whole >> shift))",
           "whole = np.int32(np.int32(sign * total[j]) >> shift)\n"
           "            slot[j] = np.int32(slot[j] + np.int32(whole << doubling))"),
    Mutant("right shift truncates", "kernels", "np.int32(whole >> shift)",
           "np.int32(-(-whole >> shift) if whole < 0 else whole >> shift)"),
    Mutant("right shift before the sign", "kernels",
           "whole = np.int32(np.int32(sign * total[j]) << doubling)\n"
           "            slot[j] = np.int32(slot[j] + np.int32(whole >> shift))",
           "whole = np.int32(np.int32(total[j]) << doubling)\n"
           "            slot[j] = np.int32(slot[j] + sign * np.int32(whole >> shift))"),
    Mutant("delay + 1", "kernels", "(t + 1 + tab_delay[e]) %", "(t + 2 + tab_delay[e]) %"),
    Mutant("delay - 1", "kernels", "(t + 1 + tab_delay[e]) %", "(t + 1 + max(0, tab_delay[e] - 1)) %"),
    Mutant("ring one slot short", "loihi2_sim", "edge.delay_steps + 1)", "edge.delay_steps)"),
    Mutant("reset before the threshold", "kernels", "fires = (y > threshold[i])",
           "fires = (y - threshold[i] > threshold[i])"),
    Mutant("reset of u as well", "kernels", "fired[i] = np.uint8(fires)",
           "fired[i] = np.uint8(fires)\n        u[i] = 0 if fires else u[i]"),
    Mutant("subtract of the register", "kernels", "np.int32(y - threshold[i]) if fires",
           "np.int32(y - (threshold[i] >> 6)) if fires"),
    Mutant("subtract as value", "kernels", "elif reset == 1:\n            y = np.int32(y - threshold[i])",
           "elif reset == 1:\n            y = np.int32(0)"),
    Mutant("none as value", "kernels", "if reset == 0:", "if reset != 1:"),
    Mutant("early bias", "kernels", "if t >= pop_start[p]:", "if t >= 0:"),
    Mutant("start one step late", "kernels", "if t >= pop_start[p]:", "if t > pop_start[p]:"),
    Mutant("input not shifted by 6", "kernels", "shifted = np.int32(a << 6)", "shifted = np.int32(a)"),
    Mutant("bias shifted by 6", "loihi2_sim", "bias[where] = p.bias", "bias[where] = p.bias << 6"),
    Mutant("v_init ignored", "kernels", "v[:] = v_init", "v[:] = 0"),
    Mutant("u not reset", "kernels", "            u[:] = 0\n", ""),
    Mutant("v not reset", "kernels", "v[:] = v_init", "v[:] = v if s else v_init"),
    Mutant("delay buffers not reset", "kernels", "            ring[:] = 0\n", ""),
    Mutant("accumulator not cleared", "kernels", "        acc[i] = np.int32(0)\n", ""),
    Mutant("mixed rows not doubled", "kernels", "doubling = 1 if rows == 0 else 0", "doubling = 0"),
    Mutant("inhibitory rows excite", "kernels", "np.int32(-1) if rows == 2", "np.int32(1) if rows == 2"),
    Mutant("inhibitory stored as it is", "loihi2_sim", "np.abs(padded).astype(np.uint8)",
           "padded.astype(np.uint8)"),
    Mutant("graded as binary", "loihi2_sim", "int(table.message_bits > 0)", "0"),
    Mutant("binary as graded", "loihi2_sim", "int(table.message_bits > 0)", "1"),
    Mutant("positive messages only", "kernels", "k += line[j] != 0", "k += line[j] > 0"),
    Mutant("held input: always", "kernels", "held = False\n                    if t > 0:",
           "held = t > 0\n                    if False:"),
    Mutant("held input: first channel decides", "kernels", "for j in range(in_n[i]):\n"
           "                            if line[j] != before[j]:",
           "for j in range(1):\n                            if line[j] != before[j]:"),
    Mutant("held input: across samples", "kernels", "if t > 0:", "if t > 0 or s > 0:"),
    Mutant("sum kept between steps", "kernels", "                else:\n"
           "                    total[:] = 0\n", "                else:\n"),
    Mutant("odd row forgotten", "kernels", "if q < k:", "if q < k - 1:"),
    Mutant("eight rows in 8 bits", "kernels", "np.int32(eight)", "np.int32(np.int8(eight))"),
    Mutant("eighth row twice", "kernels", "np.int16(r7[j]))", "np.int16(r6[j]))"),
    Mutant("two rows in 8 bits", "kernels", "np.int32(two)", "np.int32(np.int8(two))"),
    Mutant("last neuron never spikes", "kernels", "for i in range(n):\n        spikes[k]",
           "for i in range(n - 1):\n        spikes[k]"),
    Mutant("step skipped after a full buffer", "kernels", "t = cursor[1]\n",
           "t = cursor[1]\n            cursor[1] += 1\n"),
    Mutant("probes all in the first row", "kernels", "(s * steps + t) * pop_n[p]", "t * pop_n[p]"),
    Mutant("wraps not counted", "kernels", "overflow[0] += wraps", "overflow[0] += 0"),
    Mutant("probe before the reset", "kernels",
           "state = v if probe_is_v[q] else u", "state = u if probe_is_v[q] else v"),
)
"""Mutants of `loihi2-sim`, in its kernels and in what prepares the arrays for them."""


def load_device(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str,
                mutant: Mutant | None = None) -> Any:
    """Return a device made from its source with the mutant's text replaced, uncompiled."""
    plain = ModuleType("numba")
    plain.njit = lambda **_: lambda function: function  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "numba", plain)
        for part in CHAINS[name]:
            text = (SOURCES / f"{part}.py").read_text(encoding="utf-8")
            if mutant is not None and mutant.file == part:
                assert text.count(mutant.old) == 1, f"{part}.py has {text.count(mutant.old)}: {mutant}"
                text = text.replace(mutant.old, mutant.new)
            file = folder / f"{part}.py"
            file.write_text(text, encoding="utf-8")
            spec = importlib.util.spec_from_file_location(f"mutant_{next(_numbers)}", file)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            patch.setitem(sys.modules, spec.name, module)
            spec.loader.exec_module(module)
            # What the next part imports is this module, by either form of import.
            patch.setitem(sys.modules, f"snn_compile.targets.{part}", module)
            patch.setattr(targets, part, module, raising=False)
    if name == "oracle":
        return module.Oracle()
    module.EVENT_BUFFER = 1
    return module.Loihi2Sim(threads=2)


_numbers = count()


@pytest.fixture(scope="module")
def fixed(random_programs: Any, comparing: Any) -> list[Any]:
    """The programs, and the record of each by either device as it is."""
    found = []
    for case in [*(random_programs.case(seed, random_programs.SHORT) for seed in SEEDS),
                 *random_programs.edge_cases().values()]:
        records = {name: comparing.run_all(case.program, case.inputs, name) for name in CHAINS}
        found.append(SimpleNamespace(case=case, records=records))
    return found


def caught(device: Any, other: str, fixed: list[Any], comparing: Any) -> str:
    """Return the first difference between a device and the records of the other one, or ""."""
    for entry in fixed:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "overflow encountered in scalar", RuntimeWarning)
            record = comparing.run_all(entry.case.program, entry.case.inputs, device)
        if difference := comparing.first_difference(entry.records[other], record):
            return str(difference)
    return ""


@pytest.mark.parametrize("name", CHAINS)
def test_without_a_mutant_nothing_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed: list[Any], comparing: Any, name: str
) -> None:
    device = load_device(tmp_path, monkeypatch, name)
    assert not isinstance(device, (targets.oracle.Oracle, targets.loihi2_sim.Loihi2Sim))
    for other in CHAINS:
        assert not caught(device, other, fixed, comparing)


@pytest.mark.parametrize("mutant", ORACLE, ids=lambda mutant: mutant.what)
def test_mutant_of_the_oracle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed: list[Any], comparing: Any, mutant: Mutant
) -> None:
    device = load_device(tmp_path, monkeypatch, "oracle", mutant)
    assert caught(device, "loihi2-sim", fixed, comparing)


@pytest.mark.parametrize("mutant", SIM, ids=lambda mutant: mutant.what)
def test_mutant_of_loihi2_sim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fixed: list[Any], comparing: Any, mutant: Mutant
) -> None:
    device = load_device(tmp_path, monkeypatch, "loihi2-sim", mutant)
    assert caught(device, "oracle", fixed, comparing)
