import torch

from nf2vec_cli.core import optimiser
from nf2vec_cli.core.optimiser import Adam, Muon, orthogonalise


def test_adam_equals_torch_adam():
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(2, 10, generator=generator)
    theirs = ours.clone().requires_grad_()
    adam = Adam(ours, [slice(0, 4), slice(4, 10)], 0.9, 0.999)
    reference = torch.optim.Adam([theirs], lr=1e-2)

    for _ in range(5):
        grad = torch.randn(2, 10, generator=generator)
        adam.step(grad, torch.full((2, 1), 1e-2))
        theirs.grad = grad.clone()
        reference.step()

    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_adam_leaves_what_is_outside_its_slices():
    theta = torch.ones(1, 10)
    Adam(theta, [slice(0, 4)], 0.9, 0.99).step(torch.ones(1, 10), torch.tensor([[0.1]]))

    assert torch.equal(theta[:, 4:], torch.ones(1, 6))
    assert (theta[:, :4] < 1).all()


def test_orthogonalise_brings_singular_values_near_one():
    matrices = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(1))

    values = torch.linalg.svdvals(orthogonalise(matrices, 5))

    assert values.median() > 0.6
    assert values.max() < 1.3


def test_orthogonalise_keeps_the_directions():
    u, _, vh = torch.linalg.svd(torch.randn(1, 32, 32, generator=torch.Generator().manual_seed(2)))
    matrix = u @ torch.diag(torch.linspace(1, 2, 32)) @ vh

    found = orthogonalise(matrix, 5)

    cosine = torch.nn.functional.cosine_similarity(found.flatten(), (u @ vh).flatten(), dim=0)
    assert cosine > 0.97


def test_objects_do_not_influence_each_other():
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(2, 16, 16, generator=generator)
    grad = torch.randn(2, 16, 16, generator=generator)
    together, alone = start.clone(), start[:1].clone()
    Muon([together], 0.9, 4).step([grad], torch.full((2, 1), 0.1))
    Muon([alone], 0.9, 4).step([grad[:1]], torch.full((1, 1), 0.1))

    torch.testing.assert_close(together[:1], alone)


def test_a_symmetric_square_is_the_product_with_the_transpose():
    x = torch.randn(2, 300, 300, generator=torch.Generator().manual_seed(4))

    torch.testing.assert_close(optimiser._symmetric_square(x), x @ x.mT, rtol=1e-4, atol=1e-3)


def test_two_iterations_bring_most_singular_values_near_one():
    matrices = torch.randn(2, 128, 128, generator=torch.Generator().manual_seed(5))

    values = torch.linalg.svdvals(orthogonalise(matrices, 2))

    assert values.median() > 0.7
    assert values.max() < 1.3


def test_a_matrix_of_zeros_or_of_tiny_numbers_gives_no_nan():
    tiny = 1e-25 * torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(6))

    assert (orthogonalise(torch.zeros(1, 64, 64), 3) == 0).all()
    assert torch.isfinite(orthogonalise(tiny, 3)).all()


def test_a_place_that_is_taken_again_starts_afresh():
    generator = torch.Generator().manual_seed(7)
    grads = torch.randn(3, 1, 10, generator=generator)
    fresh, used = torch.ones(1, 10), torch.ones(1, 10)
    rate = torch.tensor([[0.1]])
    again = Adam(used, [slice(0, 10)], 0.9, 0.99)
    again.step(grads[0], rate)
    again.restart(0)
    used[:] = 1
    first = Adam(fresh, [slice(0, 10)], 0.9, 0.99)

    for adam in (first, again):
        for grad in grads:
            adam.step(grad, rate)

    assert torch.equal(fresh, used)
