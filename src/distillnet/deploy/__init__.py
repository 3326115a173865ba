"""From a run to a device: files for other runtimes, int8, and times side by side."""

from distillnet.deploy.agreement import TOLERANCE, Agreement, compare
from distillnet.deploy.c_folder import CFolder, evaluate_c, export_c
from distillnet.deploy.exporting import FORMATS, Exported, Form, evaluate_onnx, export, onnx_scores
from distillnet.deploy.int8.c import Int8Folder, Int8Mission, export_int8_c
from distillnet.deploy.int8.onnx_tools import to_half, to_int8
from distillnet.deploy.networks import (
    Deployable,
    distilled_network,
    original_network,
    original_networks,
)
from distillnet.deploy.onnx_file import OnnxFile, open_onnx, write_onnx
from distillnet.deploy.runtimes import RUNTIMES, available_runtimes

__all__ = [
    "FORMATS",
    "RUNTIMES",
    "TOLERANCE",
    "Agreement",
    "CFolder",
    "Deployable",
    "Exported",
    "Form",
    "Int8Folder",
    "Int8Mission",
    "OnnxFile",
    "available_runtimes",
    "compare",
    "distilled_network",
    "evaluate_c",
    "evaluate_onnx",
    "export",
    "export_c",
    "export_int8_c",
    "onnx_scores",
    "open_onnx",
    "original_network",
    "original_networks",
    "to_half",
    "to_int8",
    "write_onnx",
]
