"""The image tower of CLIP, identical to OpenCLIP's and Hugging Face's, with a linear head on the embedding.

Source: Learning Transferable Visual Models From Natural Language Supervision, Radford et al., 2021.
"""

from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from mpt_jax.models.dialect import Dialect
from mpt_jax.models.layers import Linear, at_least_float32, layer_norm, stochastic_depth
from mpt_jax.models.vit import Block, embedded_patches, patches, resized_positions

_EPSILON = 1e-5  # of the LayerNorms


class CLIPImageTower(nn.Module):
    """A vision transformer whose normalised class token is projected to the space that images and texts share.

    It differs from `ViT` in a LayerNorm before the blocks, no bias in the patch embedding, LayerNorm's epsilon 1e-5,
    and the projection. The head is on the embedding as it is, not on the one of length one.

    ========  =====  =====  ======  =====  =========  ===========
    name      patch  width  blocks  heads  embedding   parameters
    ========  =====  =====  ======  =====  =========  ===========
    clip_b32     32    768      12     12        512   87,849,216
    clip_b16     16    768      12     12        512   86,192,640
    clip_l14     14   1024      24     16        768  303,966,208
    ========  =====  =====  ======  =====  =========  ===========

    Parameters are for images of 224x224 pixels, without the head.

    Attributes:
        num_classes: number of logits.
        patch: side of a patch in pixels; image sides must be multiples of it.
        width: features of a token.
        depth: number of blocks.
        heads: attention heads of a block.
        embedding: features of the projection.
        activation: of the blocks. ``quick_gelu``, ``x * sigmoid(1.702 * x)``, is that of OpenAI's weights, in OpenCLIP
            and Hugging Face too; ``gelu`` is that of nearly all others, such as LAION's. Names do not tell which.
        dropout: probability that training sets a feature before the head to zero.
        drop_path: probability that training skips the branches of the last block; it grows linearly from 0 at the
            first block.
        dtype: of the computation; softmax, LayerNorm, the head and the logits have at least float32.
        param_dtype: of the parameters.
        remat: whether training keeps only the blocks' inputs and recomputes the rest for the gradient.
    """

    num_classes: int
    patch: int
    width: int
    depth: int
    heads: int
    embedding: int
    activation: str = "quick_gelu"
    dropout: float = 0.0
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Array, train: bool) -> Array:
        """Map normalised images ``[batch, height, width, channels]`` to logits ``[batch, num_classes]``.

        Raises:
            InputError: a side of the images is not a multiple of the patch.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm = partial(layer_norm, epsilon=_EPSILON)
        init = nn.initializers.normal(self.width**-0.5)
        x = patches(images, self.patch).astype(self.dtype)
        x = nn.Dense(self.width, use_bias=False, **dtypes, name="patch_embedding")(x)
        token = self.param("class_token", init, (self.width,), self.param_dtype)
        tokens = jnp.broadcast_to(token.astype(self.dtype), (x.shape[0], 1, self.width))
        x = jnp.concatenate([tokens, x], axis=1)
        positions = self.param("position_embedding", init, x.shape[1:], self.param_dtype)
        x = norm(x + positions.astype(self.dtype)[None], dtype=self.dtype, name="norm_before")
        block_of = nn.remat(Block, static_argnums=(2,)) if self.remat and train else Block
        for number, rate in enumerate(stochastic_depth(self.drop_path, self.depth), start=1):
            block = block_of(
                self.heads, rate, **dtypes, activation=self.activation, epsilon=_EPSILON, name=f"block{number}"
            )
            x = block(x, train)
        wide = at_least_float32(self.dtype)
        x = norm(x[:, 0], dtype=wide, name="norm")
        project = nn.Dense(
            self.embedding,
            use_bias=False,
            dtype=wide,
            param_dtype=self.param_dtype,
            kernel_init=init,
            name="projection",
        )
        features = nn.Dropout(self.dropout, deterministic=not train)(project(x))
        return Linear(self.num_classes, **dtypes, name="head")(features)


CLIPBase32 = partial(CLIPImageTower, patch=32, width=768, depth=12, heads=12, embedding=512)
CLIPBase16 = partial(CLIPImageTower, patch=16, width=768, depth=12, heads=12, embedding=512)
CLIPLarge = partial(CLIPImageTower, patch=14, width=1024, depth=24, heads=16, embedding=768)

_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_RESIZED = {"position_embedding": resized_positions}
DIALECTS = {
    "openclip": Dialect(
        {
            r"patch_embedding": "visual.conv1",
            r"class_token": "visual.class_embedding",
            r"position_embedding": "visual.positional_embedding",
            r"norm_before": "visual.ln_pre",
            r"block(\d+)": lambda found, _: f"visual.transformer.resblocks.{int(found[1]) - 1}",
            r"qkv\.(weight|bias)": r"attn.in_proj_\1",
            r"proj": "attn.out_proj",
            r"fc1": "mlp.c_fc",
            r"fc2": "mlp.c_proj",
            r"norm(\d)": r"ln_\1",
            r"norm": "visual.ln_post",
            r"projection\.weight": "visual.proj",
        },
        {
            r"patch_embedding\.kernel": embedded_patches,
            r"projection\.kernel": lambda shape, _: (shape, (0, 1)),
        },
        _STATISTICS,
        beside=r"(transformer|token_embedding|ln_final|text)\..*"
        r"|positional_embedding|text_projection|logit_scale|logit_bias|attn_mask",
        resized=_RESIZED,
    ),
    "huggingface": Dialect(
        {
            r"patch_embedding": "vision_model.embeddings.patch_embedding",
            r"class_token": "vision_model.embeddings.class_embedding",
            r"position_embedding": "vision_model.embeddings.position_embedding.weight",
            r"norm_before": "vision_model.pre_layrnorm",  # as it is spelled there
            r"block(\d+)": lambda found, _: f"vision_model.encoder.layers.{int(found[1]) - 1}",
            r"qkv": "self_attn.{q,k,v}_proj",
            r"proj": "self_attn.out_proj",
            r"(fc\d)": r"mlp.\1",
            r"norm(\d)": r"layer_norm\1",
            r"norm": "vision_model.post_layernorm",
            r"projection": "visual_projection",
        },
        {r"patch_embedding\.kernel": embedded_patches},
        _STATISTICS,
        beside=r"text_model\..*|text_projection\.weight|logit_scale|vision_model\.embeddings\.position_ids",
        resized=_RESIZED,
    ),
}
