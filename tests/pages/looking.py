"""What a browser tells of a page."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Seen", "looked_at", "serious", "write_and_export"]

DESKTOP, PHONE = (1280, 900), (390, 844)


@dataclass
class Seen:
    """A page that is open, and what it did while it was."""

    page: Any
    said: list[str] = field(default_factory=list)  # on the console, errors among it
    asked: list[str] = field(default_factory=list)  # addresses of requests, but for the page itself


@contextmanager
def looked_at(
    browser: Any, address: str, size: tuple[int, int] = DESKTOP, scheme: str = "light"
) -> Iterator[Seen]:
    """An address, opened in a browser of its own."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=False
    )
    seen = Seen(context.new_page())
    seen.page.on("console", lambda message: seen.said.append(message.text))
    seen.page.on("pageerror", lambda error: seen.said.append(str(error)))
    seen.page.on("dialog", lambda dialog: (seen.said.append(dialog.message), dialog.dismiss()))
    seen.page.on("request", lambda request: seen.asked.append(request.url))
    seen.page.goto(address)
    seen.asked = [url for url in seen.asked if url != address and not url.startswith("data:")]
    yield seen
    context.close()


def serious(page: Any) -> list[str]:
    """What axe-core finds that is serious or worse, as "rule: element"."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {node['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def write_and_export(page: Any, name: str) -> None:
    """In a studio: write a run under a name, and export it as pt2."""
    page.get_by_label("Name of the run").fill(name)
    page.get_by_role("button", name="Write the run").click()
    page.get_by_text(f"Done: {name} holds").wait_for()
    page.get_by_label("as", exact=True).select_option("pt2")
    page.get_by_role("button", name="Export").click()
    page.get_by_text(re.compile("export.pt2")).wait_for()
