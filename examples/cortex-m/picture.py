"""A photo as the C header that the firmware holds: bytes (H, W, 3), RGB, of the network's size."""

import json
import sys
from pathlib import Path

from PIL import Image


def main() -> None:
    photo, expected, about = sys.argv[1:]
    channels, height, width = json.loads(Path(about).read_text(encoding="utf-8"))["shape"]
    image = Image.open(photo).convert("RGB" if channels == 3 else "L").resize((width, height))
    values = ",".join(map(str, image.tobytes()))
    sys.stdout.write(f"#define EXPECTED {json.dumps(expected)}\n")
    sys.stdout.write(f"static const unsigned char picture[] = {{{values}}};\n")


main()
