"""A node that NIR lacks, added from outside the package: a class, a meaning and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
from snn_compile.compiler import compile_graph, lower
from snn_compile.compiler.contract.contract import Contract
from snn_compile.compiler.frontends.nir_extensions import ExtensionNode
from snn_compile.compiler.lowering.nodes import Neuron, lower_node
from snn_compile.compiler.network import Population


@dataclass(eq=False)
class Halving(ExtensionNode):
    needs = ("dt",)

    theta: Any
    gain: Any


@lower_node.register
def _(node: Halving, name: str, contract: Contract) -> Neuron:
    zero = np.zeros(1)
    parameters = dict.fromkeys(("bias", "input_bias", "v_init", "offset"), zero)
    parameters |= {"current_decay": zero + 1, "voltage_decay": zero + 0.5, "threshold": node.theta}
    return Neuron(Population(name, node.theta.shape, "lif", parameters), node.gain)


nodes = {
    "input": nir.Input({"input": np.array([3])}),
    "half": Halving(np.ones(3), np.full(3, 2.0)),
    "output": nir.Output({"output": np.array([3])}),
}
edges = [("input", "half"), ("half", "output")]
nir.write(sys.argv[1], nir.NIRGraph(nodes, edges))
network = lower(sys.argv[1], {"dt": 1.0})
assert network.population("half").parameters["voltage_decay"] == 0.5
assert (network.projections[0].weight.diagonal() == 2).all()
print(len(compile_graph(network).cores), "core")
"""


def test_a_class_and_a_function_make_an_extension_node(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "half.nir")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout == "1 core\n", done.stderr
