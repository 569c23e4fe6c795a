from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from snn_compile.runtime import Report, compare, trace
from snn_compile.runtime.reports.accuracy import score
from snn_compile.runtime.reports.figure import draw
from snn_compile.runtime.reports.report import check_format
from snn_compile.targets.devices.record import Overflow
from snn_compile.targets.errors import WrongInput
from snn_compile.targets.program.program import Program


@pytest.fixture
def made(relay: Program, relay_inputs: np.ndarray) -> Report:
    predictions = np.array([1, 0])
    return replace(
        compare(relay, None, relay_inputs, [1, 0]),
        accuracy=score(predictions, [1, 1], np.array([1, 1])),
        agreement=0.5,
    )


def png_size(data: bytes) -> tuple[int, int]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_json_has_the_agreed_keys(made: Report) -> None:
    body = json.loads(json.dumps(made.json(), allow_nan=False))
    assert body["schema"] == {"name": "snn-compile-report", "version": 1}
    assert {
        "accuracy",
        "counts",
        "energy",
        "device",
        "overflows",
        "ties",
        "input_clipped",
        "latency_steps",
        "program",
    } <= body.keys()
    assert {"float", "deployed", "drop", "interval", "samples"} <= body["accuracy"].keys()
    assert (body["accuracy"]["float"], body["accuracy"]["deployed"]) == (1.0, 0.5)
    assert body["accuracy"]["drop"] == 50.0
    low, high = body["accuracy"]["interval"]
    assert low < 50 < high
    assert len(body["program"]["digest"]) == 64
    assert (body["steps"], body["latency_steps"], body["device_steps"]) == (3, 2, 5)


def test_json_counts(made: Report) -> None:
    counts = made.json()["counts"]
    assert counts["total"] == {
        "spikes": 12,
        "synops": 13,
        "graded_synops": 0,
        "updates": 30,
        "active_updates": 12,
        "input_messages": 5,
        "core_messages": 8,
        "messages_within_tile": 3,
        "hops_east_west": 10,
        "hops_north_south": 5,
    }
    assert counts["per_sample"]["synops"] == 6.5
    assert counts["populations"]["b"] == {
        "neurons": 3,
        "spikes": 7,
        "rate": 7 / 18,
        "updates": 18,
        "active_updates": 7,
    }
    assert counts["projections"]["a-b"] == {"synops": 8}
    assert set(counts["drain"]) == {"spikes", "synops", "updates"}


def test_json_energy_is_by_proxy_with_its_source(made: Report) -> None:
    energy = made.json()["energy"]
    assert set(energy) == {"synops", "davies2018", "cmos45", "sanafe", "lemaire2022"}
    for proxy in energy.values():
        assert proxy["source"] and "not a measurement" in proxy["label"]
        assert sum(proxy["parts_pj"].values()) == pytest.approx(proxy["per_sample_pj"])
        assert proxy["total_pj"] == pytest.approx(2 * proxy["per_sample_pj"])


def test_text_tells_what_matters(made: Report) -> None:
    text = made.text()
    for words in (
        "no difference detectable with 2 samples",
        "+50.00 points",
        "Loihi 1",
        "a proxy, not a measurement",
        "same prediction 50.00%",
        "pipeline drain spikes",
        "+2 steps latency",
    ):
        assert words in " ".join(text.split()), words
    assert max(map(len, text.splitlines())) <= 100


def test_text_without_labels_tells_the_agreement(made: Report) -> None:
    text = replace(made, accuracy=None).text()
    assert "Predictions (no labels, so no accuracy)" in text and "50.00%" in text
    assert "Predictions" not in replace(made, accuracy=None, agreement=None).text()


def test_text_and_page_take_names_as_they_are(relay: Program, relay_inputs: np.ndarray) -> None:
    odd = replace(relay, provenance={"model": "[red]<script>alert(1)</script>&.pt"})
    made = compare(odd, None, relay_inputs)
    assert "[red]<script>" in made.text()
    html = made.html()
    assert "<script" not in html and "[red]&lt;script&gt;alert(1)&lt;/script&gt;&amp;.pt" in html


def test_notes_warn(made: Report) -> None:
    worrying = replace(made, overflows={"a": Overflow(1, 2, 3), "b": Overflow()}, input_clipped=4, ties=0.25)
    notes = "\n".join(worrying.notes())
    assert "overflow in a: u wrapped 1 times, v saturated 2 times high and 3 times low" in notes
    assert "overflow in b" not in notes
    assert "4 input values" in notes and "25.0% of predictions were ties" in notes


@pytest.mark.parametrize(("sizes", "graded"), [((8,), False), ((30, 4), True), ((9,) * 12, False)])
def test_figure_for_few_and_many_populations(
    chain: Callable[..., Program], sizes: tuple[int, ...], graded: bool
) -> None:
    program = chain(*sizes, graded=graded)
    inputs = np.random.default_rng(0).random((3, 16, 10))
    inputs = inputs if graded else (inputs < 0.3).astype(float)
    made = compare(program, None, inputs)
    width, height = png_size(draw(trace(program, inputs, sample=2), made.title(), made.counts))
    assert width == 1080 and 500 < height < 3000


def test_figure_takes_any_name(chain: Callable[..., Program]) -> None:
    program = chain(5, 3, names="$x_{{$ <é {} 漢" + "y" * 60, model="$$.pt")
    inputs = np.ones((1, 4, 10))
    report = compare(program, None, inputs, [2])
    png_size(draw(trace(program, inputs, [2]), report.title(), report.counts))


def test_trace_is_one_sample_in_float_units(chain: Callable[..., Program]) -> None:
    program = chain(8, 3)
    inputs = np.random.default_rng(0).random((4, 6, 10)) < 0.5
    one = trace(program, inputs, [0, 1, 2, 0], 2)
    assert one.label == 2 and one.membrane.shape == (6, 3)
    assert {name: s.shape for name, s in one.spikes.items()} == {"layer0": (6, 8), "layer1": (6, 3)}
    assert one.threshold == pytest.approx(400 * 64 / 1000)
    np.testing.assert_array_equal(one.inputs["in"], inputs[2])
    with pytest.raises(WrongInput, match="no sample 4; there are 4"):
        trace(program, inputs, sample=4)


def test_save_by_ending(made: Report, relay: Program, relay_inputs: np.ndarray, tmp_path: Path) -> None:
    one = trace(relay, relay_inputs, [1, 1])
    for ending in (".json", ".png", ".html"):
        made.save(tmp_path / f"r{ending}", one)
    assert json.loads((tmp_path / "r.json").read_text()) == json.loads(json.dumps(made.json()))
    png_size((tmp_path / "r.png").read_bytes())
    html = (tmp_path / "r.html").read_text()
    assert 'src="data:image/png;base64,' in html and "http" not in html


def test_save_leaves_nothing_half_written(
    made: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, data: bytes) -> int:
        path.open("wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(WrongInput, match="cannot write"):
        made.save(tmp_path / "r.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("r.pdf", "use one of .html, .json, .png"),
        ("no/r.png", "^cannot write .*: the folder .*no does not exist; create it first$"),
        ("r.png", "needs the trace"),
    ],
)
def test_save_refuses(made: Report, tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(WrongInput, match=message):
        made.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_place_for_a_report(tmp_path: Path) -> None:
    (tmp_path / "r.html").mkdir()
    with pytest.raises(WrongInput, match="^cannot write .*r.html: it is a folder; name a file in it$"):
        check_format(tmp_path / "r.html")


def test_classes_and_mcnemar_stand_in_every_form(made: Report, tmp_path: Path) -> None:
    accuracy = score(np.array([0, 1, 1, 2]), [0, 1, 2, 2], np.array([0, 1, 2, 1]))
    full = replace(made, accuracy=accuracy)
    body = full.json()["accuracy"]
    assert body["mcnemar"] == {
        "p_value": 1.0,
        "only_float": 1,
        "only_deployed": 1,
        "test": "exact, two-sided",
    }
    assert [(c["label"], c["samples"], c["drop"]) for c in body["classes"]] == [
        (0, 1, 0),
        (1, 1, 0),
        (2, 2, 0),
    ]
    full.save(tmp_path / "report.html")
    for text in (full.text(), (tmp_path / "report.html").read_text()):
        assert "Classes (95% intervals, each on its own)" in text and "exact test" in text
    many = score(np.arange(30), np.arange(30), np.where(np.arange(30) == 7, 0, np.arange(30)))
    text = replace(made, accuracy=many).text()
    assert "The 20 of 30 classes that lose most" in text
