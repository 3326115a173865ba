"""What the benchmarks of single steps share: a network, a mission and its images, and cutting."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from distillnet.classes import Mission, parse_mission
from distillnet.cut.cost import class_macs
from distillnet.cut.plan import Plan
from distillnet.cut.surgery import compact
from distillnet.graph import Graph
from distillnet.graph.channels import Channels, analyse
from distillnet.graph.replay import masked_scores
from distillnet.images import ImageSet, limit, load_all, open_images
from distillnet.images.preprocessing import Size
from distillnet.job.partition import Images, split_images
from distillnet.models import Model, load_model
from distillnet.refit.compensation import compensate
from distillnet.refit.teacher import Teacher
from distillnet.search import Judge
from distillnet.search.allocation import Cut, channel_plan, cut_to_size, open_ledger
from distillnet.search.effects import put_right
from distillnet.search.evidence import measure_evidence
from distillnet.search.orders import Order, elimination_orders
from distillnet.search.splits import Spectrum, spectra


@dataclass(frozen=True)
class Case:
    """A network, a mission, and images for statistics, search and figures."""

    model: Model
    mission: Mission
    images: Images

    def read(
        self, images: ImageSet, size: Size | None = None, count: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W), all or about ``count``, and their positions in the mission (N,)."""
        if count is not None:
            images = limit(images, max(1, count // len(self.mission)), 0)
        how = self.model.preprocessing
        loaded = load_all(images, how.with_input_size(size or how.input_size))
        positions = [self.mission.indices.index(int(c)) for c in loaded.labels_n]
        return loaded.x_nchw, torch.tensor(positions)

    def judge(self, graph: Graph, images: tuple[Tensor, Tensor]) -> Judge:
        """Compares networks with ``graph`` on images and labels."""
        x_nchw, labels_n = images
        return Judge(masked_scores(graph, x_nchw, {}), labels_n, self.mission)


def parser(description: str) -> argparse.ArgumentParser:
    """The arguments that ``open_case`` reads."""
    result = argparse.ArgumentParser(description=description.split("\n")[0])
    result.add_argument("model")
    result.add_argument("--weights", type=Path)
    result.add_argument("--data", type=Path, required=True)
    result.add_argument("--classes", required=True)
    return result


def open_case(args: argparse.Namespace) -> Case:
    """The network, mission and images of a command line."""
    model = load_model(args.model, weights=args.weights)
    mission = parse_mission(args.classes, model.classes)
    return Case(
        model, mission, split_images(open_images(args.data, model.classes, mission.indices))
    )


@dataclass(frozen=True)
class Known:
    """What is measured once for all sizes: orders, spectra and needs."""

    orders: tuple[Order, ...]
    spectra: tuple[Spectrum, ...]
    needs: Mapping[str, Tensor]


def know(graph: Graph, mission: Mission, x_nchw: Tensor, split: bool = True) -> Known:
    """Measure it on images."""
    channels = analyse(graph)
    evidence = measure_evidence(graph, channels, mission, x_nchw)
    orders = elimination_orders(graph, channels, evidence)
    known = spectra(graph, channels, evidence) if split else ()
    return Known(
        *put_right(graph, channels, mission, x_nchw, evidence, orders, known), evidence.needs
    )


class Bench:
    """A graph that is cut to numbers of MACs as the search would cut it, and refitted."""

    def __init__(self, graph: Graph, mission: Mission, x_nchw: Tensor, known: Known) -> None:
        self.graph, self.mission, self.x_nchw, self.known = graph, mission, x_nchw, known
        self.channels: Channels = analyse(graph)
        self.ledger = open_ledger(
            graph, self.channels, known.orders, mission.indices, 0.1, known.spectra
        )
        self.macs = self._macs(Cut(np.zeros(self.channels.count, dtype=bool)))

    def _macs(self, cut: Cut) -> int:
        return class_macs(self.graph, self.channels, cut.gone, cut.splits)

    def cut(self, most_macs: float) -> tuple[Plan, int]:
        """What stays for at most so many MACs, and how many MACs these are."""
        cut = cut_to_size(
            self.graph, self.channels, self.ledger, lambda cut: self._macs(cut) <= most_macs
        )
        plan = channel_plan(self.graph, self.channels, cut, self.mission.indices)
        return plan, self._macs(cut)

    def fitted(self, plan: Plan, teacher: Teacher | None) -> Graph:
        """The compact network with all scores, refitted to a teacher, or as it is without."""
        graph = self.graph
        if teacher is None:
            return compact(graph, self.channels, Plan(plan.keep))
        graph = compensate(graph, self.channels, plan, teacher, self.x_nchw, needs=self.known.needs)
        return compact(graph, self.channels, replace(plan, outputs=None))
