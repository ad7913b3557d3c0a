import numpy as np

from nf2vec_cli.fields.pool import Pool, distance_pool, draw_stratified, draw_uniform, queries


def pool_of(distance: np.ndarray) -> Pool:
    return distance_pool(np.zeros((len(distance), 3)), distance.astype(float), np.zeros((2048, 3)))


def distances() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate(
        [
            rng.uniform(-0.005, 0.005, 600),
            rng.uniform(0.005, 0.02, 300),
            rng.uniform(0.02, 0.1, 100),
        ]
    ).astype(np.float32)


def test_each_step_gets_its_shares():
    distance = distances()

    draws = draw_stratified(pool_of(distance), np.full(7, 100), rng=np.random.default_rng(1))

    draws = np.array(draws)
    assert draws.shape == (7, 100)
    size = np.abs(distance[draws])
    # no point is farther than 0.1 here: the shares of the other three are 40 : 40 : 12
    assert ((size < 0.005).sum(1) >= 43).all()
    assert (((size >= 0.02) & (size <= 0.1)).sum(1) == 13).all()


def test_draws_are_spread_along_the_pool():
    distance = np.zeros(1000, np.float32)

    steps = draw_stratified(pool_of(distance), np.full(3, 100), rng=np.random.default_rng(1))

    draws = np.sort(steps, axis=1)

    assert (np.diff(draws, axis=1) <= 20).all()
    assert (draws[:, 0] < 10).all()


def test_a_tiny_pool_is_enough():
    pool = pool_of(np.zeros(3, np.float32))

    draws = draw_stratified(pool, np.full(2, 50), rng=np.random.default_rng(1))

    assert set(np.array(draws).flat) == {0, 1, 2}


def test_the_same_seed_draws_the_same_points():
    first, second = (
        draw_stratified(pool_of(distances()), np.array([64, 65]), rng=np.random.default_rng(4))
        for _ in range(2)
    )

    assert [len(step) for step in first] == [64, 65]
    assert all(map(np.array_equal, first, second))


def test_uniform_draws_do_not_repeat_within_a_step():
    pool = pool_of(np.zeros(100, np.float32))

    draws = draw_uniform(pool, np.full(4, 100), rng=np.random.default_rng(0))

    assert all(len(set(row)) == 100 for row in draws)


def test_queries_use_each_point_of_the_surface_about_as_often():
    base = np.eye(3) * 0.5

    points = queries(base, ((0.9, 1e-4),), 1000, rng=np.random.default_rng(0))

    near = np.linalg.norm(points[:, None] - base, axis=2) < 0.01
    assert points.shape == (1000, 3)
    assert (near.sum(0) == 300).all()
    assert np.abs(points).max() <= 1


def test_points_near_the_surface_are_those_within_the_clip_distance():
    pool = pool_of(np.array([0.0, 0.0999, -0.0999, 0.1, 5.0]))

    assert pool.near.tolist() == [True, True, True, False, False]
    assert pool.values.max() == np.float32(0.1)
