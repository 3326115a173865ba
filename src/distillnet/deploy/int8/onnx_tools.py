"""Eight-bit and half-precision ONNX files, by ONNX Runtime's own tools."""

import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distillnet.deploy.extras import need
from distillnet.deploy.onnx_file import describe

__all__ = ["CALIBRATIONS", "to_half", "to_int8"]

# How the range of activations is taken from images; which is best depends on the network.
CALIBRATIONS = ("MinMax", "Percentile", "Entropy")


def to_int8(
    source: Path, target: Path, x_nchw: NDArray[np.float32], calibration: str, batch: int = 16
) -> None:
    """Quantise an ONNX file statically: QDQ, weights by channel, ranges from images (N, C, H, W).

    The normalisation across channels stays in float32: squares of activations span too wide a
    range for 8 bits.

    Args:
        calibration: one of ``CALIBRATIONS``.
    """
    onnx, tools = need("onnx", "onnx"), need("onnxruntime.quantization", "onnx")
    prepare = need("onnxruntime.quantization.shape_inference", "onnx")
    provenance = _metadata(onnx.load(str(source), load_external_data=False))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared = Path(folder) / "prepared.onnx"
        prepare.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        tools.quantize_static(
            str(prepared),
            str(target),
            _reader(tools.CalibrationDataReader, x_nchw, batch),
            quant_format=tools.QuantFormat.QDQ,
            per_channel=True,
            activation_type=tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            nodes_to_exclude=_normalisation(onnx.load(str(prepared)).graph),
            calibrate_method=tools.CalibrationMethod[calibration],
            # Batch by batch, whatever the method; else all values of all images are kept.
            extra_options={"CalibStridedMinMax": 1},
        )
    _rewrite(onnx, target, {**provenance, "precision": f"int8, {calibration} calibration"})


def to_half(source: Path, target: Path) -> None:
    """Store an ONNX file's weights and compute in float16; its input and output stay float32."""
    onnx, tools = need("onnx", "onnx"), need("onnxruntime.transformers.float16", "onnx")
    model = onnx.load(str(source))
    provenance = _metadata(model)
    half = tools.convert_float_to_float16(model, keep_io_types=True)
    # It puts the casts of inputs at the end.
    need("onnxruntime.transformers.onnx_model", "onnx").OnnxModel(half).topological_sort()
    onnx.save_model(half, str(target))
    _rewrite(onnx, target, {**provenance, "precision": "float16"})


def _metadata(model: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def _rewrite(onnx: Any, path: Path, provenance: dict[str, str]) -> None:
    model = onnx.load(str(path))
    describe(model, provenance)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(path))


def _reader(base: type, x_nchw: NDArray[np.float32], batch: int) -> Any:
    """What ONNX Runtime asks for images."""
    if len(x_nchw) < batch:  # a file of a fixed batch takes no fewer: again from the first
        x_nchw = np.resize(x_nchw, (batch, *x_nchw.shape[1:]))

    class Reader(base):
        def __init__(self) -> None:
            # Whole batches only: histograms are of one shape.
            starts = range(0, len(x_nchw) - batch + 1, batch)
            self.parts = [x_nchw[start : start + batch] for start in starts]
            self.set_range(0, len(self.parts))

        def __len__(self) -> int:
            return len(self.parts)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.left = iter(self.parts[start_index:end_index])

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            part = next(self.left, None)
            return None if part is None else {"images": part}

    return Reader()


def _normalisation(graph: Any) -> Sequence[str]:
    """Names of the nodes between a square and the product with it: local response norms."""
    squares = {n.output[0] for n in graph.node if n.op_type == "Mul" and n.input[0] == n.input[1]}
    inside, names = set(squares), []
    for node in graph.node:  # in execution order
        if node.output[0] in squares:
            names.append(node.name)
        elif any(name in inside for name in node.input):
            names.append(node.name)
            # The map itself comes back in where it is scaled; there the norm ends.
            if node.op_type not in ("Mul", "Div") or all(
                name in inside or name in _constants(graph) for name in node.input
            ):
                inside.add(node.output[0])
    return names


def _constants(graph: Any) -> set[str]:
    return {tensor.name for tensor in graph.initializer}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ONNX Runtime's tools from printing and from advising on the root logger."""
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
