"""What was measured on chips, beside what the tables predict for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from snn_compile.targets.costs.tables import costs_folder
from snn_compile.targets.errors import ChipError
from snn_compile.targets.schema import Interval, entry, read_toml


@dataclass(frozen=True)
class SiliconRecord:
    """One measured network: dynamic microjoules and microseconds per step, and predictions of both.

    Predictions are of the network mapped by `mapper`; `bound` is the time that a step takes at least.
    """

    network: str = entry()
    hardware: str = entry()
    source: str = entry()
    cores: int = entry(low=1)
    dynamic_uj_per_step: float = entry(low=0)
    us_per_step: float = entry(low=0)
    mapper: str = entry()
    synops: Interval = entry("predicted_uj_per_step.synops", 0)
    davies2018: Interval = entry("predicted_uj_per_step.davies2018", 0)
    cmos45: Interval = entry("predicted_uj_per_step.cmos45", 0)
    sanafe: Interval = entry("predicted_uj_per_step.sanafe", 0)
    lemaire2022: Interval = entry("predicted_uj_per_step.lemaire2022", 0)
    bound: Interval = entry("predicted_us_per_step.bound", 0)

    def energy_ratio(self, table: str) -> Interval | None:
        """Return predicted / measured dynamic energy by a table, None if the record holds no prediction."""
        found: Interval | None = getattr(self, table) if table in TABLES else None
        return found and (found[0] / self.dynamic_uj_per_step, found[1] / self.dynamic_uj_per_step)

    @property
    def time_ratio(self) -> Interval:
        """The bound of a step over the measured time."""
        return self.bound[0] / self.us_per_step, self.bound[1] / self.us_per_step


TABLES = ("synops", "davies2018", "cmos45", "sanafe", "lemaire2022")
"""Energy proxies of which a record holds predictions."""


@cache
def silicon_records() -> tuple[SiliconRecord, ...]:
    """Return every record of this installation, by the names of their files."""
    files = sorted((costs_folder() / "silicon").glob("*.toml"))
    return tuple(read_toml(SiliconRecord, file, ChipError) for file in files)
