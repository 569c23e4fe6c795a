"""Neuron models: each file here registers the registers, states, ports and messages of its models."""

from snn_compile.targets.discovery import import_modules
from snn_compile.targets.program.models.model import MODELS, TABLE_MAX, Model, Register

__all__ = ["MODELS", "TABLE_MAX", "Model", "Register"]

import_modules(__name__)
