"""Which networks can be captured, and what stands in the way of the others.

Every family of CNNs of timm, one network for each structure, and the feature extractors of
torchvision's detection and segmentation networks with a pooled linear head: random weights, a
small input. For each, whether it is captured, in how many nodes, what share of its channels can be
removed, or why it is refused; then what was refused, by how many networks need it.

    python benchmarks/operators.py                      # all of them: half an hour on one core
    python benchmarks/operators.py --only hrnet eca     # those with these letters in their name
"""

import argparse
import gc
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillnet.errors import UnsupportedError
from distillnet.graph.capture import capture, missing_operators
from distillnet.graph.channels import analyse

# One of each structure, the smallest. Not those that are transformers for the most part: attention
# multiplies two activations, which has no channels to cut in the sense of this package.
TIMM = (
    "bat_resnext26ts", "botnet26t_256", "convmixer_768_32", "convnext_atto", "convnext_atto_ols",
    "convnextv2_atto", "cs3darknet_focus_s", "cs3edgenet_x", "cspdarknet53",
    "cspresnet50", "cspresnext50", "darknet53", "densenet121", "dla34", "dla60_res2net",
    "dla60x_c", "dm_nfnet_f0", "dpn48b", "dpn68", "eca_nfnet_l0", "eca_resnet33ts",
    "ecaresnet26t", "edgenext_xx_small", "efficientformer_l1", "efficientformerv2_s0",
    "efficientnet_b0", "efficientnet_lite0", "efficientnetv2_rw_t", "efficientnet_es",
    "efficientvit_b0", "ese_vovnet19b_dw", "ese_vovnet39b", "fasternet_t0", "fastvit_t8",
    "fbnetc_100", "fbnetv3_b", "gcresnet33ts", "gcresnext26ts", "gernet_s", "ghostnet_050",
    "ghostnetv2_100", "ghostnetv3_050", "halonet26t", "hardcorenas_a", "haloregnetz_b",
    "hgnet_tiny", "hgnetv2_b0", "hrnet_w18_small", "inception_next_atto", "inception_resnet_v2",
    "inception_v3", "inception_v4", "lambda_resnet26rpt_256", "lcnet_035", "legacy_senet154",
    "legacy_seresnet18", "legacy_xception", "mambaout_femto", "mixnet_s",
    "mnasnet_small", "mobilenet_edgetpu_v2_xs", "mobilenetv1_100", "mobilenetv2_035",
    "mobilenetv3_small_050", "mobilenetv4_conv_small_035", "mobilenetv4_hybrid_medium",
    "mobileone_s0", "mobilevit_xxs", "nasnetalarge", "nf_ecaresnet26", "nf_regnet_b0",
    "nf_resnet26", "nf_seresnet26", "nfnet_f0", "pnasnet5large", "poolformer_s12",
    "poolformerv2_s12", "rdnet_tiny", "regnetv_040", "regnetx_002", "regnety_002", "regnetz_040",
    "regnetz_b16", "repghostnet_050", "repvgg_a0", "repvit_m0_9", "res2net50_14w_8s",
    "res2next50", "resnest14d", "resnet10t", "resnet14t", "resnet18", "resnet26", "resnet33ts",
    "resnet51q", "resnetaa34d", "resnetblur18", "resnetrs50", "resnetv2_18", "resnetv2_50d_evos",
    "resnetv2_50d_frn", "resnetv2_50d_gn", "resnetv2_50x1_bit", "resnext26ts", "resnext50_32x4d",
    "rexnet_100", "rexnetr_100", "sedarknet21", "selecsls42b", "selecsls60b", "semnasnet_050",
    "seresnet18", "seresnet33ts", "seresnext26ts", "skresnet18", "skresnext50_32x4d",
    "spnasnet_100", "starnet_s050", "tf_efficientnet_b0", "tf_efficientnet_cc_b0_4e",
    "tf_mixnet_s", "tf_mobilenetv3_small_minimal_100", "tinynet_e", "tresnet_m", "tresnet_v2_l",
    "vgg11", "vgg11_bn", "visformer_tiny", "vovnet39a", "wide_resnet50_2", "xception41",
    "xception41p",
)  # fmt: skip
_SIDES = (64, 128, 224, 256, 320)  # what is tried, for some networks want more than others


class PooledMaps(nn.Module):
    """A feature extractor with a linear head on the mean of each of its maps."""

    def __init__(self, features: nn.Module, side: int) -> None:
        super().__init__()
        self.features = features.eval()
        with torch.no_grad():
            maps = self.maps(torch.zeros(1, 3, side, side))
        self.head = nn.Linear(sum(y.shape[1] for y in maps), 10)

    def maps(self, x: Tensor) -> list[Tensor]:
        y = self.features(x)
        return [y] if isinstance(y, Tensor) else list(y.values())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([y.mean((2, 3)) for y in self.maps(x)], 1))


def torchvision_networks() -> dict[str, Callable[[int], nn.Module]]:
    """Feature extractors by name, each a function of the input's side."""
    from torchvision.models import detection, segmentation

    made: dict[str, Callable[[int], nn.Module]] = {}
    bare = {"weights": None, "weights_backbone": None}
    for name in (
        "fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2",
        "fasterrcnn_mobilenet_v3_large_fpn", "fcos_resnet50_fpn",
        "retinanet_resnet50_fpn_v2", "ssd300_vgg16",
        "ssdlite320_mobilenet_v3_large",
    ):  # fmt: skip
        build = getattr(detection, name)
        made[f"detection:{name}"] = lambda side, build=build: PooledMaps(
            build(**bare).backbone, side
        )
    for name in (
        "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50",
        "lraspp_mobilenet_v3_large",
    ):  # fmt: skip
        build = getattr(segmentation, name)
        made[f"segmentation:{name}"] = lambda side, build=build: PooledMaps(
            build(**bare).backbone, side
        )
    return made


@dataclass(frozen=True)
class Row:
    """What came of one network; ``missing`` are operators that no handler is for."""

    name: str
    side: int
    nodes: int = 0
    removable: float = 0.0
    refused: str = ""
    missing: tuple[str, ...] = ()


def walk(networks: dict[str, Callable[[int], nn.Module]]) -> Iterator[Row]:
    """A row for each network, at the first side of the input that it takes."""
    for name, build in networks.items():
        yield _look(name, build)
        gc.collect()


def _look(name: str, build: Callable[[int], nn.Module]) -> Row:
    for side in _SIDES:
        torch.manual_seed(0)
        try:
            module = build(side).eval()
            with torch.no_grad():
                module(torch.zeros(2, 3, side, side))
        except Exception as error:  # noqa: BLE001 - a size that it does not take
            failure = error
            continue
        try:
            graph = capture(module, (side, side))
        except UnsupportedError as error:
            return Row(
                name, side, refused=str(error), missing=missing_operators(module, (side, side))
            )
        channels = analyse(graph)
        return Row(name, side, len(graph.nodes), 1 - len(channels.pinned) / channels.count)
    return Row(name, 0, refused=f"does not run: {str(failure).splitlines()[0][:100]}")


def cause(row: Row) -> str:
    """The refusal without the names of this network's own layers and sizes."""
    text = re.sub(r"^.*?(operator )", r"\1", row.refused, count=1)
    text = re.sub(r"'[^']*'", "'...'", text) if "rearrangement" in text else text
    text = re.sub(r"in layer '[^']*'( \(\w+\))?", "", text)
    return re.sub(r"\d+", "N", text.partition(". distillnet")[0].partition(";")[0])[:110]


def main() -> None:
    """Print the tables."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--only", nargs="+", default=[""], help="parts of names")
    options.add_argument("--full", action="store_true", help="print whole messages")
    args = options.parse_args()
    networks = {f"timm:{name}": _timm(name) for name in TIMM} | torchvision_networks()
    chosen = {k: v for k, v in networks.items() if any(part in k for part in args.only)}
    print("| network | side | nodes | removable | refused |")
    print("|---" * 5 + "|", flush=True)
    rows = []
    for row in walk(chosen):
        rows.append(row)
        removable = "" if row.refused else f"{100 * row.removable:.0f} %"
        said = row.refused if args.full else cause(row)
        print(f"| {row.name} | {row.side} | {row.nodes or ''} | {removable} | {said} |", flush=True)
    captured = sum(not row.refused for row in rows)
    print(f"\n{captured} of {len(rows)} captured.\n")
    print("| what is refused | networks | which |")
    print("|---" * 3 + "|")
    for what, count in Counter(reason for row in rows for reason in _reasons(row)).most_common():
        names = [row.name for row in rows if what in _reasons(row)]
        print(f"| {what} | {count} | {', '.join(names[:6])}{', ...' if count > 6 else ''} |")


def _reasons(row: Row) -> list[str]:
    if not row.refused:
        return []
    return [f"`{name}`" for name in row.missing] or [cause(row)]


def _timm(name: str) -> Callable[[int], nn.Module]:
    def build(side: int) -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10)

    return build


if __name__ == "__main__":
    main()
