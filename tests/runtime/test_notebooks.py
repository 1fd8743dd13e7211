"""The notebooks run from top to bottom, and show what they say; charts and tables of runs as HTML."""

import math
import pathlib
import re
import xml.etree.ElementTree
from collections.abc import Callable
from typing import Any

import pytest

from sparknet_dsl import notebook
from sparknet_dsl.runtime.events import End, Event, Round, Start, Test
from sparknet_dsl.runtime.train import Result
from sparknet_dsl.runtime.trainer import Trainer
from sparknet_dsl.view.chart import POINTS, Line, Panel, chart, thinned, ticks

NOTEBOOKS = pathlib.Path(__file__).parents[2] / "notebooks"
SVG = "{http://www.w3.org/2000/svg}"


def outputs(cell: Any, kind: str) -> list[str]:
    """What a cell's outputs have in the MIME type `kind`."""
    return [output["data"][kind] for output in cell.outputs if kind in output.get("data", {})]


def text(cell: Any) -> str:
    return "".join(output["text"] for output in cell.outputs if output["output_type"] == "stream")


def model(cells: list[Any]) -> None:
    small, wrong, shapes, table, library = cells
    assert outputs(small, "text/html")[0].startswith('<iframe sandbox="allow-scripts" title="Small"')
    assert "did you mean `kernel_size`?" in text(wrong)
    assert "'fire4/concat1': (32, 128, 6, 6)" in outputs(shapes, "text/plain")[0]
    assert "layers" in text(table)
    assert 'title="GoogleNet"' in outputs(library, "text/html")[0]


def train(cells: list[Any]) -> None:
    fit, result, rounds, right = cells
    (chart,) = outputs(fit, "text/html")
    assert re.search(r"<b>digits</b>, done, round \d+ of 25,", chart) and chart.count("<svg") == 2
    assert "<th" in outputs(result, "text/html")[0] and "accuracy" in outputs(result, "text/html")[0]
    assert re.fullmatch(r"(round +\d+: loss [\d.]+, [\d.]+ s, averaging \d+%\n)+", text(rounds))
    assert float(re.search(r"[\d.]+(?=\)?$)", outputs(right, "text/plain")[0])[0]) > 0.9  # type: ignore[index]


def weights(cells: list[Any]) -> None:
    _, inference, features, tuned = cells
    (seen,) = map(float, re.findall(r": ([\d.]+)", text(inference)))
    by_features, by_pixels = map(float, re.findall(r": ([\d.]+)", text(features)))
    fine, scratch = map(float, re.findall(r": ([\d.]+)", text(tuned)))
    assert seen > 0.9 and by_features > by_pixels > 0.5 and fine > scratch > 0.5


@pytest.mark.parametrize(
    ("name", "check"), [("1_a_model", model), ("2_train", train), ("3_weights", weights)], ids=["1", "2", "3"]
)
def test_notebook_runs(name: str, check: Callable[[list[Any]], None], tmp_path: pathlib.Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    read = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(read, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    check([cell for cell in read.cells if cell.cell_type == "code"])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_outputs_stay_out_of_git(path: pathlib.Path) -> None:
    written = path.read_text()
    assert '"outputs": []' in written
    assert not re.search(r'"outputs": \[\n|"execution_count": \d', written)


def events() -> list[Event]:
    start = Start(
        model="<net>", workers=2, tau=5, rounds=4, seed=1, master="local[2]", round=0, iteration=0, batch=8,
        parameters=10, train="digits:", test="digits:", train_rows=16, test_rows=8, notes=("a note",),
    )  # fmt: skip
    told: list[Event] = [start]
    for k in range(1, 4):
        loss = math.nan if k == 2 else 1 / k
        told.append(
            Round(round=k, rounds=4, tau=5, iteration=5 * k, loss=loss, rate=0.1, rows=80, seconds=2, averaging=0.1)
        )
    told.append(Test(round=3, iteration=15, metrics={"accuracy": 0.5, "loss": 0.7}, rows=8, seconds=1))
    return told


def drawn(html: str) -> list[xml.etree.ElementTree.Element]:
    return list(xml.etree.ElementTree.fromstring(html.replace("&nbsp;", " ")).iter("svg"))


def test_a_run_that_goes_on_tells_how_long_it_will_take() -> None:
    html = notebook.history(events())
    assert "<b>&lt;net&gt;</b>, round 3 of 4, 40 images/s, 2 s left" in html
    assert "a note" in html
    loss, test = drawn(html)
    said = ["".join(text.itertext()) for text in loss.iter("text")]
    assert "training 0.3333" in said and "test loss 0.7" in said
    assert "accuracy 0.5" in ["".join(text.itertext()) for text in test.iter("text")]
    # The loss that is NaN leaves a line of two points; a single test is a dot.
    (line,) = [path.get("d") for path in loss.iter("path") if path.get("fill") == "none"]
    assert line is not None and line.count("L") == 1


def test_a_run_that_has_ended_tells_how() -> None:
    end = End(status="failed", message="a <b> reason", round=3, iteration=15, seconds=7, metrics={}, files=())
    assert "<b>&lt;net&gt;</b>, failed: a &lt;b&gt; reason, round 3 of 4, 40 images/s, 7.0 s" in notebook.history(
        [*events(), end]
    )
    assert "left" not in notebook.history([*events(), end])


def test_what_is_nothing_yet_is_shown_as_that() -> None:
    assert "nothing is trained yet" in Trainer("digits")._repr_html_()
    table = xml.etree.ElementTree.fromstring(Result(3, 60, {"accuracy": 0.91}, ())._repr_html_())
    assert [cell.text for cell in table.iter("td")][:3] == ["3", "60", "0.91"]


def test_outside_a_notebook_the_chart_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert not notebook.in_notebook()
    live = notebook.LiveChart()
    for event in events():
        live(event)
    said = capsys.readouterr().out
    assert "round 3/4  iteration 15  loss 0.3333" in said and "<" not in said.replace("<net>", "")


def test_charts_keep_to_their_frame() -> None:
    points = [(float(x), math.sin(x / 50) * 1e-3) for x in range(5000)]
    assert len(thinned(points)) <= POINTS and thinned(points)[-1] == points[-1]
    (svg,) = drawn(f"<div>{chart(Panel('a', [Line('b', points)]))}</div>")
    (line,) = [path.get("d") for path in svg.iter("path") if path.get("fill") == "none"]
    numbers = [float(number) for number in re.findall(r"[\d.]+", line or "")]
    assert min(numbers) >= 0 and max(numbers[::2]) <= 400 and max(numbers[1::2]) <= 230
    assert drawn(f"<div>{chart(Panel('empty', []))}</div>")


@pytest.mark.parametrize(
    ("least", "most", "wanted"),
    [
        (0, 1, [0, 0.5, 1]),
        (0.12, 0.97, [0.2, 0.4, 0.6, 0.8]),
        (-3, 8, [-2, 0, 2, 4, 6, 8]),
        (1, 1000, [200, 400, 600, 800, 1000]),
        (0.0171, 0.0174, [0.0171, 0.0172, 0.0173, 0.0174]),
    ],
)
def test_ticks_are_round_numbers(least: float, most: float, wanted: list[float]) -> None:
    assert ticks(least, most) == pytest.approx(wanted)
