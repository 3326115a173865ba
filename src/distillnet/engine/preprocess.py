"""What a folder of C says of how pictures become the network's input."""

from collections.abc import Mapping

import numpy as np
import PIL
from PIL import Image

from distillnet.engine.literals import c_float
from distillnet.images.preprocessing import Preprocessing

__all__ = ["preprocess_values"]

_SUPPORT = {"nearest": 1, "bilinear": 1, "bicubic": 2}  # pixels; nearest has none, and needs none
_MOST_PIXELS = 16_384

_DECLARED = """#define @UPPER@_MOST_PIXELS {most} /* of a picture's side */

/* A picture of 8-bit RGB, its rows `stride` bytes apart, as the network takes it: {words}.
 * The work memory has @NAME@_preprocess_bytes(), at a multiple of 4; 0 bytes: no such picture. */
size_t @NAME@_preprocess_bytes(int32_t width, int32_t height);
int @NAME@_preprocess(const uint8_t *rgb, int32_t width, int32_t height, size_t stride, void *work,
                      size_t work_bytes, float *out);

"""

_USED = """
A picture, 8-bit RGB of any size, becomes the input in `preprocess.c`, exactly as in distillnet:

```c
size_t bytes = @NAME@_preprocess_bytes(width, height); /* of work memory */
int status = @NAME@_preprocess(rgb, width, height, 3 * width, work, bytes, image);
```
"""


def preprocess_values(how: Preprocessing | None, common: Mapping[str, object]) -> dict[str, object]:
    """What templates say of preprocessing; nothing where there is none."""
    if how is None:
        words = "normalised as the network's training did"
        return {"PREPROCESS": "", "PREPROCESS_ROW": "", "PREPROCESS_USE": "",
                "PREPROCESSING": words}  # fmt: skip
    grey, bgr = how.channels == "L", how.channels == "BGR"
    words = (
        f"{how.channels} of size {how.input_size[0]} x {how.input_size[1]}, values 0 to 255 over "
        f"{how.divisor:g}, minus {list(how.mean)}, over {list(how.std)}"
    )
    row = "| `preprocess.c` | makes the input of a picture, 8-bit RGB of any size |\n"

    def named(text: str) -> str:
        return text.replace("@UPPER@", str(common["UPPER"])).replace("@NAME@", str(common["NAME"]))

    return {
        "PREPROCESSING": words,
        "WORDS": f"{how.channels}, {how.interpolation}, "
        + ("squashed" if how.resize is None else f"shorter side {how.resize}, centre crop"),
        "FILTER": how.interpolation,
        "RESIZE": how.resize or 0,
        "PILLOW": PIL.__version__,
        "COLUMNS_FIRST": int(_columns_first()),
        "NEAREST": int(how.interpolation == "nearest"),
        "SUPPORT": _SUPPORT[how.interpolation],
        "CHANNEL": "0" if grey else "2 - c" if bgr else "c",
        "VALUES": _values(how),
        "PREPROCESS": named(_DECLARED.format(most=_MOST_PIXELS, words=words)),
        "PREPROCESS_ROW": row,
        "PREPROCESS_USE": named(_USED),
    }


def _columns_first() -> bool:
    """Whether this Pillow resizes along columns first where the height shrinks far more.

    Those from 13 on do. Values between both passes are rounded, so the last bit tells the order.
    """
    noise = np.random.default_rng(0).integers(0, 256, (50, 40), dtype=np.uint8)
    image, bilinear = Image.fromarray(noise), Image.Resampling.BILINEAR
    columns_first = image.resize((40, 20), bilinear).resize((80, 20), bilinear)
    return image.resize((80, 20), bilinear).tobytes() == columns_first.tobytes()


def _values(how: Preprocessing) -> str:
    """By channel what the values 0 to 255 become, computed as ``images.preprocess`` does."""
    shown = np.arange(256, dtype=np.float32)[:, None] / np.float32(how.divisor)
    values = (shown - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    rows = []
    for channel in values.T.tolist():
        lines = [channel[i : i + 8] for i in range(0, 256, 8)]
        rows.append("    {" + ",\n     ".join(", ".join(map(c_float, line)) for line in lines))
    return "},\n".join(rows) + "},\n"
