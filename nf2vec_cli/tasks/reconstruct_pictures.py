"""Which objects of a store are to have their pictures taken, and how."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.errors import ConfigError, UsageFault
from nf2vec_cli.shapes.camera_file import read_cameras
from nf2vec_cli.shapes.pictures import colour_of
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.damage import fit_config
from nf2vec_cli.store.place import beside
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.look import WHITE, up_axis
from nf2vec_cli.tasks.open_fields import Fields
from nf2vec_cli.tasks.picture_object import PIXELS, Film, Shoot
from nf2vec_cli.tasks.radiance_field import Renderable
from nf2vec_cli.tasks.sources import file_of, sources_of
from nf2vec_cli.tasks.turntable import require_film


def shoots(
    store: Store,
    rows: Rows,
    out: Path,
    suffix: str,
    film: Film,
    roots: Sequence[Path],
    fields: Fields,
) -> Iterator[Shoot]:
    """Give a job for each row: pictures at OUT/ID/, or a turntable OUT/ID.suffix."""
    names = ("id", "source", "transform", "hash")
    column: dict[str, Any] = {name: store.column(name) for name in names}
    config, up = fit_config(store), film.up or up_axis(store)
    for row in rows:
        field = fields.at(int(row))
        assert isinstance(field, Renderable)
        name = column["id"][row]
        yield Shoot(
            id=name,
            field=field,
            transform=column["transform"][row],
            source=sources_of(roots, column["source"][row]),
            digest=np.asarray(column["hash"][row]).tobytes(),
            file=file_of(out, name, "" if suffix == "png" else f".{suffix}"),
            suffix=suffix,
            up=up,
            config=config,
            film=film,
            cache=beside(store.path, ".views"),
        )


def check_film(film: Film, suffix: str) -> None:
    """See that pictures can be made as they are wanted.

    Raises:
        UsageFault: they cannot.
    """
    require_film(suffix)
    if film.background is None and suffix != "png":
        raise UsageFault(f"a {suffix} has no alpha", hint="`--format png`, or `--background white`")


def parse_film(
    *,
    count: int | None = None,
    size: int | None = None,
    elevation: float | None = None,
    background: str | None = None,
    camera: Path | None = None,
    up: str | None = None,
) -> Film | None:
    """Read what is asked of pictures; None if nothing is.

    Raises:
        UsageFault: options contradict each other, or a colour is none.
        InputError: the file of cameras is none.
    """
    given = (count, size, elevation, background, camera, up)
    if all(one is None for one in given):
        return None
    if camera is not None and not (count is None and elevation is None and up is None):
        raise UsageFault(
            "`--camera` says where the cameras are: `--count`, `--elevation` and `--up` are of an "
            "orbit"
        )
    shots = None if camera is None else read_cameras(camera, size=size, usual=PIXELS)
    chosen = {} if elevation is None else {"elevation": elevation}
    return Film(
        count=count,
        size=size or PIXELS,
        background=WHITE if background is None else _colour(background),
        shots=shots,
        up=up,
        **chosen,
    )


def _colour(text: str) -> tuple[float, float, float] | None:
    if text.strip().lower() == "none":
        return None
    try:
        red, green, blue = colour_of(text)
    except ConfigError as error:
        raise UsageFault(
            f"`--background {text}` is no colour", hint="white, black, #rrggbb, or none"
        ) from error
    return red / 255, green / 255, blue / 255
