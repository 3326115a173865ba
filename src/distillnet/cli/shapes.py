"""Networks of which a command wants the layers only, not what was learnt."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from distillnet.cli.groups import NETWORK

if TYPE_CHECKING:
    from distillnet.models import Model

__all__ = ["ShapeOptions"]


@dataclass(frozen=True, kw_only=True)
class ShapeOptions:
    """How a network is fed, of which only the sizes matter here: it needs no weights."""

    input_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            help="Side length of the network's square input.",
            show_default="MODEL's own; required for FILE.py",
            rich_help_panel=NETWORK,
        ),
    ] = None

    def load(self, model: str) -> "Model":
        """A network with weights of no meaning."""
        from distillnet.models import random_model

        own = model.rpartition(":")[0].endswith(".py") or model.endswith(".pt2")
        of_no_matter = (0.5, 0.5, 0.5) if own else None
        return random_model(model, input_size=self.input_size, mean=of_no_matter, std=of_no_matter)
