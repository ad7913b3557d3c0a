"""Pictures of queries and of what they found: a contact sheet, and a page for a browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nf2vec_cli.progress import Progress
from nf2vec_cli.store.store import Store
from nf2vec_cli.tasks.gallery import Ranking
from nf2vec_cli.tasks.look import Look, looks, picture
from nf2vec_cli.tasks.open_fields import fitted, open_each
from nf2vec_cli.tasks.page import Card, write_page
from nf2vec_cli.tasks.queries import Queries
from nf2vec_cli.tasks.sheet import Tile, picture_of, write_sheet
from nf2vec_cli.tasks.spread import WorkerDied, available_cores, spread

PICTURED = 24  # queries that are drawn
RESOLUTION = 96  # grid points along each axis: what 220 pixels show of a mesh
CUT = 34  # letters of a line below a picture


@dataclass(frozen=True)
class Pictures:
    """What to draw: a PNG, a page, or both. jobs: worker processes; 0 for one a core."""

    sheet: Path | None = None
    page: Path | None = None
    resolution: int | None = None
    jobs: int = 0

    def __bool__(self) -> bool:
        return bool(self.sheet or self.page)


def draw(
    store: Store,
    queries: Queries,
    found: Sequence[Ranking],
    pictures: Pictures,
    *,
    encoder: str,
    progress: Progress,
) -> None:
    """Draw each query and its hits as a row: the fields themselves, not the sources.

    An object that is an embedding alone, by `encoder`, is decoded.
    """
    field_at = open_each(store, encoder)
    asking = [ranking.number for ranking in found]
    # an object is drawn once, however often it is found
    rows = np.unique(np.concatenate([queries.rows, *(ranking.rows for ranking in found)]))
    rows = np.setdiff1d(rows, queries.rows[len(asking) :])
    fresh = [number - len(queries.rows) for number in asking if number >= len(queries.rows)]

    how = looks(store, resolution=pictures.resolution or RESOLUTION)

    def chores() -> Iterator[Look]:
        for row in rows:
            yield how.of(field_at(int(row)))
        for number in fresh:
            assert queries.fresh is not None
            beside = queries.fresh.beside[number] if queries.fresh.beside else {}
            yield how.of(fitted(store, queries.fresh.theta[number], beside))

    total = len(rows) + len(fresh)
    progress.start(total, "pictures")
    workers = max(1, min(pictures.jobs or available_cores(), total))
    drawn = []
    for made in spread(picture, chores(), workers=workers):
        drawn.append(picture_of(None) if isinstance(made, WorkerDied) else made)
        progress.advance()
    by_row = dict(zip(rows.tolist(), drawn, strict=False))
    by_shape = dict(zip(fresh, drawn[len(rows) :], strict=True))
    ids, classes = store.column("id"), store.column("class")
    lines = []
    for ranking in found:
        number, own = ranking.number, ranking.number < len(queries.rows)
        name, asked = queries.names[number], queries.classes[number]
        seen = by_row[int(queries.rows[number])] if own else by_shape[number - len(queries.rows)]
        line = [Card(seen, name, asked)]
        for row, distance in zip(ranking.rows.tolist(), ranking.distances.tolist(), strict=True):
            same = classes[row] == asked if asked and classes[row] else None
            line.append(Card(by_row[row], ids[row], classes[row], distance, same))
        lines.append(line)
    if pictures.sheet:
        _write_sheet(lines, pictures.sheet)
    if pictures.page:
        write_page(lines, pictures.page, title=f"Nearest objects of {store.path.name}")


def _write_sheet(lines: Sequence[Sequence[Card]], file: Path) -> None:
    """Write a row of tiles for each query, its own picture first."""
    columns = max(map(len, lines), default=1)
    blank = Tile((np.full_like(picture_of(None), 255),), ())
    tiles = []
    for line in lines:
        for card in line:
            last = "query" if card.distance is None else f"{card.distance:.4f}"
            text = (card.id[-CUT:], card.class_name[:CUT], last)
            tiles.append(Tile((card.picture,), text))
        tiles += [blank] * (columns - len(line))
    write_sheet(tiles, file, columns=columns)
