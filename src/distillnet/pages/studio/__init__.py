"""A page on this machine to try missions in: move a budget, ask both networks, export.

Starlette and uvicorn serve it, two small libraries without a build step or a host to ask; the page
is a template and one script. It listens on the loopback address only.

| module | does |
|---|---|
| ``serving`` | ``serve``: a socket, a token, and the server until Ctrl-C |
| ``guard`` | who is refused: other hosts' names, other origins, whoever has no token |
| ``workroom`` | what is open of a run: its front, both networks; ``app``, its page's addresses |
| ``draftroom`` | what is open of an atlas: missions that are tried; ``atlas_app``, its addresses |
| ``answering`` | what all addresses have in common |
| ``asking`` | one image: what both networks say, whether it is refused, which neurons fire |
| ``shelf`` | the folder of runs that are written, and their exports |
| ``jobs`` | long work, one at a time, with progress, that can be cancelled |
"""

from distillnet.pages.studio.draftroom import Draftroom
from distillnet.pages.studio.serving import serve
from distillnet.pages.studio.workroom import Workroom

__all__ = ["Draftroom", "Workroom", "serve"]
