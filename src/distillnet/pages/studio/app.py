"""The addresses of the studio, and what each answers: the page, and JSON for its script."""

import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from distillnet.deploy.extras import need
from distillnet.errors import DistillnetError, InputError
from distillnet.pages.html import asset, environment, policy
from distillnet.pages.studio.asking import AT_MOST, ask
from distillnet.pages.studio.guard import TOKEN_HEADER
from distillnet.pages.studio.jobs import Jobs
from distillnet.pages.studio.workroom import FORMATS, Workroom

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

__all__ = ["studio_app"]

_AT_MOST_JSON = 10_000  # bytes of what is asked
_HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def studio_app(room: Workroom, jobs: Jobs) -> "Starlette":
    """The studio as an ASGI application, which ``guard.Guard`` has to stand before."""
    need("starlette", "studio")
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    text = _page(room)
    content_policy = policy(asset("studio.js"), connect_src="'self'", frame_ancestors="'none'")

    async def page(request: Request) -> Response:
        headers = _HEADERS | {"content-security-policy": content_policy}
        return HTMLResponse(text, headers=headers)

    def answered(
        work: Callable[[dict[str, Any]], Any],
    ) -> Callable[[Request], Awaitable[Response]]:
        """An address that takes and gives JSON; what the user got wrong has status 400."""

        async def handle(request: Request) -> Response:
            try:
                asked = await _json(request) if request.method == "POST" else {}
                result = await run_in_threadpool(work, asked)
            except DistillnetError as error:
                return JSONResponse({"error": str(error)}, 400, headers=_HEADERS)
            return JSONResponse(result, headers=_HEADERS)

        return handle

    async def asked_image(request: Request) -> Response:
        try:
            number = int(request.query_params.get("candidate", "0"))
            data = await _body(request, AT_MOST)
            result = await run_in_threadpool(ask, room, number, data)
        except (DistillnetError, ValueError) as error:
            return JSONResponse({"error": str(error)}, 400, headers=_HEADERS)
        return JSONResponse(result, headers=_HEADERS)

    def choose(asked: dict[str, Any]) -> dict[str, Any]:
        return {"candidate": room.choose(_number(asked, "max_loss"))}

    def make(asked: dict[str, Any]) -> dict[str, Any]:
        loss, name = _number(asked, "max_loss"), _text(asked, "name")
        return _told(jobs.start(f"Writing {name}", lambda told: room.make(loss, name, told)))

    def export(asked: dict[str, Any]) -> dict[str, Any]:
        name, form = _text(asked, "name"), _text(asked, "format")
        work = lambda told: room.export(name, form, told)  # noqa: E731
        return _told(jobs.start(f"Exporting {name} as {form}", work))

    def cancel(asked: dict[str, Any]) -> dict[str, Any]:
        jobs.cancel()
        return _told(jobs.latest)

    return Starlette(
        routes=[
            Route("/", page),
            Route("/api/state", answered(lambda asked: _state(room))),
            Route("/api/job", answered(lambda asked: _told(jobs.latest))),
            Route("/api/choose", answered(choose), methods=["POST"]),
            Route("/api/ask", asked_image, methods=["POST"]),
            Route("/api/make", answered(make), methods=["POST"]),
            Route("/api/export", answered(export), methods=["POST"]),
            Route("/api/cancel", answered(cancel), methods=["POST"]),
        ]
    )


def _page(room: Workroom) -> str:
    result = room.run.result
    template = environment("studio/templates").get_template("studio.html")
    text: str = template.render(
        title=f"{result['model']} for {', '.join(room.run.mission.names)}",
        names=room.run.mission.names,
        run=room.run.directory.resolve().name,
        budget=room.budget_pp if room.budget_pp is not None else 1.0,
        formats=FORMATS,
        has_original=room.original is not None,
        why_no_original=room.subject.lacks.get("original") or room.subject.lacks.get("weights", ""),
        style=asset("page.css"),
        script=asset("studio.js"),
        token_header=TOKEN_HEADER,
    )
    return text


def _state(room: Workroom) -> dict[str, Any]:
    return {
        "candidates": [one.figures for one in room.candidates],
        "baseline": {
            name: room.run.result["baseline"][name] for name in ("macs", "params", "accuracy")
        },
        "n_val": room.run.result["n_images"]["val"],
        "written": room.written(),
    }


def _told(job: Any) -> dict[str, Any]:
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
    data = await _body(request, _AT_MOST_JSON)
    try:
        asked = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise InputError(f"found no JSON ({error}); expected an object") from None
    if not isinstance(asked, dict):
        raise InputError(f"found {type(asked).__name__}; expected an object")
    return asked


def _number(asked: dict[str, Any], name: str) -> float:
    value = asked.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 100:
        raise InputError(f"found {name} {value!r}; expected a number from 0 to 100")
    return float(value)


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str):
        raise InputError(f"found {name} {value!r}; expected text")
    return value
