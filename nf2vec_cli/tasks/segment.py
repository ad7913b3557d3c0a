"""Tell the parts of objects from their embeddings: train a head once, keep it, predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from nf2vec_cli.config.segment import SegmentConfig
from nf2vec_cli.core.device import open_device
from nf2vec_cli.errors import InputError, StoreError, UsageFault
from nf2vec_cli.models.segmenter import Segmenter
from nf2vec_cli.progress import Progress, Silent
from nf2vec_cli.shapes.part_files import find_parts
from nf2vec_cli.store.lock import store_lock
from nf2vec_cli.store.place import Place
from nf2vec_cli.store.products import HEADS, Embeddings, keys
from nf2vec_cli.store.store import Store, open_store
from nf2vec_cli.tasks.embedded import open_embeddings
from nf2vec_cli.tasks.heads import has_head, head_key, open_head, save_head, train_head
from nf2vec_cli.tasks.loop import Loop
from nf2vec_cli.tasks.open_fields import require_fitted
from nf2vec_cli.tasks.part_labels import Parts, PartSet, label_objects
from nf2vec_cli.tasks.part_lesson import Lesson, new_head
from nf2vec_cli.tasks.segment_objects import Asked, SegmentedObject, segment_objects

TASK = "segment"


@dataclass(frozen=True)
class ClassParts:
    """A class's mean IoU over its test objects."""

    class_name: str
    test_objects: int
    miou: float
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Segmentation:
    """A head that tells parts, what it reached, and the objects that it was asked of.

    class_miou, instance_miou: of the test objects, as fractions; val's chose the step. unmatched:
    labelled clouds that are no object of the store with an embedding; misplaced: objects whose
    labelled points are not on their surface.
    """

    head: str
    encoder: str
    parts: int
    train_objects: int
    val_objects: int
    test_objects: int
    unmatched: int
    misplaced: int
    steps: int
    best_step: int
    val_class_miou: float
    val_instance_miou: float
    class_miou: float
    instance_miou: float
    seconds: float
    classes: tuple[ClassParts, ...]
    objects: tuple[SegmentedObject, ...] = field(default=(), repr=False)


def segment(
    path: Place,
    parts: Path | None,
    config: SegmentConfig,
    *,
    out: Path | None = None,
    ids: Sequence[str] = (),
    points: int | None = None,
    encoder: str | None = None,
    head: str | None = None,
    device: str = "auto",
    jobs: int = 0,
    force: bool = False,
    wait: float | None = None,
    progress: Progress | None = None,
) -> Segmentation:
    """Train a head that tells parts from embeddings, keep it in the store, and ask it of objects.

    Paper, section IV. A head with the same settings, embeddings and labels that is there already
    is used as it is; a run that was killed goes on from its last checkpoint.

    Args:
        path: the store.
        parts: folder of labelled clouds; None: a head that the store holds is asked.
        config: settings of a training.
        out: folder for clouds with their parts as colours, OUT/ID.ply; None: nothing is written.
        ids: objects to tell the parts of; none: the test objects.
        points: of each cloud, drawn from the field itself; None: the labelled points of an object
            that has some, and 2,048 of the field of one that has none.
        encoder: whose embeddings; None: the newest that has embedded the store.
        head: key of the head to ask, where `parts` is None; None: the newest.
        device: "cpu", "cuda", "cuda:N" or "auto".
        jobs: worker processes that draw points from fields; 0 for one a core.
        force: train again what is there.
        wait: seconds to wait for another run's lock.
        progress: told about each step.

    Raises:
        StoreError: there are no embeddings, no such head, or an id is unknown or not fitted.
        InputError: the labelled clouds cannot be read, or are of other objects.
        LockedError: another run is writing.
    """
    target = open_device(device)
    with progress or Silent() as teller:
        store = open_store(path)
        asked = store.find(ids) if ids else None
        if asked is not None:
            require_fitted(store, asked, or_embedded=True)
        if parts is None:
            key = _known(store, head, encoder, force)
            objects = None
        else:
            if head is not None:
                raise UsageFault(
                    "a head is asked, or one is made of labels: --head or --parts",
                    hint=f"`nf2vec segment {path} --head {head}` asks it",
                )
            kept = open_embeddings(store, encoder)
            objects = _labelled(kept, parts, config)
            _tell(objects, teller)
            named = (kept.key, objects.digest(), config.model_dump_json())
            key = head_key(store, objects.rows, *named)
            if force or not has_head(store, TASK, key):
                with store_lock(path, wait=wait):
                    writable = open_store(path, mode="a")
                    lesson = Lesson(objects, kept.read(objects.rows), config, target)
                    _make(writable, key, kept.key, lesson, force=force, progress=teller)
        module, facts = open_head(store, TASK, key, _made_by)
        module.to(target)
        names = Parts.of_facts(facts)
        embeddings = Embeddings(store, facts["encoder"])
        if asked is None:
            current = set(embeddings.current().tolist())
            asked = np.array([r for r in store.find(facts["test"]) if r in current], np.int64)
        wanted = Asked(asked, out, points, jobs)
        found = tuple(segment_objects(store, module, names, embeddings, objects, wanted, teller))
    by_class = tuple(ClassParts(**one) for one in facts["classes_scored"])
    return replace(Segmentation(**facts["result"], classes=by_class), objects=found)


def _labelled(kept: Embeddings, parts: Path, config: SegmentConfig) -> PartSet:
    try:
        return label_objects(kept.store, kept.current(), find_parts(parts), space=config.space)
    except InputError as error:
        hint = error.hint or "`nf2vec segment --help` says how labelled clouds are laid out"
        raise InputError(error.message, hint=hint) from error


def _tell(objects: PartSet, progress: Progress) -> None:
    if objects.unmatched:
        progress.note(f"{objects.unmatched} labelled clouds are no object of the store: left out")
    if objects.misplaced:
        progress.note(
            f"{objects.misplaced} objects have labelled points that are not on their surface: "
            "left out"
        )


def _known(store: Store, head: str | None, encoder: str | None, force: bool) -> str:
    """Find the head that is asked for, or the newest; `encoder`: that reads its embeddings."""
    train = f"`nf2vec segment {store.path} --parts DIR"
    if force:
        raise UsageFault("there is nothing to train from", hint=f"{train} --force`")
    place = f"{HEADS}/{TASK}"
    found = keys(store, place)
    if head is not None and head not in found:
        there = f"there are {', '.join(found)}" if found else "it has none that tells parts"
        raise StoreError(
            f"{store.path} has no head {head!r}",
            hint=f"{there}: `nf2vec info {store.path}` lists all",
        )
    reads = {key: store.group[f"{place}/{key}"].attrs.get("encoder") for key in found}
    fit = [key for key in found if head in (None, key) and encoder in (None, reads[key])]
    if not fit:
        told = "" if encoder is None else f" from embeddings by encoder {encoder!r}"
        raise StoreError(
            f"{store.path} has no head that tells parts{told}",
            hint=f"{train}` trains one on labelled clouds",
        )
    return fit[-1]


def _make(
    store: Store,
    key: str,
    encoder: str,
    lesson: Lesson,
    *,
    force: bool,
    progress: Progress,
) -> None:
    """Train a head from its checkpoint if there is one, score test once, and keep it."""
    objects, config = lesson.objects, lesson.config
    settings = config.model_copy(update={"steps": lesson.steps})
    loop = Loop(lesson.head, settings, loss_of=lesson.loss, look=lesson.look, by="miss")
    train_head(store, TASK, key, loop, force=force, progress=progress)
    test = objects.of("test")
    score, _ = lesson.score(test)
    best = loop.curve.best("miss")
    names, ids = objects.names, store.column("id")
    result = {
        "head": key,
        "encoder": encoder,
        "parts": len(names.parts),
        **{f"{split}_objects": len(objects.of(split)) for split in ("train", "val", "test")},
        "unmatched": objects.unmatched,
        "misplaced": objects.misplaced,
        "steps": loop.step,
        "best_step": loop.curve.steps[best],
        "val_class_miou": loop.curve.looks[best]["class_miou"],
        "val_instance_miou": loop.curve.looks[best]["instance_miou"],
        "class_miou": score.class_miou,
        "instance_miou": score.instance_miou,
        "seconds": loop.curve.seconds,
    }
    by_class = [
        {
            "class_name": names.classes[label],
            "test_objects": int((objects.labels[test] == label).sum()),
            "miou": miou,
            "parts": [names.parts[place].name for place in names.of_class[names.classes[label]]],
        }
        for label, miou in score.by_class.items()
    ]
    save_head(
        store,
        TASK,
        key,
        loop,
        config=config,
        device=lesson.device,
        **names.facts(),
        encoder=encoder,
        embedding=lesson.z.shape[1],
        test=[ids[row] for row in objects.rows[test]],
        result=result,
        classes_scored=by_class,
    )


def _made_by(facts: Mapping[str, Any]) -> Segmenter:
    config = SegmentConfig.model_validate(facts["config"])
    return new_head(Parts.of_facts(facts), int(facts["embedding"]), config)
