"""A page on this machine to try missions in: move a budget, ask both networks, export.

Starlette and uvicorn serve it, two small libraries without a build step or a host to ask; the page
is a template and one script. It listens on the loopback address only.

| module | does |
|---|---|
| ``serving`` | ``serve``: a socket, a token, and the server until Ctrl-C |
| ``guard`` | who is refused: other hosts' names, other origins, whoever has no token |
| ``app`` | addresses of the page, and what each answers |
| ``workroom`` | what is open: the run, its front, both networks |
| ``asking`` | one image: what both networks say, and which neurons fire |
| ``jobs`` | long work, one at a time, with progress, that can be cancelled |
"""

from distillnet.pages.studio.serving import serve

__all__ = ["serve"]
