"""A real Chromium, which opens pages and remembers what they asked for and complained of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",  # root has no other way
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Tab:
    """A page that is open, with what it asked for, and all that the console and the engine complained of."""

    page: Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Begins to remember."""
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog: {dialog.message}"))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def text(self, selector: str) -> str:
        """The text of the first element there."""
        return self.page.text_content(selector) or ""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Starts Chromium, with an empty profile that ends with it."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(browser: Browser, address: str = "", **options: Any) -> Iterator[Tab]:
    """Opens an address in a window of its own, with Playwright's options for one (`color_scheme="dark"`)."""
    context = browser.new_context(**options)
    try:
        found = Tab(context.new_page())
        found.page.set_default_timeout(20_000)
        found.watch()
        if address:
            found.page.goto(address)
        yield found
    finally:
        context.close()
