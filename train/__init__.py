"""Everything that needs torch: neurons, training, checkpoints, and export to NIR.

Names load on first use, so that importing this package, or its command, does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile.train.algorithms.batches import Score
    from snn_compile.train.algorithms.bptt import evaluate, fit
    from snn_compile.train.algorithms.fptt_update import ForwardPropagation
    from snn_compile.train.algorithms.implicit_gradient import at_equilibrium
    from snn_compile.train.algorithms.training import Progress, Training
    from snn_compile.train.analysis.convergence import (
        Convergence,
        convergence,
        gradient_norms,
        spectral_radius,
    )
    from snn_compile.train.analysis.equilibrium import accuracy_by_steps, approach, load_feedback
    from snn_compile.train.analysis.landscape import Landscape, error_landscape
    from snn_compile.train.analysis.memory import saved_bytes
    from snn_compile.train.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from snn_compile.train.checkpoints.state_dict import load_foreign
    from snn_compile.train.configs.bptt import TrainConfig
    from snn_compile.train.configs.equilibrium import EquilibriumConfig
    from snn_compile.train.configs.fptt import FpttConfig
    from snn_compile.train.configs.presets import PRESETS, read_config
    from snn_compile.train.export.to_nir import to_nir
    from snn_compile.train.networks.blockwise import OnlineConfig, OnlineNetwork
    from snn_compile.train.networks.feedback import FeedbackConfig, FeedbackLayer, FeedbackNetwork
    from snn_compile.train.networks.feedforward import LayerConfig, NetworkConfig, Run, SpikingNetwork
    from snn_compile.train.networks.layers import LI, LIF, CubaLIF, Firing
    from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork
    from snn_compile.train.neurons.lsn import Gates, Liquid, liquid_step
    from snn_compile.train.neurons.rf_brf import Resonance, divergence_boundary, resonator_step
    from snn_compile.train.neurons.surrogate import SURROGATES, spike

__all__ = [
    "Checkpoint",
    "Convergence",
    "CubaLIF",
    "EquilibriumConfig",
    "FeedbackConfig",
    "FeedbackLayer",
    "FeedbackNetwork",
    "Firing",
    "ForwardPropagation",
    "FpttConfig",
    "Gates",
    "LI",
    "LIF",
    "Landscape",
    "LayerConfig",
    "Liquid",
    "NetworkConfig",
    "OnlineConfig",
    "OnlineNetwork",
    "PRESETS",
    "Progress",
    "RecurrentConfig",
    "RecurrentNetwork",
    "Resonance",
    "Run",
    "SURROGATES",
    "Score",
    "SpikingNetwork",
    "TrainConfig",
    "Training",
    "accuracy_by_steps",
    "approach",
    "at_equilibrium",
    "convergence",
    "divergence_boundary",
    "error_landscape",
    "evaluate",
    "fit",
    "gradient_norms",
    "liquid_step",
    "load_checkpoint",
    "load_feedback",
    "load_foreign",
    "read_config",
    "resonator_step",
    "save_checkpoint",
    "saved_bytes",
    "spectral_radius",
    "spike",
    "to_nir",
]

_MODULES = {
    "analysis.convergence": ("Convergence", "convergence", "gradient_norms", "spectral_radius"),
    "algorithms.batches": ("Score",),
    "algorithms.bptt": ("evaluate", "fit"),
    "configs.bptt": ("TrainConfig",),
    "checkpoints.checkpoint": ("Checkpoint", "load_checkpoint", "save_checkpoint"),
    "analysis.equilibrium": ("accuracy_by_steps", "approach", "load_feedback"),
    "configs.equilibrium": ("EquilibriumConfig",),
    "export.to_nir": ("to_nir",),
    "networks.feedback": ("FeedbackConfig", "FeedbackLayer", "FeedbackNetwork"),
    "checkpoints.state_dict": ("load_foreign",),
    "algorithms.fptt_update": ("ForwardPropagation",),
    "configs.fptt": ("FpttConfig",),
    "algorithms.implicit_gradient": ("at_equilibrium",),
    "analysis.landscape": ("Landscape", "error_landscape"),
    "neurons.lsn": ("Gates", "Liquid", "liquid_step"),
    "analysis.memory": ("saved_bytes",),
    "networks.feedforward": ("LayerConfig", "NetworkConfig", "Run", "SpikingNetwork"),
    "networks.layers": ("CubaLIF", "Firing", "LI", "LIF"),
    "networks.blockwise": ("OnlineConfig", "OnlineNetwork"),
    "configs.presets": ("PRESETS", "read_config"),
    "networks.recurrent": ("RecurrentConfig", "RecurrentNetwork"),
    "neurons.rf_brf": ("Resonance", "divergence_boundary", "resonator_step"),
    "neurons.surrogate": ("SURROGATES", "spike"),
    "algorithms.training": ("Progress", "Training"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
