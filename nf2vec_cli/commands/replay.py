"""`nf2vec replay`: an object refitted from its record, beside the field that is stored."""

from collections.abc import Iterator
from typing import Annotated

from typer import Argument, Option

from nf2vec_cli import output
from nf2vec_cli.commands.options import JobsOpt, JsonOpt, SourcesOpt, StoreArg, ids_of
from nf2vec_cli.errors import PartialFailure

EXAMPLE = """
nf2vec replay ds.zarr chair/armchair
nf2vec replay ds.zarr chair/armchair lamp/desk --sources moved/shapes
nf2vec info ds.zarr --objects --json | jq -r .id | nf2vec replay ds.zarr - --json
"""

IdsArg = Annotated[
    list[str], Argument(metavar="ID...", help="Objects to refit; - reads ids from stdin.")
]
DeviceOpt = Annotated[
    str | None,
    Option(
        "--device",
        metavar="DEVICE",
        help="cpu, cuda or cuda:N; the kind that the store was fitted on if not given.",
    ),
]


def replay(
    store: StoreArg,
    ids: IdsArg,
    sources: SourcesOpt = None,
    device: DeviceOpt = None,
    jobs: JobsOpt = 0,
    json: JsonOpt = False,
) -> None:
    """Refit objects from a store's record, and compare the bits with what it holds.

    The source must have the content that was fitted. Fields that are not the same are compared near
    the surface: `close` differ less than the stored field errs, as other threads, another sine or
    another BLAS make them. Nothing is written.
    """
    from nf2vec_cli.progress import open_progress
    from nf2vec_cli.tasks.replay import Replayed
    from nf2vec_cli.tasks.replay import replay as refit

    told: list[Replayed] = []

    def rows() -> Iterator[Replayed]:
        progress = open_progress(json=json)
        for row in refit(
            store, ids_of(ids), sources=sources, device=device, jobs=jobs, progress=progress
        ):
            told.append(row)
            yield row

    output.emit(rows(), as_json=json)
    other = [row.id for row in told if not row.reproduced]
    if other:
        raise PartialFailure(
            f"{len(other)} of {len(told)} objects were not reproduced, {other[0]!r} first"
        )
