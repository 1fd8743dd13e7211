"""The page of a run while it goes on, over real HTTP on this machine."""

import http.client
import json
import pathlib
import socket
import threading

import pytest

from sparknet_dsl.errors import UsageError
from sparknet_dsl.runtime import train_command
from sparknet_dsl.runtime.reports import serve
from sparknet_dsl.runtime.reports.record import Run

EVENTS = [{"event": "start", "time": 1.0, "iteration": 0, "model": "x", "notes": []}]


def get(page: serve.LivePage, path: str, host: str | None = None) -> tuple[http.client.HTTPResponse, str]:
    connection = http.client.HTTPConnection("127.0.0.1", int(page.url.rstrip("/").rpartition(":")[2]), timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer, answer.read().decode()
    finally:
        connection.close()


@pytest.fixture
def page(monkeypatch):
    monkeypatch.setattr(serve, "FAREWELL", 0.2)
    events = list(EVENTS)
    live = serve.LivePage("0", lambda: Run("run", list(events)))
    live.events = events
    yield live
    if not live._ended:
        live.close()


def test_the_page_and_its_data(page):
    answer, html = get(page, "/")
    assert answer.status == 200 and "const LIVE = true" in html
    assert "connect-src 'self'" in answer.getheader("Content-Security-Policy")
    answer, text = get(page, "/data")
    told = json.loads(text)
    assert (told["version"], told["ended"]) == (0, False)
    assert told["data"]["runs"][0]["status"] == "running"
    assert get(page, "/etc/passwd")[0].status == 404


def test_only_this_machine_is_answered(page):
    assert page._server.server_address[0] == "127.0.0.1"
    # A page of another site whose name was made to point here.
    assert get(page, "/data", host="evil.example:80")[0].status == 403
    assert get(page, "/data", host="localhost:1")[0].status == 200


def test_a_request_waits_for_news(page):
    found = []
    waiting = threading.Thread(target=lambda: found.append(json.loads(get(page, "/data?have=0")[1])))
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    page.events.append(
        {
            "event": "round",
            "iteration": 7,
            "round": 1,
            "rounds": 2,
            "loss": 1.0,
            "rate": 0.1,
            "rows": 5,
            "seconds": 1.0,
            "averaging": 0.0,
            "each": [],
            "time": 2.0,
        }
    )
    page.changed()
    waiting.join(10)
    assert found[0]["version"] == 1
    assert found[0]["data"]["runs"][0]["iteration"] == 7


def test_the_end_is_heard_before_the_page_goes(page):
    found = []
    get(page, "/data")
    waiting = threading.Thread(target=lambda: found.append(json.loads(get(page, "/data?have=0")[1])))
    waiting.start()
    waiting.join(0.1)
    page.close()
    waiting.join(10)
    assert found[0]["ended"]
    with pytest.raises(ConnectionRefusedError):
        get(page, "/")


@pytest.mark.parametrize("text", ["", "x", "99999", "localhost:", "1.5"])
def test_what_is_no_port(text):
    with pytest.raises(UsageError, match="a port is wanted"):
        serve.address(text)


def test_addresses():
    assert serve.address("8080") == ("127.0.0.1", 8080)
    assert serve.address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert serve.address("[::1]:80") == ("::1", 80)


MODEL = """
net small {
  data, label: RDDData([[16, 1, 8, 8], [16]], source="digits:", scale=1/16)
  data -> ip: InnerProduct(10, weight_filler=xavier)
  ip, label -> loss: SoftmaxWithLoss
}
solver (base_lr=0.1, lr_policy="fixed", max_iter=200, display=10, random_seed=3, snapshot_prefix="small")
"""


def test_a_port_in_use_is_an_error_before_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("small.snet").write_text(MODEL)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert train_command.main("small.snet", ui=str(port)) == 2
    said = capsys.readouterr()
    assert said.err == f"error: --ui {port}: cannot listen there: Address already in use\n"
    assert not pathlib.Path("snapshots/small_iter_200.caffemodel").exists()


def test_a_page_that_breaks_does_not_break_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("small.snet").write_text(MODEL)
    asked = []

    def ask(live: serve.LivePage) -> None:
        asked.append(live)
        with socket.create_connection(("127.0.0.1", live._server.server_address[1])) as raw:
            raw.sendall(b"GET /data?have=-1 HTTP/1.1\r\nHost: localhost\r\n\r\n")  # and is gone

    changed = serve.LivePage.changed

    def first(live: serve.LivePage) -> None:
        changed(live)
        if not asked:
            ask(live)

    monkeypatch.setattr(serve.LivePage, "changed", first)
    monkeypatch.setattr(serve, "FAREWELL", 0.1)
    monkeypatch.setattr(serve, "page_data", lambda runs: 1 / 0)
    assert train_command.main("small.snet", ui="0") == 0
    said = capsys.readouterr()
    assert asked and "live page: http://localhost:" in said.out
    assert said.err == ""
