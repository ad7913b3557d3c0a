"""`nf2vec check`: damage in a store, found and mended."""

from typing import Annotated

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import JsonOpt, StoreArg, WaitOpt
from nf2vec_cli.errors import StoreError

EXAMPLE = """
nf2vec check ds.zarr
nf2vec check ds.zarr --repair
"""

RepairOpt = Annotated[
    bool, Option("--repair", help="Sweep leftovers; set damaged objects aside, to be fitted anew.")
]


def check(
    store: StoreArg, repair: RepairOpt = False, wait: WaitOpt = None, json: JsonOpt = False
) -> None:
    """Look for damage in a store, and repair it if asked.

    Reads every field and compares it with its digest; looks for NaN, wrong shapes, wrong
    statuses and what a killed run left behind. Without --repair nothing is written.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.store.check import check_store

    report = check_store(store, repair=repair, wait=wait, progress=open_progress(json=json))
    output.emit(report, as_json=json)
    left = sum(not finding.repaired for finding in report.findings)
    if left:
        raise StoreError(
            f"{store} has {left} faults",
            hint=f"`nf2vec check {store} --repair` mends it, then `nf2vec fit` refits what is lost",
        )
