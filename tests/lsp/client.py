"""A scripted editor: JSON-RPC over the standard streams of a sparknet-lsp that runs."""

import json
import pathlib
import queue
import subprocess
import sys
import threading
from typing import Any

TIMEOUT = 60  # seconds, on a busy machine


class Editor:
    """Opens, changes and asks about files; `text` is what it shows of the last one that was opened."""

    def __init__(self, encodings: tuple[str, ...] = ("utf-16",)) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "sparknet_dsl.lsp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.received: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.number = self.version = 0
        self.uri = self.text = ""
        self.capabilities = self.ask(
            "initialize",
            {
                "processId": None,
                "rootUri": None,
                "capabilities": {"general": {"positionEncodings": list(encodings)}},
            },
        )["capabilities"]
        self.tell("initialized", {})

    def close(self) -> int:
        """Ends the server; its exit status."""
        self.ask("shutdown", None)
        self.tell("exit", None)
        status = self.process.wait(TIMEOUT)
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        return status

    # Messages

    def _listen(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while True:
            length = 0
            while (line := stream.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if not length:
                self.received.put(None)
                return
            self.received.put(json.loads(stream.read(length)))

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self.process.stdin is not None
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.process.stdin.flush()

    def tell(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def reply(self, method: str, params: Any) -> dict[str, Any]:
        """The whole answer to a request, an error perhaps."""
        self.number += 1
        self._send({"id": self.number, "method": method, "params": params})
        while True:
            message = self.received.get(timeout=TIMEOUT)
            assert message is not None, "the server has ended"
            if message.get("id") == self.number and "method" not in message:
                return message

    def ask(self, method: str, params: Any) -> Any:
        message = self.reply(method, params)
        assert "error" not in message, message["error"]
        return message["result"]

    def diagnostics(self) -> list[dict[str, Any]]:
        """What is published of the present version of the text."""
        while True:
            message = self.received.get(timeout=TIMEOUT)
            assert message is not None, "the server has ended"
            assert message.get("method") != "window/showMessage", message["params"]["message"]
            if message.get("method") == "textDocument/publishDiagnostics":
                params = message["params"]
                if params["uri"] == self.uri and params.get("version") == self.version:
                    return list(params["diagnostics"])

    # Files

    def open(self, path: pathlib.Path, text: str | None = None) -> list[dict[str, Any]]:
        self.uri, self.version = path.as_uri(), 1
        self.text = path.read_text() if text is None else text
        item = {"uri": self.uri, "languageId": path.suffix[1:], "version": 1, "text": self.text}
        self.tell("textDocument/didOpen", {"textDocument": item})
        return self.diagnostics()

    def replace(self, old: str, new: str, wait: bool = True) -> list[dict[str, Any]]:
        """Types over the first `old`, as an incremental change."""
        at = self.text.index(old)
        where = {"start": self.position(at), "end": self.position(at + len(old))}
        self.text = self.text[:at] + new + self.text[at + len(old) :]
        self.version += 1
        document = {"uri": self.uri, "version": self.version}
        change = {"textDocument": document, "contentChanges": [{"range": where, "text": new}]}
        self.tell("textDocument/didChange", change)
        return self.diagnostics() if wait else []

    # Places

    def position(self, offset: int) -> dict[str, int]:
        before = self.text[:offset]
        column = len(before[before.rfind("\n") + 1 :].encode("utf-16-le")) // 2
        return {"line": before.count("\n"), "character": column}

    def shown(self, where: dict[str, Any]) -> str:
        """The text in a range."""
        lines = self.text.splitlines(keepends=True)
        ends = []
        for end in (where["start"], where["end"]):
            line = lines[end["line"]] if end["line"] < len(lines) else ""
            column = len(line.encode("utf-16-le")[: 2 * end["character"]].decode("utf-16-le"))
            ends.append(sum(map(len, lines[: end["line"]])) + column)
        return self.text[ends[0] : ends[1]]

    def at(self, snippet: str, shift: int = 0) -> dict[str, Any]:
        """The parameters of a request about the place where a snippet begins, `shift` characters on."""
        return {"textDocument": {"uri": self.uri}, "position": self.position(self.text.index(snippet) + shift)}

    def edited(self, edits: list[dict[str, Any]]) -> str:
        """The text after edits, which do not overlap."""
        lines = self.text.splitlines(keepends=True)

        def offset(place: dict[str, int]) -> int:
            return sum(map(len, lines[: place["line"]])) + place["character"]

        text = self.text
        for edit in sorted(edits, key=lambda edit: -offset(edit["range"]["start"])):
            text = text[: offset(edit["range"]["start"])] + edit["newText"] + text[offset(edit["range"]["end"]) :]
        return text
