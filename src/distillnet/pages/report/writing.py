"""The report of a run: one HTML file with everything in it."""

import shlex
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from distillnet.errors import InputError, as_path
from distillnet.files import new_file
from distillnet.job.runs import Run, open_run
from distillnet.pages.html import asset, environment, policy
from distillnet.pages.report.activity import activity
from distillnet.pages.report.budget import budget
from distillnet.pages.report.classes import classes
from distillnet.pages.report.costs import costs
from distillnet.pages.report.sections import Absent, Section
from distillnet.pages.report.summary import summary
from distillnet.pages.subject import Subject, gather

__all__ = ["AT_MOST", "report_page", "write_report"]

AT_MOST = 5_000_000  # bytes of a page; a mail takes it

Progress = Callable[[str, int, int], None]


def _silent(stage: str, done: int, of: int) -> None:
    pass


def write_report(
    run: Run | str | Path,
    path: str | Path | None = None,
    *,
    data: str | Path | None = None,
    model: str | None = None,
    weights: str | Path | None = None,
    with_images: bool = False,
    on_progress: Progress = _silent,
) -> tuple[Path, tuple[Absent, ...]]:
    """Write the report of a run as one HTML file, which needs nothing else and asks no host.

    Args:
        path: by default ``report.html`` in the run.
        data, model, weights: see ``pages.subject.gather``.
        with_images: whether images, and pictures that show one, may be in it.
        on_progress: called as (stage, done, of) with the stages evaluate and project.

    Returns:
        The file, and what is not in it, with the commands that add it.

    Raises:
        InputError: the run is damaged, a library is missing, or what was given does not fit.
    """
    opened = run if isinstance(run, Run) else open_run(run)
    target = opened.directory / "report.html" if path is None else as_path(path, "the report")
    subject = gather(
        opened,
        data=None if data is None else as_path(data, "the folder of images"),
        model=model,
        weights=None if weights is None else as_path(weights, "the weights"),
    )
    text, absent = report_page(subject, with_images=with_images, on_progress=on_progress)
    content = text.encode()
    if len(content) > AT_MOST:
        raise InputError(
            f"the report would have {len(content) / 1e6:.1f} MB, expected {AT_MOST / 1e6:g} at "
            "most; leave out --with-images"
        )
    with new_file(target) as work:
        work.write_bytes(content)
    return target, absent


def report_page(
    subject: Subject, *, with_images: bool = False, on_progress: Progress = _silent
) -> tuple[str, tuple[Absent, ...]]:
    """The page as text, and what is not in it."""
    commands = _commands(subject)
    first, absent = summary(subject, commands["bench"])
    found: list[Section | None] = [first]
    layers = costs(subject, commands["original"])
    if isinstance(layers, Absent):
        absent += (layers,)
    else:
        found.append(layers)
    how = {"with_images": with_images, "on_progress": on_progress}
    for section, lacking in (
        activity(subject, commands, **how),  # type: ignore[arg-type]
        classes(subject, commands, **how),  # type: ignore[arg-type]
        budget(subject, commands),
    ):
        found.append(section)
        absent += lacking
    sections = [section for section in found if section is not None]
    script = asset("sorting.js")
    template = environment("report/templates").get_template("report.html")
    text = template.render(
        title=f"{subject.result['model']} for {', '.join(subject.run.mission.names)}",
        sections=sections,
        absent=absent,
        result=subject.result,
        run=subject.run.directory.resolve().name,
        weights_sha256=subject.run.weights_sha256,
        version=version("distillnet"),
        policy=policy(script),
        script=script,
        style=asset("page.css"),
    )
    return text, absent


def _commands(subject: Subject) -> dict[str, str]:
    """What to enter for more, by what it adds; with the run's name and no folder of the machine."""
    run = shlex.quote(subject.run.directory.resolve().name)
    report = f"distillnet report {run}"
    name = shlex.quote(str(subject.result["model"]))
    own = f"--model {name}" if ".py:" in name else "--weights FILE"
    return {
        "bench": f"distillnet bench {run}",
        "atlas": "distillnet distill MODEL --data DIR --out RUN",
        "images": f"{report} --data DIR",
        "original": f"{report} --data DIR {own}" if subject.images is None else f"{report} {own}",
        "with_images": f"{report} --with-images",
        "unknown": f"distillnet unknown {run} --unknown DIR",
        "measure": f"distillnet evaluate {run} --data DIR",
    }
