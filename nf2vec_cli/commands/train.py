"""`nf2vec train`: an encoder and its decoder, from the fields of a store alone."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    ArchOpt,
    ConfigOpt,
    DeviceOpt,
    JsonOpt,
    PresetOpt,
    SeedOpt,
    SetOpt,
    SourcesOpt,
    StoreArg,
    WaitOpt,
)

EXAMPLE = """
nf2vec train ds.zarr
nf2vec train ds.zarr --out encoder.safetensors
nf2vec train ds.zarr --encoder-arch paper --set steps=6000
torchrun --nproc-per-node 2 -m nf2vec_cli train ds.zarr
"""

SuperviseOpt = Annotated[
    Literal["field", "samples"] | None,
    Option(
        "--supervise", help="Targets: the stored fields, or the sources that they were fitted to."
    ),
]


def train(
    store: StoreArg,
    preset: PresetOpt = None,
    encoder_arch: ArchOpt = None,
    supervise: SuperviseOpt = None,
    sources: SourcesOpt = None,
    out: Annotated[
        Path | None,
        Option("--out", metavar="FILE", help="Write encoder and decoder as safetensors as well."),
    ] = None,
    seed: SeedOpt = None,
    config: ConfigOpt = None,
    settings: SetOpt = None,
    device: DeviceOpt = "auto",
    force: Annotated[bool, Option("--force", help="Train again what is there.")] = False,
    wait: WaitOpt = None,
    json: JsonOpt = False,
) -> None:
    """Train an encoder and its decoder on the fields of a store; no shapes are needed.

    Started by torchrun, its processes train as one: each takes its share of every batch.
    """
    from nf2vec_cli.commands.settings import field_in, train_settings
    from nf2vec_cli.core.ranks import leads
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.train import train_encoder

    asked = {"encoder_arch": encoder_arch, "supervise": supervise, "seed": seed}
    chosen = train_settings(preset, config, settings, field=field_in(store), **asked)
    result = train_encoder(
        store,
        chosen,
        sources=sources,
        out=out,
        device=device,
        force=force,
        wait=wait,
        progress=open_progress(json=json),
    )
    if leads():
        output.emit(result, as_json=json)
