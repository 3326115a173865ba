"""Options that belong together.

In a command a frozen dataclass stands for them, and --help lists them under one heading, those of
every day first.
"""

import inspect
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

from typer.core import TyperCommand

__all__ = [
    "BUDGET",
    "HEADINGS",
    "IMAGES",
    "MISSION",
    "NETWORK",
    "OUTPUT",
    "SEARCH",
    "SELDOM",
    "GroupedCommand",
    "grouped",
]

# Given to options as ``rich_help_panel``; shown in this order, and options without one last.
MISSION = "Mission"
BUDGET = "Budget"
IMAGES = "Images"
NETWORK = "Network"
SEARCH = "Search"
OUTPUT = "Output"
SELDOM = "Seldom needed"
HEADINGS = (MISSION, BUDGET, IMAGES, NETWORK, SEARCH, OUTPUT, SELDOM)


def grouped(command: Callable[..., None], *, without: Collection[str] = ()) -> Callable[..., None]:
    """A command for typer in which each dataclass that ``command`` takes is spelled out.

    Every field of such a dataclass, annotated as typer wants it, becomes an option of the command;
    when that is called, the dataclasses are made of their options again.

    Args:
        without: fields that are no options here; they keep their defaults.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Size:
    ...     width: int = 2
    >>> @grouped
    ... def draw(name: str, size: Size) -> None:
    ...     print(name, size.width)
    >>> list(inspect.signature(draw).parameters)
    ['name', 'width']
    >>> draw(name="square", width=3)
    square 3
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        hint = hints[parameter.name]
        if is_dataclass(hint):
            groups[parameter.name] = hint
            parameters += [option for option in _options(hint) if option.name not in without]
        else:
            keyword = parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
            parameters.append(keyword)

    def run(**values: Any) -> None:
        made = {
            name: group(**{f.name: values.pop(f.name) for f in fields(group) if f.name in values})
            for name, group in groups.items()
        }
        command(**values, **made)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _options(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_default(field),
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def _default(field: Field[Any]) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default


class GroupedCommand(TyperCommand):
    """A command whose options are listed under the headings they belong to."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, section by section, into the help text."""
        sections: dict[str, list[tuple[str, str]]] = {
            name: [] for name in ("Arguments", *HEADINGS, "Other")
        }
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is None:
                continue
            name = getattr(param, "rich_help_panel", None) or "Other"
            sections["Arguments" if param.param_type_name == "argument" else name].append(record)
        for name, records in sections.items():
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)
