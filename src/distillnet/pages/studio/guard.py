"""Who may speak with the studio: this machine's own browser, at its own address, with the token.

A page of another origin can make a browser send requests to the loopback address. It cannot read
the token; it tells its origin where the request changes anything; and where a name of its own was
pointed at the loopback address (DNS rebinding), it tells that name as the host.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

__all__ = ["TOKEN_HEADER", "Guard"]

TOKEN_HEADER = "x-distillnet-token"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application that lets only its own page speak with another.

    Args:
        port: where it listens, at 127.0.0.1.
        token: that the page's address, or a header of its requests, has to have.
    """

    def __init__(self, app: App, port: int, token: str) -> None:
        self._app, self._token = app, token.encode()
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        why = "a page has no sockets here" if scope["type"] != "http" else self._objection(scope)
        if not why:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(send, why)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _objection(self, scope: Scope) -> str:
        """Why a request is refused; empty where it is not."""
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value)
        if headers.get(b"host", []) not in [[host] for host in self._hosts]:
            return "this host's name is not the studio's"
        if any(origin not in self._origins for origin in headers.get(b"origin", [])):
            return "the request comes from a page of another origin"
        given = headers.get(TOKEN_HEADER.encode(), [])
        if not given and scope["path"] == "/" and scope["method"] == "GET":
            asked = parse_qs(scope["query_string"].decode("latin-1"))
            given = [token.encode() for token in asked.get("token", [])]
        if len(given) != 1 or not secrets.compare_digest(given[0], self._token):
            return "the token is missing or wrong; open the address that `distillnet studio` showed"
        return ""


async def _refuse(send: Send, why: str) -> None:
    body = f"refused: {why}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
