"""What the torture is done to: small shapes, small settings, and what a store holds."""

import shutil

import trimesh

from nf2vec_cli.store.check import check_store
from nf2vec_cli.store.codec import digests
from nf2vec_cli.store.create import holds_store
from nf2vec_cli.store.products import CHECKPOINTS, ENCODERS, Embeddings, keys, load_state
from nf2vec_cli.store.schema import Status
from nf2vec_cli.store.store import open_store
from nf2vec_cli.store.transfer import listing


def settings(**values):
    return [word for name, value in values.items() for word in ("--set", f"{name}={value}")]


TINY = [
    *settings(hidden=16, layers=2, steps=2, pool=2000, points=200, batch=3),
    *("--jobs", "1", "--codec", "compact"),
]
STEPS = 12
TRAINING = settings(
    embedding=8,
    components=3,
    probes=7,
    tail=8,
    hidden=16,
    octaves=2,
    widths="[8]",
    batch=2,
    points=32,
    steps=STEPS,
    validate_every=4,
    checkpoint_every=3,
)


def make_shapes(folder, count):
    """Write ellipsoids: a/train/0.ply and so on, the last two in val and test."""
    splits = ["train"] * (count - 2) + ["val", "test"]
    for number, split in enumerate(splits):
        mesh = trimesh.creation.icosphere(subdivisions=1)
        mesh.apply_scale([1, 1 + number / count, 0.5 + number / 10])
        file = folder / "a" / split / f"{number}.ply"
        file.parent.mkdir(parents=True, exist_ok=True)
        mesh.export(file)
    return folder


def copied(victim, store):
    """Give a victim the store that it starts from."""
    if victim.start:
        shutil.copytree(victim.start, store)
    return store


def committed(store):
    """Give what a store holds for good: each field, encoder and embedding by a name, as bytes.

    What counts is read, and its bytes compared with its digest: an error is damage.
    """
    if not holds_store(store):
        return {}
    opened = open_store(store)
    names, digest = opened.column("id"), opened.column("digest")
    done = opened.rows(Status.DONE)
    if len(done):
        assert (digests(opened.stored(done)) == digest[done]).all()
    held = {("field", names[row]): digest[row].tobytes() for row in done}
    for key in keys(opened, ENCODERS):
        state, _ = load_state(opened, ENCODERS, key)
        held["encoder", key] = b"".join(state[name].tobytes() for name in sorted(state))
        if f"embeddings/{key}/digest" in opened.group:
            kept = Embeddings(opened, key)
            rows = kept.current()
            for row, value in zip(rows, kept.read(rows), strict=True):
                held[f"embedding {key}", names[row]] = value.tobytes()
    return held


def fitted(store):
    """Count the fields of a store."""
    return sum(kind == "field" for kind, _ in committed(store))


def trained(store):
    """Count the steps that a store need not train again."""
    if not holds_store(store):
        return 0
    opened = open_store(store)
    if keys(opened, ENCODERS):
        return STEPS
    found = [load_state(opened, CHECKPOINTS, name)[1]["step"] for name in keys(opened, CHECKPOINTS)]
    return max(found, default=0)


def embedded(store):
    """Count the shards that are embedded, of three objects each."""
    return -(-sum(kind.startswith("embedding ") for kind, _ in committed(store)) // 3)


def files(store):
    """Count the files that have been copied."""
    return len(listing(store)) if store.exists() else 0


def faults(store):
    """List what `nf2vec check` finds that is more than what a killed run may leave."""
    if not holds_store(store):
        return []
    return [f for f in check_store(store).findings if f.kind not in ("leftover", "lock")]
