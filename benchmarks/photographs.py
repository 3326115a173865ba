"""Photographs of twelve megapixels, as phones take them: small ones, enlarged.

    python benchmarks/photographs.py OUT [--data DATA]
    distillnet distill torchvision:squeezenet1_0 --weights DATA/weights/squeezenet1_0.safetensors \
        --data OUT --out run

The first forty photos of each of four classes of ``DATA/own``, 4,000 pixels wide.
"""

import argparse
import os
from pathlib import Path

from PIL import Image

_CLASSES = ("n01768244", "n02128385", "n02317335", "n02690373")
_PER_CLASS, _WIDTH = 40, 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    default = os.environ.get("DISTILLNET_DATA", Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(default))
    args = parser.parse_args()
    for folder in (args.data / "own" / name for name in _CLASSES):
        (args.out / folder.name).mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir())[:_PER_CLASS]:
            image = Image.open(path).convert("RGB")
            height = image.height * _WIDTH // image.width
            large = image.resize((_WIDTH, height), Image.Resampling.BICUBIC)
            large.save(args.out / folder.name / path.name, quality=90)


if __name__ == "__main__":
    main()
