"""The store that fields from elsewhere go to: which kind, network, init and codec it has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nf2vec_cli import __version__
from nf2vec_cli.config import Preset, Recipe
from nf2vec_cli.config.fit import FitConfig, fit_defaults
from nf2vec_cli.config.import_ import ImportConfig
from nf2vec_cli.core.mlp import tiled_values
from nf2vec_cli.errors import InputError, Nf2vecError, StoreError, UsageFault
from nf2vec_cli.foreign import LayoutName, nf2vec_h5, state_dict
from nf2vec_cli.foreign.found import Found, checked
from nf2vec_cli.foreign.hdf5 import SUFFIXES as H5
from nf2vec_cli.foreign.layout import Listed, reader_of
from nf2vec_cli.models.network import NetworkSpec, radiance_init
from nf2vec_cli.shapes.discover import ShapeRef
from nf2vec_cli.store.codec import Floats, roundtrip
from nf2vec_cli.store.create import create_store, free_name, holds_store, shard_for
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.place import Place, place
from nf2vec_cli.store.store import UNKNOWN_INIT, Store, open_store
from nf2vec_cli.tasks.fit_object import reason_of
from nf2vec_cli.tasks.import_object import told

MEASURED = 8  # fields on which a codec is tried
POINTS = 2_000  # at which, anywhere in the cube
SMALL = 1e-3  # mean change of labels (0 to 1) by a codec, up to which it is taken
STEP = 16  # units: a store's networks have a multiple of these
KINDS = {LayoutName.nerf_folder: "nerf", LayoutName.fit_a_nef: "occ"}


@dataclass(frozen=True)
class Wanted:
    """What is to be imported, and as what.

    source: folder, file, list or "-", as `shapes.discover` takes it; root and labels as well.
    layout: how the fields are laid out. kind: of field; empty: as settings, files or layout say.
    net: what the files do not say of the networks. params: name of the weights in the authors' HDF5
    files. init: "official", "first", "none", a file of weights or a store; None: "official" where a
    file shows that its field started there, else "none". codec: None: compact where that changes a
    field little enough, else exact. retry: read again what failed before; force: what is done.
    """

    source: str | Path
    layout: LayoutName = LayoutName.auto
    kind: str = ""
    net: ImportConfig = field(default_factory=ImportConfig)
    params: str = nf2vec_h5.PARAMS
    init: str | None = None
    codec: str | None = None
    root: Path | None = None
    labels: Path | None = None
    retry: bool = False
    force: bool = False


@dataclass(frozen=True)
class Start:
    """What a store begins with. origin: where the init comes from, in words.

    change: mean change of labels (0 to 1) by the compact codec, if it was measured.
    """

    kind: str
    spec: NetworkSpec
    init: Floats
    origin: str
    config: FitConfig
    change: float | None = None


def start_of(listed: Listed, wanted: Wanted, store: Store | None) -> Start:
    """Take what a store has, or decide what a new one begins with.

    Raises:
        InputError: no field of the source can be read; or not the init.
        StoreError: the store holds another kind of field, or another init is asked for.
        UsageFault: nothing says which kind of field it is.
    """
    if store is not None:
        return _known(store, wanted)
    fields = scout(listed, wanted)
    first = next(fields)
    kind = wanted.kind or first.kind or KINDS.get(listed.layout, "")
    if first.spec.radiance:
        kind = kind or "nerf"
    if not kind:
        raise UsageFault(
            f"layout {listed.layout} does not say which kind of field it holds",
            hint="`--field sdf`, udf or occ",
        )
    if (kind == "nerf") != first.spec.radiance:
        raise UsageFault(f"--field {kind}: its networks are {told(first.spec)}")
    if first.spec.hidden % STEP:
        raise InputError(
            f"its networks are {told(first.spec)}: a store's have a multiple of {STEP} units"
        )
    init, origin = _init(wanted.init, first, wanted.net)
    alike = [first]
    for other in fields:
        if len(alike) == MEASURED:
            break
        if other.spec == first.spec:
            alike.append(other)
    change = _change(alike, init)
    codec = wanted.codec or ("compact" if change <= SMALL else "exact")
    config = _config(kind, first, codec)
    return Start(kind, first.spec, init, origin, config, change)


def make_store(path: Place, start: Start, layout: str, *, objects: int) -> None:
    """Make the store; `objects`: how many are to come."""
    radiance = start.kind == "nerf"
    create_store(
        path,
        field=start.kind,
        network=start.spec.as_dict(),
        init=start.init,
        blocks=start.spec.blocks,
        codec=start.config.codec,
        bits=start.config.bits,
        batch=start.config.batch,
        shard_length=shard_for(
            objects, batch=start.config.batch, codec=start.config.codec, radiance=radiance
        ),
        config=start.config.model_dump(mode="json"),
        versions={"nf2vec": __version__, "torch": torch.__version__},
        cells=start.config.grid if radiance else 0,
        imported={"layout": layout, "init": start.origin},
    )


def scout(listed: Listed, wanted: Wanted) -> Iterator[Found]:
    """Yield the fields of a source that can be read, in their order.

    Raises:
        InputError: none can be read; it says why the first cannot.
    """
    read, reason, found = reader_of(listed.layout, wanted.params), "", False
    for ref in listed.refs:
        try:
            one = read(ref, wanted.net)
            checked(one.theta)
        except Exception as error:  # one object, however odd, must not end the search
            if isinstance(error, Nf2vecError) and not isinstance(error, InputError):
                raise  # a library is missing
            reason = reason or f"{ref.id}: {reason_of(error)}"
            continue
        found = True
        yield one
    if not found:
        reason = reason or ": ".join(listed.broken[0])
        raise InputError(f"none of {len(listed.refs)} fields can be read; {reason}")


def _known(store: Store, wanted: Wanted) -> Start:
    if wanted.kind and wanted.kind != store.field:
        raise StoreError(
            f"{store.path} holds {store.field} fields, not {wanted.kind}",
            hint=f"choose another store, or `--field {store.field}`",
        )
    if wanted.codec and wanted.codec != store.codec:
        raise StoreError(f"{store.path} keeps weights {store.codec}, not {wanted.codec}")
    spec, origin = NetworkSpec(**store.network), store.imported.get("init", "the store's own")
    if wanted.init not in (None, "none") and origin == UNKNOWN_INIT:
        raise StoreError(
            f"{store.path} starts from no known init, and {wanted.init!r} comes too late for it",
            hint=f"`--init {wanted.init} --store {free_name(store.path)}` makes a new store",
        )
    if wanted.init not in (None, "none", "first"):
        dummy = Found(store.init, spec)
        init, _ = _init(wanted.init, dummy, wanted.net)
        if not np.array_equal(init, store.init):
            raise StoreError(
                f"{store.path} starts its fields from another init than {wanted.init!r}",
                hint="leave out `--init`, or name a new store",
            )
    config = fit_config(store)
    return Start(store.field, spec, store.init, origin, config)


def _init(asked: str | None, first: Found, net: ImportConfig) -> tuple[Floats, str]:
    """Give the init and where it comes from."""
    spec = first.spec
    asked = asked or ("official" if first.official else "none")
    if asked == "none":
        return np.zeros(spec.parameters, np.float32), UNKNOWN_INIT
    if asked == "first":
        return first.theta, "the first field"
    if asked == "official":
        if not spec.radiance:
            raise UsageFault(
                "the authors' init of shapes is a file, inits/in3_out1_h512_l4.pt of their "
                "repository",
                hint="`--init FILE`",
            )
        return radiance_init(spec, seed=0).numpy(), "official"
    where = place(asked)
    if holds_store(where):
        other = open_store(where)
        init, found = other.init, NetworkSpec(**other.network)
    else:
        one = _read_init(Path(asked), net)
        init, found = checked(one.theta), one.spec
    if found != spec:
        raise InputError(f"{asked}: its network is {told(found)}, and the fields' {told(spec)}")
    return init, where.name


def _read_init(path: Path, net: ImportConfig) -> Found:
    ref = ShapeRef(path.stem, str(path), path.name)
    read = nf2vec_h5.read if path.suffix.lower() in H5 else state_dict.read
    try:
        return read(ref, net)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except Nf2vecError as error:
        raise InputError(f"{path}: {error}", hint=error.hint) from error


def _config(kind: str, first: Found, codec: str) -> FitConfig:
    """Give the settings that name the networks; others are those of the authors' fits."""
    spec = first.spec
    chosen = fit_defaults(Preset.paper, Recipe.paper, kind)
    chosen |= {"hidden": spec.hidden, "layers": spec.layers, "codec": codec}
    if kind == "nerf":
        chosen |= {"octaves": spec.octaves, "biases": spec.biases}
        chosen |= {"grid": len(first.grid)} if first.grid is not None else {}
    elif spec.activation == "sine":
        chosen |= {"omega": spec.omega}
    return FitConfig(**chosen)


def _change(fields: list[Found], init: Floats) -> float:
    """Measure what the compact codec changes of fields, at random points: mean of their labels."""
    points = 2 * torch.rand(POINTS, 3, generator=torch.Generator().manual_seed(0)) - 1
    spec = fields[0].spec
    found = []
    for one in fields:
        back = roundtrip(one.theta, init, spec.blocks, "compact", 8)
        both = torch.from_numpy(np.stack([one.theta, back]))
        before, after = _labels(both, points, spec)
        found.append(float((before - after).abs().mean()))
    return float(np.mean(found))


def _labels(theta: Tensor, points: Tensor, spec: NetworkSpec) -> Tensor:
    """Give fields [B, P] as numbers of 0 to 1 at points: [B, M, V]."""
    return torch.stack([tiled_values(one, points, spec) for one in theta]).sigmoid()
