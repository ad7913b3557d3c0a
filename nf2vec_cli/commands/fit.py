"""`nf2vec fit`: shapes in, neural fields in a store."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    ConfigOpt,
    DeviceOpt,
    DryRunOpt,
    FieldOpt,
    JobsOpt,
    JsonOpt,
    PresetOpt,
    RayOpt,
    RecipeOpt,
    SetOpt,
    ShardOpt,
    StoreOpt,
    WaitOpt,
    share_of,
)
from nf2vec_cli.errors import PartialFailure

EXAMPLE = """
nf2vec fit shapes/ --field sdf --store ds.zarr
nf2vec fit scans/ --field udf --store scans.zarr --augment 4
nf2vec fit scans/ --field udf --store partial.zarr --crop 0.5
nf2vec fit grids/ --field occ --store grids.zarr --voxels 64
nf2vec fit views/ --field nerf --store n.zarr
nf2vec fit shapes/ --field sdf --store ds.zarr --ray auto
nf2vec fit shapes/ --field sdf --store ds.zarr --shard 1/4
find parts -name '*.stl' | nf2vec fit - --field sdf --store parts.zarr --labels parts.csv
"""

ShapesArg = Annotated[
    str,
    Argument(
        metavar="SHAPES",
        help="Folder of shapes (CLASS/SPLIT/NAME.ext or CLASS/NAME.ext), one shape, a text file "
        "of paths, or - for paths on standard input. For nerf: meshes, or folders of pictures with "
        "transforms*.json (CLASS/NAME/).",
    ),
]
LabelsOpt = Annotated[
    Path | None, Option("--labels", metavar="CSV", help="Classes and splits: name,class,split.")
]
RootOpt = Annotated[
    Path | None, Option("--root", metavar="DIR", help="Folder that ids are relative to.")
]
CodecOpt = Annotated[
    Literal["compact", "exact"] | None,
    Option("--codec", help="How weights are kept: quantised, or every bit."),
]
SignOpt = Annotated[
    Literal["auto", "parity", "winding", "wrap"] | None,
    Option("--sign", help="How inside is told from outside of a dirty mesh (sdf)."),
]
AugmentOpt = Annotated[
    int,
    Option(
        "--augment",
        min=0,
        metavar="K",
        help="Copies of other proportions to fit beside each shape, but not those of val and test.",
    ),
]
CropOpt = Annotated[
    float | None,
    Option(
        "--crop",
        metavar="SHARE",
        help="Fit this share of each surface, cut by a plane drawn from the id (udf, occ).",
    ),
]
TargetOpt = Annotated[
    float | None,
    Option("--target-error", min=0, help="Mean field error at which a fit stops early."),
]
VoxelsOpt = Annotated[
    int | None, Option("--voxels", min=8, max=512, help="Cells along each axis (occ).")
]
OccupancyOpt = Annotated[
    Literal["shell", "solid"] | None,
    Option("--occupancy", help="Cells that count: on the surface, or inside too (occ)."),
]
ViewsOpt = Annotated[
    int | None,
    Option("--views", min=4, max=200, help="Pictures that are taken of a mesh (nerf)."),
]
SizeOpt = Annotated[
    int | None, Option("--size", min=16, max=1024, help="Pixels of their sides (nerf).")
]
BackgroundOpt = Annotated[
    str | None,
    Option(
        "--background",
        metavar="COLOUR",
        help="Colour that is clear in pictures without alpha: white, black or #rrggbb (nerf).",
    ),
]
LimitOpt = Annotated[
    float | None,
    Option(
        "--limit",
        min=0,
        metavar="SECONDS",
        help="What one object may take, before it is given up; 0: any. If not given: ten minutes, "
        "and what a slow core takes for a fit; with --jobs 1: any.",
    ),
]
RetryOpt = Annotated[bool, Option("--retry-failed", help="Try objects again that failed before.")]
ForceOpt = Annotated[bool, Option("--force", help="Fit again what is done.")]
GraphsOpt = Annotated[
    bool, Option("--cuda-graphs", help="Record up to 50 steps as one CUDA graph, and replay it.")
]


def fit(
    shapes: ShapesArg,
    field: FieldOpt,
    store: StoreOpt,
    labels: LabelsOpt = None,
    root: RootOpt = None,
    preset: PresetOpt = None,
    recipe: RecipeOpt = None,
    voxels: VoxelsOpt = None,
    occupancy: OccupancyOpt = None,
    sign: SignOpt = None,
    target_error: TargetOpt = None,
    augment: AugmentOpt = 0,
    crop: CropOpt = None,
    views: ViewsOpt = None,
    size: SizeOpt = None,
    background: BackgroundOpt = None,
    codec: CodecOpt = None,
    config: ConfigOpt = None,
    settings: SetOpt = None,
    device: DeviceOpt = "auto",
    jobs: JobsOpt = 0,
    limit: LimitOpt = None,
    ray: RayOpt = None,
    shard: ShardOpt = None,
    cuda_graphs: GraphsOpt = False,
    retry_failed: RetryOpt = False,
    force: ForceOpt = False,
    wait: WaitOpt = None,
    dry_run: DryRunOpt = False,
    json: JsonOpt = False,
) -> None:
    """Fit one neural field to each shape in SHAPES, into a store.

    Objects that the store holds already are skipped, so the same line goes on after a stop, and
    adds what is new. The settings are kept in the store: name them only when it is made.
    """
    from nf2vec_cli.commands.settings import fit_settings
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.shapes.discover import discover, with_copies
    from nf2vec_cli.shapes.load import READABLE
    from nf2vec_cli.tasks.fit import fit_shapes, preview_fit

    asked = {
        "codec": codec,
        "sign": sign,
        "voxels": voxels,
        "occupancy": occupancy,
        "target_error": target_error,
        "crop": crop,
        "views": views,
        "size": size,
        "background": background,
    }
    share = share_of(shard, ray=ray)
    chosen = fit_settings(field, preset, recipe, asked, config, settings)
    found = discover(shapes, root=root, labels=labels, suffixes=READABLE[field])
    refs = with_copies(found, augment)
    if dry_run:
        preview = preview_fit(
            *(refs, store), field=field, config=chosen, retry=retry_failed, force=force, share=share
        )
        output.emit(preview, as_json=json)
        return
    result = fit_shapes(
        refs,
        store,
        field=field,
        config=chosen,
        device=device,
        jobs=jobs,
        ray=ray,
        share=share,
        retry=retry_failed,
        force=force,
        wait=wait,
        limit=limit,
        graphs=cuda_graphs,
        progress=open_progress(json=json),
    )
    output.emit(result, as_json=json)
    if result.open_surfaces:
        output.warn(
            f"{result.open_surfaces} fitted shapes are open surfaces, where a sign means little: "
            f"`nf2vec info {store} --open` lists them, `--field udf` needs no sign"
        )
    if result.failed:
        raise PartialFailure(
            f"{result.failed} of {result.fitted + result.failed} shapes were not fitted",
            hint=f"`nf2vec info {store} --failed` lists them with the reason",
        )
