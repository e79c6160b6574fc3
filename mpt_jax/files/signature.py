"""Signatures of released models and of gate records with a key of one's own, by sigstore's model signing.

The signature of a folder is the file `model.sig` in it and covers the name and content of every other file, so that one
that was changed, renamed, added or removed is found. That of a file is `NAME.sig` next to it. Both are in the format of
OpenSSF Model Signing (a sigstore bundle), which other tools verify too. Nothing here uses a network.

A digest that a file carries reveals damage; only a key tells whether somebody has changed the file and its digest.
"""

import importlib.util
import json
import os
import pathlib
import tempfile
from typing import Any

from mpt_jax.errors import InputError, one_line
from mpt_jax.files import storage

OF_FOLDER = "model.sig"  # the name that other tools ignore, too
PASSWORD = "MPT_JAX_KEY_PASSWORD"
_UNUSABLE = (ValueError, TypeError, AttributeError)  # the last of version 1.1.1, for a key that is no elliptic curve
_MAKE_KEY = "expected a PEM file of an elliptic curve, such as openssl ecparam -name prime256v1 -genkey -noout writes"


def place(path: pathlib.Path) -> pathlib.Path:
    """Return where the signature of a folder or file is.

    Examples:
      >>> place(pathlib.Path("gate.json")).as_posix()
      'gate.json.sig'
    """
    return path / OF_FOLDER if path.is_dir() else path.with_name(f"{path.name}.sig")


def sign(path: pathlib.Path, key: pathlib.Path) -> pathlib.Path:
    """Sign a folder or a file, and return where the signature is; an earlier one is replaced.

    Args:
      path: what to sign.
      key: a private key of an elliptic curve (P-256, P-384 or P-521) in PEM. The environment variable
        `MPT_JAX_KEY_PASSWORD` has its password, if it has one.

    Raises:
      InputError: the key cannot be used, or what is signed has links or special files.
      OSError: the signature cannot be written.
    """
    _require_library()
    _require_file(key, "--key")
    from model_signing import signing

    password = os.environ.get(PASSWORD, "").encode() or None  # the library hands it to cryptography, which takes bytes
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key, password=password)  # type: ignore[arg-type]
    except _UNUSABLE as error:
        hint = f"{PASSWORD} has its password" if _of_password(error) else _MAKE_KEY
        raise InputError(f"--key {key} cannot be used: {_reason(error)}; {hint}") from error
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder) / OF_FOLDER
        try:
            config.set_hashing_config(_hashing()).sign(path, made)
        except ValueError as error:
            raise InputError(f"{path} cannot be signed: {one_line(error)}; expected regular files") from error
        storage.write_bytes(place(path), storage.read_bytes(made))
    return place(path)


def problem(path: pathlib.Path, key: pathlib.Path) -> str:
    """Return why a folder or a file is not what the owner of a key has signed, or "" if it is.

    Args:
      path: what was signed.
      key: the public key in PEM.

    Raises:
      InputError: the key cannot be used.
    """
    _require_library()
    _require_file(key, "--key")
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying

    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except _UNUSABLE as error:
        hint = "expected the public key of an elliptic curve in PEM, such as openssl ec -pubout writes"
        raise InputError(f"--key {key} cannot be used: {_reason(error)}; {hint}") from error
    if not place(path).is_file():
        return f"not signed: there is no {place(path)}"
    try:
        config.set_hashing_config(_hashing()).verify(path, place(path))
    except InvalidSignature:
        return f"{place(path)} was not made with this key, or was changed"
    except Exception as error:  # a file that is no signature fails in several libraries, each with its own errors
        reason = str(error).removeprefix("Signature mismatch: ")
        if "Key mismatch" in reason:
            return f"{place(path)} was made with another key"
        return f"not what was signed: {one_line(reason) or type(error).__name__}"
    return ""


def require_record(path: pathlib.Path) -> dict[str, Any]:
    """Read the JSON that `mpt_jax.compare` wrote.

    Raises:
      InputError: another file, or of a comparison that was not possible.
    """
    try:
        record = json.loads(storage.read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({type(error).__name__}); {_EXPECTED}") from error
    if not isinstance(record, dict) or not {"schema", "passed", "inputs"} <= record.keys():
        raise InputError(f"{path} is not the JSON of a comparison; {_EXPECTED}")
    return record


_EXPECTED = "expected a release, or what python -m mpt_jax.compare wrote with --json"


def _hashing() -> Any:
    """Return what a signature covers: every file but itself; also Git's, which the library would leave out."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[OF_FOLDER], ignore_git_paths=False)


def _reason(error: Exception) -> str:
    return "it is a key of another kind" if isinstance(error, AttributeError) else one_line(error)


def _of_password(error: Exception) -> bool:
    return isinstance(error, TypeError | ValueError) and ("assword" in str(error) or "decrypt" in str(error))


def _require_library() -> None:
    if importlib.util.find_spec("model_signing") is None:
        raise InputError("signatures need model-signing; install it: pip install 'mpt_jax[signing]'")


def _require_file(key: pathlib.Path, option: str) -> None:
    if not key.is_file():
        raise InputError(f"{option} {key} is not a file; {_MAKE_KEY}")
