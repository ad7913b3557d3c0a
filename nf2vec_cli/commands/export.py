"""`nf2vec export`: what a store holds, in files that others read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import DryRunOpt, JsonOpt, StoreArg, ids_of
from nf2vec_cli.commands.reconstruct import IdsOpt
from nf2vec_cli.errors import PartialFailure
from nf2vec_cli.store.place import local

EXAMPLE = """
nf2vec export ds.zarr fields/
nf2vec export ds.zarr inrs/ --format hdf5
nf2vec export ds.zarr chair.onnx/ --format onnx --ids chair/chair
nf2vec export ds.zarr fields.npz --one-file
nf2vec export ds.zarr embeddings.npz --what embeddings
nf2vec export ds.zarr encoder.onnx --what encoder
"""


def export(
    store: StoreArg,
    out: Annotated[
        Path,
        Argument(
            metavar="OUT", parser=local, help="Folder for the fields: OUT/ID.suffix; else a file."
        ),
    ],
    format: Annotated[
        Literal["safetensors", "hdf5", "npz", "onnx", "nerf-folder"] | None,
        Option(
            "--format",
            help="hdf5: fields as the authors' OUT/SPLIT/NUMBER.h5; nerf-folder: radiance as the "
            "authors' OUT/ID/nerf_weights.pth. If not given, as a file's suffix says, else "
            "safetensors.",
        ),
    ] = None,
    what: Annotated[
        Literal["fields", "embeddings", "encoder", "classifier"],
        Option("--what", help="What to write."),
    ] = "fields",
    ids: IdsOpt = None,
    one_file: Annotated[
        bool, Option("--one-file", help="All fields as one file: their weights as a matrix.")
    ] = False,
    key: Annotated[
        str | None,
        Option(
            "--key",
            metavar="KEY",
            help="Encoder (of embeddings too) or classifier; the newest if not given.",
        ),
    ] = None,
    force: Annotated[bool, Option("--force", help="Replace files that are there.")] = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Write fields, embeddings, an encoder or a classifier in formats that others read.

    Fields keep every bit that the store has of them, and `nf2vec import` reads them back. A file
    that is there already is left alone unless --force is given.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.export import Order
    from nf2vec_cli.tasks.export import export as write

    order = Order(what, format or "", tuple(ids_of(ids)), one_file, key, force, dry_run)
    failed = []

    def rows() -> Iterator[object]:
        for row in write(store, out, order, progress=open_progress(json=json)):
            if row.problem:
                failed.append(row.id)
            yield row

    output.emit(rows(), as_json=json)
    if failed:
        raise PartialFailure(f"{len(failed)} objects were not written, {failed[0]!r} first")
