"""The addresses of a run's studio, and what each answers."""

from typing import TYPE_CHECKING, Any

from distillnet.deploy.extras import need
from distillnet.errors import InputError
from distillnet.pages.studio.answering import (
    answer,
    answer_image,
    number,
    page,
    shelf_routes,
    text,
    told,
)
from distillnet.pages.studio.asking import ask
from distillnet.pages.studio.jobs import Jobs
from distillnet.pages.studio.workroom import Workroom

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["page_values", "run_app"]


def run_app(room: Workroom, jobs: Jobs) -> "Starlette":
    """The studio as an ASGI application, which ``guard.Guard`` has to stand before."""
    need("starlette", "studio")
    from starlette.applications import Starlette
    from starlette.routing import Route

    def choose(asked: dict[str, Any]) -> dict[str, Any]:
        return {"candidate": room.choose(number(asked, "max_loss"))}

    def asked_image(of: str, data: bytes) -> dict[str, Any]:
        if not of.isdecimal():
            raise InputError(f"found the network {of!r}; expected its number")
        return ask(data, room.original, room.network(int(of[:9])))

    def make(asked: dict[str, Any]) -> dict[str, Any]:
        loss, name = number(asked, "max_loss"), text(asked, "name")
        work = lambda on_progress: room.make(loss, name, on_progress)  # noqa: E731
        return told(jobs.start(f"Writing {name}", work))

    return Starlette(
        routes=[
            Route("/", page("studio.html", "studio.js", page_values(room))),
            Route("/api/state", answer(lambda asked: _state(room))),
            Route("/api/choose", answer(choose), methods=["POST"]),
            Route("/api/ask", answer_image(asked_image), methods=["POST"]),
            *shelf_routes(room.shelf, jobs, make),
        ]
    )


def page_values(room: Workroom) -> dict[str, Any]:
    """What the template of the page is filled with."""
    result, lacks = room.run.result, room.subject.lacks
    return {
        "title": f"{result['model']} for {', '.join(room.run.mission.names)}",
        "names": room.run.mission.names,
        "run": room.run.directory.resolve().name,
        "budget": room.budget_pp if room.budget_pp is not None else 1.0,
        "has_front": room.has_front,
        "has_original": room.original is not None,
        "why_no_original": lacks.get("original") or lacks.get("weights", ""),
        "why_no_rule": room.why_no_rule,
    }


def _state(room: Workroom) -> dict[str, Any]:
    return {
        "candidates": [one.figures for one in room.candidates],
        "n_val": room.run.result["n_images"]["val"],
        "written": room.shelf.written(),
    }
