"""New shapes of a class, as a store of embeddings of their own: plan, do, record."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from nf2vec_cli.config.generate import GenerateConfig
from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import StoreError, UsageFault
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.store.blocks import Rows
from nf2vec_cli.store.create import free_name, holds_store
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import Place, writable
from nf2vec_cli.store.products import Embeddings
from nf2vec_cli.store.schema import Entry
from nf2vec_cli.store.store import open_store
from nf2vec_cli.tasks.embedded import labelled, labels_hint, open_embeddings
from nf2vec_cli.tasks.embedding_store import write_embedding_store
from nf2vec_cli.tasks.encoders import open_encoder
from nf2vec_cli.tasks.fit import versions
from nf2vec_cli.tasks.generate_score import NoveltyRow, SetRow, judge
from nf2vec_cli.tasks.generate_sheet import draw_sheet
from nf2vec_cli.tasks.generator import LEAST, trained_generator
from nf2vec_cli.tasks.radiance_cloud import lens_of
from nf2vec_cli.tasks.teacher import generator_of

KIND = "generate"  # of a run
UNIT = (0.0, 0.0, 0.0, 1.0)  # what is generated has no units but the unit sphere's


@dataclass(frozen=True)
class Generated:
    """What `generate` made. generator: its key; steps, best_step, seconds: of its training.

    sets, novelty: as `judge` gives them; empty if they were not asked for.
    """

    store: str
    class_name: str
    count: int
    model: str
    generator: str
    encoder: str
    train_objects: int
    val_objects: int
    steps: int
    best_step: int
    seconds: float
    sets: tuple[SetRow, ...] = ()
    novelty: tuple[NoveltyRow, ...] = ()
    sheet: str | None = None


@dataclass(frozen=True)
class Members:
    """Rows of one class: to train on (copies included), to choose the best step by, to compare."""

    train: Rows
    val: Rows
    test: Rows
    originals: Rows  # of train


def generate(
    path: Place,
    class_name: str,
    out: Place,
    config: GenerateConfig,
    *,
    count: int,
    seed: int = 0,
    encoder: str | None = None,
    metrics: bool = False,
    emd: bool = False,
    sheet: Path | None = None,
    device: str = "auto",
    jobs: int = 0,
    force: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> Generated:
    """Learn the embeddings of a class, draw new ones, and keep them as a store of their own.

    Paper, section V-D. The new store has init, network and encoder of the old one, and an object
    CLASS/gen-0000, CLASS/gen-0001... for each embedding. Only objects of split train are learnt
    from, those of val choose the best step; test is only compared with.

    Args:
        path: the store whose embeddings are learnt from; the generator is kept in it.
        class_name: the class.
        out: the store to make.
        config: settings of the generator.
        count: embeddings to draw.
        seed: of the draws; the generator's own is `config.seed`.
        encoder: whose embeddings; None: the newest encoder's.
        metrics: decode the shapes and score them as a set.
        emd: score them by the earth mover's distance too.
        sheet: PNG file for pictures of some.
        device: "cpu", "cuda", "cuda:N" or "auto".
        jobs: worker processes that decode; 0 for one a core.
        force: train again, and replace what was generated at `out` before.
        wait: seconds to wait for another run's lock.
        progress: told about each step.

    Raises:
        UsageFault: count is less than 1.
        StoreError: there are no embeddings, no classes, no such class, too few objects of it, or
            `out` is there already.
    """
    if count < 1:
        raise UsageFault(f"--count {count}: at least 1 shape can be generated")
    target = open_device(device)
    check_free(out, force=force, line=f"nf2vec generate {path} --class {class_name}")
    # before anything is locked: what is refused here changes nothing
    _members(open_embeddings(open_store(path), encoder), class_name, compare=metrics)
    with progress or Silent() as teller:
        with store_lock(path, wait=wait):
            store = open_store(path, mode="a")
            kept = open_embeddings(store, encoder)
            members = _members(kept, class_name, compare=metrics)
            known = open_encoder(store, kept.key)
            made = trained_generator(
                kept,
                class_name,
                (members.train, members.val),
                config,
                directions=known.config.directions,
                device=target,
                force=force,
                progress=teller,
            )
        z = made.model.sample(count, generator=generator_of(seed, 0)).cpu().numpy()
        ids = [f"{class_name}/gen-{number:04d}" for number in range(count)]
        decoder = known.module.decoder
        result = Generated(
            store=str(out),
            class_name=class_name,
            count=count,
            model=config.model,
            generator=made.key,
            encoder=kept.key,
            train_objects=len(members.train),
            val_objects=len(members.val),
            steps=made.steps,
            best_step=made.best_step,
            seconds=made.seconds,
        )
        if metrics:
            train, test = kept.read(members.originals), kept.read(members.test)
            surfaces = store.surface(members.test)
            sets, new = judge(
                *(decoder, store.field, z, train, test, surfaces),
                lens=lens_of(store, members.test),
                emd=emd,
                jobs=jobs,
                progress=teller,
            )
            result = replace(result, sets=sets, novelty=new)
        if sheet is not None:
            draw_sheet(store, decoder, ids, z, sheet, jobs=jobs, progress=teller)
            result = replace(result, sheet=str(sheet))
        asked = {"seed": seed, "settings": config.model_dump(mode="json")}
        facts = {"config": asked, "summary": {**asdict(result), "source": str(path)}}
        entries = [Entry(name, "", class_name) for name in ids]
        columns = {"transform": [UNIT] * count, "error": [np.nan] * count}
        facts["versions"] = versions(target)
        write_embedding_store(out, store, known, entries, z, columns, kind=KIND, **facts)
    return result


def check_free(out: Place, *, force: bool, line: str) -> None:
    """See that a new store can be made at OUT; --force gives up what was generated, never a field.

    Args:
        out: the store to make.
        force: replace what was generated there.
        line: the command without --out, for the hints.

    Raises:
        StoreError: something is there that stays.
    """
    writable(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    other = f"`{line} --out {free_name(out)}`"
    if not holds_store(out):
        raise StoreError(f"{out} is there already, and is no store", hint=other)
    if {run["kind"] for run in open_store(out).runs()} != {KIND}:
        raise StoreError(
            f"{out} is a store of more than what was generated: it is never replaced",
            hint=other,
        )
    if not force:
        raise StoreError(
            f"{out} is there already", hint=f"`{line} --out {out} --force` replaces it"
        )


def _members(kept: Embeddings, class_name: str, *, compare: bool) -> Members:
    """Find the rows of a class; `compare`: there must be test objects whose surface is known."""
    store = kept.store
    found = labelled(store, kept.current(), least=1)
    if class_name not in found.classes:
        some = ", ".join(found.classes[:8])
        near = difflib.get_close_matches(class_name, found.classes, n=3, cutoff=0.5)
        named = f"did you mean {', '.join(near)}?" if near else f"there are {some}:"
        raise StoreError(
            f"{store.path} has no embeddings of class {class_name!r}",
            hint=f"{named} `nf2vec info {store.path}` counts the objects of each class",
        )
    ours = found.labels == found.classes.index(class_name)
    train, val, test = (
        found.rows[places[ours[places]]] for places in map(found.of, ("train", "val", "test"))
    )
    if len(train) < LEAST:
        raise StoreError(
            f"{store.path} has {len(train)} objects of class {class_name!r} in split train, a "
            f"generator needs {LEAST}",
            hint=f"`nf2vec info {store.path}` counts the objects of each class",
        )
    copies = store.column("copy")
    members = Members(train, val, test, train[copies[train] == 0])
    if compare:
        known = store.surface(test).any(axis=(1, 2))
        members = replace(members, test=test[known])
        if len(members.test) < 2 or len(members.originals) < 2:
            raise StoreError(
                f"{store.path} has {len(members.test)} test objects of class {class_name!r} with "
                "a surface to compare with: --metrics needs two",
                hint=f"leave out `--metrics`, or {labels_hint(store, 'splits')}",
            )
    return members
