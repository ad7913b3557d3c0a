"""`nf2vec info`: what a store holds."""

from typing import Annotated

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import JsonOpt, StoreArg

EXAMPLE = """
nf2vec info ds.zarr
nf2vec info ds.zarr --failed --json | jq -r .id
"""

FailedOpt = Annotated[bool, Option("--failed", help="List the objects that failed, and why.")]
OpenOpt = Annotated[bool, Option("--open", help="List the fitted objects whose surface is open.")]
ObjectsOpt = Annotated[bool, Option("--objects", help="List every object.")]
StorageOpt = Annotated[bool, Option("--storage", help="Bytes of each array; cost of each codec.")]


def info(
    store: StoreArg,
    objects: ObjectsOpt = False,
    failed: FailedOpt = False,
    open_surfaces: OpenOpt = False,
    storage: StorageOpt = False,
    json: JsonOpt = False,
) -> None:
    """Show what a store holds.

    What is done, missing and failed; classes, sizes, shared init and recipe; its encoders with what
    each has embedded, and the heads that tasks have trained, with what they reached.
    """
    from nf2vec_cli.tasks.info import object_rows, storage_info, store_info

    if storage:
        output.emit(storage_info(store), as_json=json)
    elif objects or failed or open_surfaces:
        rows = object_rows(store, failed=failed, open_surfaces=open_surfaces)
        output.emit(rows, as_json=json)
    else:
        output.emit(store_info(store), as_json=json)
