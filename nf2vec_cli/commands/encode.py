"""`nf2vec encode`: embeddings of a store's fields, from their weights alone."""

from typing import Annotated

from typer import Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import (
    DeviceOpt,
    JobsOpt,
    JsonOpt,
    RayOpt,
    ShardOpt,
    StoreArg,
    WaitOpt,
    share_of,
)
from nf2vec_cli.errors import PartialFailure

EXAMPLE = """
nf2vec encode ds.zarr
nf2vec encode new.zarr --encoder ds.zarr
"""

EncoderOpt = Annotated[
    str | None,
    Option(
        "--encoder",
        metavar="ENCODER",
        help="Key in this store, another store (its newest), .safetensors file, or one that ships. "
        "If not given, the newest here, else the one that ships for these fields.",
    ),
]


def encode(
    store: StoreArg,
    encoder: EncoderOpt = None,
    device: DeviceOpt = "auto",
    jobs: JobsOpt = 0,
    ray: RayOpt = None,
    shard: ShardOpt = None,
    force: Annotated[bool, Option("--force", help="Embed again what has an embedding.")] = False,
    wait: WaitOpt = None,
    json: JsonOpt = False,
) -> None:
    """Embed the fields of a store by an encoder; what is embedded already is skipped."""
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.encode import encode_store

    result = encode_store(
        store,
        encoder=encoder,
        device=device,
        jobs=jobs,
        ray=ray,
        share=share_of(shard, ray=ray),
        force=force,
        wait=wait,
        progress=open_progress(json=json),
    )
    output.emit(result, as_json=json)
    if result.lost:
        raise PartialFailure(
            f"{len(result.lost)} fields were not embedded, {result.lost[0]!r} first: their worker "
            "process died (out of memory?)",
            hint=f"`nf2vec encode {store} --jobs 1` embeds them one shard at a time",
        )
    if result.failed:
        raise PartialFailure(
            f"{result.failed} fields are not aligned with the init, {result.strangers[0]!r} first",
            hint=f"fit their shapes again from the store's own init; if only their neurons changed "
            f"places, `nf2vec align {store}` brings them back",
        )
