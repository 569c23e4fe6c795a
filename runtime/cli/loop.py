"""`snn-run loop`: run a program in an environment, and report returns, counts and cost."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from typing import Any

from snn_compile.runtime.execution.environments import (
    Environment,
    Episodes,
    Observer,
    environment_of,
    run_episodes,
)
from snn_compile.runtime.execution.session import Totals, open_session
from snn_compile.runtime.reports.cost_tables import energy_json
from snn_compile.runtime.reports.energy import Energy, energy
from snn_compile.runtime.reports.report import counts_json, overflow_notes, overflows_json, render
from snn_compile.targets.devices.counts import Counts
from snn_compile.targets.program.file import load_program
from snn_compile.targets.program.program import Program

SCHEMA = {"name": "snn-run-loop", "version": 1}


@dataclass(frozen=True, eq=False)
class Loop:
    """Episodes of a program in an environment, and their counts on the device.

    `lag_steps`: steps by which actions lag observations. `wall_s`: of all episodes, the environment's time
    included. `least`: the required mean return, or None.
    """

    program: Program
    device: str
    environment: Environment
    continuous: bool
    seed: int
    episodes: Episodes
    totals: Totals
    lag_steps: int
    wall_s: float
    least: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the mean return reaches the required one."""
        return self.least is None or self.episodes.mean >= self.least

    @property
    def counts(self) -> Counts:
        """The counts of all decisions."""
        assert self.totals.counts is not None
        return self.totals.counts

    def energy(self) -> tuple[Energy, ...]:
        """Return the energy proxies of all decisions."""
        return energy(self.program, self.counts)

    def json(self) -> dict[str, Any]:
        """Return the result as plain values, with its schema's name and version."""
        episodes, decisions = self.episodes, self.episodes.decisions
        proxies = self.energy()
        return {
            "schema": SCHEMA,
            "program": {
                "digest": self.program.digest(),
                "chip": self.program.chip,
                "network": self.program.provenance.get("network"),
                "model": self.program.provenance.get("model"),
            },
            "device": self.device,
            "environment": asdict(self.environment),
            "continuous": self.continuous,
            "seed": self.seed,
            "episodes": len(episodes.returns),
            "decisions": decisions,
            "return": {
                "mean": episodes.mean,
                "deviation": episodes.deviation,
                "minimum": episodes.minimum,
                "all": list(episodes.returns),
            },
            "per_decision": {
                "spikes": self.counts.total_spikes / decisions,
                "synops": self.counts.total_synops / decisions,
                "energy_pj": {proxy.name: proxy.total_pj / decisions for proxy in proxies},
            },
            "counts": counts_json(self.counts, {p.name: p.size for p in self.program.populations}),
            "energy": energy_json(proxies),
            "lag_steps": self.lag_steps,
            "input_clipped": self.totals.input_clipped,
            "ties": self.totals.ties / decisions,
            "overflows": overflows_json(self.totals.overflows),
            "wall_s": self.wall_s,
            **({} if self.least is None else {"min_return": {"limit": self.least, "passed": self.passed}}),
        }

    def text(self) -> str:
        """Return the result as text."""
        found = self.episodes
        name = self.program.provenance.get("model") or "program"
        shown = f"{self.environment.steps} steps per decision"
        kept = f", states kept, {self.lag_steps} steps behind" if self.continuous else ""
        rows: list[tuple[str, ...]] = [
            ("mean return", f"{found.mean:,.2f}"),
            ("deviation", f"{found.deviation:,.2f}"),
            ("minimum return", f"{found.minimum:,.2f}"),
            ("decisions", f"{found.decisions:,}"),
            ("spikes per decision", f"{self.counts.total_spikes / found.decisions:,.2f}"),
            ("synops per decision", f"{self.counts.total_synops / found.decisions:,.2f}"),
        ]
        rows += [
            (f"energy per decision, {proxy.name}", f"{proxy.total_pj / found.decisions / 1000:,.3f} nJ")
            for proxy in self.energy()
        ]
        notes = overflow_notes(self.totals.overflows)
        if self.totals.input_clipped:
            notes.append(f"{self.totals.input_clipped} input values were clipped to a message's range")
        where = f"on {self.device} in {self.environment.name}"
        return render(
            f"{name} [{self.program.digest()[:12]}] {where}: {shown}{kept}",
            [(f"{len(found.returns)} episodes, seeds from {self.seed}", ("", ""), rows)],
            [
                *notes,
                "Energies are proxies (no hardware was measured); snn-run loop --json has their sources.",
            ],
        )


def run_loop(options: argparse.Namespace, observe: Observer | None = None) -> Loop:
    """Run the episodes that the arguments of `snn-run loop` define."""
    program = load_program(options.program)
    environment = environment_of(program, options.environment, options.scale, options.steps)
    session = open_session(program, options.device, options.continuous)
    began = time.perf_counter()
    episodes = run_episodes(session, environment, options.episodes, options.seed, observe)
    return Loop(
        program,
        session.device,
        environment,
        options.continuous,
        options.seed,
        episodes,
        session.totals(),
        session.lag_steps,
        time.perf_counter() - began,
        options.min_return,
    )
