"""Ed25519 (RFC 8032): keys as PEM files, signatures of whole files.

A package is ``MAGIC``, a body, and the signature of both in the last 64 bytes. Nothing of the body
is looked at before the signature holds.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillnet.errors import InputError
from distillnet.files.regular import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["MAGIC", "new_keys", "opened", "read_public", "signed"]

MAGIC = b"distillnet mission 1\n"
_SIGNATURE = 64
_KEY_BYTES = 10_000


def _library() -> Any:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise InputError(
            "mission packages need the library cryptography, which is not installed; install it "
            "with pip install 'distillnet[missions]'"
        ) from error
    return serialization, ed25519


def new_keys() -> tuple[bytes, bytes]:
    """A new secret key and its public key, as PEM."""
    serialization, ed25519 = _library()
    secret = ed25519.Ed25519PrivateKey.generate()
    return (
        secret.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        secret.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def signed(body: bytes, key: Path) -> bytes:
    """A body as a package, signed with the secret key in a PEM file; InputError without one."""
    serialization, ed25519 = _library()
    secret = _key(key, "secret", lambda data: serialization.load_pem_private_key(data, None))
    if not isinstance(secret, ed25519.Ed25519PrivateKey):
        raise InputError(f"{key} is no Ed25519 key; make one with `distillnet mission keys`")
    whole = MAGIC + body
    return whole + secret.sign(whole)


def read_public(path: Path) -> "Ed25519PublicKey":
    """The public key in a PEM file; InputError where there is none."""
    serialization, ed25519 = _library()
    key = _key(path, "public", serialization.load_pem_public_key)
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise InputError(f"{path} is no Ed25519 key; make one with `distillnet mission keys`")
    return key


def _key(path: Path, kind: str, load: Any) -> Any:
    try:
        return load(read_regular(path, _KEY_BYTES))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); name a {kind} key") from error
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{path} holds no {kind} key; expected a PEM file that `distillnet mission keys` "
            "wrote, without a password"
        ) from error


def opened(whole: bytes, trusted: Sequence["Ed25519PublicKey"], what: str) -> bytes:
    """The body of a package that one of the ``trusted`` keys has signed.

    Raises:
        InputError: it is no package, was changed or cut off, or somebody else has signed it.
    """
    from cryptography.exceptions import InvalidSignature

    if not whole.startswith(MAGIC) or len(whole) < len(MAGIC) + _SIGNATURE:
        raise InputError(f"{what} is no mission package; expected one that `mission pack` wrote")
    for key in trusted:
        try:
            key.verify(whole[-_SIGNATURE:], whole[:-_SIGNATURE])
        except InvalidSignature:
            continue
        return whole[len(MAGIC) : -_SIGNATURE]
    raise InputError(
        f"{what} is refused: no trusted key has signed what it holds. It was changed or cut off on "
        "its way, or comes from somebody else; get it again from who made it, or name their key "
        "with --key if you trust them"
    )
