"""The command that says how much faster many workers train a network."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distillnet.cli.groups import NETWORK, SEARCH, SELDOM, grouped
from distillnet.cli.options import JsonOpt, ModelArg
from distillnet.cli.output import print_json, print_line, print_table, progress
from distillnet.cli.shapes import ShapeOptions
from distillnet.errors import InputError
from distillnet.models.names import check_model

if TYPE_CHECKING:
    from distillnet.playbook.ranks import Measured
    from distillnet.playbook.scaling import Cluster, Job

__all__ = ["scaling_command"]

_MOST_WORKERS = 1_000_000
_MOST_RANKS = 64  # processes that one machine is asked to run
_BATCH, _LOCAL_BATCH = 1024, 64
_CLUSTER, _LOCAL = "1,2,4,8,16,32,64,128", "2,4"
# To know how long an image takes, batches of this many and of a quarter are timed.
_SAMPLE = 16


@dataclass(frozen=True, kw_only=True)
class ScalingOptions:
    """How many workers, how they are joined, and what they compute."""

    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Numbers of workers.",
            show_default=f"{_CLUSTER}; with --measure {_LOCAL}",
            rich_help_panel=SEARCH,
        ),
    ] = None
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Images in a step, of all workers together.",
            show_default=f"{_BATCH}; with --measure {_LOCAL_BATCH}",
            rich_help_panel=SEARCH,
        ),
    ] = None
    bandwidth: Annotated[
        float,
        typer.Option(
            metavar="GB/S",
            help="From one worker to another; 1.25 is 10 Gbit Ethernet.",
            rich_help_panel=SEARCH,
        ),
    ] = 1.25
    latency: Annotated[
        float,
        typer.Option(
            min=0,
            metavar="MICROSECONDS",
            help="Until a message begins to arrive.",
            rich_help_panel=SEARCH,
        ),
    ] = 50.0
    image_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="How long a worker takes for an image, forward and backward.",
            show_default="measured here, on one thread",
            rich_help_panel=SEARCH,
        ),
    ] = None
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Predict for this machine's cores instead, and train there to compare.",
            show_default="off",
            rich_help_panel=NETWORK,
        ),
    ] = False
    steps: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Steps that each time is measured in.", rich_help_panel=SELDOM
        ),
    ] = 10

    def check(self) -> None:
        """Raise InputError where numbers are beyond what they can be."""
        if self.measure and min(self.counts()) < 2:
            raise InputError("found 1 among --workers with --measure, expected 2 or more ranks")
        image_ms = self.image_ms
        if not 0 < self.bandwidth <= 1e6 or (image_ms is not None and not image_ms > 0):
            raise InputError(
                f"found --bandwidth {self.bandwidth:g} and --image-ms {image_ms}, expected "
                "numbers above 0"
            )

    def counts(self) -> list[int]:
        """Numbers of workers."""
        text = self.workers or (_LOCAL if self.measure else _CLUSTER)
        most = _MOST_RANKS if self.measure else _MOST_WORKERS
        found = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
        if any(not 1 <= count <= most for count in found):
            raise InputError(
                f"found --workers {text!r}, expected whole numbers from 1 to {most:,} with commas"
                " between"
            )
        return found


@grouped
def scaling_command(
    model: ModelArg,
    shape: ShapeOptions,
    asked: ScalingOptions,
    as_json: JsonOpt = False,
) -> None:
    """Predict how much faster many workers train: by reduction tree, parameter server and ring.

    Every worker computes its share of each batch, then all of them sum up their gradients
    (FireCaffe).
    """
    check_model(model)
    asked.check()
    counts = asked.counts()
    from distillnet.playbook.quantities import FLOAT32_BYTES
    from distillnet.playbook.ranks import measure_ranks, step_costs
    from distillnet.playbook.scaling import Cluster, Job

    measured: list[Measured] = []
    with progress() as on_progress:
        loaded = shape.load(model)
        module, how = loaded.module, loaded.preprocessing
        image = (len(how.mean), *how.input_size)
        if asked.measure:
            for done, count in enumerate(counts, 1):
                job, found = measure_ranks(
                    module, image, asked.batch or _LOCAL_BATCH, count, asked.steps
                )
                cluster = found[0].cluster
                measured += found
                on_progress("scaling", done, len(counts))
        else:
            n_bytes = FLOAT32_BYTES * sum(p.numel() for p in module.parameters())
            image_s, fixed_s = (1e-3 * asked.image_ms, 0.0) if asked.image_ms else (None, None)
            if image_s is None or fixed_s is None:
                image_s, fixed_s = step_costs(module, image, _SAMPLE, asked.steps)
            job = Job(asked.batch or _BATCH, n_bytes)
            cluster = Cluster(image_s, fixed_s, 1e9 * asked.bandwidth, 1e-6 * asked.latency)
    values = _values(model, job, cluster, counts, measured)
    if as_json:
        print_json(values)
    else:
        _print(values, job, cluster, asked.measure)


def _values(
    model: str, job: "Job", cluster: "Cluster", counts: list[int], measured: "list[Measured]"
) -> dict[str, Any]:
    from distillnet.playbook.ranks import PREDICTED_AS
    from distillnet.playbook.scaling import EXCHANGES, speedup, step_seconds

    predictions = [
        {
            "workers": count,
            "exchange": exchange,
            "step_s": step_seconds(job, cluster, count, exchange),
            "speedup": speedup(job, cluster, count, exchange),
        }
        for count in counts
        for exchange in EXCHANGES
    ]
    comparisons = []
    for found in measured:
        alone = step_seconds(job, found.cluster, 1, "ring")
        expected = step_seconds(job, found.cluster, found.workers, PREDICTED_AS[found.exchange])
        comparisons.append(
            {
                **asdict(found),
                "speedup": alone / found.step_s,
                "predicted_step_s": expected,
                "predicted_speedup": alone / expected,
                "off_by": found.step_s / expected - 1,
            }
        )
    described = {k: v for k, v in asdict(cluster).items() if v is not None and v != float("inf")}
    return {
        "model": model,
        **asdict(job),
        "cluster": described,
        "predictions": predictions,
        "measured": comparisons,
    }


def _print(values: dict[str, Any], job: "Job", cluster: "Cluster", measure: bool) -> None:
    print_line(
        f"{values['model']}: {job.gradient_bytes / 1e6:.2f} MB of gradients, {job.batch} images a "
        f"step, {1e3 * cluster.image_s:.2f} ms an image and {1e3 * cluster.fixed_s:.1f} ms more "
        f"a step; {cluster.bandwidth / 1e9:.2f} GB/s, {1e6 * cluster.latency_s:.0f} µs"
    )
    if not measure:
        rows: dict[int, list[str]] = {}
        for row in values["predictions"]:
            cells = rows.setdefault(row["workers"], [str(row["workers"])])
            cells.append(f"{row['speedup']:.2f} x")
        names = list(dict.fromkeys(row["exchange"] for row in values["predictions"]))
        print_table("How much faster than one worker", ["workers", *names], list(rows.values()), 0)
        return
    had = {row["workers"]: row["cluster"]["cores"] for row in values["measured"]}
    cores = " and ".join(f"{n:.2f}" for n in had.values())
    print_table(
        "Steps of training on this machine",
        ["exchange", "ranks", "ms", "predicted", "faster", "predicted", "off by"],
        [
            [
                row["exchange"],
                str(row["workers"]),
                f"{1e3 * row['step_s']:.1f}",
                f"{1e3 * row['predicted_step_s']:.1f}",
                f"{row['speedup']:.2f} x",
                f"{row['predicted_speedup']:.2f} x",
                f"{100 * row['off_by']:+.0f} %",
            ]
            for row in values["measured"]
        ],
        1,
    )
    print_line(
        f"The ranks had {cores} cores in effect. Where more are wanted at once, by ranks that "
        "compute or by both ends of a transfer, all of them wait, which the prediction counts. "
        "Each is a median over rounds in which computing, transfers and steps took turns."
    )
