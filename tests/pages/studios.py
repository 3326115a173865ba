"""A studio in a process of its own, and what a browser is not needed for."""

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

__all__ = ["REFUSED", "Studio", "open_studio", "refusals"]


@dataclass(frozen=True)
class Studio:
    address: str
    folder: Path

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.address).query)["token"][0]

    def ask(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        method: str = "GET",
        body: str | None = None,
    ) -> tuple[int, str]:
        """Status and text of an answer; the host is as the address has it unless headers say."""
        split = urlsplit(self.address)
        connection = http.client.HTTPConnection(str(split.hostname), split.port, timeout=60)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


@contextmanager
def open_studio(*words: str | Path, out: Path) -> Iterator[Studio]:
    """`distillnet studio WORDS --out OUT`, ended by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distillnet", "studio", *map(str, words), "--out", str(out)],
        stdout=subprocess.PIPE, text=True, preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.default_int_handler
        ),
    )  # fmt: skip
    assert process.stdout is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", process.stdout.readline())
    assert found
    yield Studio(found[0], out)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    process.stdout.close()


# Who is refused: the path, headers beside those that every request has, and what the answer names.
REFUSED = [
    ("/", {}, "token"),
    ("/?token=wrong", {}, "token"),
    ("/api/state", {}, "token"),
    ("/api/state?token={token}", {}, "token"),  # which only the page's address may have
    ("/api/state", {"x-distillnet-token": "wrong"}, "token"),
    ("/?token={token}", {"host": "studio.example"}, "host"),
    ("/?token={token}", {"host": "127.0.0.1"}, "host"),
    ("/api/state", {"x-distillnet-token": "{token}", "host": "rebound.example:{port}"}, "host"),
    ("/api/state", {"x-distillnet-token": "{token}", "origin": "http://a.example"}, "origin"),
    ("/api/state", {"x-distillnet-token": "{token}", "origin": "null"}, "origin"),
    ("/api/state", {"x-distillnet-token": "{token}", "origin": "http://127.0.0.1"}, "origin"),
]  # fmt: skip


def refusals(studio: Studio, path: str, headers: dict[str, str]) -> list[tuple[int, str]]:
    """What a studio answers to GET and to POST; {token} and {port} stand for its own."""
    known = {"token": studio.token, "port": str(urlsplit(studio.address).port)}
    given = {name: value.format(**known) for name, value in headers.items()}
    return [studio.ask(path.format(**known), given, method) for method in ("GET", "POST")]
