import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nf2vec_cli.metrics import cloud_score
from nf2vec_cli.set_metrics import chamfer_table, emd_table, novelty, set_score

RNG = np.random.default_rng(0)


def score(a, b):
    return set_score(cdist(a, a), cdist(a, b), cdist(b, b))


def test_tables_hold_what_each_pair_measures():
    a = [RNG.normal(size=(40, 3)) for _ in range(3)]
    b = [RNG.normal(size=(40, 3)) for _ in range(2)]

    found = chamfer_table(a, b)
    assert found.shape == (3, 2)
    assert found[2, 1] == pytest.approx(cloud_score(a[2], b[1]).chamfer_t)
    np.testing.assert_allclose(chamfer_table(a, a), chamfer_table(a, list(a)))


def test_earth_movers_distance_is_that_of_the_best_match():
    cloud = RNG.normal(size=(30, 3))
    moved = RNG.permutation(cloud) + np.array([0.001, 0, 0])

    assert emd_table([cloud], [moved])[0, 0] == pytest.approx(0.001)
    # Chamfer forgives a crowd at one place, the earth mover does not
    pair = np.array([[0.0, 0, 0], [1, 0, 0]])
    crowd = np.repeat(pair, [3, 1], axis=0), np.repeat(pair, [1, 3], axis=0)
    assert chamfer_table(crowd[:1], crowd[1:])[0, 0] == 0
    assert emd_table(crowd[:1], crowd[1:])[0, 0] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="30 points cannot be matched with 2"):
        emd_table([cloud], [pair])


def test_copies_of_the_reference_cover_it_and_are_nearest_to_it():
    reference = RNG.normal(size=(20, 8))

    found = score(reference.copy(), reference)

    assert (found.mmd, found.coverage, found.nna) == (0, 1, 0)


def test_sets_from_one_distribution_cannot_be_told_apart():
    many = RNG.normal(size=(400, 2))

    assert score(many[:200], many[200:]).nna == pytest.approx(0.5, abs=0.08)


def test_a_set_of_one_shape_again_and_again_covers_little():
    reference = RNG.normal(size=(20, 8))

    found = score(np.repeat(reference[:1], 20, axis=0), reference)

    assert found.coverage == 1 / 20
    assert found.nna > 0.9
    assert found.mmd > 1


def test_a_set_elsewhere_is_told_apart():
    reference = RNG.normal(size=(20, 8))

    found = score(reference + 100, reference)

    assert found.nna == 1
    assert found.mmd > 100


def test_a_larger_set_has_no_advantage():
    reference = RNG.normal(size=(20, 2))
    others = RNG.normal(size=(400, 2))

    many, few = score(others, reference), score(others[:20], reference)

    # all 400 at once would give 0.95 and cover nearly everything
    assert many.nna == pytest.approx(0.5, abs=0.12)
    assert many.coverage == pytest.approx(few.coverage, abs=0.2)
    assert many == score(others, reference)
    assert score(reference, others).nna == pytest.approx(many.nna, abs=0.05)


def test_tables_that_do_not_belong_together_are_refused():
    a, b = RNG.normal(size=(4, 2)), RNG.normal(size=(3, 2))

    with pytest.raises(ValueError, match="tables of"):
        set_score(cdist(b, b), cdist(a, b), cdist(a, a))
    with pytest.raises(ValueError, match="1 shapes cannot be scored against 3"):
        score(a[:1], b)


def test_novelty_tells_repeating_from_inventing():
    train = RNG.normal(size=(100, 4))
    apart = cdist(train, train)

    repeated = novelty(cdist(train[:30] + 1e-6, train), apart)
    invented = novelty(cdist(RNG.normal(size=(100, 4)), train), apart)

    assert repeated.ratio < 1e-4
    assert invented.ratio == pytest.approx(1, abs=0.2)
    assert invented.spacing == pytest.approx(repeated.spacing)
    with pytest.raises(ValueError, match="cannot be compared with 1"):
        novelty(cdist(train, train[:1]), apart[:1, :1])
