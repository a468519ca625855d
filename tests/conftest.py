"""A real browser, driven by the DevTools protocol: pages as people get them. And who still runs in a folder."""

import asyncio
import itertools
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
import psutil
import pytest

OPENS_WITHIN_S = 60


@dataclass(kw_only=True)
class Page:
    """An open page. `complaints` are what its console said of errors and warnings, exceptions included."""

    socket: aiohttp.ClientWebSocketResponse
    session_id: str
    complaints: list[str] = field(default_factory=list)
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        await self.socket.send_json(
            {"id": number, "method": method, "params": parameters, "sessionId": self.session_id}
        )
        async for message in self.socket:
            told = message.json()
            self._note(told)
            if told.get("id") == number:
                assert "error" not in told, told
                return told["result"]
        raise AssertionError("the browser has gone")

    def _note(self, told: dict[str, Any]) -> None:
        what = told.get("params", {})
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.complaints.append(str(what["exceptionDetails"].get("exception", what["exceptionDetails"])))
            case "Runtime.consoleAPICalled" if what["type"] in ("error", "warning", "assert"):
                self.complaints.append(str([each.get("value") for each in what["args"]]))
            case "Log.entryAdded" if what["entry"]["level"] in ("error", "warning"):
                self.complaints.append(f"{what['entry']['text']} {what['entry'].get('url', '')}")

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str, within_s: float = 20) -> None:
        """Return once a JavaScript expression is true in the page."""
        look = f"const look = () => ({expression}) ? done() : setTimeout(look, 20); look()"
        async with asyncio.timeout(within_s):
            await self.evaluate(f"new Promise((done) => {{ {look} }})")

    async def resize(self, width: int, height: int = 900) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    async def scheme(self, name: str) -> None:
        """light or dark"""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    async def overflow_px(self) -> int:
        """By how much the page is wider than its window."""
        width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(await self.evaluate(width))


@dataclass(kw_only=True)
class Chromium:
    socket: aiohttp.ClientWebSocketResponse

    @classmethod
    @asynccontextmanager
    async def start(cls, program: str, folder: Path) -> AsyncIterator[Self]:
        """A browser of its own; its files lie in `folder`."""
        arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        process = await asyncio.create_subprocess_exec(
            *(program, *arguments, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"),
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        try:
            async with asyncio.timeout(OPENS_WITHIN_S):
                address = await _address(process.stderr)
            async with (
                asyncio.TaskGroup() as tasks,
                aiohttp.ClientSession() as http,
                http.ws_connect(address, max_msg_size=0) as socket,
            ):
                reading = tasks.create_task(process.stderr.read())  # a full pipe would hold it up
                yield cls(socket=socket)
                reading.cancel()
        finally:
            process.kill()
            await process.wait()

    async def open(self, url: str) -> Page:
        """Open a page; one at a time."""
        browser = Page(socket=self.socket, session_id="")
        target = (await self._call(browser, "Target.createTarget", url="about:blank"))["targetId"]
        session = (await self._call(browser, "Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = Page(socket=self.socket, session_id=session)
        for domain in ("Runtime", "Log", "Page"):
            await page.call(f"{domain}.enable")
        await page.call("Page.navigate", url=url)
        await page.until("document.readyState === 'complete'")
        return page

    async def _call(self, browser: Page, method: str, **parameters: Any) -> Any:
        number = -next(browser._numbers)
        await self.socket.send_json({"id": -number, "method": method, "params": parameters})
        async for message in self.socket:
            told = message.json()
            if told.get("id") == -number and "sessionId" not in told:
                return told["result"]
        raise AssertionError("the browser has gone")


async def _address(said: asyncio.StreamReader) -> str:
    async for line in said:
        if found := re.search(r"DevTools listening on (ws://\S+)", line.decode()):
            return found[1]
    raise AssertionError("chromium did not start")


@pytest.fixture
def chromium(tmp_path: Path) -> Callable[[], Any]:
    """Starts a browser as an async context manager; the test is skipped where there is none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine; install Debian's package chromium")
    return lambda: Chromium.start(program, tmp_path / "chromium")


@pytest.fixture(scope="session")
def processes_in() -> Callable[[Path], list[psutil.Process]]:
    """Processes that work in a folder: every process of a server works in its run's, whatever its title."""

    def working_in(folder: Path) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(folder):
                    found.append(process)
        return found

    return working_in
