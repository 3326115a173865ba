"""Random small networks of what the C engine computes, and their code under sanitizers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import randomise
from compiling import export, masked_scores, mission_plans, names, within
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.engine import Program, compile_compact, compile_switchable, noise_image
from distillnet.engine.steps import BLOCK
from distillnet.errors import UnsupportedError
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from plans import STYLES, random_plan
from targets import run_test_vector

__all__ = ["SANITIZED", "bounds", "check_random_network", "random_network"]

SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover")
_LANES = ("-DLANES=1", "-DLANES=4", "-march=native")
_MOST_NUMBERS = 4_000  # of a map
# Before each step, all of the arena is out of bounds but for the buffers that are alive then, by
# the plan of the arena, and one block beyond each, which kernels may read.
_BOUNDS = """
#include <sanitizer/asan_interface.h>
#include <stddef.h>
#include <stdint.h>
static const struct {{ int first, last; size_t at, count; }} buffers[] = {{ {buffers} }};
__attribute__((unused)) static void set_bounds({element} *arena, int step)
{{
    if (step < 0) {{
        __asan_unpoison_memory_region(arena, {count} * sizeof({element}));
        return;
    }}
    __asan_poison_memory_region(arena, {count} * sizeof({element}));
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (buffers[i].first <= step && step <= buffers[i].last)
            __asan_unpoison_memory_region(arena + buffers[i].at,
                                          buffers[i].count * sizeof({element}));
}}
/* Steps that run by turns lie within the first of them. */
__attribute__((unused)) static int outer = -1;
#define STEP(index, call) \\
    do {{ set_bounds(arena, index); call; set_bounds(arena, outer); }} while (0)
#define CHAIN(index, call) do {{ outer = index; STEP(index, call); outer = -1; \\
    set_bounds(arena, -1); }} while (0)
"""


class _Part(nn.Module):
    """A function of the input and of modules."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.modules_ = function, nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.modules_)


class _Drawing:
    """Random layers; a class for the one generator that all of them share."""

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)

    def number(self, least: int, most: int) -> int:
        return int(self.draw.integers(least, most + 1))

    def pair(self, least: int, most: int) -> tuple[int, int]:
        return self.number(least, most), self.number(least, most)

    def one(self, *values: object) -> object:
        return values[self.number(0, len(values) - 1)]

    def conv(self, c: int, m: int, **fixed: object) -> nn.Conv2d:
        kernel = self.pair(1, self.number(1, 5))
        options: dict[str, object] = {
            "stride": self.pair(1, self.number(1, 3)),
            "padding": tuple(self.number(0, k) for k in kernel),
            "dilation": self.pair(1, self.number(1, 2)),
            "bias": self.number(0, 3) > 0,
        }
        return nn.Conv2d(c, m, kernel, **{**options, **fixed})  # type: ignore[arg-type]

    def same(self, c: int, m: int) -> nn.Conv2d:
        return nn.Conv2d(c, m, k := int(self.one(1, 3, 5)), padding=k // 2)  # type: ignore

    def activation(self) -> nn.Module:
        kinds = (
            *(nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Tanh, nn.ELU),
            *(
                nn.Mish,
                nn.LeakyReLU,
                nn.Softplus,
                nn.Hardsigmoid,
                nn.SELU,
                nn.Hardtanh,
                nn.Identity,
            ),
        )
        return self.one(*kinds)()  # type: ignore[operator, no-any-return]

    def pool(self) -> nn.Module:
        kernel = self.pair(1, 4)
        padding = tuple(self.number(0, k // 2) for k in kernel)
        options = {
            "stride": self.pair(1, 3),
            "padding": padding,
            "ceil_mode": self.number(0, 1) > 0,
        }
        if self.number(0, 1):
            return nn.MaxPool2d(kernel, **options)  # type: ignore[arg-type]
        counted = {"count_include_pad": self.number(0, 1) > 0}
        return nn.AvgPool2d(kernel, **options, **counted)  # type: ignore[arg-type]

    def stage(self, c: int, h: int, w: int) -> nn.Module:
        """Something that a map (C, H, W) can go through, most likely."""
        m = self.number(1, 20)
        groups = int(self.one(*(g for g in range(1, c + 1) if c % g == 0)))  # type: ignore
        top, left = self.number(0, h - 1), self.number(0, w - 1)
        order = torch.from_numpy(self.draw.permutation(c))
        kinds: tuple[Callable[[], nn.Module], ...] = (
            *([lambda: nn.Sequential(self.conv(c, m), self.activation())] * 3),
            lambda: self.conv(c, groups * self.number(1, 4), groups=groups),
            lambda: self.conv(c, c * self.number(1, 3), groups=c),
            lambda: nn.Sequential(self.conv(c, m, bias=False), nn.BatchNorm2d(m), nn.ReLU()),
            lambda: nn.BatchNorm2d(c),
            lambda: nn.GroupNorm(groups, c),
            lambda: nn.InstanceNorm2d(c, affine=True),
            lambda: nn.LocalResponseNorm(self.number(1, 5), 0.1, 0.75, 1.5),
            self.activation,
            self.pool,
            lambda: self.one(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)(self.pair(1, 4)),  # type: ignore
            lambda: _Part(lambda x, a: F.relu(x + a(x)), self.same(c, c)),
            lambda: _Part(lambda x, a, b: torch.cat([a(x), x, b(x)], 1), self.same(c, m),
                          nn.MaxPool2d(3, 1, 1)),
            lambda: _Part(lambda x, a, b: x * torch.sigmoid(b(F.relu(a(x.mean((2, 3), True))))),
                          nn.Conv2d(c, m, 1), nn.Conv2d(m, c, 1)),
            lambda: _Part(lambda x: x[:, order]),
            lambda: _Part(lambda x: x.reshape(-1, groups, c // groups, *x.shape[2:])
                          .transpose(1, 2).reshape(x.shape)),
            lambda: _Part(lambda x: x[:, :, top:, left:]),
            lambda: nn.ZeroPad2d((*self.pair(0, 3), *self.pair(0, 3))),
            lambda: nn.ReflectionPad2d((*self.pair(0, 2), *self.pair(0, 2))),
            lambda: nn.ReplicationPad2d((*self.pair(0, 2), *self.pair(0, 2))),
            lambda: nn.ConstantPad2d((*self.pair(0, 2), *self.pair(0, 2)), 0.5),
            lambda: nn.Upsample(scale_factor=2),
            lambda: nn.PReLU(c),
        )  # fmt: skip
        return self.one(*kinds)()  # type: ignore[operator, no-any-return]

    def head(self, c: int, h: int, w: int) -> nn.Module:
        n, m = self.number(3, 24), self.number(2, 20)
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        kinds = (
            lambda: nn.Sequential(pooled, nn.Linear(c, n)),
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, n)),
            lambda: nn.Sequential(nn.Conv2d(c, n, 1), pooled),
            lambda: nn.Sequential(
                nn.Flatten(), nn.Linear(c * h * w, m), nn.ReLU(), nn.Linear(m, n)
            ),
        )
        return self.one(*kinds)()  # type: ignore[operator, no-any-return]


def random_network(seed: int) -> tuple[nn.Module, tuple[int, int, int]]:
    """A module in float64, and the shape (C, H, W) of its images."""
    drawing = _Drawing(seed)
    torch.manual_seed(seed)
    channels, (h, w) = int(drawing.one(1, 3, 3)), drawing.pair(4, 17)  # type: ignore
    stages: list[nn.Module] = [nn.Sequential(drawing.conv(channels, drawing.number(1, 20)))]
    x = torch.zeros(2, channels, h, w)
    for number in range(drawing.number(1, 7)):
        stage = stages[0] if number == 0 else drawing.stage(*x.shape[1:])
        try:
            y = stage.eval()(x)
        except RuntimeError:  # the map is too small for it
            if number == 0:
                return random_network(seed + 10**6)
            continue
        if 0 < y[0].numel() <= _MOST_NUMBERS:
            stages += [stage] if number else []
            x = y
    return randomise(nn.Sequential(*stages, drawing.head(*x.shape[1:])), seed), (channels, h, w)


def check_random_network(seed: int, folder: Path, *, by_rows: bool = False) -> int:
    """Compare a random network's code, under sanitizers, with PyTorch; how many missions passed.

    0 where the engine refuses the network by name. Whole, masked and cut; each step may touch
    nothing but the buffers that are alive in it, and of those of which a window is kept, that.
    """
    module, shape = random_network(seed)
    try:
        graph = capture(module, shape[1:], channels=shape[0])
        channels = analyse(graph)
        styles = [STYLES[(seed + i) % len(STYLES)] for i in (0, 1)]
        plans = {"dense": Plan()} | {s: random_plan(graph, channels, s, seed) for s in styles}
        image = noise_image(shape, 1.0)
        wanted = {name: masked_scores(graph, plan, image) for name, plan in plans.items()}
        switchable = compile_switchable(graph, mission_plans(plans, wanted), by_rows=by_rows)
        less = compact(graph, channels, plans[styles[0]])
        alone = compile_compact(less, "only", names(len(wanted[styles[0]])), by_rows=by_rows)
    except UnsupportedError:
        return 0
    passed = 0
    for name, (program, missions), want in (
        ("all", switchable, list(wanted.values())),
        ("one", (alone[0], [alone[1]]), [wanted[styles[0]]]),
    ):
        assert within(program)
        export(program, missions, want, folder / name)
        (folder / name / "bounds.h").write_text(bounds(program))
        flags = [*SANITIZED, _LANES[seed % len(_LANES)], "-include", "bounds.h"]
        said = run_test_vector(folder / name, ["cc", *flags])
        assert said.count("PASS") == len(missions)
        passed += len(missions)
    return passed


def bounds(program: Program, element: str = "float") -> str:
    rows = [
        f"{{{b.first}, {b.last}, {program.offsets[name]}, {b.size + BLOCK}}}"
        for name, b in program.buffers.items()
    ]
    return _BOUNDS.format(buffers=", ".join(rows), count=program.arena_floats, element=element)
