"""The addresses of an atlas's studio, and what each answers."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from distillnet.deploy.extras import need
from distillnet.errors import InputError
from distillnet.pages.studio.answering import (
    answer,
    answer_image,
    number,
    page,
    parsed,
    shelf_routes,
    text,
    told,
)
from distillnet.pages.studio.asking import ask
from distillnet.pages.studio.draftroom import Draftroom, Wish
from distillnet.pages.studio.jobs import Jobs

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["atlas_app"]

_MOST_RATIO = 100


def atlas_app(room: Draftroom, jobs: Jobs, expecting: Jobs) -> "Starlette":
    """The studio as an ASGI application, which ``guard.Guard`` has to stand before.

    Args:
        jobs: for runs and exports.
        expecting: for what a mission would lose, which makes way for the next that is asked for.
    """
    need("starlette", "studio")
    from starlette.applications import Starlette
    from starlette.routing import Route

    def expect(asked: dict[str, Any]) -> dict[str, Any]:
        wish = _wish(asked)
        work = lambda on_progress: room.expect(wish, on_progress)  # noqa: E731
        return told(expecting.replace("Working out what this mission would lose", work))

    def stop(asked: dict[str, Any]) -> dict[str, Any]:
        expecting.cancel()
        return told(expecting.latest)

    def make(asked: dict[str, Any]) -> dict[str, Any]:
        wish, name = _wish(asked), text(asked, "name")
        room.mission(wish)
        work = lambda on_progress: room.make(wish, name, on_progress)  # noqa: E731
        return told(jobs.start(f"Writing {name}", work))

    def asked_image(of: str, data: bytes) -> dict[str, Any]:
        return ask(data, room.original, room.network(_wish(parsed(of))), room.names)

    return Starlette(
        routes=[
            Route("/", page("atlas.html", "atlas.js", _values(room))),
            Route("/api/state", answer(lambda asked: _state(room))),
            Route("/api/count", answer(lambda asked: room.count(_wish(asked))), methods=["POST"]),
            Route("/api/expect", answer(expect), methods=["POST"]),
            Route("/api/expecting", answer(lambda asked: told(expecting.latest))),
            Route("/api/stop", answer(stop), methods=["POST"]),
            Route("/api/ask", answer_image(asked_image), methods=["POST"]),
            *shelf_routes(room.shelf, jobs, make),
        ]
    )


def _wish(asked: dict[str, Any]) -> Wish:
    classes = asked.get("classes")
    if not isinstance(classes, list) or not all(type(index) is int for index in classes):
        raise InputError(f"found the classes {str(classes)[:80]}; expected a list of their numbers")
    if "target_macs" in asked:
        ratio = number(asked, "target_macs", _MOST_RATIO)
        return Wish(tuple(classes), target_macs=max(1.0, ratio))
    return Wish(tuple(classes), max_loss_pp=number(asked, "max_loss"))


def _values(room: Draftroom) -> dict[str, Any]:
    counts, times = room.atlas.statistics.counts, room.options.times
    return {
        "model": room.atlas.statistics.model,
        "atlas": room.atlas.directory.resolve().name,
        "classes": [
            {"index": i, "name": room.atlas.classes.names[i], "images": counts[i]}
            for i in sorted(room.atlas.samples, key=lambda i: room.atlas.classes.names[i].lower())
        ],
        "n_images": sum(counts.values()),
        "machine": times.machine if times else "",
    }


def _state(room: Draftroom) -> dict[str, Any]:
    return {
        "original": asdict(room.uncut()),
        "input_size": list(room.model.preprocessing.input_size),
        "written": room.shelf.written(),
    }
