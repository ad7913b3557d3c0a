"""`nf2vec segment`: the parts of objects, from their embeddings."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    ConfigOpt,
    DeviceOpt,
    JobsOpt,
    JsonOpt,
    PresetOpt,
    SeedOpt,
    SetOpt,
    StoreArg,
    WaitOpt,
    ids_of,
)
from nf2vec_cli.commands.reconstruct import EncoderOpt, IdsOpt
from nf2vec_cli.errors import PartialFailure

EXAMPLE = """
nf2vec segment ds.zarr --parts labelled/
nf2vec segment ds.zarr --parts labelled/ --out coloured/
nf2vec segment ds.zarr --ids chair/armchair --out coloured/ --points 100000
"""


def segment(
    store: StoreArg,
    parts: Annotated[
        Path | None,
        Option(
            "--parts",
            metavar="DIR",
            help="Clouds with part labels: ShapeNet-Part's text files and lists, or CLASS.npz of "
            "points, labels and names. If not given, a head that the store holds is asked.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option("--out", metavar="DIR", help="Write clouds coloured by part: DIR/ID.ply."),
    ] = None,
    ids: IdsOpt = None,
    points: Annotated[
        int | None,
        Option("--points", min=1, help="Draw so many points from each field, labelled or not."),
    ] = None,
    encoder: EncoderOpt = None,
    head: Annotated[
        str | None,
        Option("--head", metavar="KEY", help="Head to ask without --parts; by default the newest."),
    ] = None,
    preset: PresetOpt = None,
    seed: SeedOpt = None,
    config: ConfigOpt = None,
    settings: SetOpt = None,
    device: DeviceOpt = "auto",
    jobs: JobsOpt = 0,
    force: Annotated[bool, Option("--force", help="Train again what is there.")] = False,
    wait: WaitOpt = None,
    json: JsonOpt = False,
) -> None:
    """Tell the parts of objects from their embeddings, at labelled points or any others.

    The first run trains a head on the labelled clouds of split train and keeps it in the store;
    later ones use it. Objects are found by the names of the clouds. Without --ids the test objects
    are asked. With --json a line for each object: id, class, IoU, share of the points by part.
    """
    from nf2vec_cli.commands.settings import segment_settings
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.segment import segment as tell

    names = ids_of(ids)
    found = tell(
        store,
        parts,
        segment_settings(preset, config, settings, seed=seed),
        out=out,
        ids=names,
        points=points,
        encoder=encoder,
        head=head,
        device=device,
        jobs=jobs,
        force=force,
        wait=wait,
        progress=open_progress(json=json),
    )
    rows = [
        {"class" if key == "class_name" else key: value for key, value in vars(one).items()}
        for one in found.objects
    ]
    summary = {key: value for key, value in vars(found).items() if key != "objects"}
    if json:
        output.emit(rows, as_json=True)
    else:
        output.emit({**summary, "objects": rows if names or out else []})
    failed = [one for one in found.objects if one.problem]
    if failed:
        raise PartialFailure(
            f"the parts of {len(failed)} objects were not told, {failed[0].id!r} first: "
            f"{failed[0].problem}",
            hint=f"`nf2vec info {store} --objects` lists objects with their classes",
        )
