"""Does the loss on images that a network was trained on predict the loss on images it never saw?

Cuts a network to several sizes and prints, for each, the counted and the expected loss on search
images (of its training set, but none that weights were fitted on) and both losses on test images.
`zoo:tf_cifar` is the network to ask: its training and test errors lie far apart.

    python benchmarks/unseen.py zoo:tf_cifar --weights tf_cifar.safetensors --data DATA/cifar10 \
        --classes 0,1,2,3,4
"""

from distillnet.graph.capture import capture_model
from distillnet.graph.replay import masked_scores
from distillnet.refit.teacher import teach
from laboratory import Bench, know, open_case, parser

_RATIOS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)
_FIT, _SEARCH, _TEST = 1000, 3000, 5000  # images


def main() -> None:
    """Print the table."""
    case = open_case(parser(__doc__).parse_args())
    graph = capture_model(case.model)
    x_fit, _ = case.read(case.images.statistics, count=_FIT)
    search = case.read(case.images.search, count=_SEARCH)
    test = case.read(case.images.val, count=_TEST)
    bench = Bench(graph, case.mission, x_fit, know(graph, case.mission, x_fit))
    teacher = teach(graph, graph, x_fit, max_bytes=10**9)
    judges = [(case.judge(graph, images), images[0]) for images in (search, test)]
    print("| MAC ratio | search, counted | expected | test, counted | expected |")
    print("|---" * 5 + "|")
    for ratio in _RATIOS:
        plan, _ = bench.cut(bench.macs / ratio)
        small = bench.fitted(plan, teacher)
        on_search, on_test = (judge.verdict(masked_scores(small, x, {})) for judge, x in judges)
        losses = [
            loss
            for verdict in (on_search, on_test)
            for loss in (verdict.loss_pp, verdict.expected_loss_pp)
        ]
        cells = [f"{ratio:g}", *(f"{loss:+.2f}" for loss in losses)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
