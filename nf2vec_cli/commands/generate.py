"""`nf2vec generate`: new shapes of a class, as a store of embeddings."""

from pathlib import Path
from typing import Annotated

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    ConfigOpt,
    DeviceOpt,
    GeneratorOpt,
    JobsOpt,
    JsonOpt,
    PresetOpt,
    SetOpt,
    StoreArg,
    WaitOpt,
)
from nf2vec_cli.commands.reconstruct import EncoderOpt
from nf2vec_cli.store.place import Place, place

EXAMPLE = """
nf2vec generate ds.zarr --class chair --count 100 --out chairs.zarr
nf2vec generate ds.zarr --class chair --out chairs.zarr --model gan --metrics --sheet chairs.png
nf2vec reconstruct chairs.zarr --from embeddings --out meshes/
"""


def generate(
    store: StoreArg,
    class_name: Annotated[
        str, Option("--class", metavar="CLASS", help="Class to generate, as `nf2vec info` has it.")
    ],
    out: Annotated[
        Place,
        Option(
            "--out", metavar="OUT", parser=place, help="Store to make: embeddings without fields."
        ),
    ],
    count: Annotated[int, Option("--count", min=1, max=10_000, help="Shapes to generate.")] = 100,
    model: GeneratorOpt = None,
    seed: Annotated[
        int, Option("--seed", min=0, help="Seed of what is drawn; `--set seed=` is the model's.")
    ] = 0,
    metrics: Annotated[
        bool,
        Option(
            "--metrics",
            help="Decode the shapes and score them: coverage, minimum matching distance and "
            "1-nearest-neighbour accuracy against test objects, distance to training objects.",
        ),
    ] = False,
    emd: Annotated[
        bool,
        Option(
            "--emd",
            help="--metrics by the earth mover's distance too: minutes for 70 shapes with those "
            "they are compared to, an hour for 500.",
        ),
    ] = False,
    sheet: Annotated[
        Path | None, Option("--sheet", metavar="PNG", help="Picture of the first 24 shapes.")
    ] = None,
    encoder: EncoderOpt = None,
    preset: PresetOpt = None,
    config: ConfigOpt = None,
    settings: SetOpt = None,
    device: DeviceOpt = "auto",
    jobs: JobsOpt = 0,
    force: Annotated[
        bool, Option("--force", help="Train again, and replace what was generated there before.")
    ] = False,
    wait: WaitOpt = None,
    json: JsonOpt = False,
) -> None:
    """Draw new shapes of a class, as a store of embeddings of their own.

    A generator learns the embeddings of the class's training objects and is kept in STORE for the
    next time; what it draws can be decoded by `nf2vec reconstruct --from embeddings`.
    """
    from nf2vec_cli.commands.settings import generate_settings
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.generate import generate as draw

    result = draw(
        store,
        class_name,
        out,
        generate_settings(preset, model, config, settings),
        count=count,
        seed=seed,
        encoder=encoder,
        metrics=metrics or emd,
        emd=emd,
        sheet=sheet,
        device=device,
        jobs=jobs,
        force=force,
        wait=wait,
        progress=open_progress(json=json),
    )
    output.emit(result, as_json=json)
