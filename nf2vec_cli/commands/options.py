"""Options that several commands share, so that one word means one thing everywhere."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.fields import FieldName

if TYPE_CHECKING:
    from nf2vec_cli.tasks.share import Share

StoreArg = Annotated[Path, Argument(metavar="STORE", help="Store of fields, a .zarr folder.")]
StoreOpt = Annotated[
    Path, Option("--store", metavar="STORE", help="Store to write to; made if it does not exist.")
]
FieldOpt = Annotated[FieldName, Option("--field", help="Kind of field.")]
PresetOpt = Annotated[
    Preset | None,
    Option("--preset", help="Architecture that settings start from; small if not given."),
]
RecipeOpt = Annotated[
    Recipe | None,
    Option("--recipe", help="Optimisation that settings start from; fast if not given."),
]
ArchOpt = Annotated[
    Literal["aligned", "paper", "split"] | None,
    Option(
        "--encoder-arch",
        help="aligned: directions of the aligned weights; paper: rows; split: geometry and "
        "appearance apart (nerf).",
    ),
]
GeneratorOpt = Annotated[
    Literal["flow", "gan"] | None,
    Option("--model", help="flow: flow matching (default); gan: the paper's WGAN."),
]
DeviceOpt = Annotated[
    str,
    Option("--device", metavar="DEVICE", help="cpu, cuda, cuda:N, or auto: cuda if it is there."),
]
SeedOpt = Annotated[
    int | None, Option("--seed", min=0, help="Seed of all randomness; each object's is derived.")
]
ConfigOpt = Annotated[
    Path | None, Option("--config", metavar="FILE", help="TOML file of settings.")
]
SetOpt = Annotated[
    list[str] | None,
    Option("--set", metavar="KEY=VALUE", help="One setting, over --config; may be repeated."),
]
JobsOpt = Annotated[
    int, Option("--jobs", "-j", min=0, help="Worker processes; 0: one for each core.")
]
RayOpt = Annotated[
    str | None,
    Option(
        "--ray",
        metavar="CLUSTER",
        help="Spread the work over a Ray cluster: auto, HOST:PORT, or local: one of this run alone "
        "with --jobs workers. Workers find shapes and store by their paths.",
    ),
]
ShardOpt = Annotated[
    str | None,
    Option(
        "--shard",
        metavar="I/N",
        help="Do share I of N, from 1/N to N/N: for N processes at once on one store.",
    ),
]
WaitOpt = Annotated[
    float | None,
    Option("--wait", min=0, metavar="SECONDS", help="Wait this long for a store that is locked."),
]
SourcesOpt = Annotated[
    Path | None,
    Option("--sources", metavar="DIR", help="Where the shapes are now, if they were moved."),
]
KeyOpt = Annotated[
    str | None,
    Option("--encoder", metavar="KEY", help="Whose embeddings; the newest encoder's if not given."),
]
DryRunOpt = Annotated[bool, Option("--dry-run", help="Print what would be done, and do nothing.")]
JsonOpt = Annotated[bool, Option("--json", help="Print JSON, one object a line.")]


def share_of(shard: str | None, *, ray: str | None) -> "Share | None":
    """Read `--shard`, which excludes `--ray`."""
    if shard is None:
        return None
    from nf2vec_cli.errors import UsageFault
    from nf2vec_cli.tasks.share import parse_share

    if ray is not None:
        raise UsageFault(
            f"`--shard {shard}` and `--ray {ray}` are two ways to spread one plan",
            hint="leave out one of them",
        )
    return parse_share(shard)


def ids_of(given: list[str] | None) -> list[str]:
    """Give the ids that were asked for; `-` stands for those on standard input, one a line."""
    names = [name for name in given or () if name != "-"]
    if "-" in (given or ()):
        names += [line.strip() for line in sys.stdin.read().splitlines() if line.strip()]
    return names
