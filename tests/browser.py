"""A headless Chromium for tests: one on PATH, else Debian's with all that it needs, unpacked beside the system."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Page, sync_playwright

from tests import debian

ON_PATH = ("chromium-headless-shell", "chromium", "google-chrome")
PACKAGE = "chromium-headless-shell"
DEADLINE_MS = 60_000


@dataclass
class Watched:
    """A page, and everything that it had to say."""

    page: Page
    said: list[str] = field(default_factory=list)
    """Lines of its console, errors of its scripts, requests that failed."""
    requests: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@contextmanager
def browser() -> Iterator[Browser]:
    """Raises AssertionError with the remedy where there is neither a browser nor a package of one."""
    path, environment = _program()
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, env=environment, timeout=DEADLINE_MS)
        try:
            yield running
        finally:
            running.close()


@contextmanager
def watched(running: Browser, **options: object) -> Iterator[Watched]:
    """A page of its own: no cookies, no storage. Options as of `Browser.new_context`."""
    context = running.new_context(**options)  # type: ignore[arg-type]
    context.set_default_timeout(DEADLINE_MS)
    found = Watched(context.new_page())
    page = found.page
    page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.said.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("requestfailed", lambda request: found.said.append(f"failed: {request.url[:200]}"))

    def dismiss(dialog: object) -> None:
        found.dialogs.append(dialog.message)  # type: ignore[attr-defined]
        dialog.dismiss()  # type: ignore[attr-defined]

    page.on("dialog", dismiss)
    try:
        yield found
    finally:
        context.close()


def _program() -> tuple[str, dict[str, str]]:
    if found := next((path for name in ON_PATH if (path := shutil.which(name))), None):
        return found, dict(os.environ)
    root = debian.unpacked(PACKAGE)
    [path] = root.glob(f"usr/lib/chromium/{PACKAGE}")
    return str(path), dict(os.environ) | debian.environment(root)
