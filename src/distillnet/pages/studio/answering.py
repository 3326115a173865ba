"""What all of a studio's addresses have in common: JSON in and out, errors, headers, the page."""

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from distillnet.errors import DistillnetError, InputError
from distillnet.pages.html import asset, environment, policy
from distillnet.pages.studio.guard import TOKEN_HEADER
from distillnet.pages.studio.jobs import Job, Jobs
from distillnet.pages.studio.shelf import FORMATS, Shelf

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

__all__ = [
    "Work",
    "answer",
    "answer_image",
    "number",
    "page",
    "page_text",
    "parsed",
    "shelf_routes",
    "text",
    "told",
]

_AT_MOST_JSON = 100_000  # bytes of what is asked: as many classes as a network may have
_AT_MOST_IMAGE = 32 * 2**20  # bytes
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

Work = Callable[[dict[str, Any]], Any]
Endpoint = Callable[["Request"], Awaitable["Response"]]


def page_text(template: str, script: str, values: dict[str, Any]) -> str:
    """The page itself.

    Args:
        script: of ``look/``, which runs behind the one that all studios share.
    """
    made = environment("studio/templates").get_template(template)
    text: str = made.render(
        formats=FORMATS, style=asset("page.css"), scripts=_scripts(script),
        token_header=TOKEN_HEADER, **values,
    )  # fmt: skip
    return text


def _scripts(script: str) -> tuple[str, str]:
    return asset("common.js"), asset(script)


def page(template: str, script: str, values: dict[str, Any]) -> Endpoint:
    """The address of the page; see ``page_text``."""
    content = page_text(template, script, values)
    allowed = policy(*_scripts(script), connect_src="'self'", frame_ancestors="'none'")

    async def handle(request: "Request") -> "Response":
        from starlette.responses import HTMLResponse

        return HTMLResponse(content, headers=_HEADERS | {"content-security-policy": allowed})

    return handle


def answer(work: Work) -> Endpoint:
    """An address that takes and gives JSON; what the user got wrong has status 400."""

    async def handle(request: "Request") -> "Response":
        async def asked() -> dict[str, Any]:
            return await _json(request) if request.method == "POST" else {}

        return await _answered(asked, work)

    return handle


def answer_image(work: Callable[[str, bytes], Any]) -> Endpoint:
    """An address that takes an image's file, and in its parameter ``of`` what is asked of it."""

    async def handle(request: "Request") -> "Response":
        async def asked() -> tuple[str, bytes]:
            return request.query_params.get("of", ""), await _body(request, _AT_MOST_IMAGE)

        return await _answered(asked, lambda both: work(*both))

    return handle


async def _answered(asked: Callable[[], Awaitable[Any]], work: Callable[[Any], Any]) -> "Response":
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import JSONResponse

    try:
        result = await run_in_threadpool(work, await asked())
    except (DistillnetError, OSError) as error:
        return JSONResponse({"error": str(error)}, 400, headers=_HEADERS)
    except Exception as error:  # noqa: BLE001 - the page shows it, the studio goes on
        said = f"unexpected: {type(error).__name__}: {error}"
        return JSONResponse({"error": said}, 500, headers=_HEADERS)
    return JSONResponse(result, headers=_HEADERS)


def shelf_routes(shelf: Shelf, jobs: Jobs, make: Work) -> list["Route"]:
    """Writing runs, exporting them, and what becomes of that work."""
    from starlette.routing import Route

    def export(asked: dict[str, Any]) -> dict[str, Any]:
        name, form = text(asked, "name"), text(asked, "format")
        work = lambda on_progress: shelf.export(name, form, on_progress)  # noqa: E731
        return told(jobs.start(f"Exporting {name} as {form}", work))

    def cancel(asked: dict[str, Any]) -> dict[str, Any]:
        jobs.cancel()
        return told(jobs.latest)

    return [
        Route("/api/job", answer(lambda asked: told(jobs.latest))),
        Route("/api/make", answer(make), methods=["POST"]),
        Route("/api/export", answer(export), methods=["POST"]),
        Route("/api/cancel", answer(cancel), methods=["POST"]),
    ]


def told(job: Job) -> dict[str, Any]:
    """A job as the page is told of it."""
    return dataclasses.asdict(job)


async def _body(request: "Request", at_most: int) -> bytes:
    """What was sent, no more of it than is expected."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > at_most:
            raise InputError(f"found more than {at_most:,} bytes; expected no more")
        parts.append(part)
    return b"".join(parts)


async def _json(request: "Request") -> dict[str, Any]:
    return parsed(await _body(request, _AT_MOST_JSON))


def parsed(data: bytes | str) -> dict[str, Any]:
    """A JSON object; InputError for anything else."""
    try:
        asked = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"found no JSON ({error}); expected an object") from None
    if not isinstance(asked, dict):
        raise InputError(f"found {type(asked).__name__}; expected an object")
    return asked


def number(asked: dict[str, Any], name: str, most: float = 100) -> float:
    """A number that was sent, from 0 to ``most``."""
    value = asked.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise InputError(f"found {name} {value!r}; expected a number from 0 to {most:g}")
    return float(value)


def text(asked: dict[str, Any], name: str) -> str:
    """A text that was sent."""
    value = asked.get(name)
    if not isinstance(value, str):
        raise InputError(f"found {name} {value!r}; expected text")
    return value
