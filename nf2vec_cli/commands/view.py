"""`nf2vec view`: a page to look at a store in."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import JobsOpt, JsonOpt, KeyOpt, StoreArg
from nf2vec_cli.config import Origin
from nf2vec_cli.store.place import local

EXAMPLE = """
nf2vec view ds.zarr --out page.html
nf2vec view ds.zarr --out page.html --map tsne --from embeddings --resolution 64
"""


def view(
    store: StoreArg,
    out: Annotated[
        Path, Option("--out", metavar="FILE", parser=local, help="Page to write, an .html file.")
    ],
    kind: Annotated[
        Literal["pca", "tsne", "umap"],
        Option("--map", help="How embeddings come into the plane; tsne and umap: extra `view`."),
    ] = "pca",
    encoder: KeyOpt = None,
    resolution: Annotated[
        int, Option("--resolution", min=16, max=256, help="Grid points of a shape on each axis.")
    ] = 56,
    faces: Annotated[
        int | None,
        Option(
            "--faces", min=50, max=20_000, help="Triangles of a shape: 600, udf 800, nerf 1000."
        ),
    ] = None,
    origin: Annotated[
        Origin | None,
        Option("--from", help="What shapes are made of: weights, or embeddings where none are."),
    ] = None,
    seed: Annotated[int, Option("--seed", min=0, help="Seed of t-SNE and UMAP.")] = 0,
    jobs: JobsOpt = 0,
    json: JsonOpt = False,
) -> None:
    """Make one HTML page of a store: its embeddings on a map, its objects in 3D.

    The page needs no network and can be sent as it is: 8 KB an object, and 0.6 MB. Point at an
    object to see its shape, class, split, fit error and nearest neighbours. Of nerf the shape has
    colours, with a rendered picture beside it and the PSNR: 16 KB an object.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.view import view as make
    from nf2vec_cli.tasks.view_map import MapKind

    result = make(
        store,
        out,
        kind=MapKind(kind),
        encoder=encoder,
        origin=origin,
        resolution=resolution,
        faces=faces,
        seed=seed,
        jobs=jobs,
        progress=open_progress(json=json),
    )
    output.emit(result, as_json=json)
