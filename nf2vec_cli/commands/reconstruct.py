"""`nf2vec reconstruct`: fields back into meshes, clouds, voxels or pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    DeviceOpt,
    JobsOpt,
    JsonOpt,
    RayOpt,
    ShardOpt,
    SourcesOpt,
    StoreArg,
    ids_of,
    share_of,
)
from nf2vec_cli.config import Origin
from nf2vec_cli.errors import PartialFailure

EXAMPLE = """
nf2vec reconstruct ds.zarr --out meshes/
nf2vec reconstruct scans.zarr --out clouds/ --as cloud --points 100000
nf2vec reconstruct ds.zarr --out decoded/ --from embeddings
nf2vec reconstruct ds.zarr --out turned/ --transform rotate=z:90 --transform scale=0.5
nf2vec reconstruct ds.zarr --out meshes/ --ids chair/armchair --format stl --resolution 256
nf2vec reconstruct nerfs.zarr --out pictures/ --camera transforms_test.json --background black
nf2vec reconstruct nerfs.zarr --out turning/ --format gif --from embeddings
"""

OutOpt = Annotated[Path, Option("--out", metavar="DIR", help="Folder for the files: DIR/ID.ply.")]
IdsOpt = Annotated[
    list[str] | None,
    Option("--ids", metavar="ID", help="One object; may be repeated; - reads ids from stdin."),
]
AsOpt = Annotated[
    Literal["mesh", "cloud", "voxels", "pictures"] | None,
    Option(
        "--as",
        help="What to make: by default mesh of sdf, cloud of udf, voxels of occ, pictures of nerf.",
    ),
]
ResolutionOpt = Annotated[
    int | None,
    Option(
        "--resolution",
        min=16,
        max=1024,
        help="Grid points (mesh: 128) or cells (voxels: as fitted) along each axis.",
    ),
]
PointsOpt = Annotated[int, Option("--points", min=1, help="Points of a cloud.")]
FormatOpt = Annotated[
    str | None,
    Option(
        "--format",
        help="File type: ply obj stl off glb of a mesh; ply xyz npy npz of a cloud; "
        "npz npy binvox of voxels; png gif mp4 of pictures.",
    ),
]
TransformOpt = Annotated[
    list[str] | None,
    Option(
        "--transform",
        metavar="MOVE",
        help="Move the field before it is read, about the object's centre and in its unit: "
        "rotate=z:90, mirror=x, scale=0.5, scale=1,2,1, shift=0.1,0,0; may be repeated.",
    ),
]
FromOpt = Annotated[
    Origin, Option("--from", help="The fields' own weights, or embeddings and their decoder.")
]
EncoderOpt = Annotated[
    str | None,
    Option("--encoder", metavar="KEY", help="Whose embeddings; the newest encoder's if not given."),
]
CompareOpt = Annotated[
    bool, Option("--compare/--no-compare", help="Measure the distance to each source.")
]
CountOpt = Annotated[
    int | None,
    Option("--count", min=1, max=1000, help="Pictures around an object: 8, or 36 of a gif or mp4."),
]
SizeOpt = Annotated[
    int | None,
    Option("--size", min=8, max=4096, help="Pixels of a picture's width: 200, or a camera's own."),
]
ElevationOpt = Annotated[
    float | None,
    Option("--elevation", min=-89, max=89, help="Height of the cameras around it, in degrees: 25."),
]
UpOpt = Annotated[
    Literal["y", "z"] | None,
    Option("--up", help="Axis that points up: as the store's own cameras have it, else z."),
]
BackgroundOpt = Annotated[
    str | None,
    Option("--background", metavar="COLOUR", help="white, black, #rrggbb, or none: PNG's alpha."),
]
CameraOpt = Annotated[
    Path | None,
    Option(
        "--camera",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="Cameras to look by: a transforms*.json, in the user's units.",
    ),
]
RendererOpt = Annotated[
    Literal["auto", "torch", "nerfacc"],
    Option("--renderer", help="Of pictures; auto: kernels on a GPU, else torch."),
]
SheetOpt = Annotated[
    Path | None,
    Option("--sheet", metavar="PNG", help="Picture of sources and results, the worst first."),
]


def reconstruct(
    store: StoreArg,
    out: OutOpt,
    ids: IdsOpt = None,
    form: AsOpt = None,
    resolution: ResolutionOpt = None,
    points: PointsOpt = 8192,
    format: FormatOpt = None,
    transform: TransformOpt = None,
    origin: FromOpt = Origin.weights,
    encoder: EncoderOpt = None,
    sources: SourcesOpt = None,
    compare: CompareOpt = True,
    sheet: SheetOpt = None,
    count: CountOpt = None,
    size: SizeOpt = None,
    elevation: ElevationOpt = None,
    up: UpOpt = None,
    background: BackgroundOpt = None,
    camera: CameraOpt = None,
    renderer: RendererOpt = "auto",
    device: DeviceOpt = "auto",
    jobs: JobsOpt = 0,
    ray: RayOpt = None,
    shard: ShardOpt = None,
    json: JsonOpt = False,
) -> None:
    """Turn fields back into meshes, clouds, voxels or pictures, in the user's units.

    Where an object's source is still there, the result is compared with it: Chamfer distance and
    F-score at 1 % and 0.25 % in units of the bounding sphere, the voxels' IoU, or the PSNR of the
    views that were held out. Pictures (nerf) are DIR/ID/000.png and so on, or a turntable.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.rebuild import Form
    from nf2vec_cli.tasks.reconstruct import parse_moves
    from nf2vec_cli.tasks.reconstruct import reconstruct as rebuild
    from nf2vec_cli.tasks.reconstruct_object import Wanted
    from nf2vec_cli.tasks.reconstruct_pictures import parse_film

    wanted = Wanted(
        form=Form(form) if form else None,
        suffix=format,
        resolution=resolution,
        points=points,
        move=parse_moves(transform or ()),
        film=parse_film(
            count=count,
            size=size,
            elevation=elevation,
            background=background,
            camera=camera,
            up=up,
        ),
    )
    share = share_of(shard, ray=ray)
    names = ids_of(ids)
    failed = []

    def rows() -> Iterator[object]:
        for row in rebuild(
            store,
            out,
            ids=names,
            wanted=wanted,
            sources=sources,
            compare=compare,
            sheet=sheet,
            origin=origin,
            encoder=encoder,
            renderer=renderer,
            device=device,
            jobs=jobs,
            ray=ray,
            share=share,
            progress=open_progress(json=json),
        ):
            if row.problem:
                failed.append(row.id)
            yield row

    output.emit(rows(), as_json=json)
    if failed:
        raise PartialFailure(f"{len(failed)} objects were not rebuilt, {failed[0]!r} first")
