"""Where networks come from: one function per form of MODEL, each gives a Source.

A source knows how to build its network and where the weights are, and has done neither yet.
"""

import importlib.util
import math
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from distillnet.errors import InputError
from distillnet.images.preprocessing import Preprocessing
from distillnet.models.names import check_model, unknown
from distillnet.models.programs import load_program
from distillnet.models.zoo import zoo_network

__all__ = ["Source", "open_source"]


@dataclass(frozen=True)
class Source:
    """How to build one network and come by its weights."""

    build: Callable[[], nn.Module]  # with random weights, or its own: see fetch
    fetch: Callable[[], Mapping[str, Tensor] | None]  # None: those that build gives are trained
    preprocessing: Preprocessing | None = None  # None: the user must tell
    input_size: tuple[int, int] | None = None  # (H, W) where known without preprocessing
    class_names: tuple[str, ...] | None = None
    rename: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict  # old keys -> new
    skips_init: bool = False  # whether it can do without initialisation

    def skeleton(self) -> nn.Module:
        """The network, to be given weights; on the meta device where that is possible."""
        if not self.skips_init:
            return self.build()
        try:
            with torch.device("meta"):
                return self.build()
        except NotImplementedError:  # RegNet computes its widths with tensors
            return self.build()


def open_source(spec: str, *, run_code: bool = True) -> Source:
    """The source that a MODEL argument names; InputError for one that does not exist.

    Without ``run_code`` a ``FILE.py:CALLABLE`` is refused: for names that a file gives, not the
    user.
    """
    file, _, function = spec.rpartition(":")
    if file.endswith(".py") and not run_code:
        raise InputError(
            f"Found the model {spec!r}, which is Python code; it runs only where you name it"
            f" yourself. If you trust it, pass it as --model {spec}."
        )
    check_model(spec)
    library, _, name = spec.partition(":")
    if library == "torchvision":
        return _torchvision(name)
    if library == "timm":
        return _timm(name)
    if library == "zoo":
        return _zoo(name)
    if spec.endswith(".pt2"):
        return _program(Path(spec))
    return _python(Path(file), function)


# --- torchvision


def _torchvision(name: str) -> Source:
    # It loads torch's compiler, which takes as long as torch, and which few commands need.
    import torchvision

    if name not in (known := torchvision.models.list_models(module=torchvision.models)):
        raise unknown(f"torchvision:{name}", name, known)
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # The default weights are TensorFlow's, which want its input range; the auxiliary heads
        # serve training only, and the initialisation takes seconds.
        options = {"aux_logits": False, "init_weights": False, "transform_input": True}
    weights = torchvision.models.get_model_weights(name).DEFAULT
    how = weights.transforms()
    height = width = how.crop_size[0]
    return Source(
        build=partial(torchvision.models.get_model, name, weights=None, **options),
        fetch=partial(_download, f"torchvision:{name}", weights),
        preprocessing=Preprocessing(
            input_size=(height, width),
            mean=tuple(how.mean),
            std=tuple(how.std),
            resize=how.resize_size[0],
            interpolation=how.interpolation.value,
        ),
        rename=_rename_densenet if name.startswith("densenet") else dict,
        skips_init=True,
    )


def _download(spec: str, weights: Any) -> Mapping[str, Tensor]:
    # Besides what the network and the disk may do, a wrong hash raises.
    try:
        return weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True, map_location="cpu"
        )
    except Exception as error:
        raise _no_download(spec, error) from error


def _no_download(spec: str, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"The trained weights of {spec} cannot be downloaded: {reason[:200]}. Connect to the"
        " internet, or fetch them elsewhere and pass the file as --weights."
    )


def _rename_densenet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Published when module names could hold dots: denselayer1.norm.1 is denselayer1.norm1 now.
    old = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)")
    return {old.sub(r"\1\2", name): value for name, value in state.items()}


# --- timm


def _timm(name: str) -> Source:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when timm imports its hub
    import timm
    import timm.data

    known = timm.list_models()
    tagged = timm.list_models(pretrained=True)
    if name not in known and name not in tagged:
        raise unknown(f"timm:{name}", name, [*known, *tagged])
    found = timm.get_pretrained_cfg(name)
    config = found.to_dict() if found is not None else {}
    data = timm.data.resolve_data_config(pretrained_cfg=config)
    channels, height, width = data["input_size"]
    # With the crop at the full side, timm squashes; otherwise it crops the centre.
    squash = data["crop_mode"] == "squash" or data["crop_pct"] is None
    create = partial(timm.create_model, name, num_classes=config.get("num_classes") or 1000)
    return Source(
        build=partial(create, pretrained=False),
        fetch=partial(_timm_weights, f"timm:{name}", create),
        preprocessing=Preprocessing(
            input_size=(height, width),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            resize=None if squash else math.floor(min(height, width) / data["crop_pct"]),
            channels="L" if channels == 1 else "RGB",
            interpolation=data["interpolation"],
        ),
    )


def _timm_weights(spec: str, create: Callable[..., nn.Module]) -> Mapping[str, Tensor]:
    # timm reads with weights_only=True. What it raises depends on its hub library's version.
    import timm.models

    timm.models.set_pretrained_check_hash()  # of files that name theirs; off by default
    try:
        return create(pretrained=True).state_dict()
    except Exception as error:
        raise _no_download(spec, error) from error


# --- the zoo


def _zoo(name: str) -> Source:
    network = zoo_network(name)

    def fetch() -> None:
        raise InputError(f"zoo:{name} has no weights to download; {network.weights_hint}.")

    return Source(
        build=network.build,
        fetch=fetch,
        preprocessing=network.preprocessing,
        class_names=network.class_names,
        rename=network.rename,
        skips_init=True,
    )


# --- the user's own files


def _program(path: Path) -> Source:
    program = load_program(path)
    return Source(
        build=lambda: program.module, fetch=lambda: None, input_size=program.input_shape[1:]
    )


def _python(path: Path, name: str) -> Source:
    return Source(build=partial(_call, path, name), fetch=lambda: None)


def _call(path: Path, name: str) -> nn.Module:
    """Run the file as Python does, its folder importable, and call what it defines as ``name``."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    # The file is the user's: whatever it raises is what to report, sys.exit() included.
    try:
        module = _import(path)
        function = getattr(module, name, None)
        result = function() if callable(function) else None
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{path}:{name} raised {type(error).__name__}: {error}. Expected a callable without"
            " required arguments that returns a torch.nn.Module; try it in Python first."
        ) from error
    finally:
        sys.path.remove(folder)
    if not callable(function):
        raise unknown(
            f"{path}:{name}", name, [key for key, v in vars(module).items() if callable(v)]
        )
    if not isinstance(result, nn.Module):
        raise InputError(
            f"{path}:{name} returned a {type(result).__name__}, expected a torch.nn.Module."
        )
    return result


def _import(path: Path) -> ModuleType:
    name = f"distillnet_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it runs
    spec.loader.exec_module(module)
    return module
