"""PyTorch's packages of networks, for slow tests: nothing is downloaded."""

import importlib

import numpy as np
import pytest
import torch


def package(name):
    """Import a package, or skip the test; compiled operators that torchvision does not find are not needed."""
    register = torch.library.register_fake

    def lenient(operator, *arguments, **options):
        def decorate(function):
            try:
                return register(operator, *arguments, **options)(function)
            except RuntimeError:  # a torchvision that was compiled for another build of PyTorch
                return function

        return decorate

    torch.library.register_fake = lenient
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    finally:
        torch.library.register_fake = register
    return pytest.importorskip(name)


def timm():
    return package("timm")


def randomised(module, seed=0, size=None):
    """Return a network whose parameters are all drawn, so that no two of them can be confused.

    With a size, the statistics of batch normalisation are near those of random images, and the logits depend on these.
    """
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.named_parameters():
            spread = 0.7 * tensor[0].numel() ** -0.5 if tensor.ndim in (2, 4) else 0.3
            centre = 1.0 if tensor.ndim == 1 and name.endswith("weight") else 0.0
            if "layer" in name and name.endswith("bn3.weight"):  # many strong branches amplify rounding errors
                centre, spread = 0.3, 0.1
            tensor.copy_(centre + spread * torch.randn_like(tensor))
        if size:
            norms = [layer for layer in module.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
            for layer in norms:
                layer.momentum = 1.0
            module.train()(torch.randn(16, 3, *size))
            for layer in norms:
                layer.running_mean += 0.1 * torch.randn_like(layer.running_mean)
                layer.running_var *= 0.8 + 0.4 * torch.rand_like(layer.running_var)
    return module.eval()


def arrays(state):
    """Return the floating-point arrays of a state, as `mpt_jax.files.weights` reads them."""
    return {name: tensor.numpy() for name, tensor in state.items() if tensor.is_floating_point()}


def images(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def logits(module, inputs):
    with torch.no_grad():
        return module(torch.tensor(inputs.transpose(0, 3, 1, 2))).numpy()
