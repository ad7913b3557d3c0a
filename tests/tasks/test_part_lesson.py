import numpy as np
import torch

from nf2vec_cli.config import Preset
from nf2vec_cli.config.segment import SegmentConfig, segment_defaults
from nf2vec_cli.progress import Silent
from nf2vec_cli.tasks.loop import Loop
from nf2vec_cli.tasks.part_labels import Part, Parts, PartSet
from nf2vec_cli.tasks.part_lesson import Lesson, tell_parts

NAMES = Parts(
    ("a", "b"),
    ("a", "b"),
    (Part("a", 0, "left"), Part("a", 1, "right"), Part("b", 2, "x"), Part("b", 3, "y")),
)
QUICK = SegmentConfig(
    hidden=32, octaves=2, points=32, batch=16, steps=100, validate_every=50, learning_rate=5e-3
)
CPU = torch.device("cpu")


def turned(count=60, seed=0):
    """Objects whose embedding alone says which side of x is which part."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, 4)).astype(np.float32)
    labels = np.arange(count) % 2
    points, truth = [], []
    for n in range(count):
        cloud = rng.uniform(-1, 1, (50 + n % 3, 3)).astype(np.float32)
        side = (cloud[:, 0] > 0) ^ (z[n, 1] > 0)
        points.append(cloud)
        truth.append(2 * labels[n] + side.astype(np.int64))
    splits = np.array(["train"] * (count - 20) + ["val"] * 10 + ["test"] * 10)
    objects = PartSet(
        rows=np.arange(count),
        names=NAMES,
        labels=labels,
        splits=splits,
        is_copy=np.zeros(count, bool),
        points=tuple(points),
        truth=tuple(truth),
        unmatched=0,
        misplaced=0,
    )
    return objects, z


def trained(objects, z, config=QUICK):
    lesson = Lesson(objects, z, config, CPU)
    loop = Loop(lesson.head, config, loss_of=lesson.loss, look=lesson.look, by="miss")
    loop.run(checkpoint=lambda *_: None, progress=Silent())
    return lesson, loop


def test_what_the_embedding_says_of_the_parts_is_learned():
    lesson, loop = trained(*turned())

    score, ious = lesson.score(lesson.objects.of("test"))

    assert score.class_miou > 0.7
    assert len(ious) == 10
    assert loop.curve.looks[-1]["miss"] == 1 - loop.curve.looks[-1]["class_miou"]


def test_a_label_of_test_changes_nothing_of_what_is_learned():
    objects, z = turned()
    spoiled = tuple(
        3 - one if split == "test" else one
        for one, split in zip(objects.truth, objects.splits, strict=True)
    )
    other = PartSet(**(vars(objects) | {"truth": spoiled}))
    short = QUICK.model_copy(update={"steps": 5, "validate_every": 5})

    (first, _), (second, _) = trained(objects, z, short), trained(other, z, short)

    for one, two in zip(first.head.parameters(), second.head.parameters(), strict=True):
        assert torch.equal(one, two)


def test_points_of_short_clouds_are_drawn_from_their_own_object():
    objects, z = turned(24)
    lengths = [3 + n for n in range(24)]
    objects = PartSet(
        **(
            vars(objects)
            | {"points": tuple(np.full((m, 3), n, np.float32) for n, m in enumerate(lengths))}
            | {"truth": tuple(np.full(m, n % 4) for n, m in enumerate(lengths))}
        )
    )
    lesson = Lesson(objects, z, QUICK, CPU)
    seen = []
    lesson.head.register_forward_pre_hook(lambda _, args: seen.append(args))

    for step in range(3):
        lesson.loss(step)

    drawn = torch.cat([args[2] for args in seen])
    labels = torch.cat([args[1] for args in seen])
    assert bool((drawn == drawn[:, :1, :1]).all())  # one object, one value
    assert drawn[:, 0, 0].max() < 4  # of train
    assert torch.equal(drawn[:, 0, 0].long() % 2, labels)


def test_a_part_of_another_class_is_never_told():
    objects, z = turned()
    lesson = Lesson(objects, z, QUICK, CPU)

    found = tell_parts(lesson.head, torch.from_numpy(z[1]), 1, objects.points[1], [2, 3])

    assert len(found) == len(objects.points[1])
    assert set(found.tolist()) <= {2, 3}


def test_epochs_count_batches_of_the_training_objects():
    objects, z = turned()

    config = SegmentConfig.model_validate(segment_defaults(Preset.paper) | {"hidden": 16})

    assert Lesson(objects, z, config, CPU).steps == 250  # 40 objects, one batch of 256
    assert Lesson(objects, z, QUICK, CPU).steps == 100


def test_embeddings_are_standardised_by_the_training_objects():
    objects, z = turned()
    z[objects.of("test")] += 1e4

    lesson = Lesson(objects, z, QUICK, CPU)

    np.testing.assert_allclose(lesson.head.centre, z[objects.of("train")].mean(0), atol=1e-5)
    plain = Lesson(objects, z, QUICK.model_copy(update={"standardise": False}), CPU)
    assert plain.head.centre.abs().max() == 0
