"""The C of chains: how their steps hang together, and what computes a row of each."""

from collections.abc import Callable

from distillnet.engine.literals import c_array
from distillnet.engine.steps import Link, Program

__all__ = ["chain_source"]


def chain_source(program: Program, label: int, call: Callable[[int, str], str]) -> str:
    """The tables of a programme's chain, and the function that computes some rows of a link.

    Args:
        call: of a step, by its position and what its rows are called, the C that carries it out.
    """
    chain = program.chains[label]
    windows = {name: n for n, name in enumerate(chain.windows)}
    zeros = {s.name: s.settings.get("zero", 0) for s in program.steps if s.kernel == "border"}
    rows = []
    for name in chain.windows:
        b = program.buffers[name]
        numbers = program.offsets[name], b.row, b.window, b.halo.top, zeros.get(name, 0)
        rows.append("{" + ", ".join(map(str, numbers)) + "}")
    cases = "".join(
        f"    case {n}: {call(link.step, 'r')} break;\n" for n, link in enumerate(chain.links)
    )
    return (
        c_array("chain_link", f"links_{label}", [_link(k, windows) for k in chain.links], 1)
        + c_array("chain_window", f"windows_{label}", rows, 1)
        + f"static void run_links_{label}(int32_t link, rows r, const given *with)\n{{\n"
        f"    GIVEN(with)\n    switch (link) {{\n{cases}    }}\n}}\n"
        f"static const chain chain_{label} = {{links_{label}, windows_{label}, "
        f"{len(chain.links)}, {len(rows)}, run_links_{label}}};\n"
    )


def _link(k: Link, windows: dict[str, int]) -> str:
    reads, writes = (-1 if name is None else windows[name] for name in (k.reads, k.writes))
    numbers = (
        k.rows, k.border, reads, writes, k.stride, k.before, k.reach, k.least, k.most,
        sum(1 << n for n in k.needs),
    )  # fmt: skip
    return "{" + ", ".join(map(str, numbers)) + "}"
