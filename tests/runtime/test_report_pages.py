"""Reports in a real browser, where there is one: headless Chromium, without a network.

SPARKNET_SCREENSHOTS=DIR keeps the pictures, to be looked at.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import threading

import cv2
import numpy as np
import pytest
from recorded_runs import local_run, spark_run

from sparknet_dsl import compile_file, view
from sparknet_dsl.runtime.events import Event, to_json
from sparknet_dsl.runtime.reports import page, serve
from sparknet_dsl.runtime.reports.pictures import filters, png
from sparknet_dsl.runtime.reports.record import Run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
# What the browser itself would like to hear of.
ITS_OWN = ("google.com", "googleapis.com")


@dataclasses.dataclass
class Seen:
    """What a page was like: its document at the end, what the console said, what it asked a network for."""

    document: str
    console: list[str]
    asked: list[str]
    picture: np.ndarray


def look(url: str, tmp_path: pathlib.Path, width: int = 1280, height: int = 2400, name: str = "page") -> Seen:
    """Opens `url` in a window of that size."""
    picture, log = tmp_path / f"{name}.png", tmp_path / "net.json"
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr"),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", f"--window-size={width},{height}"),
            *(f"--screenshot={picture}", "--virtual-time-budget=2000", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    if folder := os.environ.get("SPARKNET_SCREENSHOTS"):
        shutil.copy(picture, folder)
    asked = set(re.findall(r'"url":"(https?://([^/"]+)[^"]*)"', log.read_text()))
    return Seen(
        document=done.stdout,
        console=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
        asked=sorted(where for where, host in asked if not host.endswith(ITS_OWN)),
        picture=cv2.imread(str(picture)),
    )


def run_of(events: list[Event], name: str = "lenet") -> Run:
    image = np.zeros((28, 28), np.uint8)
    cv2.putText(image, "7", (6, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.9, 255, 2)
    matrix = np.random.default_rng(1).integers(0, 9, (10, 10)) + 950 * np.eye(10, dtype=int)
    mistake = {"row": 17, "true": 7, "predicted": 1, "share": 0.004, "predicted_share": 0.93, "image": png(image)}
    kernels = np.random.default_rng(2).normal(size=(20, 3, 7, 7))
    layer = {"type": "Convolution", "forward_ms": 1.2, "backward_ms": 2.1, "within": ""}
    evidence = {
        "problems": [],
        "times": {
            "batch": 64,
            "threads": 2,
            "passes": 5,
            "layers": [{**layer, "name": "conv1"}, {**layer, "name": "a_layer_with_a_long_name/3x3_reduce"}],
        },
        "filters": {"layer": "conv1", "shape": [20, 3, 7, 7], "count": 20, "images": filters(kernels)},
        "scores": {
            "rows": int(matrix.sum()),
            "accuracy": float(np.trace(matrix) / matrix.sum()),
            "classes": [{"class": k, "precision": 0.98, "recall": 0.9 + k / 100, "support": 1000} for k in range(10)],
            "confusion": matrix.tolist(),
            "pairs": [{"true": 7, "predicted": 1, "rows": 8}],
            "mistakes": [{**mistake, "row": row} for row in range(12)],
        },
    }
    graph = view.page(compile_file("digits"), embedded=True)
    told = [json.loads(to_json(event)) for event in events]
    return Run(name, told, {"run": {"tau": 10, "name": name}}, {"python": "3.11"}, evidence, graph)


def written(path: pathlib.Path, *runs: Run, script: str = "") -> str:
    """A page in the file `path`, with something that happens once it is there."""
    html = page.render(runs)
    path.write_text(html.replace("</body>", f"<script>{script}</script></body>"))
    return path.as_uri()


@pytest.mark.parametrize(("name", "width"), [("light", 1280), ("dark", 1280), ("narrow", 500)])
def test_a_report_looks_as_it_should(tmp_path, name, width):
    theme = "dark" if name == "dark" else "light"
    # Nothing is wider than the window: a phone would have to scroll sideways.
    measured = "setTimeout(() => document.title = 'width ' + document.documentElement.scrollWidth, 1000)"
    url = written(tmp_path / "report.html", run_of(spark_run(rounds=120, workers=8)), script=measured)
    seen = look(f"{url}?theme={theme}", tmp_path, width, 4200, name)
    assert (seen.console, seen.asked) == ([], [])
    titles = re.findall(r"<h2>(.*?)</h2>", seen.document)
    assert titles == ["Curves", "Workers", "Network", "Weights and gradients", "First filters", "Classes", "Settings"]
    assert "[object" not in seen.document and "undefined" not in seen.document.partition("<script")[0]
    corner = seen.picture[2, 2].astype(int)
    assert (corner.max() < 50) if theme == "dark" else (corner.min() > 200)
    assert f"<title>width {width}</title>" in seen.document


def test_runs_that_are_out_of_the_ordinary(tmp_path):
    runs = {
        "one": spark_run(rounds=1, workers=2, tests=0),
        "nan": local_run([2.0, float("nan"), 1.0, float("nan")]),
    }
    for name, events in runs.items():
        seen = look(written(tmp_path / f"{name}.html", Run(name, [json.loads(to_json(e)) for e in events])), tmp_path)
        assert seen.console == [], name
        assert 'class="badge' in seen.document, name
    assert "training diverged: the loss is nan" in seen.document


def test_what_a_page_would_fetch_is_seen(tmp_path):
    """That the checks above can fail."""
    (tmp_path / "bad.html").write_text("<img src='http://elsewhere.example/x.png'><script>nothing()</script>")
    seen = look((tmp_path / "bad.html").as_uri(), tmp_path)
    assert seen.asked == ["http://elsewhere.example/x.png"]
    assert any("nothing is not defined" in line for line in seen.console)


KEYS = """
const plot = () => document.querySelector('.chart > svg');
const use = () => {
  if (!plot()) return setTimeout(use, 50);
  const press = (key) => plot().dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
  const out = [];
  plot().focus();
  press('ArrowRight'); press('ArrowLeft');
  out.push(document.querySelector('.tip').textContent);
  press('+');
  out.push(VIEW.x.map(Math.round).join(' '));
  press('0');
  out.push(String(VIEW.x));
  const box = plot().getBoundingClientRect();
  const pointer = (kind, share) => plot().dispatchEvent(
    new PointerEvent(kind, { clientX: box.left + share * box.width, bubbles: true }));
  pointer('pointerdown', 0.3); pointer('pointermove', 0.5); pointer('pointerup', 0.6);
  out.push(VIEW.x[1] - VIEW.x[0] < 300 ? 'zoomed' : 'not');
  document.querySelector('.legend button').click();
  out.push(document.querySelector('.legend button').getAttribute('aria-pressed'));
  switchTheme();
  out.push(document.documentElement.dataset.theme);
  document.title = out.join('|');
};
use();
"""


def test_keys_pointers_and_switches(tmp_path):
    seen = look(written(tmp_path / "report.html", run_of(spark_run(rounds=40)), script=KEYS), tmp_path)
    assert seen.console == []
    tip, zoomed, whole, dragged, pressed, theme = re.search(r"<title>(.*?)</title>", seen.document)[1].split("|")
    assert "iteration 390" in tip and "training" in tip
    assert zoomed == "200 395"  # half of 10 to 400, about 390
    assert (whole, dragged, pressed, theme) == ("null", "zoomed", "false", "dark")


def test_several_runs_side_by_side(tmp_path):
    runs = [run_of(spark_run(rounds=30), "one"), run_of(spark_run(rounds=50, seed=4, workers=2), "other")]
    seen = look(written(tmp_path / "comparison.html", *runs), tmp_path, name="comparison")
    assert (seen.console, seen.asked) == ([], [])
    assert "What differs" in seen.document and "other, training" in seen.document


def test_the_live_page_follows_its_run(tmp_path):
    events = [json.loads(to_json(event)) for event in spark_run(rounds=6)]
    known = events[:2]
    live = serve.LivePage("127.0.0.1:0", lambda: Run("run", list(known)))

    def train() -> None:
        # Once the page has asked.
        while live._seen < 0:
            threading.Event().wait(0.05)
        known[:] = events
        live.close()

    training = threading.Thread(target=train)
    training.start()
    seen = look(live.url.replace("localhost", "127.0.0.1"), tmp_path, name="live")
    training.join(30)
    assert seen.console == []
    assert re.search(r'class="badge done"[^>]*>done<', seen.document)
    assert all(url.startswith(live.url.replace("localhost", "127.0.0.1")) for url in seen.asked)
