"""The objects of a store whose embeddings are nearest to a query's, and how good such lists are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nf2vec_cli.errors import StoreError, UsageFault
from nf2vec_cli.metrics import RankScore, rank_score
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.embedded import labelled, open_embeddings, splits_of
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.gallery import Gallery, Metric, Ranking
from nf2vec_cli.tasks.hit_pictures import PICTURED, Pictures, draw
from nf2vec_cli.tasks.queries import Queries, asked, of_rows

BOTH = "both"
RANKS = (1, 5, 10)  # the paper's (section VI-B)


@dataclass(frozen=True)
class Hit:
    """One object that a query found. distance: 1 - cosine, or in the embedding's own unit."""

    query: str
    rank: int
    id: str
    class_name: str
    distance: float


@dataclass(frozen=True)
class RetrievalReport:
    """How good the lists of many queries are.

    queries, objects: how many ask, and how many are searched. gallery: which those are. lonely:
    queries without another object of their class in the gallery, which count as misses. at: by
    rank.
    """

    encoder: str
    distance: str
    asked: str
    queries: int
    gallery: str
    objects: int
    lonely: int
    at: tuple[RankScore, ...]


@dataclass(frozen=True)
class Search:
    """What is searched, and how.

    split: train, val or test; None: all. copies: augmented copies can be found too. encoder: key
    of the encoder whose embeddings are compared; None: the newest. approximate: by a graph (extra
    `ann`). threshold: greatest distance of a hit. by: geometry or appearance, where the encoder
    keeps them apart; both: all of an embedding.
    """

    k: int = 10
    metric: Metric = Metric.cosine
    split: str | None = None
    copies: bool = False
    encoder: str | None = None
    approximate: bool = False
    threshold: float | None = None
    device: str = "auto"
    by: str = BOTH


@dataclass(frozen=True)
class Question:
    """Queries, and the gallery that is to answer them."""

    store: Store
    queries: Queries
    gallery: Gallery
    search: Search
    asked: str

    @property
    def failed(self) -> tuple[tuple[str, str], ...]:
        """List the shapes that could not be embedded, each with the reason."""
        return self.queries.fresh.failed if self.queries.fresh else ()


def ask(
    path: Place,
    texts: Sequence[str],
    search: Search,
    *,
    to_measure: bool = False,
    jobs: int = 0,
    progress: Progress | None = None,
) -> Question:
    """Ask for the neighbours of objects of a store, or of shapes, which are fitted and embedded.

    Args:
        path: the store.
        texts: ids, files or folders, as `asked` takes them.
        search: what is searched, and how.
        to_measure: only objects with a class ask and answer, and a file is not answered by the
            object that was fitted to the same content.
        jobs: worker processes that fit; 0 for one a core.
        progress: told about each shape that is fitted.

    Raises:
        StoreError: there are no embeddings, or an id is unknown or not embedded.
        InputError: a path holds no shape of this kind of field.
    """
    store = open_store(path)
    kept = open_embeddings(store, search.encoder)
    current = kept.current()
    rows = labelled(store, current).rows if to_measure else current
    gallery = _gallery(kept, rows, search)
    with progress or Silent() as teller:
        queries = asked(
            store,
            kept,
            texts,
            current=current,
            bar_sources=to_measure,
            device=search.device,
            jobs=jobs,
            progress=teller,
        )
    return Question(store, queries, gallery, search, "queries")


def ask_split(path: Place, split: str, search: Search) -> Question:
    """Ask by each object of a split that has a class; copies of other proportions do not ask.

    The paper's protocol (section VI-B) has the same split for the gallery.

    Raises:
        StoreError: there are no embeddings, no two classes, or nothing in the split.
    """
    store = open_store(path)
    kept = open_embeddings(store, search.encoder)
    known = labelled(store, kept.current())
    asking = known.rows[(known.splits == split) & ~known.is_copy]
    if not len(asking):
        raise _empty(store, split)
    gallery = _gallery(kept, known.rows, search)
    return Question(store, of_rows(store, asking), gallery, search, f"split {split}")


def hits(
    question: Question, *, pictures: Pictures | None = None, progress: Progress | None = None
) -> Iterator[Hit]:
    """Yield what each query finds, the nearest first."""
    with progress or Silent() as teller:
        ids, classes = question.store.column("id"), question.store.column("class")
        for found in _rankings(question, question.search.k, pictures, teller):
            near = zip(found.rows.tolist(), found.distances.tolist(), strict=True)
            for rank, (row, distance) in enumerate(near, 1):
                name = question.queries.names[found.number]
                yield Hit(name, rank, ids[row], classes[row], distance)


def score(
    question: Question,
    *,
    ranks: Sequence[int] = RANKS,
    pictures: Pictures | None = None,
    progress: Progress | None = None,
) -> RetrievalReport:
    """Measure how many of the objects found are of the query's class (paper, Table II).

    Raises:
        StoreError: no query has a class.
    """
    store, queries, gallery = question.store, question.queries, question.gallery
    if not any(queries.classes):
        raise StoreError(
            "no query has a class, so nothing can be measured",
            hint="shapes in CLASS/NAME.ext have one; by all objects that have one asks "
            f"`nf2vec retrieve {store.path} --metrics`",
        )
    classes, depth = store.column("class"), max(ranks)
    sizes = Counter(classes[row] for row in gallery.rows)
    relevant, totals = [], []
    with progress or Silent() as teller:
        for found in _rankings(question, depth, pictures, teller):
            name = queries.classes[found.number]
            if not name:
                continue
            row = np.zeros(depth, bool)
            row[: len(found.rows)] = [classes[hit] == name for hit in found.rows]
            barred = gallery.among(queries.barred[found.number])
            relevant.append(row)
            totals.append(sizes[name] - sum(classes[other] == name for other in barred))
    counts = np.array(totals)
    return RetrievalReport(
        encoder=gallery.kept.key,
        distance=gallery.metric,
        asked=question.asked,
        queries=len(relevant),
        gallery=f"split {question.search.split}" if question.search.split else "all",
        objects=len(gallery.rows),
        lonely=int((counts == 0).sum()),
        at=tuple(rank_score(np.stack(relevant), counts, k) for k in ranks),
    )


def _rankings(
    question: Question, k: int, pictures: Pictures | None, teller: Progress
) -> Iterator[Ranking]:
    """Rank for each query, and draw the first of them at the end."""
    search = question.search
    shown: list[Ranking] = []
    bound = np.inf if search.threshold is None else search.threshold
    for found in question.gallery.rank(question.queries, k, device=search.device, progress=teller):
        near = found.distances <= bound
        kept = Ranking(found.number, found.rows[near], found.distances[near])
        if len(shown) < PICTURED:
            shown.append(kept)
        yield kept
    if pictures:
        key = question.gallery.kept.key
        draw(question.store, question.queries, shown, pictures, encoder=key, progress=teller)


def _gallery(kept: Embeddings, rows: Rows, search: Search) -> Gallery:
    """Choose what is searched.

    Raises:
        StoreError: there is nothing in the split.
    """
    store = kept.store
    if search.split:
        rows = rows[splits_of(store)[rows] == search.split]
    if not search.copies:
        rows = rows[np.asarray(store.column("copy"))[rows] == 0]
    if not len(rows):
        raise _empty(store, search.split)
    return Gallery(kept, rows, search.metric, search.approximate, _part(kept, search))


def _part(kept: Embeddings, search: Search) -> slice:
    """Find the numbers of an embedding that tell what is compared.

    Raises:
        UsageFault: this encoder does not keep it apart, or a graph is to be searched.
    """
    if search.by == BOTH:
        return slice(None)
    parts = open_encoder(kept.store, kept.key).config.parts
    if search.by not in parts:
        raise UsageFault(
            f"encoder {kept.key!r} does not keep {search.by} apart",
            hint=f"`nf2vec train {kept.store.path} --encoder-arch split` makes one that does, "
            "of radiance",
        )
    if search.approximate:
        raise UsageFault(
            f"the graph compares whole embeddings, not {search.by} alone", hint="`--index exact`"
        )
    return parts[search.by]


def _empty(store: Store, split: str | None) -> StoreError:
    place = f"in split {split!r}" if split else "that is no copy"
    return StoreError(
        f"{store.path} has no embedded object {place}",
        hint=f"`nf2vec info {store.path}` counts objects by class and split",
    )
