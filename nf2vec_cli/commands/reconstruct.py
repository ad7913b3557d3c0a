"""`nf2vec reconstruct`: fields back into meshes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import JobsOpt, JsonOpt, StoreArg
from nf2vec_cli.errors import PartialFailure

EXAMPLE = """
nf2vec reconstruct ds.zarr --out meshes/
nf2vec reconstruct ds.zarr --out meshes/ --ids chair/armchair --format stl --resolution 256
"""

OutOpt = Annotated[Path, Option("--out", metavar="DIR", help="Folder for the meshes: DIR/ID.ply.")]
IdsOpt = Annotated[
    list[str] | None,
    Option("--ids", metavar="ID", help="One object; may be repeated; - reads ids from stdin."),
]
ResolutionOpt = Annotated[
    int, Option("--resolution", min=16, max=1024, help="Grid points along each axis.")
]
FormatOpt = Annotated[
    Literal["ply", "obj", "stl", "off", "glb"], Option("--format", help="Kind of file.")
]
SourcesOpt = Annotated[
    Path | None,
    Option("--sources", metavar="DIR", help="Where the shapes are now, if they were moved."),
]
CompareOpt = Annotated[
    bool, Option("--compare/--no-compare", help="Measure the distance to each source.")
]


def reconstruct(
    store: StoreArg,
    out: OutOpt,
    ids: IdsOpt = None,
    resolution: ResolutionOpt = 128,
    format: FormatOpt = "ply",
    sources: SourcesOpt = None,
    compare: CompareOpt = True,
    jobs: JobsOpt = 0,
    json: JsonOpt = False,
) -> None:
    """Turn fields back into meshes, in the user's own units.

    Marching cubes at distance 0. Where an object's source is still there, the mesh is compared
    with it: Chamfer distance and F-score at 1 % and 0.25 %, in units of the bounding sphere.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.reconstruct import reconstruct as rebuild

    wanted = [name for name in ids or () if name != "-"]
    if "-" in (ids or ()):
        wanted += sys.stdin.read().split()
    failed = []

    def rows() -> Iterator[object]:
        for row in rebuild(
            store,
            out,
            ids=wanted,
            resolution=resolution,
            suffix=format,
            sources=sources,
            compare=compare,
            jobs=jobs,
            progress=open_progress(json=json),
        ):
            if row.problem:
                failed.append(row.id)
            yield row

    output.emit(rows(), as_json=json)
    if failed:
        raise PartialFailure(f"{len(failed)} objects were not rebuilt, {failed[0]!r} first")
