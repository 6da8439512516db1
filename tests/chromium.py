"""A headless Chromium, driven over a pipe with the standard library alone (the DevTools protocol, --remote-debugging-pipe)."""
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe")


class Browser:
    """with Browser() as b: b.open(path); b.run("1 + 1")

    console: every message of the page's console and every exception; requests: every address that the page asked for.
    """

    def __init__(self, width=1400, height=900):
        self.folder = tempfile.mkdtemp(prefix="numpyvit-chromium-")
        to_browser, our_write = os.pipe()
        our_read, from_browser = os.pipe()

        def descriptors():
            os.dup2(to_browser, 1003)
            os.dup2(from_browser, 1004)
            os.dup2(1003, 3)
            os.dup2(1004, 4)

        self.process = subprocess.Popen([PROGRAM, *FLAGS, f"--user-data-dir={self.folder}", f"--window-size={width},{height}", "about:blank"],
                                        preexec_fn=descriptors, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.read_end, self.write_end, self.buffer, self.number = our_read, our_write, b"", 0
        self.console, self.requests, self.session = [], [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    def size(self, width, height, scale=1):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False)

    def call(self, method, seconds=120, **parameters):
        """One command of the protocol. → its result"""
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": self.session} if self.session else {})
        os.write(self.write_end, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + seconds
        while True:
            reply = self.receive(deadline)
            if reply.get("id") == number:
                assert "error" not in reply, f"{method}: {reply['error']}"
                return reply["result"]
            self.event(reply)

    def receive(self, deadline):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.read_end], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser did not answer in time"
            data = os.read(self.read_end, 1 << 20)
            assert data, "the browser has ended"
            self.buffer += data
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def event(self, message):
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in parameters["args"]))
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.console.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.console.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])

    def open(self, path, hash="", ready="window.numpyvit.ready"):
        """Open a file and wait until its numbers are computed."""
        self.call("Page.navigate", url=Path(path).resolve().as_uri() + hash)
        deadline = time.monotonic() + 60
        while self.run("document.readyState === 'complete' && location.protocol") != "file:":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self.run(f"{ready}.then(x => x)") if ready else None

    def run(self, expression, seconds=120):
        """The value of a JavaScript expression; a promise is awaited."""
        result = self.call("Runtime.evaluate", seconds, expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def until(self, expression, wanted, seconds=60):
        """Wait for an expression to have this value: for what happens after the event that a test sent."""
        deadline = time.monotonic() + seconds
        while (value := self.run(expression)) != wanted:
            assert time.monotonic() < deadline, f"{expression}: expected {wanted!r}, got {value!r}"
            time.sleep(0.02)

    def key(self, key, code=None, modifiers=0):
        """Press a key. modifiers: 8 is Shift."""
        text = key if len(key) == 1 else {"Enter": "\r"}.get(key, "")
        codes = {"Enter": 13, "Backspace": 8, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        virtual = codes.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common = dict(key=key, code=code or key, modifiers=modifiers, windowsVirtualKeyCode=virtual)
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, x, y):
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if kind != "mouseMoved" else "none", clickCount=1)

    def screenshot(self, path=None):
        import base64
        data = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path:
            Path(path).write_bytes(data)
        return data

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.read_end)
        os.close(self.write_end)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
