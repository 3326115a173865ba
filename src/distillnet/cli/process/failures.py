"""What a failure means to the person at the terminal: an exit status and one message.

| status | means |
|---|---|
| 2 | the input is wrong |
| 1 | anything else: a full disk, too little memory, a mistake in this package |
"""

import errno
import os
import sys
import traceback

from distillnet.errors import DistillnetError, InputError

__all__ = ["explain"]

# What is wrong with a path rather than with the machine.
_WRONG_PATH = frozenset(
    (
        *(errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT),
        *(errno.ENOTDIR, errno.EPERM, errno.EROFS),
    )
)
_NO_MEMORY = (
    *("not enough memory", "t allocate memory", "annot allocate memory", "bad_alloc"),
    *("failed to map segment", "t start new thread"),
)
_NO_SPACE = frozenset((errno.EDQUOT, errno.EFBIG, errno.ENOSPC))


def explain(error: Exception) -> tuple[int, str]:
    """The exit status and the message for an error that ended a command.

    >>> explain(InputError("found a, expected b; do c"))
    (2, 'error: found a, expected b; do c')
    """
    if isinstance(error, DistillnetError):
        return (2 if isinstance(error, InputError) else 1), f"error: {error}"
    if _is_out_of_memory(error):
        return 1, (
            "error: there is not enough memory; use fewer images, a smaller --batch-size or "
            "--input-size, or --device cpu"
        )
    if isinstance(error, OSError):
        return _explain_os_error(error)
    if os.environ.get("DISTILLNET_TRACEBACK"):
        return 1, "".join(traceback.format_exception(error)).rstrip()
    reason = (str(error).strip() or "no message").splitlines()[0]
    return 1, (
        f"error: unexpected {type(error).__name__}: {reason}. This is a bug in distillnet; "
        "set DISTILLNET_TRACEBACK=1, run again and report what it prints"
    )


def _explain_os_error(error: OSError) -> tuple[int, str]:
    where = f"{error.filename}: " if error.filename else ""
    reason = f"error: {where}{error.strerror or error}"
    if error.errno in _NO_SPACE:
        return 1, f"{reason}; free some space or choose another --out"
    if error.errno in _WRONG_PATH:
        return 2, f"{reason}; expected a path that exists and that this user may use"
    return 1, reason


def _is_out_of_memory(error: Exception) -> bool:
    torch = sys.modules.get("torch")  # where it was not imported, it raised nothing
    ours = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
    if isinstance(error, ours):
        return True
    # On the CPU, PyTorch has no type of its own for it; libraries may fail to load for want of it.
    return isinstance(error, RuntimeError | ImportError | OSError) and any(
        said in str(error) for said in _NO_MEMORY
    )
