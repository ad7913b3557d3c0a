import pytest
import torch

from nf2vec_cli.config.generate import GenerateConfig
from nf2vec_cli.models.latent import Latent
from nf2vec_cli.models.latent_flow import LatentFlow, shrunk
from nf2vec_cli.models.latent_gan import LatentGan


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def correlated(count, size=6):
    torch.manual_seed(1)
    return torch.randn(count, 2) @ torch.randn(2, size) + 0.1 * torch.randn(count, size)


def test_a_flow_without_a_network_draws_the_normal_distribution():
    real = correlated(400)
    real = (real - real.mean(0)) / real.std(0)
    flow = LatentFlow(6, width=8, blocks=1, dropout=0.0, stride=64).eval()
    flow.fit_normal(real, real)

    with torch.no_grad():
        drawn = flow.sample(4_000, generator=draws())

    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(real.T), atol=0.1, rtol=0)
    assert drawn.mean(0).abs().max() < 0.06


def test_its_velocity_is_the_best_for_that_distribution():
    flow = LatentFlow(1, width=8, blocks=1, dropout=0.0, stride=8).eval()
    real = torch.randn(20_000, 1, generator=draws(1))

    # of independent numbers the error is the mean of 1 / ((1 - t)^2 + t^2), which is pi / 2
    with torch.no_grad():
        assert float(flow.loss(real, generator=draws())) == pytest.approx(torch.pi / 2, rel=0.03)


def test_shrinking_keeps_the_spread_and_weakens_correlations():
    real = correlated(300)
    real = (real - real.mean(0)) / real.std(0)
    share = torch.tensor([0.5] * 3 + [0.0] * 3)

    whole, found = torch.corrcoef(real.T), shrunk(real, share).float()

    torch.testing.assert_close(found.diagonal(), torch.ones(6))
    torch.testing.assert_close(found[3:, 3:], whole[3:, 3:])
    torch.testing.assert_close(found[0, 1], whole[0, 1] / 2)


def test_each_part_is_shrunk_as_val_says():
    torch.manual_seed(0)
    noise, strong = torch.randn(40, 12), correlated(40, 6)
    real = torch.cat([noise, (strong - strong.mean(0)) / strong.std(0)], dim=1)
    flow = LatentFlow(18, width=8, blocks=1, dropout=0.0, stride=4)

    flow.fit_normal(real[:20], real[20:], first=12)

    covariance = flow.axes @ torch.diag(flow.variance) @ flow.axes.T
    chance = torch.cov(real[:20].T)
    assert covariance[:12, :12].triu(1).abs().max() < 0.6 * chance[:12, :12].triu(1).abs().max()
    torch.testing.assert_close(covariance[12:, 12:], chance[12:, 12:], atol=0.15, rtol=0)


def test_only_the_generator_learns_in_its_step_and_only_the_critic_in_its_own():
    gan = LatentGan(5, noise=3, width=4, critic=(6, 7))
    real = torch.randn(8, 5)

    gan.generator_loss(8, generator=draws()).backward()
    assert all(p.grad is not None for p in gan.generator.parameters())
    assert all(p.grad is None for p in gan.critic.parameters())

    gan.zero_grad(set_to_none=True)
    gan.critic_loss(real, penalty=10.0, generator=draws()).backward()
    assert all(p.grad is None for p in gan.generator.parameters())
    assert [p.shape[0] for p in gan.critic.parameters() if p.grad is not None][::2] == [6, 7, 1]


def test_the_penalty_is_of_slopes_other_than_one():
    gan = LatentGan(4, noise=3, critic=(2,))
    with torch.no_grad():  # a critic of slope 3: two units that take turns at zero
        for parameter in gan.critic.parameters():
            parameter.zero_()
        gan.critic[0].weight[0, 0], gan.critic[0].weight[1, 0] = 1, -1
        gan.critic[2].weight[0, 0], gan.critic[2].weight[0, 1] = 3, -3
    real = torch.randn(16, 4)

    without = gan.critic_loss(real, penalty=0.0, generator=draws())
    found = gan.critic_loss(real, penalty=10.0, generator=draws())

    assert (found - without).item() == pytest.approx(10 * (3 - 1) ** 2)


def test_the_generator_reaches_negative_numbers():
    gan = LatentGan(5, noise=3)

    drawn = gan.sample(100, generator=draws())

    assert (drawn.min(0).values < 0).all()
    assert (drawn.max(0).values > 0).all()


@pytest.mark.parametrize("model", ["flow", "gan"])
def test_what_is_drawn_has_the_scale_of_the_embeddings(model):
    real = correlated(50) * 20 + 300
    real[:, 5] = 7
    latent = Latent(GenerateConfig(model=model, width=8, noise=4), 6)
    latent.fit_statistics(real)

    drawn = latent.sample(200, generator=draws())

    torch.testing.assert_close(drawn[:, 5], torch.full((200,), 7.0))
    assert (drawn[:, :5].mean(0) - real[:, :5].mean(0)).abs().max() < 3 * real.std(0).max()
    assert torch.equal(drawn, latent.sample(200, generator=draws()))
    assert not torch.equal(drawn, latent.sample(200, generator=draws(1)))
    torch.testing.assert_close(latent.standardise(real)[:, :5].std(0), torch.ones(5))


def test_directions_have_the_length_that_an_aligned_encoder_gives_them():
    latent = Latent(GenerateConfig(width=8), 6, directions=4)

    drawn = latent.sample(20, generator=draws())

    torch.testing.assert_close(drawn[:, :4].norm(dim=1), torch.full((20,), 2.0))
    assert drawn[:, 4:].norm(dim=1).std() > 0.1
