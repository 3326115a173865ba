"""The files of each kind of result; tests compare them with what the commands write."""

from distillnet.files.layout import Layout

__all__ = ["ATLAS", "C_FOLDER", "DEMO", "KIT", "RUN"]

_NUMBER = "[0-9]*"
_STATISTICS = (
    *("atlas.json", "evidence.json", "manifest.json", "noise.json"),
    f"{_NUMBER}.safetensors",
)
_NETWORK = ("result.json", "model.pt2", "bitmaps.safetensors")
_C = (
    *("CMakeLists.txt", "Makefile", "README.md", "missions/*.c", "model.c"),
    *("layout.json", "load_mission.c", "model.h", "preprocess.c", "test_vector.c"),
    *("weights.bin", "weights.c", "library.properties", "src/*.c", "src/*.h"),
    *("zephyr/CMakeLists.txt", "zephyr/Kconfig", "zephyr/module.yml"),
)
_BUILT = ("*.o", "lib*.a", "missions/*.o", "test_vector")  # by the Makefile


def _in(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


ATLAS = Layout(
    "atlas.json",
    (*_STATISTICS, "unfinished/collect.json", f"unfinished/{_NUMBER}.safetensors"),
    also=("unfinished/collect.json",),
)
# A firmware project has files of such names, too.
C_FOLDER = Layout("about.json", ("about.json",), listed=_C)
KIT = Layout(
    "kit.json",
    (
        *("kit.json", "measure.py", "onnx/*.onnx", "README.md"),
        *("c/time.c", *_in("c/*", ("missions/*.c", "model.c", "model.h"))),
    ),
)
RUN = Layout(
    "mission.json",
    (
        *("images.safetensors", "manifest.json", "mission.json", "times.json"),
        *_NETWORK,
        *_in("atlas", _STATISTICS),
        *_in(f"front/{_NUMBER}", _NETWORK),
        *_in("unfinished", ("search.json", "*.safetensors", "*.part")),
    ),
    (
        *("bench.json", "bench.png", "export.pt2", "report.html", "unknown.json"),
        *("model.onnx", "model-fp16.onnx", "model-int8.onnx"),
        *_in("c", _BUILT),
    ),
    also=("unfinished/search.json",),
    inner=(("c", C_FOLDER),),
)
DEMO = Layout(
    "demo.json",
    (*RUN.own, "demo.json"),
    RUN.derived,
    also=(RUN.marker,),
    listed=("weights.safetensors", f"data/*/{_NUMBER}/{_NUMBER}.png"),
    inner=RUN.inner,
)
