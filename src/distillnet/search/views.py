"""More views of few images: mirrored, a little nearer or farther, turned and moved.

A photo of a dog that is mirrored or taken from a step nearer shows the dog. Fitted to several
views, weights learn less by heart, above all where images are few (docs/results.md). The original's
own answers on each view are what layers learn. Mirror images judge, too. Moved ones do not: a cut
network loses more on them than on images as they come.

A mirrored arrow, a 3 or a text shows something else. The original tells: views that it takes less
often for what the image shows are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from distillnet.classes import Mission
from distillnet.graph.replay import masked_scores
from distillnet.search.judge import certainty, is_right
from distillnet.search.sized import Sized, beside

__all__ = ["FEW_IMAGES", "PICTURES", "Views", "draw_moves", "look", "moved"]

# So many pictures in all: as many as weights are fitted on where there are so many images. The more
# there are, the less another view of each tells.
PICTURES, _MOST_VIEWS = 1000, 4
FEW_IMAGES = PICTURES // 2  # at most, of which there are several views
# What a move changes at most, to either side: degrees, shares of a side, how many times as near.
_TURN, _SHIFT, _NEAR, _FAR = 5.0, 0.04, 1.25, 0.9
_CERTAIN, _HARMLESS = 2, 0.02  # standard errors; a share of the images
_CHUNK = 64  # images moved at once
_MIRROR = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@dataclass(frozen=True)
class Views:
    """Views of images, the images themselves first, and what the original says of them.

    Attributes:
        moves: (images, 2, 3) of each further view; see ``moved``.
        said: of each view, scores (n, classes) of the images that have labels: the last n.
        of_n: their labels, positions in the mission.
        n_search: the last so many images are search images.
        judging: the first so many views may judge.
    """

    moves: tuple[Tensor, ...]
    said: tuple[Tensor, ...]
    of_n: Tensor
    n_search: int
    judging: int = 1

    @property
    def labels_n(self) -> Tensor:
        """Of all views, in the order of ``Sized``."""
        return beside([self.of_n] * len(self.said), self.n_search)

    @property
    def scores_nk(self) -> Tensor:
        """What the original says of all views, in the order of ``Sized``."""
        return beside(self.said, self.n_search)

    def at(self, sized: Sized) -> Sized:
        """All views of the images at an input size."""
        return sized.beside([moved(sized.x_nchw, move) for move in self.moves])

    def harmed_by(self, said: Sequence[Tensor], mission: Mission) -> bool:
        """Whether the original says less of what images show where it says this of views.

        Be it by how sure it is or by how often it is right.
        """
        for tell in (certainty, is_right):
            views_vn = torch.stack([tell(scores, self.of_n, mission) for scores in said])
            less_n = tell(self.said[0], self.of_n, mission) - views_vn.mean(0)
            error = float(less_n.std(correction=0)) / len(less_n) ** 0.5
            if float(less_n.mean()) > max(_HARMLESS, _CERTAIN * error):
                return True
        return False


def look(
    sized: Sized, labels_n: Tensor, mission: Mission, *, more: bool = True, seed: int = 0
) -> Views:
    """The views of images that are of use, and what the original says of them.

    Args:
        labels_n: of all images, or of the search images alone.
        more: whether there may be others than the images themselves.
    """
    n = len(sized.x_nchw)
    count = min(_MOST_VIEWS, PICTURES // n) if more else 1

    def say(move_n: Tensor | None = None) -> Tensor:
        x_nchw = sized.x_nchw[n - len(labels_n) :]
        if move_n is not None:
            x_nchw = moved(x_nchw, move_n[n - len(labels_n) :])
        return masked_scores(sized.graph, x_nchw, {})

    def and_also(views: Views, moves: Sequence[Tensor]) -> Views:
        said = [say(move_n) for move_n in moves]
        if not moves or views.harmed_by(said, mission):
            return views
        return replace(views, moves=(*views.moves, *moves), said=(*views.said, *said))

    views = Views((), (say(),), labels_n, len(sized.x_search))
    if count > 1:
        views = and_also(views, [_MIRROR.expand(n, 2, 3)])
    mirror, left = bool(views.moves), range(len(views.said), count)
    views = replace(views, judging=len(views.said))
    return and_also(views, [draw_moves(n, mirror=mirror, seed=seed + place) for place in left])


def draw_moves(n: int, *, mirror: bool, seed: int) -> Tensor:
    """A move of the camera for each of ``n`` images, (n, 2, 3); ``mirror`` mirrors half of them.

    Where each place of a view lies in the image, both from -1 to 1 (``F.affine_grid``).

    >>> draw_moves(3, mirror=True, seed=0).shape
    torch.Size([3, 2, 3])
    """
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    turn = torch.deg2rad(between(-_TURN, _TURN))
    size = torch.exp(between(-math.log(_NEAR), -math.log(_FAR)))
    across, down = between(-2 * _SHIFT, 2 * _SHIFT), between(-2 * _SHIFT, 2 * _SHIFT)
    side = between(-1, 1).sign() if mirror else torch.ones(n)
    cos, sin = size * torch.cos(turn), size * torch.sin(turn)
    return torch.stack([side * cos, -sin, across, side * sin, cos, down], 1).unflatten(1, (2, 3))


def moved(x_nchw: Tensor, move_n: Tensor) -> Tensor:
    """Each image as it is seen after a move (N, 2, 3); what was beyond its edge is reflected."""
    parts = []
    for x, move in zip(x_nchw.split(_CHUNK), move_n.split(_CHUNK), strict=True):
        places = F.affine_grid(move.to(x), list(x.shape), align_corners=False)
        parts.append(F.grid_sample(x, places, padding_mode="reflection", align_corners=False))
    return torch.cat(parts)
