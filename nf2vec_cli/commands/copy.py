"""`nf2vec copy`: a store from one place to another."""

from typing import Annotated

from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import DryRunOpt, JsonOpt, WaitOpt
from nf2vec_cli.store.place import Place, place

EXAMPLE = """
nf2vec copy ds.zarr s3://bucket/ds.zarr
nf2vec copy s3://bucket/ds.zarr ds.zarr
nf2vec copy ds.zarr ds.zarr.zip
"""


def copy(
    source: Annotated[
        Place,
        Argument(metavar="SRC", parser=place, help="A folder, s3://BUCKET/PREFIX or a .zip."),
    ],
    target: Annotated[
        Place, Argument(metavar="DST", parser=place, help="Where to; a .zip is written anew.")
    ],
    force: Annotated[bool, Option("--force", help="Give up another store that is at DST.")] = False,
    wait: WaitOpt = None,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Copy a store between folders, buckets and zips; what is there already is skipped.

    The same line goes on after a stop, and brings a copy up to date: files with the same content
    are not sent again. Each file is compared after it was sent. A copy is no store before all of it
    is there.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.copy import copy_store

    result = copy_store(
        source,
        target,
        force=force,
        wait=wait,
        dry_run=dry_run,
        progress=open_progress(json=json),
    )
    output.emit(result, as_json=json)
