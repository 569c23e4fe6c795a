"""Registry of the training algorithms: the configuration of each, and its presets.

A file of this folder registers the algorithm `algorithms/NAME.py`, where NAME is its configuration's
`algorithm`; `presets.py` imports all files of the folder.
"""

from __future__ import annotations

from collections.abc import Mapping

from snn_compile.train.configs.config import RunConfig

DEFAULT_ALGORITHM = "bptt"
"""Algorithm of a configuration file that names none."""

CONFIGS: dict[str, type[RunConfig]] = {}
"""The configuration class of each algorithm."""

PRESETS: dict[str, tuple[str, RunConfig]] = {}
"""The presets by name: a line that describes it, and the configuration."""


def register(config: type[RunConfig], presets: Mapping[str, tuple[str, RunConfig]]) -> None:
    """Register an algorithm by its configuration class, and the presets that it trains.

    Both registries are ordered by algorithm, whatever is imported first.
    """
    CONFIGS[config.algorithm] = config
    PRESETS.update(presets)
    for algorithm in sorted(CONFIGS):
        CONFIGS[algorithm] = CONFIGS.pop(algorithm)
    for name, _ in sorted(PRESETS.items(), key=lambda item: item[1][1].algorithm):
        PRESETS[name] = PRESETS.pop(name)
