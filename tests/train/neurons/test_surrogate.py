import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_compile.targets.errors import SnnCompileError
from snn_compile.train.neurons.surrogate import SURROGATES, double_gaussian, multi_gaussian, spike

X = torch.linspace(-40, 40, 80001, dtype=torch.float64)


def density(x, mean, sigma):
    return math.exp(-((x - mean) ** 2) / (2 * sigma**2)) / (sigma * math.sqrt(2 * math.pi))


BY_HAND = {
    "arctan": lambda x: 1 / (1 + math.pi**2 * x**2),
    "multi-gaussian": lambda x: (
        0.5 * (1.15 * density(x, 0, 0.5) - 0.15 * (density(x, 0.5, 3) + density(x, -0.5, 3)))
    ),
    "multi-gaussian-0.3": lambda x: (
        0.5 * (1.15 * density(x, 0, 0.3) - 0.15 * (density(x, 0.3, 1.8) + density(x, -0.3, 1.8)))
    ),
    "double-gaussian": lambda x: 0.5 * (1.15 * density(x, 0, 0.5) - 0.3 * density(x, 0, 3)),
    "linear": lambda x: max(0.0, 1 - abs(x)),
    "exponential": lambda x: math.exp(-abs(x)),
}


@pytest.mark.parametrize("name", SURROGATES)
def test_the_gradient_is_the_formula(name):
    x = torch.tensor([-2.3, -0.7, -0.1, 0.0, 0.05, 0.4, 1.9], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([0.3, -1.7, 2.0, 0.9, 1.1, -0.6, 0.4], dtype=torch.float64)
    (spike(x, name) * weights).sum().backward()
    expected = [w * BY_HAND[name](v) for v, w in zip(x.tolist(), weights.tolist(), strict=True)]
    torch.testing.assert_close(x.grad, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("name", SURROGATES)
def test_the_derivative_is_even(name):
    torch.testing.assert_close(SURROGATES[name](X), SURROGATES[name](-X), rtol=1e-12, atol=1e-15)


def test_double_gaussian_has_the_published_peak_and_integral():
    assert float(double_gaussian(torch.tensor(0.0))) == pytest.approx(0.43884, abs=5e-6)
    assert float(torch.trapezoid(double_gaussian(X), X)) == pytest.approx(0.425, abs=1e-9)
    assert float(double_gaussian(torch.tensor(2.5))) < 0


def test_multi_gaussian_integrates_to_the_same_and_takes_the_narrow_width():
    for sigma in (0.5, 0.3):
        assert float(torch.trapezoid(multi_gaussian(X, sigma), X)) == pytest.approx(0.425, abs=1e-9)


def test_a_tie_does_not_spike():
    x = torch.tensor([-1e-7, 0.0, 1e-7])
    assert spike(x).tolist() == [0.0, 0.0, 1.0]


@settings(max_examples=60)
@given(st.sampled_from(list(SURROGATES)), st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20))
def test_forward_gradient_injection_gives_the_same_numbers(name, values):
    x, y = (torch.tensor(values, requires_grad=True) for _ in range(2))
    direct = spike(x, name)
    line = SURROGATES[name](y.detach()) * y
    injected = line - line.detach() + (y.detach() > 0).float()
    torch.testing.assert_close(direct, injected, rtol=0, atol=1e-6)
    (direct**2 + 0.3 * direct).sum().backward()
    (injected**2 + 0.3 * injected).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=1e-6)


@settings(max_examples=60)
@given(st.sampled_from(["double-gaussian", "multi-gaussian"]), st.floats(-30, 30))
def test_the_gaussians_are_even_and_their_formula_anywhere(name, x):
    found = [float(SURROGATES[name](torch.tensor(value, dtype=torch.float64))) for value in (x, -x)]
    assert found[0] == pytest.approx(found[1], abs=1e-15)
    assert found[0] == pytest.approx(BY_HAND[name](x), rel=1e-12, abs=1e-15)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SnnCompileError, match="arctan, multi-gaussian"):
        spike(torch.zeros(1), "sigmoid")
