"""`--mapper best` beside other mappers, on networks drawn at random.

    python benchmarks/mapping/compare.py [--first SEED] [--count N] [--effort 1..5] [--json FILE]

N networks are drawn for each of two chips; a seed whose network does not fit is left out, and the next one
is drawn. The objective is the compiler's: cores, then the longest time of a core or link per step, then hops
of messages (`baselines.py` counts all three by itself). `at vendor's cores` is `--spread` with as many cores
as Intel's compiler would take: time alone is compared. Exits with 1 where `best` is worse anywhere.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from baselines import BASELINES, Cost, best
from networks import draw
from tqdm import tqdm

from snn_compile.compiler.mapping.core_memory import CoreMemory
from snn_compile.compiler.mapping.lower_bound import least_cores
from snn_compile.compiler.mapping.search import DEFAULT_EFFORT
from snn_compile.targets.errors import DoesNotFit

CHIPS = ("loihi2", "loihi1")


def compared(seed: int, chip: str, effort: int) -> dict[str, Any] | None:
    """Return what every mapper makes of one network, None where it does not fit the chip."""
    drawn = draw(seed, chip)
    if drawn is None:
        return None
    try:
        others = {name: mapper(drawn) for name, mapper in BASELINES.items()}
        began = perf_counter()
        ours = best(drawn, effort)
        seconds = perf_counter() - began
        if ours.cores > drawn.chip.cores:
            return None
        spread = best(drawn, effort, min(others["vendor"].cores, drawn.chip.cores))
    except DoesNotFit:
        return None
    return {
        "seed": seed,
        "chip": chip,
        "kind": drawn.kind,
        "neurons": sum(p.size for p in drawn.network.populations),
        "seconds": seconds,
        "lower_bound": least_cores(CoreMemory(drawn.network, drawn.chip)),
        "best": asdict(ours),
        "at vendor's cores": asdict(spread),
        "others": {name: asdict(one) for name, one in others.items()},
        "worse": [name for name, one in others.items() if not ours.no_worse(one)],
    }


def gain(found: list[dict[str, Any]], mapper: str, other: str, key: str) -> float:
    """Return the median of one cost over the other's, where that fits the chip and its cost is not zero."""
    ratios = []
    for one in found:
        mine, its = one[mapper][key], one["others"][other][key]
        if 0 < its < inf:
            ratios.append(mine / its)
    return median(ratios) if ratios else 1.0


def table(found: list[dict[str, Any]]) -> str:
    """Return the medians as a table in Markdown."""
    lines = ["| chip | other mapper | cores | longest time | hops | worse |", "|---|---|---|---|---|---|"]
    for chip in CHIPS:
        here = [one for one in found if one["chip"] == chip]
        for other in BASELINES:
            cells = [f"{gain(here, 'best', other, key):.2f}" for key in ("cores", "ns", "hops")]
            worse = sum(other in one["worse"] for one in here)
            lines.append(f"| {chip} | {other} | {' | '.join(cells)} | {worse} of {len(here)} |")
        time, name = gain(here, "at vendor's cores", "vendor", "ns"), "at vendor's cores"
        longer = sum(one[name]["ns"] > one["others"]["vendor"]["ns"] * (1 + 1e-9) for one in here)
        lines.append(f"| {chip} | vendor, at its cores | | {time:.2f} | | {longer} of {len(here)} |")
        over = median(one["best"]["cores"] / one["lower_bound"] for one in here)
        lines.append(f"| {chip} | lower bound | {over:.2f} | | | |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Draw, map, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--effort", type=int, default=DEFAULT_EFFORT)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    found: list[dict[str, Any]] = []
    for chip in CHIPS:
        seed, left_out = given.first, 0
        with tqdm(total=given.count, desc=chip) as bar:
            while bar.n < given.count:
                one = compared(seed, chip, given.effort)
                seed += 1
                if one is None:
                    left_out += 1
                    continue
                found.append(one)
                bar.update()
                if one["worse"]:
                    costs = {name: Cost(**one["others"][name]) for name in one["worse"]}
                    tqdm.write(f"{chip} seed {one['seed']}: {one['best']} worse than {costs}")
        print(f"{chip}: {given.count} networks, {left_out} more did not fit it")
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(one["worse"] for one in found))


if __name__ == "__main__":
    sys.exit(main())
