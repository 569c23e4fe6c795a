"""Everything that needs torch: neurons, training, checkpoints, and export to NIR.

Names load on first use, so that importing this package, or its command, does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snn_compile.train.analysis import Convergence, convergence, gradient_norms, spectral_radius
    from snn_compile.train.batches import Score
    from snn_compile.train.bptt import evaluate, fit
    from snn_compile.train.bptt_config import TrainConfig
    from snn_compile.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from snn_compile.train.equilibrium_analysis import accuracy_by_steps, approach, load_feedback
    from snn_compile.train.equilibrium_config import EquilibriumConfig
    from snn_compile.train.export import to_nir
    from snn_compile.train.feedback import FeedbackConfig, FeedbackLayer, FeedbackNetwork
    from snn_compile.train.foreign import load_foreign
    from snn_compile.train.forward_propagation import ForwardPropagation
    from snn_compile.train.fptt_config import FpttConfig
    from snn_compile.train.implicit import at_equilibrium
    from snn_compile.train.landscape import Landscape, error_landscape
    from snn_compile.train.liquid import Gates, Liquid, liquid_step
    from snn_compile.train.memory import saved_bytes
    from snn_compile.train.networks import LayerConfig, NetworkConfig, Run, SpikingNetwork
    from snn_compile.train.neurons import LI, LIF, CubaLIF, Firing
    from snn_compile.train.online_networks import OnlineConfig, OnlineNetwork
    from snn_compile.train.presets import PRESETS, read_config
    from snn_compile.train.recurrent import RecurrentConfig, RecurrentNetwork
    from snn_compile.train.resonators import Resonance, divergence_boundary, resonator_step
    from snn_compile.train.surrogate import SURROGATES, spike
    from snn_compile.train.training import Progress, Training

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
    "analysis": ("Convergence", "convergence", "gradient_norms", "spectral_radius"),
    "batches": ("Score",),
    "bptt": ("evaluate", "fit"),
    "bptt_config": ("TrainConfig",),
    "checkpoint": ("Checkpoint", "load_checkpoint", "save_checkpoint"),
    "equilibrium_analysis": ("accuracy_by_steps", "approach", "load_feedback"),
    "equilibrium_config": ("EquilibriumConfig",),
    "export": ("to_nir",),
    "feedback": ("FeedbackConfig", "FeedbackLayer", "FeedbackNetwork"),
    "foreign": ("load_foreign",),
    "forward_propagation": ("ForwardPropagation",),
    "fptt_config": ("FpttConfig",),
    "implicit": ("at_equilibrium",),
    "landscape": ("Landscape", "error_landscape"),
    "liquid": ("Gates", "Liquid", "liquid_step"),
    "memory": ("saved_bytes",),
    "networks": ("LayerConfig", "NetworkConfig", "Run", "SpikingNetwork"),
    "neurons": ("CubaLIF", "Firing", "LI", "LIF"),
    "online_networks": ("OnlineConfig", "OnlineNetwork"),
    "presets": ("PRESETS", "read_config"),
    "recurrent": ("RecurrentConfig", "RecurrentNetwork"),
    "resonators": ("Resonance", "divergence_boundary", "resonator_step"),
    "surrogate": ("SURROGATES", "spike"),
    "training": ("Progress", "Training"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
