"""What noise in an atlas's sums costs in accuracy, by epsilon and images of a class.

    python benchmarks/noise.py MODEL --weights FILE --data DATA/imagenette --cache CACHE \
        --classes A,B,C [--share 0.1] [--seeds 3]

Looks at each image of DATA/train once, as `collect --noise` does, and keeps its vector in CACHE.
Then, for numbers of images and epsilons, draws that many of each class, writes the atlas that
`collect --noise` would, lets SHARE of all channels of each site go by the paper's scores (heat,
Eq. 12 to 14), and measures the masked network on DATA/val: no refit, no search, so that scores
alone make the difference. Beside it the same sums without noise, and channels at random. What is
printed is the mean over SEEDS of draws, noise and chance, and the share of channels that go by all
sums without noise, too. More images than there are have the same signal and less noise for each: a
row says how many that stands for.
"""

import argparse
import tempfile
from pathlib import Path
from random import Random
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.atlas import Atlas
from distillnet.classes import Mission, parse_mission
from distillnet.cut.plan import Plan, complete_only
from distillnet.graph import Graph
from distillnet.graph.capture import capture_model
from distillnet.graph.channels import Channels, analyse
from distillnet.graph.replay import masked_scores
from distillnet.images import Folders, load_batches, open_images
from distillnet.missions.noise import SumVectors, noisy_atlas
from distillnet.models import Model, load_model
from distillnet.search.scores import SCORES, Findings
from distillnet.search.units import channel_units

_DELTA = 1e-6
_WITHOUT = 1e9  # epsilon of sums without noise
_EPSILONS = (1.0, 2.0, 4.0, 8.0, 16.0)
_TIMES = (1, 10)  # as many images as there are, and so many times as many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--classes", required=True)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    model = load_model(asked.model, weights=asked.weights)
    mission = parse_mission(asked.classes, model.classes)
    folders = open_images(asked.data, model.classes, mission)
    bench = _Bench(model, mission, folders, asked.cache, asked.share)
    most = min(len(rows) for rows in bench.vectors.values())
    print(f"original {100 * bench.accuracy(Plan()):.1f} %, {len(bench.labels_n)} val images")
    print(_row(f"{most} images, no noise", [bench.of(bench.sums(most, 0), 0, _WITHOUT)]))
    print(_row("channels at random", [bench.of(None, seed) for seed in range(asked.seeds)]))
    for count in (most // 4, most):
        for times in _TIMES if count == most else (1,):
            for epsilon in _EPSILONS:
                told = [
                    bench.of(bench.sums(count, seed), seed, epsilon, times)
                    for seed in range(asked.seeds)
                ]
                print(_row(f"{count * times} images, epsilon {epsilon:g}", told), flush=True)


def _row(name: str, told: list[tuple[float, float]]) -> str:
    accuracy, alike = (100 * fmean(values) for values in zip(*told, strict=True))
    return f"| {name} | {accuracy:.1f} % | {alike:.0f} % |"


class _Bench:
    def __init__(
        self, model: Model, mission: Mission, folders: Folders, cache: Path, share: float
    ) -> None:
        self.model, self.mission, self.share = model, mission, share
        self.graph: Graph = capture_model(model)
        self.channels: Channels = analyse(self.graph)
        self.vectors = self._vectors(folders, cache)
        batches = list(load_batches(folders.val, model.preprocessing, batch_size=50))
        self.x_nchw = torch.cat([batch.x_nchw for batch in batches])
        position = {index: i for i, index in enumerate(mission.indices)}
        self.labels_n = torch.tensor([position[int(n)] for b in batches for n in b.labels_n])
        self.exact: Plan | None = None

    def _vectors(self, folders: Folders, cache: Path) -> dict[int, NDArray[np.int64]]:
        path = cache / "vectors.npz"
        if not path.exists():
            looking, rows = SumVectors(self.graph, self.channels), {}
            for index in self.mission.indices:
                images = folders.train.select([index])
                stream = load_batches(images, self.model.preprocessing, batch_size=1)
                rows[str(index)] = np.stack([looking.of(batch.x_nchw) for batch in stream])
            np.savez_compressed(path, **rows)
        with np.load(path) as found:
            return {index: found[str(index)] for index in self.mission.indices}

    def sums(self, count: int, seed: int) -> dict[int, NDArray[np.int64]]:
        """Of so many images of each class."""
        draw = Random(seed)
        return {
            index: rows[draw.sample(range(len(rows)), count)].sum(0)
            for index, rows in self.vectors.items()
        }

    def of(
        self,
        sums: dict[int, NDArray[np.int64]] | None,
        seed: int,
        epsilon: float = 0.0,
        times: int = 1,
    ) -> tuple[float, float]:
        """Accuracy, and the share of what goes that also goes by all sums without noise."""
        if sums is None:
            plan = self._plan(None, seed)
        else:
            with tempfile.TemporaryDirectory() as folder:
                many = {index: times * total for index, total in sums.items()}
                if epsilon >= _WITHOUT:  # what noise there is is lost beside so many images
                    many = {index: 10**6 * total for index, total in many.items()}
                atlas = noisy_atlas(
                    self.model, self.graph, self.channels, many, Path(folder),
                    min(epsilon, 1000.0), _DELTA, below=Random(seed).randrange,
                )  # fmt: skip
                plan = self._plan(atlas, seed)
        if self.exact is None and sums is not None:
            self.exact = plan
        return self.accuracy(plan), self._alike(plan)

    def _plan(self, atlas: Atlas | None, seed: int) -> Plan:
        nothing = Atlas(Path(), "", "", (1, 1), (), {})
        known = Findings(self.graph, self.channels, atlas or nothing, self.mission, seed)
        score = SCORES["random" if atlas is None else "heat"](known)
        keep = {}
        for unit in channel_units(self.graph, self.channels, score):
            keep |= {site: cut.keep for site, cut in unit.cut(self.share).items()}
        return complete_only(self.channels, Plan(keep, self.mission.indices))

    def accuracy(self, plan: Plan) -> float:
        scores = masked_scores(self.graph, self.x_nchw, plan.keep)[:, list(self.mission.indices)]
        return float((scores.argmax(1) == self.labels_n).double().mean())

    def _alike(self, plan: Plan) -> float:
        exact = self.exact
        if exact is None:
            return 1.0
        gone = {site: ~keep.flatten(1)[:, 0] for site, keep in plan.keep.items() if keep.ndim > 1}
        both = sum(
            int((g & ~exact.keep[site].flatten(1)[:, 0]).sum())
            for site, g in gone.items()
            if site in exact.keep
        )
        return both / max(1, sum(int(g.sum()) for g in gone.values()))


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
