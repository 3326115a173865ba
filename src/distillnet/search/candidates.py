"""Candidates of the best search: made by cutting and refitting at an input size, and judged.

Where statistics and search images are drawn alike, all of them fit the weights of a candidate, as
they will those of the network that is returned, and all of them judge it: a closed-form fit of few
weights to many rows learns little by heart. How much it does is measured by cross-validation, of
the candidate that would be chosen: it is fitted anew without each fifth of the images, which judge.

Otherwise statistics images fit, and search images judge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from distillnet.classes import Mission
from distillnet.cut.cost import class_work
from distillnet.cut.plan import Plan
from distillnet.cut.pools import pools_first
from distillnet.cut.surgery import compact
from distillnet.graph import Graph
from distillnet.graph.channels import analyse
from distillnet.graph.replay import masked_scores
from distillnet.images.preprocessing import Size
from distillnet.refit.compensation import refit, with_biases
from distillnet.refit.head import Labels
from distillnet.refit.samples import evenly, folds_of
from distillnet.search.allocation import Cut, channel_plan, cut_to_size, open_ledger
from distillnet.search.effects import put_right
from distillnet.search.evidence import measure_evidence
from distillnet.search.judge import Judge, Verdict, certainty
from distillnet.search.orders import Order, elimination_orders
from distillnet.search.roles import FOLDS, assign_roles, folds_crossed, mixed, most_fitted
from distillnet.search.settings import SearchSettings
from distillnet.search.sized import Sized
from distillnet.search.splits import Spectrum, spectra
from distillnet.search.store import NOWHERE, Store, key_of
from distillnet.search.teachers import Teachers
from distillnet.search.views import FEW_IMAGES, look

__all__ = ["Candidate", "Workshop"]

_BYTES = 2 * 10**9  # of values kept between layers
_CHECKED = 250  # images that tell from whom to learn, at most where there are many
_MEASURED = 500  # views that orders are measured on, at most where images are few


@dataclass(frozen=True)
class Candidate:
    """A plan at an input size, and what the images say of it.

    Attributes:
        graph: refitted, in the original shapes; None once its weights are not needed any more.
        work: what is left of MACs, or of what stands for time; see ``cost.class_work``.
        scores_nk: on the images that judge.
    """

    size: Size
    plan: Plan
    graph: Graph | None
    work: float
    scores_nk: Tensor
    verdict: Verdict


class Workshop:
    """Makes and judges candidates, at one input size at a time.

    Args:
        sized: the network and its images at an input size.
        original_size: of the network as it came.
        labels_n: of the search images, or of all images where the statistics images may judge, too.
        labels_fitted_n: else of the statistics images, to fit the last layer to; None fits none.
        shares: of the classes, among the images that the loss is reported on; see ``Judge``.
        graphs: the network at sizes that may be tried; see ``Teachers``.
        store: where what takes long is looked up, and kept.

    Attributes:
        original: the network as it came, at its own size.
        here: what is cut, at the present ``size``.
        work: of the original; see ``work_left``.
        few: whether images are, so few that several views of each are fitted where they may be.
    """

    def __init__(
        self,
        sized: Callable[[Size], Sized],
        original_size: Size,
        mission: Mission,
        labels_n: Tensor,
        settings: SearchSettings | None = None,
        *,
        labels_fitted_n: Tensor | None = None,
        shares: Sequence[float] | None = None,
        graphs: Mapping[Size, Graph] | None = None,
        store: Store = NOWHERE,
    ) -> None:
        self.store, self.mission = store, mission
        self.how = how = settings or SearchSettings()
        own = sized(original_size)
        views = look(own, labels_n, mission, more=how.more_views, seed=how.seed)
        self.load, labels_n = lambda size: views.at(sized(size)), views.labels_n
        self.original = views.at(own)
        self.size = self.original_size = original_size
        self.here = self._to_cut(self.original)
        n = len(self.original.x_nchw)
        roles = assign_roles(n, self.original.n_statistics, alike=len(labels_n) == n)
        judging = self.original.view_n[roles.judge] < views.judging
        self.roles = replace(roles, judge=roles.judge[judging])
        images = self.original.image_n
        judged = images[self.roles.judge] - images[self.roles.judge].min()
        said_nk, shown_n = views.scores_nk[judging], labels_n[judging]
        self.judge = Judge(said_nk, shown_n, mission, judged, shares)
        self.few = len(images.unique()) <= FEW_IMAGES
        self.n_fitted = len(images[self.roles.fit].unique())
        self.seen = self.judge.seen if how.seen is None else how.seen
        self.labels: Labels | None = None
        if labels_fitted_n is not None:
            labels_n = torch.cat([labels_fitted_n.repeat(self.original.views), labels_n])
        if how.fit_labels and len(labels_n) == n:
            self.labels = Labels(labels_n, mission.indices, images, known=self.seen)
        nothing = np.zeros(self.original.channels.count, dtype=bool)
        self.work = self.work_left(Cut(nothing), self.original)
        self.teachers = Teachers(self.original, graphs or {}, how.seed)
        self.teacher_chosen = False
        self.orders: tuple[Order, ...] | None = None
        self.spectra: tuple[Spectrum, ...] = ()
        self.needs: Mapping[str, Tensor] = {}

    def go_to(self, size: Size) -> None:
        """Work at an input size; the orders of elimination are measured at the first."""
        if size != self.size:
            own = size == self.original_size
            self.here = self._to_cut(self.original if own else self.load(size))
            self.size = size
        if self.orders is None:
            here = self.here
            graph, channels, x_nchw = here.graph, here.channels, here.x_statistics
            if self.few and self.flattering:
                x_nchw = here.x_nchw[evenly(self.roles.fit, _MEASURED)]
            evidence = measure_evidence(graph, channels, self.mission, x_nchw, self.how.seed)
            score = self.how.importance
            importance = None if score is None else score(evidence)
            orders = elimination_orders(graph, channels, evidence, importance)
            known = spectra(graph, channels, evidence) if self.how.split else ()
            self.orders, self.spectra = put_right(
                graph, channels, self.mission, x_nchw, evidence, orders, known
            )
            self.needs = evidence.needs

    def _to_cut(self, sized: Sized) -> Sized:
        """The network that candidates are cut from; where time counts, in a quicker order."""
        graph = pools_first(sized.graph) if self.how.element else sized.graph
        if graph is sized.graph:
            return sized
        return replace(sized, graph=graph, channels=analyse(graph))

    def make(self, enough: Callable[[Cut], bool]) -> Candidate | None:
        """A candidate at the present size, cut as little as ``enough`` allows.

        None where nothing is enough.
        """
        cut = self._cut(enough)
        return self._candidate(cut) if enough(cut) else None

    def make_smallest(self) -> Candidate:
        """The candidate at the present size with all gone that can be."""
        return self._candidate(self._cut(lambda cut: False))

    def _candidate(self, cut: Cut) -> Candidate:
        """Refit and judge the network, cut, at the present size."""
        here = self.here
        plan = channel_plan(here.graph, here.channels, cut, self.mission.indices)
        graph, scores_nk = self._answer(plan)
        if not self._learnt_well(scores_nk):
            graph, scores_nk = self._answer(plan)  # from another teacher
        verdict = self.judge.verdict(scores_nk)
        return Candidate(self.size, plan, graph, self.work_left(cut), scores_nk, verdict)

    def _learnt_well(self, scores_nk: Tensor) -> bool:
        """Whether the original may teach at its own size; told by the first candidate at another.

        It may where a candidate, though cut, is as sure of what images show as the uncut network
        is at the present size. Where it is not, or where labels taught it, too, the uncut network
        learns from it alone, and has to be surer than it was.

        Args:
            scores_nk: of the candidate, on the images that judge.
        """
        if self.teacher_chosen or self.size == self.original_size:
            return True
        self.teacher_chosen = True
        plan, fit, judge = Plan(outputs=self.mission.indices), self.roles.fit, self.roles.judge
        learn, ask, fold = fit, torch.arange(len(judge)), self._fold_n()
        if self.flattering:  # others tell than those that are fitted on
            learn, ask = fit[fold[fit] != 0], ask[fold[judge] <= 0]
        if not self.few:
            learn, ask = learn[:_CHECKED], evenly(ask, _CHECKED)

        def sure(scores_nk: Tensor) -> float:
            return float(certainty(scores_nk, self.judge.labels_n[ask], self.mission).mean())

        def untaught() -> Mapping[str, Tensor]:
            return {"scores": self._scores(self.here.graph, plan, judge[ask])}

        def taught() -> Mapping[str, Tensor]:
            self.teachers.of(fit, self.here)  # a part is seen of it, also if candidates were known
            graph, _ = self._refit(plan, learn, to_labels=False)
            return {"scores": self._scores(graph, plan, judge[ask])}

        least = sure(self.store.tensors(self._key("untaught", plan), untaught)["scores"])
        if (self.labels is None or self.seen) and sure(scores_nk[ask]) >= least:
            return True
        if sure(self.store.tensors(self._key("taught", plan), taught)["scores"]) > least:
            return True
        self.teachers.at_own_size = False
        self.teachers.forget()
        return False

    def work_left(self, cut: Cut, here: Sized | None = None) -> float:
        """What a cut leaves to do, at the present size."""
        here = here or self.here
        return class_work(here.graph, here.channels, cut.gone, cut.splits, self.how.element)

    def cross_validate(self, candidate: Candidate) -> Verdict | None:
        """The verdict of images on networks that were not fitted on them; None: they never were.

        Where images are many, a part of them is judged so, and the rest is taken to be alike.
        """
        folds = self._fold_n()[self.roles.judge]
        fitted = folds[folds >= 0]
        crossed = int((fitted < folds_crossed(self.n_fitted)).sum())
        if not crossed:
            return None
        partly = self.judge.verdict(self.cross_scores(candidate))
        # Only images that were fitted flatter, and a part of them was judged otherwise.
        return candidate.verdict.towards(partly, len(fitted) / crossed)

    def cross_scores(self, candidate: Candidate) -> Tensor:
        """A candidate's scores (N, classes), those of crossed folds by networks without them."""
        self.go_to(candidate.size)
        key = self._key("crossed", candidate.plan, folds=folds_crossed(self.n_fitted))
        known = self.store.tensors(key, lambda: {"scores": self._cross_scores(candidate)})
        return known["scores"]

    def _cross_scores(self, candidate: Candidate) -> Tensor:
        fit, judge = self.roles.fit, self.roles.judge
        # Folds see parts of that, whether or not the candidate was looked up.
        self.teachers.of(fit, self.here)
        scores, fold = candidate.scores_nk.clone(), self._fold_n()
        for number in range(min(folds_crossed(self.n_fitted), self.n_fitted)):
            # Images that the network was trained on cannot tell what labels win; see ``refit.head``
            others = fit[fold[fit] != number]
            graph, _ = self._refit(candidate.plan, others, to_labels=not self.seen)
            mine = fold[judge] == number
            scores[mine] = self._scores(graph, candidate.plan, judge[mine])
        return scores

    def _fold_n(self) -> Tensor:
        """Which fold each view's image belongs to (N,); -1 where no view of it fits."""
        image_n = self.original.image_n
        fits = torch.isin(image_n, image_n[self.roles.fit])
        return torch.where(fits, folds_of(image_n, FOLDS), -1)

    def refit_without(self, candidate: Candidate, held_out_n: Tensor) -> Graph:
        """What ``refit_on_all`` gives without some of the images, bool (N,)."""
        self.go_to(candidate.size)
        fit = self._taught_on_all()
        held_out = held_out_n[self.original.image_n[fit]]
        return self._refit(candidate.plan, fit[~held_out])[0]

    def refit_on_all(self, candidate: Candidate) -> Graph:
        """The candidate's network fitted on statistics and search images together."""
        self.go_to(candidate.size)
        if self.flattering:
            return candidate.graph or self._answer(candidate.plan)[0]
        return self._refit(candidate.plan, self._taught_on_all())[0]

    @property
    def flattering(self) -> bool:
        """Whether images judge that networks were fitted on, which flatter them."""
        return bool(torch.isin(self.roles.fit, self.roles.judge).any())

    def _taught_on_all(self) -> Tensor:
        """The images that what is returned is fitted on; the original has answered for all.

        Parts of them are then taught alike, however the search came here.
        """
        fit = self.roles.fit
        if not self.flattering:
            everyone = torch.arange(len(self.here.x_nchw))
            fit = mixed(evenly(everyone, most_fitted(self.here.n_statistics)))
        if not bool(torch.isin(fit, self.teachers.images).all()):
            self.teachers.forget()  # answers for other images, which would stay beside these
        self.teachers.of(fit, self.here)
        return fit

    def _cut(self, enough: Callable[[Cut], bool]) -> Cut:
        graph, channels = self.here.graph, self.here.channels
        assert self.orders is not None
        ledger = open_ledger(
            graph, channels, self.orders, self.mission.indices, self.how.param_weight,
            self.spectra, self.how.element,
        )  # fmt: skip
        return cut_to_size(graph, channels, ledger, enough, self.how.round_to)

    def _answer(self, plan: Plan) -> tuple[Graph, Tensor]:
        """The network at the present size, fitted, and its scores on the images that judge."""
        template, key = with_biases(self.here.graph), self._key("fitted", plan)
        return self.store.network(key, template, lambda: self._answer_anew(plan))

    def _key(self, what: str, plan: Plan, **more: object) -> str:
        teacher, views = self.teachers.at_own_size, self.original.views
        return key_of(what, self.size, plan, teacher=teacher, seen=self.seen, views=views, **more)

    def _answer_anew(self, plan: Plan) -> tuple[Graph, Tensor]:
        fit, judge = self.roles.fit, self.roles.judge
        known = torch.isin(judge, fit)
        graph, fitted = self._refit(plan, fit, answer=bool(known.any()))
        if not bool(known.any()):
            return graph, self._scores(graph, plan, judge)
        scores = fitted.new_zeros(len(self.here.x_nchw), fitted.shape[1], device="cpu")
        scores[fit] = fitted.cpu()
        if not bool(known.all()):
            scores[judge[~known]] = self._scores(graph, plan, judge[~known])
        return graph, scores[judge]

    def _refit(
        self, plan: Plan, images: Tensor, *, answer: bool = False, to_labels: bool = True
    ) -> tuple[Graph, Tensor]:
        """The network at the present size, fitted on images by position; see ``refit``."""
        return refit(
            self.here.graph,
            self.here.channels,
            plan,
            self.teachers.of(images, self.here),
            self.here.x_nchw[images],
            image_n=self.original.image_n[images],
            needs=self.needs,
            max_bytes=_BYTES,
            answer=answer,
            labels=self.labels.of(images) if self.labels is not None and to_labels else None,
        )

    def _scores(self, graph: Graph, plan: Plan, images: Tensor) -> Tensor:
        """Of a network, cut, on images by position."""
        small = compact(graph, self.here.channels, replace(plan, outputs=None))
        return masked_scores(small, self.here.x_nchw[images], {}).cpu()
