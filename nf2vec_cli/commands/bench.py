"""`nf2vec bench`: speed and quality on this machine."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    ArchOpt,
    DeviceOpt,
    JobsOpt,
    JsonOpt,
    PresetOpt,
    SetOpt,
    StoreArg,
)
from nf2vec_cli.config import Preset
from nf2vec_cli.errors import UsageFault
from nf2vec_cli.fields import FieldName

app = typer.Typer(no_args_is_help=True)

ShapesArg = Annotated[
    str, Argument(metavar="SHAPES", help="Folder or list of closed shapes; eight are enough.")
]
PresetsOpt = Annotated[list[Preset], Option("--preset", help="Architecture; may be repeated.")]
BenchFieldOpt = Annotated[FieldName, Option("--field", help="Kind of field.")]
MidpointOpt = Annotated[
    bool, Option("--authors-midpoint", help="Measure the midpoint of the authors' fits too.")
]
StepsOpt = Annotated[
    int,
    Option(
        "--authors-steps",
        min=1,
        max=500,
        help="Steps timed in the authors' engine; below 500 their cost is scaled from these, and "
        "their quality comes from all 500 steps of their recipe in our engine.",
    ),
]


@app.callback()
def bench() -> None:
    """Measure speed and quality on this machine."""


@app.command(epilog="Example: nf2vec bench fit examples/shapes --authors-steps 20")
def fit(
    shapes: ShapesArg,
    preset: PresetsOpt = [Preset.small],  # noqa: B006
    field: BenchFieldOpt = FieldName.sdf,
    authors_steps: StepsOpt = 500,
    authors_midpoint: MidpointOpt = False,
    settings: SetOpt = None,
    json: JsonOpt = False,
) -> None:
    """Fit shapes by the paper's recipe, as its authors run it, and by ours, side by side.

    One process, one thread: CPU seconds and FLOPs of an object, error, Chamfer distance, F-scores
    or IoU, and how far two fits of one shape stay linearly connected.
    """
    from nf2vec_cli.config.load import given_settings
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.shapes.discover import discover
    from nf2vec_cli.shapes.load import READABLE
    from nf2vec_cli.tasks.bench import bench_fit

    _refuse_radiance(field)
    refs = discover(shapes, suffixes=READABLE[field])
    rows = (
        row
        for name in preset
        for row in bench_fit(
            refs,
            name,
            field=field,
            authors_steps=authors_steps,
            authors_midpoint=authors_midpoint,
            overrides=given_settings(overrides=settings),
            progress=open_progress(json=json),
        )
    )
    output.emit(rows, as_json=json)


@app.command(epilog="Example: nf2vec bench radiance views/ --objects 4 --steps 40")
def radiance(
    views: Annotated[
        str, Argument(metavar="VIEWS", help="Folder of folders of pictures, or of meshes.")
    ],
    objects: Annotated[int, Option("--objects", min=1, help="Objects that are fitted.")] = 4,
    steps: Annotated[int, Option("--steps", min=1, help="Steps that are timed.")] = 40,
    settings: SetOpt = None,
    device: DeviceOpt = "auto",
    json: JsonOpt = False,
) -> None:
    """Fit radiance one by one and together, with the grid and without; render by torch and nerfacc.

    Told are seconds, samples of a ray, rays a second, and how far the ways are apart.
    """
    from nf2vec_cli.commands.settings import fit_settings
    from nf2vec_cli.config import Recipe
    from nf2vec_cli.config.fit import FitConfig, fit_defaults
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.shapes.discover import discover
    from nf2vec_cli.shapes.load import READABLE
    from nf2vec_cli.tasks.bench_radiance import bench_radiance

    kind = FieldName.nerf
    config = fit_settings(kind, None, None, {}, None, settings)
    rows = bench_radiance(
        discover(views, suffixes=READABLE[kind])[:objects],
        config or FitConfig(**fit_defaults(Preset.small, Recipe.fast, kind)),
        steps=steps,
        device=device,
        progress=open_progress(json=json),
    )
    output.emit(rows, as_json=json)


@app.command(epilog="Example: nf2vec bench read ds.zarr --objects 16")
def read(
    store: StoreArg,
    objects: Annotated[int, Option("--objects", min=1, help="Fields read at once.")] = 16,
    json: JsonOpt = False,
) -> None:
    """Read random fields of a store, and tell the rate."""
    from nf2vec_cli.tasks.bench_read import bench_read

    output.emit(bench_read(store, objects=objects), as_json=json)


@app.command("store", epilog="Example: nf2vec bench store --rows 1000,100000 --json")
def store_(
    rows: Annotated[
        str, Option("--rows", metavar="N,...", help="Sizes of the stores, rising.")
    ] = "1000,10000,100000,1000000",
    folder: Annotated[
        Path | None,
        Option(
            "--folder",
            exists=True,
            file_okay=False,
            help="Where the stores are made and removed; 1 GB for a million rows.",
        ),
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Make stores of many rows, and time what runs do with them beside their work.

    To open, to tell what they hold, to add 64 objects, to plan a run, to look for damage; files and
    memory; and the exponent by which each grows with the rows.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.bench_store import bench_store

    try:
        sizes = [int(size) for size in rows.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1 or sizes != sorted(set(sizes)):
        raise UsageFault(f"--rows {rows!r} are no rising sizes", hint="`--rows 1000,100000`")
    output.emit(bench_store(sizes, folder=folder, progress=open_progress(json=json)), as_json=json)


@app.command(epilog="Example: nf2vec bench alignment examples/shapes --refits 3 --out study.png")
def alignment(
    shapes: ShapesArg,
    refits: Annotated[
        int, Option("--refits", min=2, help="Fits of each shape from the shared init.")
    ] = 3,
    field: BenchFieldOpt = FieldName.sdf,
    encoder: Annotated[
        str | None,
        Option(
            "--encoder",
            metavar="ENCODER",
            help="Compare embeddings: encoder that ships, store (its newest) or .safetensors file. "
            "If not given, the one that ships for these fields, else the weights.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        Option("--out", metavar="PNG", help="Picture: distance matrix, and loss on the lines."),
    ] = None,
    settings: SetOpt = None,
    jobs: JobsOpt = 0,
    json: JsonOpt = False,
) -> None:
    """Measure whether fits can be repeated, and whether two are linearly connected.

    Each shape is fitted several times from one init, with other query points, and once from
    another init. Told are the distances within and between shapes, the loss barrier on the straight
    line between two fits of a shape, and the same with the neurons of different inits matched
    (paper, section VIII). --json prints the whole distance matrix and every line too.
    """
    from nf2vec_cli.commands.settings import fit_settings
    from nf2vec_cli.config import Recipe
    from nf2vec_cli.config.fit import FitConfig, fit_defaults
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.shapes.discover import discover
    from nf2vec_cli.shapes.load import READABLE
    from nf2vec_cli.tasks.bench_alignment import bench_alignment
    from nf2vec_cli.tasks.plot_alignment import draw_alignment

    _refuse_radiance(field)
    config = fit_settings(field, None, None, {}, None, settings)
    study = bench_alignment(
        discover(shapes, suffixes=READABLE[field]),
        config or FitConfig(**fit_defaults(Preset.small, Recipe.fast, field)),
        field=field,
        refits=refits,
        encoder=encoder,
        jobs=jobs,
        progress=open_progress(json=json),
    )
    output.emit(study if json else study.summary, as_json=json)
    if out:
        draw_alignment(study, out)


@app.command(epilog="Example: nf2vec bench embeddings ds.zarr")
def embeddings(
    store: StoreArg,
    encoder: Annotated[
        list[str] | None, Option("--encoder", metavar="KEY", help="Encoder; may be repeated.")
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Tell what embeddings say of an object's class, beside principal components of the weights.

    Logistic regression and nearest neighbours from split train to val and test, in percent.
    """
    from nf2vec_cli.tasks.bench_embedding import bench_embeddings

    output.emit(bench_embeddings(store, encoders=encoder or ()), as_json=json)


@app.command(epilog="Example: nf2vec bench encode ds.zarr --objects 64")
def encode(
    store: StoreArg,
    objects: Annotated[
        int | None,
        Option("--objects", min=1, help="Fields in a batch; those of a shard if not given."),
    ] = None,
    settings: SetOpt = None,
    json: JsonOpt = False,
) -> None:
    """Embed a store's fields by the authors' module as they run it, and by ours.

    One thread; untrained encoders of the sizes that the width of the fields has by default. --set
    takes settings of training.
    """
    from nf2vec_cli.config.load import given_settings
    from nf2vec_cli.tasks.bench_encode import bench_encode

    rows = bench_encode(store, objects=objects, overrides=given_settings(overrides=settings))
    output.emit(rows, as_json=json)


@app.command(epilog="Example: nf2vec bench train ds.zarr --steps 20")
def train(
    store: StoreArg,
    steps: Annotated[int, Option("--steps", min=1, help="Steps that are timed.")] = 20,
    preset: PresetOpt = None,
    encoder_arch: ArchOpt = None,
    settings: SetOpt = None,
    device: DeviceOpt = "auto",
    json: JsonOpt = False,
) -> None:
    """Time steps of training, and tell their memory; nothing is kept.

    The decoder's embedding part once an object, or at each point as the authors have it; in single
    precision and in bfloat16.
    """
    from nf2vec_cli.commands.settings import field_in, train_settings
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.bench_train import bench_train

    field = field_in(store)
    config = train_settings(preset, None, settings, field=field, encoder_arch=encoder_arch)
    rows = bench_train(store, config, steps=steps, device=device, progress=open_progress(json=json))
    output.emit(rows, as_json=json)


@app.command(epilog="Example: nf2vec bench kernels --kernel mlp --json > kernels.jsonl")
def kernels(
    kernel: Annotated[
        list[str] | None, Option("--kernel", metavar="NAME", help="Kernel; may be repeated.")
    ] = None,
    precision: Annotated[
        Literal["float32", "tf32", "bfloat16"],
        Option("--precision", help="Of products on a GPU; a CPU computes in float32."),
    ] = "tf32",
    compile_only: Annotated[
        bool,
        Option("--compile", help="Compile for sm_80, sm_90 and sm_100, which need not be here."),
    ] = False,
    device: DeviceOpt = "auto",
    json: JsonOpt = False,
) -> None:
    """Time each kernel and its PyTorch twin at the paper's sizes, beside the floor of three GPUs.

    Without a GPU, what the program runs on a CPU takes the kernel's place. Floors are computed from
    datasheets. With --compile: registers, spills and shared memory; needs triton.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.bench_kernels import bench_kernels, compiled_kernels

    progress = open_progress(json=json)
    rows = (
        compiled_kernels(progress=progress)
        if compile_only
        else bench_kernels(device=device, precision=precision, only=kernel or (), progress=progress)
    )
    output.emit(rows, as_json=json)


@app.command(epilog="Example: nf2vec bench retrieve --rows 100000 --numbers 256 --index ann")
def retrieve(
    rows: Annotated[int, Option("--rows", min=1, help="Objects of the gallery.")] = 1_000_000,
    numbers: Annotated[int, Option("--numbers", min=1, help="Numbers of an embedding.")] = 1024,
    queries: Annotated[int, Option("--queries", min=1, help="Objects that ask.")] = 100,
    k: Annotated[int, Option("--k", min=1, help="Neighbours of each.")] = 10,
    index: Annotated[
        Literal["exact", "ann"],
        Option("--index", help="ann: the graph of the extra `ann` beside the exact search."),
    ] = "exact",
    folder: Annotated[
        Path | None,
        Option(
            "--folder",
            exists=True,
            file_okay=False,
            help="Where the store is made and removed; 5 GB if nothing is said.",
        ),
    ] = None,
    json: JsonOpt = False,
) -> None:
    """Search random embeddings in a store that is made for it: seconds, memory, time to open."""
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.bench_retrieve import bench_retrieve

    found = bench_retrieve(
        rows=rows,
        numbers=numbers,
        queries=queries,
        k=k,
        approximate=index == "ann",
        folder=folder,
        progress=open_progress(json=json),
    )
    output.emit(found, as_json=json)


def _refuse_radiance(field: FieldName) -> None:
    if field is FieldName.nerf:
        raise UsageFault(
            "radiance is fitted to pictures, not to shapes", hint="`nf2vec bench radiance VIEWS`"
        )
