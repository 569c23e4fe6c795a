"""Draw networks of one framework, export them, and keep the framework's own spikes.

    python draw.py MAKER FOLDER FIRST COUNT

Run in an environment that has the framework. Writes SEED.nir, SEED.npz (`inputs`, and the output of every
neuron layer by node name) and SEED.json per network, and refused.json: what the exporter refuses, with its
message, by layers.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

TRIES = 60
MAKERS = ("norse", "rockpool", "sinabs", "snntorch", "spikingjelly")


def compact(array: Any) -> Any:
    """Store whole numbers in a byte each."""
    whole = np.rint(array)
    return whole.astype(np.int8) if (whole == array).all() and np.abs(whole).max() < 128 else array


def written(graph: Any) -> bytes:
    """Return a graph as a file; convolutions without an input shape get theirs from what arrives."""
    import nir

    file = io.BytesIO()
    try:
        nir.write(file, graph)
    except TypeError:
        file = io.BytesIO()
        graph.infer_types()
        nir.write(file, graph)
    return file.getvalue()


def one(maker: str, seed: int, refused: dict[str, Any]) -> tuple[Any, dict[str, Any], bytes]:
    """Return the first network of a seed that the exporter writes, what its layers sent, and the file."""
    from exports.drawing import Redraw, settled

    nets = importlib.import_module(f"exports.{maker}_nets")
    rng = np.random.default_rng([MAKERS.index(maker), seed])
    for _ in range(TRIES):
        try:
            drawn = nets.draw(rng)
            sent = settled(drawn)
        except Redraw:
            continue
        try:
            file = written(drawn.export())
        except Exception as error:  # whatever an exporter stumbles over is a finding
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            refused.setdefault(text, []).append(", ".join(drawn.layers))
            continue
        return drawn, sent, file
    raise SystemExit(f"{maker} {seed}: no network in {TRIES} tries; refused {refused}")


def main(maker: str, folder: Path, first: int, count: int) -> None:
    """See the file's docstring."""
    sys.modules["samna"] = None  # type: ignore[assignment]  # rockpool's samna installs things when imported
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import torch

    torch.set_num_threads(1)
    if maker != "rockpool":  # it sends float32 spikes through weights of the default type
        torch.set_default_dtype(torch.float64)
    folder.mkdir(parents=True, exist_ok=True)
    refused: dict[str, Any] = {}
    for seed in range(first, first + count):
        torch.manual_seed(seed)
        drawn, sent, file = one(maker, seed, refused)
        (folder / f"{seed}.nir").write_bytes(file)
        arrays = {f"layer/{name}": compact(array) for name, array in sent.items()}
        np.savez_compressed(folder / f"{seed}.npz", inputs=compact(drawn.data), **arrays)
        facts = {
            "maker": maker,
            "layers": drawn.layers,
            "neurons": list(drawn.neurons),
            "readouts": list(drawn.readouts),
            "truth": drawn.truth,
            "options": drawn.options,
        }
        (folder / f"{seed}.json").write_text(json.dumps(facts, indent=1) + "\n")
        (folder / "refused.json").write_text(json.dumps(refused, indent=1) + "\n")


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
