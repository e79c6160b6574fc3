"""ResNets in PyTorch, written from the description of the architecture, and their weights as flax variables."""

import numpy as np
import torch
from torch import nn


class TorchBlock(nn.Module):
    def __init__(self, inputs, features, stride, bottleneck):
        super().__init__()
        sizes = (
            [(inputs, features, 1, 1), (features, features, 3, stride), (features, 4 * features, 1, 1)]
            if bottleneck
            else [(inputs, features, 3, stride), (features, features, 3, 1)]
        )
        self.convs = nn.ModuleList(nn.Conv2d(i, o, k, s, k // 2, bias=False) for i, o, k, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _, _ in sizes)
        self.outputs = sizes[-1][1]
        self.project = None
        if stride != 1 or inputs != self.outputs:
            self.project = nn.Conv2d(inputs, self.outputs, 1, stride, bias=False)
            self.project_norm = nn.BatchNorm2d(self.outputs)

    def forward(self, x):
        y = x
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            if number < len(self.convs) - 1:
                y = torch.relu(y)
        if self.project is not None:
            x = self.project_norm(self.project(x))
        return torch.relu(x + y)


class TorchResNet(nn.Module):
    """Images ``[batch, channels, height, width]`` to logits."""

    def __init__(self, num_classes, stem, depths, bottleneck):
        super().__init__()
        if stem == "imagenet":
            self.stem, self.pool = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)
        else:
            self.stem, self.pool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
        self.stem_norm = nn.BatchNorm2d(64)
        self.stages = nn.ModuleList()
        inputs = 64
        for stage, depth in enumerate(depths):
            self.stages.append(nn.ModuleList())
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                self.stages[-1].append(TorchBlock(inputs, 64 * 2**stage, stride, bottleneck))
                inputs = self.stages[-1][-1].outputs
        self.head = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.stem_norm(self.stem(x))))
        for stage in self.stages:
            for block in stage:
                x = block(x)
        return self.head(x.mean((2, 3)))


def resnet18(num_classes, stem="imagenet"):
    """ResNet-18 in float64."""
    return TorchResNet(num_classes, stem, (2, 2, 2, 2), bottleneck=False).double()


def resnet50(num_classes, stem="imagenet"):
    """ResNet-50 in float64, the stride of a bottleneck on its 3x3 convolution."""
    return TorchResNet(num_classes, stem, (3, 4, 6, 3), bottleneck=True).double()


def to_flax(module, of=lambda tensor: tensor):
    """``(params, batch_stats)`` of `mpt_jax.models.resnet` as float64 numpy arrays.

    ``of`` selects what to take of a parameter: itself, or for example its gradient (``lambda p: p.grad``).
    """
    params, batch_stats = {}, {}

    def array(tensor):
        return tensor.detach().cpu().numpy().astype(np.float64)

    def conv(tree, name, layer):
        tree[name] = {"kernel": array(of(layer.weight)).transpose(2, 3, 1, 0)}

    def norm(tree, stats, name, layer):
        tree[name] = {"scale": array(of(layer.weight)), "bias": array(of(layer.bias))}
        stats[name] = {"mean": array(layer.running_mean), "var": array(layer.running_var)}

    conv(params, "stem_conv", module.stem)
    norm(params, batch_stats, "stem_norm", module.stem_norm)
    for stage, blocks in enumerate(module.stages, start=1):
        for number, block in enumerate(blocks, start=1):
            name = f"stage{stage}_block{number}"
            tree, stats = params.setdefault(name, {}), batch_stats.setdefault(name, {})
            for index, (convolution, normalisation) in enumerate(zip(block.convs, block.norms, strict=True), start=1):
                conv(tree, f"conv{index}", convolution)
                norm(tree, stats, f"norm{index}", normalisation)
            if block.project is not None:
                conv(tree, "project_conv", block.project)
                norm(tree, stats, "project_norm", block.project_norm)
    params["head"] = {"kernel": array(of(module.head.weight)).T, "bias": array(of(module.head.bias))}
    return params, batch_stats


def torchvision_names(state):
    """The reference's state_dict under torchvision's names: stem, stages of blocks, head."""
    names = {}
    for name in state:
        first, *rest = name.split(".")
        if first == "stages":
            stage, block, kind, *rest = rest
            kind = {"convs": "conv", "norms": "bn"}.get(kind, kind)
            if kind in ("conv", "bn"):
                kind, rest = f"{kind}{int(rest[0]) + 1}", rest[1:]
            else:
                kind = {"project": "downsample.0", "project_norm": "downsample.1"}[kind]
            names[name] = ".".join([f"layer{int(stage) + 1}", block, kind, *rest])
        else:
            names[name] = ".".join([{"stem": "conv1", "stem_norm": "bn1", "head": "fc"}[first], *rest])
    return {theirs: state[ours] for ours, theirs in names.items()}
