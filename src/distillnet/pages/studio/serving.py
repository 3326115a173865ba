"""Serving the studio to this machine's own browser, until Ctrl-C."""

import secrets
import socket
from collections.abc import Callable

from distillnet.deploy.extras import need
from distillnet.errors import InputError
from distillnet.pages.studio.app import run_app
from distillnet.pages.studio.atlas_app import atlas_app
from distillnet.pages.studio.draftroom import Draftroom
from distillnet.pages.studio.guard import Guard
from distillnet.pages.studio.jobs import Jobs
from distillnet.pages.studio.workroom import Workroom

__all__ = ["serve"]

_LOOPBACK = "127.0.0.1"


def serve(
    room: Workroom | Draftroom,
    *,
    port: int = 0,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a studio on the loopback address until the process is interrupted.

    Args:
        room: a run, or an atlas, and the folder to write to.
        port: 0 takes a free one.
        on_ready: called with the address, token and all, once it can be opened.

    Raises:
        InputError: the port is taken, or a library is missing.
    """
    uvicorn = need("uvicorn", "studio")
    jobs, expecting = Jobs(), Jobs()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_LOOPBACK, port))
        except OSError as error:
            raise InputError(
                f"port {port} cannot be used ({error.strerror}); choose another --port, or 0 for a "
                "free one"
            ) from error
        listening.listen()
        bound = listening.getsockname()[1]
        token = secrets.token_urlsafe(32)
        if isinstance(room, Draftroom):
            app = Guard(atlas_app(room, jobs, expecting), bound, token)
        else:
            app = Guard(run_app(room, jobs), bound, token)
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, lifespan="off", ws="none",
            server_header=False, timeout_graceful_shutdown=2,
        )  # fmt: skip
        on_ready(f"http://{_LOOPBACK}:{bound}/?token={token}")
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            for work in (jobs, expecting):
                work.cancel()
                work.wait(10)
