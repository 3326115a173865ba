"""HTML that stands alone: templates that escape what they are given, and nothing from elsewhere.

A page carries its style, its script and its pictures. Its policy allows that script by its hash,
pictures that are in the page, and no request to any host, so that not even a name that slipped
through unescaped could load or run anything.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import TYPE_CHECKING, Any

from distillnet.deploy.extras import need
from distillnet.search.budget import in_points

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["asset", "environment", "policy", "signed"]

_EXTRA = "report"


@cache
def asset(name: str) -> str:
    """A file of ``look/``: the style sheet or a script."""
    return files("distillnet.pages").joinpath("look", name).read_text(encoding="utf-8")


def policy(*scripts: str, **sources: str) -> str:
    """A Content-Security-Policy under which only these scripts run, and no host is asked.

    Style is inline because charts bring their own as attributes; with pictures limited to the
    page's own, it can fetch nothing.

    Args:
        sources: further directives, such as ``connect_src="'self'"``.

    >>> policy("")
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='; base-uri 'none'; \
form-action 'none'"
    """
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts) or "'none'"
    parts = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": hashes,
        "base-uri": "'none'",
        "form-action": "'none'",
        **{name.replace("_", "-"): value for name, value in sources.items()},
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def environment(*folders: str) -> "Environment":
    """Templates of ``distillnet.pages``, by folder; every value is escaped, a missing one fails."""
    jinja2: ModuleType = need("jinja2", _EXTRA)
    loaders = [jinja2.PackageLoader("distillnet.pages", folder) for folder in (*folders, "look")]
    made: Environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(_FILTERS)
    return made


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def signed(value: float, digits: int = 1) -> str:
    """A number with a real minus sign, and no sign where it rounds to nothing.

    >>> signed(1.26), signed(-0.04)
    ('+1.3', '0.0')
    """
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if float(f"{value:.{digits}f}") else f"{0:.{digits}f}"


def _size(bytes_: float) -> str:
    """In the unit that suits it: bytes, kB or MB of 1000."""
    for unit, scale in (("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= scale:
            return f"{bytes_ / scale:.1f} {unit}"
    return f"{bytes_:.0f} B"


_FILTERS: dict[str, Any] = {
    "in_points": in_points,
    "percent": _percent,
    "signed": signed,
    "size": _size,
}
