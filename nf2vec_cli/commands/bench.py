"""`nf2vec bench`: speed and quality on this machine."""

from typing import Annotated

import typer
from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import JsonOpt, SetOpt, StoreArg
from nf2vec_cli.config import Preset
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


@app.command(epilog="Example: nf2vec bench read ds.zarr --objects 16")
def read(
    store: StoreArg,
    objects: Annotated[int, Option("--objects", min=1, help="Fields read at once.")] = 16,
    json: JsonOpt = False,
) -> None:
    """Read random fields of a store, and tell the rate."""
    from nf2vec_cli.tasks.bench_read import bench_read

    output.emit(bench_read(store, objects=objects), as_json=json)
