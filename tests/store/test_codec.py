import numpy as np
import pytest

from nf2vec_cli.store.codec import codec_size, decode, digests, encode, roundtrip

BLOCKS = np.array([7, 1, 92])


def weights():
    rng = np.random.default_rng(0)
    init = rng.standard_normal(100).astype(np.float32)
    return init, init + rng.standard_normal((5, 100)).astype(np.float32) * 0.05


def test_exact_restores_every_bit():
    init, theta = weights()
    odd = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0xFF800000, 0x80000000, 0, 1], np.uint32)
    theta[0, :7] = odd.view(np.float32)

    back = decode(encode(theta, init, BLOCKS, "exact", 8), init, BLOCKS)

    assert np.array_equal(back.view(np.uint32), theta.view(np.uint32))


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8])
def test_compact_is_off_by_half_a_step_at_most(bits):
    init, theta = weights()

    stored = encode(theta, init, BLOCKS, "compact", bits)
    back = decode(stored, init, BLOCKS)

    step = np.repeat(stored.arrays["scale"], BLOCKS, axis=1)
    assert (np.abs(back - theta) <= 0.5 * step + 1e-6).all()
    assert np.abs(stored.arrays["quantised"]).max() == 2 ** (bits - 1) - 1


def test_a_block_that_did_not_move_stays():
    init, theta = weights()
    theta[:, :7] = init[:7]

    stored = encode(theta, init, BLOCKS, "compact", 8)

    assert (stored.arrays["scale"][:, 0] == 0).all()
    assert np.array_equal(decode(stored, init, BLOCKS)[:, :7], theta[:, :7])


def test_storing_again_changes_nothing():
    init, theta = weights()
    once = roundtrip(theta[0], init, list(BLOCKS), "compact", 8)

    assert np.allclose(roundtrip(once, init, list(BLOCKS), "compact", 8), once, atol=1e-7)


def test_fewer_bits_are_fewer_bytes():
    rng = np.random.default_rng(0)
    init = np.zeros(20_000, np.float32)
    theta = rng.standard_normal(20_000).astype(np.float32)
    blocks = [200] * 100

    sizes = [codec_size(theta, init, blocks, "compact", bits) for bits in (4, 5, 6, 7, 8)]

    assert sizes == sorted(sizes)
    assert sizes[2] < 0.8 * sizes[4]


def test_digests_see_one_bit():
    init, theta = weights()
    stored = encode(theta, init, BLOCKS, "compact", 8)
    before = digests(stored)
    stored.arrays["quantised"][2, 50] ^= 1

    changed = (digests(stored) != before).any(axis=1)

    assert changed.tolist() == [False, False, True, False, False]
