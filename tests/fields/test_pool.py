import numpy as np

from nf2vec_cli.fields.pool import draw_stratified, draw_uniform


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

    draws = draw_stratified(distance, 7, 100, rng=np.random.default_rng(1))

    assert draws.shape == (7, 100)
    size = np.abs(distance[draws])
    # no point is farther than 0.1 here: the shares of the other three are 40 : 40 : 12
    assert ((size < 0.005).sum(1) >= 43).all()
    assert (((size >= 0.02) & (size <= 0.1)).sum(1) == 13).all()


def test_draws_are_spread_along_the_pool():
    distance = np.zeros(1000, np.float32)

    draws = np.sort(draw_stratified(distance, 3, 100, rng=np.random.default_rng(1)), axis=1)

    assert (np.diff(draws, axis=1) <= 20).all()
    assert (draws[:, 0] < 10).all()


def test_a_tiny_pool_is_enough():
    draws = draw_stratified(np.zeros(3, np.float32), 2, 50, rng=np.random.default_rng(1))

    assert set(draws.flat) == {0, 1, 2}


def test_the_same_seed_draws_the_same_points():
    first, second = (
        draw_stratified(distances(), 5, 64, rng=np.random.default_rng(4)) for _ in range(2)
    )

    assert np.array_equal(first, second)


def test_uniform_draws_do_not_repeat_within_a_step():
    draws = draw_uniform(100, 4, 100, rng=np.random.default_rng(0))

    assert all(len(set(row)) == 100 for row in draws)
