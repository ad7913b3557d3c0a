"""`nf2vec map`: from the embeddings of one store to those of another."""

from typing import Annotated

from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    ConfigOpt,
    DeviceOpt,
    JobsOpt,
    JsonOpt,
    PresetOpt,
    SeedOpt,
    SetOpt,
    WaitOpt,
)
from nf2vec_cli.store.place import Place, place

EXAMPLE = """
nf2vec map clouds.zarr meshes.zarr --out mapped.zarr
nf2vec map partial.zarr whole.zarr --out completed.zarr --metrics
nf2vec reconstruct completed.zarr --from embeddings --out shapes/
"""


def map(
    store: Annotated[
        Place, Argument(metavar="A", parser=place, help="Store whose embeddings are read.")
    ],
    target: Annotated[
        Place,
        Argument(
            metavar="B", parser=place, help="Store of the same objects, whose space is mapped to."
        ),
    ],
    out: Annotated[
        Place | None,
        Option(
            "--out", metavar="STORE", parser=place, help="Store to make: A's objects in B's space."
        ),
    ] = None,
    metrics: Annotated[
        bool,
        Option("--metrics", help="Decode the test objects and compare them with B's surfaces."),
    ] = False,
    encoder: Annotated[
        str | None,
        Option("--encoder", metavar="KEY", help="Whose embeddings of A; if not given, the newest."),
    ] = None,
    target_encoder: Annotated[
        str | None,
        Option("--target-encoder", metavar="KEY", help="Whose of B; if not given, the newest."),
    ] = None,
    preset: PresetOpt = None,
    seed: SeedOpt = None,
    config: ConfigOpt = None,
    settings: SetOpt = None,
    device: DeviceOpt = "auto",
    jobs: JobsOpt = 0,
    force: Annotated[
        bool, Option("--force", help="Train again what is there, and replace --out.")
    ] = False,
    wait: WaitOpt = None,
    json: JsonOpt = False,
) -> None:
    """Learn to map embeddings of A to those of B, on the objects that both hold.

    Fields of any two kinds, or of partial and whole shapes: pairs have the same id. The mapper is
    kept in A. With --out, it makes a store of every embedded object of A, whose shapes
    `nf2vec reconstruct --from embeddings` gives by B's decoder.
    """
    from nf2vec_cli.commands.settings import map_settings
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.map import map_stores

    result = map_stores(
        store,
        target,
        map_settings(preset, config, settings, seed=seed),
        out=out,
        encoder=encoder,
        target_encoder=target_encoder,
        metrics=metrics,
        device=device,
        jobs=jobs,
        force=force,
        wait=wait,
        progress=open_progress(json=json),
    )
    output.emit(result, as_json=json)
