"""`nf2vec train`: an encoder and its decoder, from the fields of a store alone."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
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
"""

ArchOpt = Annotated[
    Literal["aligned", "paper"] | None,
    Option("--encoder-arch", help="aligned: directions of the aligned weights; paper: rows."),
]


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
    """Train an encoder and its decoder on the fields of a store; no shapes are needed."""
    from nf2vec_cli.config import Preset
    from nf2vec_cli.config.load import load_config
    from nf2vec_cli.config.train import TrainConfig, train_defaults
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.train import train_encoder

    typed = {"encoder_arch": encoder_arch, "supervise": supervise, "seed": seed}
    base = train_defaults(Preset(preset or "small"))
    chosen = load_config(
        TrainConfig,
        file=config,
        overrides=settings,
        base=base | {name: value for name, value in typed.items() if value is not None},
    )
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
    output.emit(result, as_json=json)
