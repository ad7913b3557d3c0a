"""Tensors from files that nobody vouches for: safetensors, or torch's format without its pickle."""

from __future__ import annotations

import json
import pickle  # nosec B403 - for the name of its error alone
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nf2vec_cli.errors import InputError

FACTS = "nf2vec"  # key of a file's metadata that holds what nf2vec says of it, as JSON
NESTED = ("state_dict", "model_state_dict", "model", "net", "weights")  # where others put them


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read named tensors, and what nf2vec says of them if it wrote the file.

    Raises:
        InputError: it is a pickle that would run code, damaged, or holds no tensors.
        OSError: it cannot be opened.
    """
    if path.suffix.lower() == ".safetensors":
        return _safetensors(path)
    return _named(load_checkpoint(path)), {}


def load_checkpoint(path: Path) -> object:
    """Read a file of `torch.save`; nothing in it is run.

    Raises:
        InputError: it holds more than numbers, or is damaged.
        OSError: it cannot be opened.
    """
    if not path.stat().st_size:
        raise InputError("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that are refused in the next moment
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            "the file is no checkpoint of tensors alone; a pickle may run any code when it is "
            "read: refused"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # torch says of bytes that are no checkpoint whatever comes up
        if isinstance(error, OSError):
            _read_through(path)  # of a zip that is cut short torch says that, too
        raise InputError(f"the file is damaged, or no checkpoint: {_first(error)}") from error


def _read_through(path: Path) -> None:
    """See that a file can be read.

    Raises:
        OSError: it cannot.
    """
    with path.open("rb") as opened:
        while opened.read(1 << 20):
            pass


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as opened:
            facts = json.loads((opened.metadata() or {}).get(FACTS, "{}"))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise InputError(f"the file is damaged, or no safetensors file: {_first(error)}") from error
    if not isinstance(facts, dict):
        raise InputError("what its metadata says of it is no JSON object")
    return tensors, facts


def _named(loaded: object) -> dict[str, Tensor]:
    """Find the state dict: the whole, or below one of the usual names, beside what else is kept."""
    inner, seen = loaded, set[int]()
    while isinstance(inner, Mapping) and id(inner) not in seen:  # one may contain itself
        seen.add(id(inner))
        below = [inner[name] for name in NESTED if isinstance(inner.get(name), Mapping)]
        found = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
        if found and not below:
            return found
        inner = below[0] if below else None
    raise InputError(f"the file holds no tensors by name: it is a {type(loaded).__name__}")


def as_floats(name: str, tensor: object) -> Any:
    """Give a dense tensor's numbers as float32.

    Raises:
        InputError: it is sparse, or holds no floats.
    """
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        raise InputError(f"{name!r} is no dense tensor")
    if not tensor.is_floating_point():
        raise InputError(f"{name!r} holds {tensor.dtype}, not floats")
    return cast(Any, tensor.detach().float().numpy())


def _first(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
