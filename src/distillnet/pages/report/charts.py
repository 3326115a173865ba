"""Charts as SVG that lies in the page: sharp in print, of the page's own colours and type.

matplotlib draws; its text stays text, which can be searched and read aloud, and its colours become
the page's, so that a chart is light or dark with it. No script is needed to look at one, and no
chart is larger than some 30 kB; plotly's script alone has 4 MB.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from distillnet.deploy.extras import need

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["AFTER", "BAD", "BEFORE", "BOX", "FAINT", "FILL", "TEXT", "chart", "shortened"]

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"^#(.+)|url\(#([^)]+)\)")
_LONG, _FONT = re.compile(r"(\d\.\d\d)\d+"), re.compile(r"font-family:[^;]*;? ?")
# Stand-ins that no chart has by chance, and what of the style sheet they become.
TEXT, BEFORE, AFTER, FAINT, BAD = "#010203", "#010204", "#010205", "#010206", "#010207"
BOX, FILL = "#010208", "#010209"  # behind text
_COLOURS = {
    TEXT: "currentColor",
    BEFORE: "var(--before)",
    AFTER: "var(--after)",
    FAINT: "var(--faint)",
    BAD: "var(--bad)",
    BOX: "var(--box)",
    FILL: "var(--fill)",
}
_PIXELS = 4 / 3  # of a screen, to a point
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "distillnet",  # the same chart is the same text
    "text.parse_math": False,  # a class may be called "$1"
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": TEXT,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


def chart(
    draw: "Callable[[Axes], None]",
    width: float,
    height: float,
    prefix: str,
    margins: tuple[float, float, float, float] | None = None,
) -> str:
    """What ``draw`` puts on axes, as an ``<svg>``.

    Args:
        width, height: in inches; it shrinks with the page.
        prefix: of all names in it, which nothing else in the page may have.
        margins: left, bottom, right and top in inches; measured where they are not given, which
            takes several times as long.
    """
    matplotlib = need("matplotlib", "report")
    need("matplotlib.backends.backend_svg", "report")
    from matplotlib.figure import Figure

    stream = io.StringIO()
    with matplotlib.rc_context(_STYLE), _no_warnings_of_glyphs():
        if margins is None:
            figure = Figure((width, height), layout="constrained")
            draw(figure.subplots())
        else:
            left, bottom, right, top = margins
            inside = width - left - right, height - bottom - top
            figure = Figure((width, height))
            draw(
                figure.add_axes(
                    (left / width, bottom / height, inside[0] / width, inside[1] / height)
                )
            )
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _for_page(stream.getvalue(), prefix)


ElementTree.register_namespace("", _SVG)


@contextmanager
def _no_warnings_of_glyphs() -> Iterator[None]:
    """Within, names may be of any script: the browser draws them, not matplotlib's fonts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        yield


def _for_page(svg: str, prefix: str) -> str:
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # Its metadata tell the version, its style would be the whole page's.
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    elements = list(root.iter())
    used = {name for element in elements for name in _references(element)}
    for element in elements:
        element.text = element.text if (element.text or "").strip() else None
        element.tail = None if element.tag != f"{{{_SVG}}}tspan" else element.tail
        link = element.attrib.pop(f"{{{_XLINK}}}href", None)
        if link is not None:
            element.set("href", link)
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for name, value in element.attrib.items():
            element.set(name, _for_style(value, name, prefix))
    width = root.attrib.pop("width").removesuffix("pt")
    del root.attrib["height"]
    root.set("style", f"width: {float(width) * _PIXELS:.0f}px")
    root.set("aria-hidden", "true")  # the figure around it says what it shows
    root.set("focusable", "false")
    return ElementTree.tostring(root, encoding="unicode")


def _references(element: ElementTree.Element) -> Iterator[str]:
    for value in element.attrib.values():
        yield from (one or two for one, two in _REFERENCE.findall(value))


def _for_style(value: str, name: str, prefix: str) -> str:
    """An attribute with names that no other chart has, in the page's colours."""
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return value.replace("#", f"#{prefix}-", 1)
    value = _LONG.sub(r"\1", value.replace("url(#", f"url(#{prefix}-"))
    if name == "style":
        value = _FONT.sub("", value)  # the page's
        for colour, page in _COLOURS.items():
            value = value.replace(colour, page)
    return value


def shortened(name: str, most: int = 28) -> str:
    """A name for a chart, whose room is small.

    >>> shortened("inception_3a.conv_3x3", 12)
    'incepti…_3x3'
    """
    if len(name) <= most:
        return name
    return f"{name[: most * 2 // 3 - 1]}…{name[-(most - most * 2 // 3) :]}"
