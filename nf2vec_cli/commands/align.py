"""`nf2vec align`: fields from elsewhere, brought to a store's init."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import ConfigOpt, DryRunOpt, JobsOpt, JsonOpt, SetOpt, StoreArg
from nf2vec_cli.errors import PartialFailure, UsageFault

EXAMPLE = """
nf2vec align ds.zarr --dry-run
nf2vec align ds.zarr --out aligned.zarr
nf2vec encode aligned.zarr
"""


def align(
    store: StoreArg,
    out: Annotated[
        Path | None,
        Option("--out", metavar="OUT", help="Store to make; if not given, NAME-aligned.zarr."),
    ] = None,
    ids: Annotated[
        list[str] | None,
        Option("--ids", metavar="ID", help="Take this field, near the init or not; repeatable."),
    ] = None,
    everything: Annotated[
        bool, Option("--all", help="Take all fields, not only those far from the init.")
    ] = False,
    config: ConfigOpt = None,
    settings: SetOpt = None,
    jobs: JobsOpt = 0,
    force: Annotated[
        bool, Option("--force", help="Make OUT again, if `align` alone made it.")
    ] = False,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Bring fields that started from another init to the store's, functions unchanged.

    Neurons trade places, sine units turn over or move by half periods, ReLU units are scaled. STORE
    stays as it is; OUT holds all its objects, with all bits of their weights, and its encoders.
    Tells how well each field matches the init before and after.
    """
    from nf2vec_cli.config.align import AlignConfig
    from nf2vec_cli.config.load import load_config
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.store.create import with_ending
    from nf2vec_cli.store.place import folder
    from nf2vec_cli.tasks.align import align_store

    if ids and everything:
        raise UsageFault("--ids and --all exclude each other")
    home = folder(store)
    result = align_store(
        home,
        load_config(AlignConfig, file=config, overrides=settings or []),
        out=None if dry_run else out or folder(with_ending(home, "-aligned")),
        ids=ids or (),
        everything=everything,
        jobs=jobs,
        force=force,
        progress=open_progress(json=json),
    )
    output.emit(result, as_json=json)
    if result.strangers:
        output.warn(
            f"{result.strangers} fields are still strange to the init: what is learnt from weights "
            "does not know them"
        )
    if result.failed:
        first = next(row for row in result.objects if row.problem)
        raise PartialFailure(
            f"{result.failed} fields are left as they are, {first.id!r} first: {first.problem}",
            hint=f"`nf2vec check {store}` looks for damage",
        )
