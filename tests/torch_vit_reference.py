"""A vision transformer of PyTorch's own encoder layers, and its weights as flax variables."""

import numpy as np
import torch
from torch import nn


class TorchViT(nn.Module):
    """Images ``[batch, 3, height, width]`` to logits; class token first, pre-norm blocks, exact GELU."""

    def __init__(self, num_classes, height, width, patch, features, depth, heads):
        super().__init__()
        self.embedding = nn.Conv2d(3, features, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, features))
        self.positions = nn.Parameter(torch.randn(1, 1 + (height // patch) * (width // patch), features))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                features, heads, 4 * features, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.head = nn.Linear(features, num_classes)

    def forward(self, x):
        x = self.embedding(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


def vit(num_classes, height, width, patch, features, depth, heads):
    """In float64, every parameter away from its trivial start (the biases are zero and the scales one)."""
    module = TorchViT(num_classes, height, width, patch, features, depth, heads).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return module


def to_flax(module, of=lambda tensor: tensor):
    """The parameters of `mpt_jax.models.vit` as float64 numpy arrays.

    ``of`` selects what to take of a parameter: itself, or for example its gradient (``lambda p: p.grad``).
    """

    def array(tensor):
        return of(tensor).detach().cpu().numpy().astype(np.float64)

    def linear(weight, bias):
        return {"kernel": array(weight).T, "bias": array(bias)}

    def norm(layer):
        return {"scale": array(layer.weight), "bias": array(layer.bias)}

    kernel = array(module.embedding.weight)
    params = {
        "patch_embedding": {
            "kernel": kernel.transpose(2, 3, 1, 0).reshape(-1, kernel.shape[0]),
            "bias": array(module.embedding.bias),
        },
        "class_token": array(module.token)[0, 0],
        "position_embedding": array(module.positions)[0],
        "norm": norm(module.norm),
        "head": linear(module.head.weight, module.head.bias),
    }
    for number, block in enumerate(module.blocks, start=1):
        params[f"block{number}"] = {
            "norm1": norm(block.norm1),
            "qkv": linear(block.self_attn.in_proj_weight, block.self_attn.in_proj_bias),
            "proj": linear(block.self_attn.out_proj.weight, block.self_attn.out_proj.bias),
            "norm2": norm(block.norm2),
            "fc1": linear(block.linear1.weight, block.linear1.bias),
            "fc2": linear(block.linear2.weight, block.linear2.bias),
        }
    return params


def timm_names(state):
    """The reference's state_dict under timm's names."""
    inner = {
        **{"self_attn.in_proj_weight": "attn.qkv.weight", "self_attn.in_proj_bias": "attn.qkv.bias"},
        **{"self_attn.out_proj": "attn.proj", "linear1": "mlp.fc1", "linear2": "mlp.fc2"},
    }
    result = {}
    for name, value in state.items():
        for ours, theirs in {"embedding": "patch_embed.proj", "token": "cls_token", "positions": "pos_embed"}.items():
            name = theirs + name.removeprefix(ours) if name.startswith(ours) else name
        if name.startswith("blocks"):
            for ours, theirs in inner.items():
                name = name.replace(ours, theirs)
        result[name] = value
    return result
