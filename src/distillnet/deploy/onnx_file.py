"""Writing networks as ONNX, and running them in ONNX Runtime."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from distillnet.deploy.extras import need
from distillnet.deploy.networks import Deployable
from distillnet.errors import InputError

__all__ = ["OnnxFile", "class_names", "describe", "open_onnx", "write_onnx"]

_INPUT, _OUTPUT = "images", "scores"


def write_onnx(
    network: Deployable,
    path: Path,
    *,
    batch: int | None = None,
    with_preprocessing: bool = False,
) -> None:
    """Write a network as ONNX through torch's exporter, and have onnx's checker look at it.

    Args:
        batch: images at once; None leaves their number open.
        with_preprocessing: take uint8 (N, H, W, 3) RGB instead of normalised (N, C, H, W).

    Raises:
        InputError: onnx or onnxscript is not installed.
    """
    onnx = need("onnx", "onnx")
    need("onnxscript", "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own libraries
        program = torch.onnx.export(
            network.exported(batch, with_preprocessing),
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for node in [*model.graph.node, *(n for f in model.functions for n in f.node)]:
        del node.metadata_props[:]  # stack traces, with the paths of this machine
    describe(model, network.provenance)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, str(path))


def describe(model: Any, provenance: dict[str, str]) -> None:
    """Put where a network comes from into an ONNX model's metadata."""
    del model.metadata_props[:]
    for key, value in provenance.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    model.producer_name, _, model.producer_version = provenance["producer"].partition(" ")


@dataclass(frozen=True)
class OnnxFile:
    """A network in ONNX Runtime.

    Attributes:
        takes_pixels: uint8 (N, H, W, 3) instead of normalised (N, C, H, W).
        batch: images at once; None where any number will do.
        metadata: what ``write_onnx`` put there.
    """

    path: Path
    session: Any
    takes_pixels: bool
    batch: int | None
    metadata: dict[str, str]

    def scores(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Scores (N, classes) of images in the form that the file takes, any N."""
        size = self.batch or len(x)
        parts = []
        for start in range(0, len(x), size):
            part = x[start : start + size]
            missing = size - len(part)
            filled = np.concatenate([part, part[:1].repeat(missing, 0)]) if missing else part
            y = self.session.run(None, {_INPUT: np.ascontiguousarray(filled)})[0]
            parts.append(y[: len(part)])
        result: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
        return result


def open_onnx(
    path: Path, threads: int | None = None, *, profile_prefix: str | None = None
) -> OnnxFile:
    """Open a file that ``write_onnx`` wrote, quantised or not, on the CPU.

    Args:
        threads: of ONNX Runtime; None leaves the choice to it.
        profile_prefix: where the session writes a profile when it is ended.

    Raises:
        InputError: there is no such file, it is not one of ours, or onnxruntime is missing.
    """
    ort = need("onnxruntime", "onnx")
    if not path.is_file():
        raise InputError(
            f"there is no file {path}; write it with `distillnet export RUN --format onnx`"
        )
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    if profile_prefix is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile_prefix
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"ONNX Runtime cannot open {path} ({reason[:200]}); expected a file that `distillnet "
            "export` wrote, export it again"
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    names = ([i.name for i in inputs], [o.name for o in outputs])
    if names != ([_INPUT], [_OUTPUT]):
        raise InputError(
            f"{path} takes {names[0]} and gives {names[1]}; expected {_INPUT!r} and {_OUTPUT!r}, "
            "as `distillnet export` writes them"
        )
    batch = inputs[0].shape[0]
    return OnnxFile(
        path,
        session,
        inputs[0].type == "tensor(uint8)",
        batch if isinstance(batch, int) else None,
        dict(session.get_modelmeta().custom_metadata_map),
    )


def class_names(file: OnnxFile) -> tuple[str, ...]:
    """The names of the scores; empty in a file that does not tell.

    Raises:
        InputError: what it tells are no names.
    """
    told = file.metadata.get("class_names", "[]")
    try:
        return msgspec.json.decode(told, type=tuple[str, ...])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(
            f"{file.path} holds class names that cannot be read ({error}); expected a JSON list of "
            "strings, export it again"
        ) from error
