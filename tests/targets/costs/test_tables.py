"""Cost tables: every file of the folder loads, and a user's is checked key by key."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from snn_compile.targets.costs.tables import NO_CHIP, arithmetic_costs, cost_table_names, load_cost_table
from snn_compile.targets.errors import ChipError

FILES = sorted(Path(str(resources.files("snn_compile.targets.costs"))).glob("*.toml"))
EXAMPLE = Path(__file__).resolve().parents[3] / "examples/costs/edge28.toml"


def test_every_file_is_a_table() -> None:
    assert cost_table_names() == [file.stem for file in FILES if file.stem not in NO_CHIP]
    for name in cost_table_names():
        table = load_cost_table(name)
        assert table.name == name and table.source
        assert table.synaptic_op_pj > 0 and table.proxy and table.hardware and table.publication
    assert 0 < arithmetic_costs().add_int8_pj < arithmetic_costs().multiply_int32_pj


def test_a_users_table_needs_no_names_for_reports(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    kept = [line for line in text.splitlines() if not line.startswith(("proxy", "hardware", "publication"))]
    (tmp_path / "mine.toml").write_text("\n".join(kept))
    table = load_cost_table("mine.toml", tmp_path)
    assert (table.name, table.proxy, table.hardware, table.publication) == ("mine",) * 4
    assert load_cost_table(str(EXAMPLE)).hop_north_south_pj == 2.0


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("synaptic_op_pj = 8.0", "", "key synaptic_op_pj is missing"),
        ("synaptic_op_pj", "synaptic_op", "unknown key synaptic_op; did you mean synaptic_op_pj"),
        ("= 8.0", "= -8.0", "synaptic_op_pj is -8.0; it must be 0 or more"),
        ("= 8.0", "= inf", "synaptic_op_pj is inf; it must be 0 or more"),
        ("= 8.0", "= nan", "synaptic_op_pj is nan; it must be 0 or more"),
        ("= 8.0", '= "8"', "synaptic_op_pj is '8'; it must be a number"),
        ('source = "', 'source = ["', "Unclosed array|source"),
    ],
)
def test_a_mistake(tmp_path: Path, before: str, after: str, message: str) -> None:
    (tmp_path / "odd.toml").write_text(EXAMPLE.read_text().replace(before, after, 1))
    with pytest.raises(ChipError, match=f"^odd.toml: .*({message})") as caught:
        load_cost_table("odd.toml", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_table_lists_the_names(tmp_path: Path) -> None:
    for name in ("none", "cmos45"):
        with pytest.raises(ChipError, match=f"no cost table named '{name}'; there are: .*loihi1"):
            load_cost_table(name)
    (tmp_path / "loihi1.toml").write_text(EXAMPLE.read_text())
    with pytest.raises(ChipError, match="'loihi1' is a cost table of this installation; give the"):
        load_cost_table("loihi1.toml", tmp_path)
