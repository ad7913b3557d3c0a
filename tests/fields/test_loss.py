import pytest
import torch

from nf2vec_cli.fields.loss import cross_entropy, focal

VALUES = [-60.0, -1.0, 0.0, 2.5, 60.0]


@pytest.mark.parametrize("value", VALUES)
def test_cross_entropy_and_its_slope(value):
    outputs = torch.tensor([value], requires_grad=True)
    targets = torch.tensor([0.3])

    each, slope = cross_entropy(outputs.detach(), targets)

    expected = torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets)
    expected.backward()
    torch.testing.assert_close(each[0], expected.detach())
    torch.testing.assert_close(slope, outputs.grad)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.9, 3.0), (0.5, 1.0), (0.7, 0.0)])
def test_focal_loss_and_its_slope(value, target, alpha, gamma):
    outputs = torch.tensor([value], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([target], dtype=torch.float64)

    each, slope = focal(alpha, gamma)(outputs.detach(), targets)

    # as the authors write it: a_t (1 - p_t)^gamma b with p_t = exp(-b)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(outputs, targets)
    weight = alpha if target else 1 - alpha
    expected = weight * (1 - torch.exp(-entropy)) ** gamma * entropy
    expected.backward()
    torch.testing.assert_close(each[0], expected.detach(), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(slope, outputs.grad, rtol=1e-6, atol=1e-9)
