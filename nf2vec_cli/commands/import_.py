"""`nf2vec import`: fields that were fitted elsewhere, into a store."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    DryRunOpt,
    JobsOpt,
    JsonOpt,
    SetOpt,
    StoreOpt,
    WaitOpt,
)
from nf2vec_cli.errors import PartialFailure
from nf2vec_cli.fields import FieldName
from nf2vec_cli.foreign import LayoutName

EXAMPLE = """
nf2vec import inrs/ --field udf --init in3_out1_h512_l4.pt --store ds.zarr
nf2vec import data_TRAINED/ --layout nerf-folder --store nerfs.zarr
nf2vec import nets/ --network net.toml --labels nets.csv --store nets.zarr
nf2vec import mvp/ --field udf --params params_complete --store whole.zarr
"""


def import_(
    source: Annotated[
        str,
        Argument(
            metavar="SOURCE",
            help="Folder of fields (CLASS/SPLIT/NAME.ext, SPLIT/NAME.ext...), one file, a text "
            "file of paths, or - for paths on standard input.",
        ),
    ],
    store: StoreOpt,
    layout: Annotated[
        LayoutName,
        Option(
            "--layout",
            help="How they are laid out: the authors' HDF5 files or NeRF folders, networks as "
            "safetensors or state dicts (DWSNets: keys seq.0.weight), fit-a-nef's HDF5.",
        ),
    ] = LayoutName.auto,
    field: Annotated[
        FieldName | None,
        Option("--field", help="Kind of field, where neither files nor layout say it."),
    ] = None,
    init: Annotated[
        str | None,
        Option(
            "--init",
            metavar="FILE",
            help="What the fields started from: a file of weights, a store, official (the "
            "authors' of radiance), first (the first field stands for it) or none (not known).",
        ),
    ] = None,
    network: Annotated[
        Path | None,
        Option("--network", metavar="TOML", help="What the files do not say of the networks."),
    ] = None,
    settings: SetOpt = None,
    params: Annotated[
        str,
        Option(
            "--params",
            metavar="NAME",
            help="Name of the weights in the authors' HDF5 files; params_complete and "
            "params_incomplete of pairs.",
        ),
    ] = "params",
    labels: Annotated[
        Path | None,
        Option("--labels", metavar="CSV", help="Classes and splits: name,class,split."),
    ] = None,
    root: Annotated[
        Path | None, Option("--root", metavar="DIR", help="Folder that ids are relative to.")
    ] = None,
    codec: Annotated[
        Literal["compact", "exact"] | None,
        Option(
            "--codec",
            help="How weights are kept; compact if that changes the fields by 0.1 % at most.",
        ),
    ] = None,
    jobs: JobsOpt = 0,
    retry_failed: Annotated[
        bool, Option("--retry-failed", help="Try objects again that failed before.")
    ] = False,
    force: Annotated[bool, Option("--force", help="Read again what is done.")] = False,
    wait: WaitOpt = None,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Take neural fields that were fitted elsewhere into a store.

    Nothing in a file is ever run: pickles are refused. An object that cannot be read is reported,
    and the others go on. Without the init that fields started from they can be looked at, but not
    embedded. `nf2vec config import` lists the settings of --network.
    """
    from nf2vec_cli.config.import_ import ImportConfig
    from nf2vec_cli.config.load import load_config
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.import_ import import_fields, preview_import
    from nf2vec_cli.tasks.import_store import Wanted

    wanted = Wanted(
        source=source,
        layout=layout,
        kind=field or "",
        net=load_config(ImportConfig, file=network, overrides=settings),
        params=params,
        init=init,
        codec=codec,
        root=root,
        labels=labels,
        retry=retry_failed,
        force=force,
    )
    if dry_run:
        output.emit(preview_import(wanted, store), as_json=json)
        return
    result = import_fields(wanted, store, jobs=jobs, wait=wait, progress=open_progress(json=json))
    output.emit(result, as_json=json)
    if result.imported and result.init == "unknown":
        output.warn(
            f"what the fields of {store} started from is not known: they can be rebuilt, but not "
            "embedded; `--init FILE` names it"
        )
    elif result.aligned < result.imported:
        output.warn(
            f"{result.imported - result.aligned} of {result.imported} fields did not start from "
            f"this init ({result.init}), and cannot be embedded"
        )
    if result.failed:
        raise PartialFailure(
            f"{result.failed} of {result.imported + result.failed} fields were not imported",
            hint=f"`nf2vec info {store} --failed` lists them with the reason",
        )
