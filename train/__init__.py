"""Everything that needs torch: neurons, training, checkpoints, and export to NIR.

Names load on first use, so that importing this package, or its command, does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snn_compile.targets.lazy import attach

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
    from snn_compile.train.networks.layers import LI, LIF, CubaLIF
    from snn_compile.train.networks.recurrent import RecurrentConfig, RecurrentNetwork
    from snn_compile.train.neurons.lif import Firing
    from snn_compile.train.neurons.lsn import Gates, Liquid, liquid_step
    from snn_compile.train.neurons.rf_brf import Resonance, divergence_boundary, resonator_step
    from snn_compile.train.neurons.surrogate import SURROGATES, spike
    from snn_compile.train.probing.identify import Identified, identify
else:
    __getattr__, __dir__ = attach(
        __name__,
        {
            "algorithms.batches": ("Score",),
            "algorithms.bptt": ("evaluate", "fit"),
            "algorithms.fptt_update": ("ForwardPropagation",),
            "algorithms.implicit_gradient": ("at_equilibrium",),
            "algorithms.training": ("Progress", "Training"),
            "analysis.convergence": ("Convergence", "convergence", "gradient_norms", "spectral_radius"),
            "analysis.equilibrium": ("accuracy_by_steps", "approach", "load_feedback"),
            "analysis.landscape": ("Landscape", "error_landscape"),
            "analysis.memory": ("saved_bytes",),
            "checkpoints.checkpoint": ("Checkpoint", "load_checkpoint", "save_checkpoint"),
            "checkpoints.state_dict": ("load_foreign",),
            "configs.bptt": ("TrainConfig",),
            "configs.equilibrium": ("EquilibriumConfig",),
            "configs.fptt": ("FpttConfig",),
            "configs.presets": ("PRESETS", "read_config"),
            "export.to_nir": ("to_nir",),
            "networks.blockwise": ("OnlineConfig", "OnlineNetwork"),
            "networks.feedback": ("FeedbackConfig", "FeedbackLayer", "FeedbackNetwork"),
            "networks.feedforward": ("LayerConfig", "NetworkConfig", "Run", "SpikingNetwork"),
            "networks.layers": ("CubaLIF", "LI", "LIF"),
            "networks.recurrent": ("RecurrentConfig", "RecurrentNetwork"),
            "neurons.lif": ("Firing",),
            "neurons.lsn": ("Gates", "Liquid", "liquid_step"),
            "neurons.rf_brf": ("Resonance", "divergence_boundary", "resonator_step"),
            "neurons.surrogate": ("SURROGATES", "spike"),
            "probing.identify": ("Identified", "identify"),
        },
    )

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
    "Identified",
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
    "identify",
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
