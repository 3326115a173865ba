"""Random small networks of what the C engine computes, and their code under sanitizers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures import randomise
from compiling import export, mission_plans, names, within
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact, mask
from distillnet.engine import Program, compile_compact, compile_switchable, noise_image
from distillnet.errors import UnsupportedError
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from plans import STYLES, random_plan, scores
from targets import run_test_vector

__all__ = ["SANITIZERS", "check_random_network", "random_network"]

SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover")
_LANES = ("-DLANES=1", "-DLANES=4", "-march=native")
_MOST_STAGES, _MOST_NUMBERS = 7, 6_000
# Before each step, all of the arena is out of bounds but for the buffers that the plan of the
# arena has alive then, and the block that kernels may read beyond a buffer's end.
_POISON = """
#include <sanitizer/asan_interface.h>
#include <stddef.h>
static const struct {{ int first, last; size_t at, floats; }} buffers[] = {{ {buffers} }};
__attribute__((unused)) static void bounds(float *arena, int step)
{{
    __asan_poison_memory_region(arena, {floats} * sizeof(float));
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        if (step < 0 || (buffers[i].first <= step && step <= buffers[i].last))
            __asan_unpoison_memory_region(arena + buffers[i].at, buffers[i].floats * sizeof(float));
    if (step < 0)
        __asan_unpoison_memory_region(arena, {floats} * sizeof(float));
}}
#define STEP(index, call) \\
    do {{ bounds(arena, index); call; if (index == {last}) bounds(arena, -1); }} while (0)
"""


class _Module(nn.Module):
    """A function of its parts and the input."""

    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


class _Draw(np.random.Generator):
    """Random layers for a map of shape (C, H, W)."""

    def a(self, least: int, most: int) -> int:
        return int(self.integers(least, most + 1))

    def pair(self, least: int, most: int) -> tuple[int, int]:
        return self.a(least, most), self.a(least, most)

    def one[T](self, *values: T) -> T:
        return values[self.a(0, len(values) - 1)]
