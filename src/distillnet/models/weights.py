"""Read trained weights from untrusted files, and put them into a network.

No file can make this module run code: safetensors holds nothing but numbers, and a torch file is
read with ``weights_only=True``, which refuses every pickle that is more than tensors.
"""

import hashlib
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from distillnet.errors import InputError
from distillnet.files.packed import is_packed
from distillnet.models.packed import read_packed

__all__ = ["check_finite", "load_weights", "read_weights", "weights_sha256"]

# Under which key training scripts put the state dict beside the epoch and the optimiser.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
# Heads that torchvision's GoogLeNet and Inception v3 have for training alone.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
_SHOWN = 3


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a safetensors or torch file, unwrapped, its ``module.`` prefixes removed.

    Raises InputError for a file that is missing, cut off, or holds anything but tensors.
    """
    if not path.is_file():
        raise InputError(
            f"The weights file {path} does not exist; give a safetensors file or a torch state"
            " dict as --weights."
        )
    if is_packed(path):
        return _read_packed(path)
    loaded = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    for wrapper in _WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not loaded:
        raise InputError(
            f"{path} holds a {type(loaded).__name__}, expected a state dict of names and tensors;"
            " save model.state_dict()."
        )
    for name, value in loaded.items():
        if not isinstance(name, str) or not _is_plain(value):
            raise InputError(
                f"{path} holds {type(value).__name__} {name!r}, expected nothing but plain dense"
                " tensors; save model.state_dict() of the float network."
            )
    if all(name.startswith("module.") for name in loaded):  # left by DataParallel
        return {name.removeprefix("module."): value for name, value in loaded.items()}
    return dict(loaded)


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Put ``state`` into ``module``, which may lie on the meta device; ``source`` is for messages.

    Tensors are converted to the dtype that the module has. Raises InputError, naming the first
    keys that do not fit, when names or shapes differ.
    """
    own = module.state_dict()
    given = dict(state)
    for name in list(given):
        if name not in own and name.startswith(_AUXILIARY):
            del given[name]
    for name, tensor in own.items():
        # Files older than PyTorch 0.4.1 lack this counter, which inference does not read.
        if name.endswith("num_batches_tracked") and name not in given:
            given[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
    _check_fit(own, given, source)
    # With another strides or dtype than the module's own, the values are the same.
    fitting = {name: value.to("cpu", own[name].dtype) for name, value in given.items()}
    ordered = OrderedDict((name, fitting[name].contiguous().clone()) for name in own)
    # Modules such as MNASNet ask for the version of the layout, which safetensors cannot hold.
    ordered._metadata = own._metadata  # type: ignore[attr-defined]
    module.load_state_dict(ordered, assign=True)


def check_finite(module: nn.Module, source: str) -> None:
    """Raise InputError when a parameter or buffer holds NaN or infinity."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            n_bad = int((~torch.isfinite(tensor)).sum())
            raise InputError(
                f"{source}: {name} holds {n_bad} NaN or infinite values among {tensor.numel()},"
                " expected finite weights; the training diverged or the file is damaged, so pass"
                " another --weights."
            )


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 of the state dict: names, dtypes, shapes and bytes, in the order of the names.

    >>> weights_sha256(nn.ReLU())[:12]
    'e3b0c44298fc'
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def _is_safetensors(path: Path) -> bool:
    # By content: a JSON header after its length in 8 bytes. A torch file starts otherwise.
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:
        raise _unreadable(path, error) from error


def _read_torch(path: Path) -> object:
    # A hostile file can make the reader raise almost anything; whatever it is, the file is wrong.
    try:
        _refuse_unpacking(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unreadable(path, error) from error


def _read_packed(path: Path) -> dict[str, Tensor]:
    found = read_packed(path)
    if found.kind != "weights":
        raise InputError(
            f"{path} is a packed {found.kind}, expected packed weights; `distillnet unpack` turns"
            " it into a MODEL or a run."
        )
    return dict(found.tensors)


def _refuse_unpacking(path: Path) -> None:
    # PyTorch compresses nothing; a small file that unpacks to a huge one is made to exhaust memory.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > path.stat().st_size:
                raise ValueError("its records are compressed or overlap")


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"Cannot read weights from {path} ({path.stat().st_size} bytes): {reason[:200]}. Expected"
        " a whole safetensors file, or a torch file that holds tensors only; download it again, or"
        " convert it with safetensors.torch.save_file(model.state_dict(), ...)."
    )


def _is_plain(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"  # not "meta", which holds no values
        and not value.is_quantized
        and not value.is_complex()
    )


def _check_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str) -> None:
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    misshapen = [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in given and given[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {what}: {_first(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("mis-shaped", misshapen),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{source} does not fit the network: of its {len(own)} tensors {'; '.join(problems)}."
            " Pass the weights of this very network, or name the network that they belong to."
        )


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
