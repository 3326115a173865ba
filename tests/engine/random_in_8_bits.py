"""Missions of random small networks in 8 bits: their code, under sanitizers, is the reference."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from compiling import mission_plans, names, refitted
from distillnet.cut.plan import Plan
from distillnet.engine import MissionPlan, compile_loadable, noise_image, prepare_switchable
from distillnet.engine.int8 import (
    find_ranges,
    quantise,
    reference_scores,
    united,
    write_int8_folder,
)
from distillnet.errors import UnsupportedError
from distillnet.graph.capture import capture
from distillnet.graph.channels import analyse
from plans import STYLES, random_plan
from random_networks import SANITIZED, bounds, random_network
from targets import run_test_vector

__all__ = ["check_random_in_8_bits"]

# By seed, channels in a block of weights, and a target.
_CPU = Path("/proc/cpuinfo")
_AVX2 = "-mavx2" if _CPU.exists() and " avx2 " in _CPU.read_text() else "-O1"
_TARGETS = ((16, "-march=native"), (1, "-O1"), (16, _AVX2), (16, "-O1"))


def check_random_in_8_bits(seed: int, folder: Path) -> int:
    """Compare a random network's missions, under sanitizers, bit by bit; how many passed.

    All of it, two parts, and one with parameters of its own; 0 where the engine refuses the network
    by name. Each step may touch nothing but the buffers that are alive in it.
    """
    module, shape = random_network(seed)
    block, target = _TARGETS[seed % len(_TARGETS)]
    try:
        graph = capture(module, shape[1:], channels=shape[0])
        channels = analyse(graph)
        plans = {"dense": Plan()}
        for i, name in enumerate(("one", "two", "own")):
            plans[name] = random_plan(graph, channels, STYLES[(seed + i) % len(STYLES)], seed + i)
        count = graph[graph.output].shape[0]
        scores = {n: np.zeros(len(p.outputs or range(count))) for n, p in plans.items()}
        missions = mission_plans(plans, scores)
        whole = MissionPlan("w", Plan(), names(count))
        layout = compile_loadable(graph, [whole])[2]
        layers = {slot.layer for slot in layout.slots if slot.layer is not None}
        refits = refitted(graph, layers, seed)[1]
        missions[-1] = replace(missions[-1], refits=refits)
        prepared = prepare_switchable(graph.to(torch.float32), missions)
        noise = noise_image(shape, 1.0)[None]
        x = torch.from_numpy(np.concatenate([noise, 0.7 * noise[..., ::-1]]))
        ranges = united([find_ranges(g, x)["MinMax"] for g in prepared.graphs])
        network, bits = quantise(prepared.graph, prepared.missions, ranges, block)
    except UnsupportedError:
        return 0
    expected = {m.name: reference_scores(network, noise, m)[0] for m in bits}
    folder.mkdir()
    program = write_int8_folder(network, bits, expected, folder, "net", banner="tests")
    (folder / "bounds.h").write_text(bounds(program, "uint8_t"))
    said = run_test_vector(folder, ["cc", *SANITIZED, target, "-include", "bounds.h"])
    assert said.count("PASS") == len(bits)
    return len(bits)
