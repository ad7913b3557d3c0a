"""`nf2vec interpolate`: the shapes between two objects of a store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import JobsOpt, JsonOpt, StoreArg
from nf2vec_cli.commands.reconstruct import EncoderOpt, PointsOpt, ResolutionOpt
from nf2vec_cli.config import Origin
from nf2vec_cli.errors import PartialFailure

EXAMPLE = """
nf2vec interpolate ds.zarr chair/armchair chair/stool --out between/
nf2vec interpolate ds.zarr armchair stool --out between/ --steps 5 --from embeddings
"""


def interpolate(
    store: StoreArg,
    first: Annotated[str, Argument(metavar="A", help="Id of the object to start from.")],
    second: Annotated[str, Argument(metavar="B", help="Id of the object to end at.")],
    out: Annotated[
        Path, Option("--out", metavar="DIR", help="Folder for the files and the picture.")
    ],
    steps: Annotated[
        int, Option("--steps", min=2, max=64, help="Shapes on the way, A and B included.")
    ] = 7,
    origin: Annotated[
        Literal["both", "embeddings", "weights"],
        Option("--from", help="The line is drawn between embeddings, weights, or both in turn."),
    ] = "both",
    encoder: EncoderOpt = None,
    resolution: ResolutionOpt = None,
    points: PointsOpt = 8192,
    jobs: JobsOpt = 0,
    json: JsonOpt = False,
) -> None:
    """Write the shapes between two objects of a store, and one picture of them all.

    The picture is DIR/interpolation.png: a row of shapes on the line between the embeddings, and
    one between the weights to compare with.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.interpolate import interpolate as between

    empty = []

    def rows() -> Iterator[object]:
        for row in between(
            store,
            (first, second),
            out,
            steps=steps,
            origins=[Origin.embeddings, Origin.weights] if origin == "both" else [Origin(origin)],
            encoder=encoder,
            resolution=resolution,
            points=points,
            jobs=jobs,
            progress=open_progress(json=json),
        ):
            if row.problem:
                empty.append(row)
            yield row

    output.emit(rows(), as_json=json)
    if empty:
        raise PartialFailure(f"{len(empty)} shapes on the way are empty; see {out}")
