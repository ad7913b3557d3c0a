"""Many rows as one file, written row by row: they need not fit into memory."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from nf2vec_cli.foreign.found import Floats
from nf2vec_cli.foreign.hdf5 import h5py_module
from nf2vec_cli.foreign.tensors import FACTS


@dataclass(frozen=True)
class Table:
    """A matrix [N, W] float32 by its rows, with small arrays, texts [N] and facts.

    name: of the matrix; rows: gives it part by part, [n, W] each, every time it is called.
    """

    name: str
    shape: tuple[int, int]
    rows: Callable[[], Iterator[Floats]]
    arrays: Mapping[str, NDArray[Any]]
    texts: Mapping[str, Sequence[str]]
    facts: Mapping[str, Any]


def write_table(table: Table, file: Path, form: str) -> None:
    """Write a file, under another name first, so that a killed run leaves no half file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    try:
        {"safetensors": _safetensors, "npz": _npz, "hdf5": _hdf5}[form](table, part)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(file)


def _safetensors(table: Table, part: Path) -> None:
    """Lay the file out by hand: the library would want the whole matrix in memory."""
    facts = {**table.facts, **{name: list(texts) for name, texts in table.texts.items()}}
    header: dict[str, Any] = {"__metadata__": {FACTS: json.dumps(facts)}}
    at = 0
    sizes = {table.name: (table.shape, "F32")}
    sizes |= {name: (a.shape, KINDS[a.dtype.name]) for name, a in table.arrays.items()}
    for name, (shape, kind) in sizes.items():
        end = at + int(np.prod(shape)) * (8 if kind == "F64" else 4)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with part.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        _put(opened, table.rows())
        _put(opened, iter(table.arrays.values()))


def _npz(table: Table, part: Path) -> None:
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED, allowZip64=True) as packed:
        with packed.open(f"{table.name}.npy", "w", force_zip64=True) as opened:
            header = {"descr": "<f4", "fortran_order": False, "shape": table.shape}
            np.lib.format.write_array_header_2_0(cast(Any, opened), header)
            _put(cast(BinaryIO, opened), table.rows())
        small: dict[str, NDArray[Any]] = dict(table.arrays)
        small |= {name: np.array(texts, str) for name, texts in table.texts.items()}
        small[FACTS] = np.array(json.dumps(dict(table.facts)))
        for name, array in small.items():
            with packed.open(f"{name}.npy", "w") as opened:
                np.lib.format.write_array(cast(Any, opened), array, allow_pickle=False)


def _hdf5(table: Table, part: Path) -> None:
    with h5py_module().File(part, "w") as opened:
        matrix, at = opened.create_dataset(table.name, table.shape, "f4"), 0
        for rows in table.rows():
            matrix[at : at + len(rows)] = rows
            at += len(rows)
        for name, array in table.arrays.items():
            opened[name] = array
        for name, texts in table.texts.items():
            opened[name] = list(texts)
        opened.attrs[FACTS] = json.dumps(dict(table.facts))


KINDS = {"float32": "F32", "float64": "F64"}


def _put(opened: BinaryIO, parts: Iterator[NDArray[Any]]) -> None:
    for array in parts:
        opened.write(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
