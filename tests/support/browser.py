"""Headless Chromium, driven over the DevTools protocol through a pair of pipes: no port, no driver, no package."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT_S = 30.0
#: Tests skip without one of these.
NAMES = ("chromium", "chromium-browser", "google-chrome")


def find_browser() -> str | None:
    """Return the path of an installed Chromium."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A running Chromium with one page.

    Attributes:
        problems: complaints of the page's console, and its uncaught errors.
        requests: addresses that the page asked for, other than its own.
    """

    def __init__(self, process: subprocess.Popen[bytes], commands: int, answers: int) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._process, self._commands, self._answers = process, commands, answers
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self._loaded = 0
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def size(self, width: int, height: int, *, dark: bool = False, touch: bool = False) -> None:
        """The size of the window in CSS pixels, the colour scheme that the reader prefers, and whether it is a phone."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
        self._call("Emulation.setTouchEmulationEnabled", enabled=touch)
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a page from its file, and wait until it has."""
        # A change of the fragment alone would load nothing.
        self._navigate("about:blank")
        self.problems.clear()
        self.requests.clear()
        self._navigate(page.resolve().as_uri() + fragment)

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def settle(self) -> None:
        """Wait until what was done so far is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def middle(self, selector: str) -> tuple[float, float]:
        """Return the position in the window of the first such element's middle, after scrolling to it."""
        at = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self.settle()
        return at[0], at[1]

    def hover(self, selector: str) -> None:
        """Move the pointer onto an element."""
        x, y = self.middle(selector)
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def click(self, selector: str) -> None:
        """Click an element."""
        x, y = self.middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def tap(self, selector: str) -> None:
        """Tap an element with a finger."""
        x, y = self.middle(selector)
        self._call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self._call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        self.settle()

    def press(self, key: str) -> None:
        """Press a key that has no character, such as `Tab`, `ArrowRight` or `Escape`."""
        code = {"Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)
        self.settle()

    def type(self, selector: str, text: str) -> None:
        """Replace what is in a field by `text`."""
        field = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{field}.focus(), {field}.select()")
        if text:
            self._call("Input.insertText", text=text)
        else:
            self.run("document.execCommand('delete')")
        self.settle()

    def _navigate(self, address: str) -> None:
        before = self._loaded
        self._call("Page.navigate", url=address)
        self._until(lambda: self._loaded > before)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        number = self._last
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        found: list[Any] = []
        self._until(lambda: bool(found), lambda answer: found.append(answer) if answer.get("id") == number else None)
        assert "error" not in found[0], (method, found[0]["error"])
        return found[0]["result"]

    def _until(self, done: Callable[[], bool], seen: Callable[[Any], None] = lambda _: None) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not done():
            message = self._message(deadline)
            self._note(message)
            seen(message)

    def _message(self, deadline: float) -> Any:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._answers, 1 << 20) if ready else b""
            assert piece, f"Chromium did not answer (exit code {self._process.poll()})"
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def _note(self, message: Any) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded += 1
            case "Runtime.exceptionThrown":
                self.problems.append(str(parameters["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.problems.append(str(parameters["args"]))
            case "Log.entryAdded":
                self.problems.append(str(parameters["entry"]))
            case "Network.requestWillBeSent" if parameters["type"] != "Document":
                self.requests.append(parameters["request"]["url"])


@contextmanager
def started_browser(profile: Path) -> Iterator[Browser]:
    """A browser while the context lasts; `profile` is an empty folder for what it keeps.

    It speaks the protocol on file descriptors 3 (commands) and 4 (answers).
    """
    program = find_browser()
    assert program is not None
    commands, answers = os.pipe(), os.pipe()

    def connect() -> None:
        # Both ends first out of the way: they may be 3 or 4 themselves.
        ends = os.dup2(commands[0], 100, inheritable=False), os.dup2(answers[1], 101, inheritable=False)
        for end, place in zip(ends, (3, 4), strict=True):
            os.dup2(end, place, inheritable=True)

    arguments = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    arguments += ["--no-first-run", "--disable-extensions", "--disable-background-networking", f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=connect,
        close_fds=False,
        start_new_session=True,
    )
    os.close(commands[0])
    os.close(answers[1])
    try:
        yield Browser(process, commands[1], answers[0])
    finally:
        os.close(commands[1])
        os.close(answers[0])
        try:  # its reader is gone: it ends by itself
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
