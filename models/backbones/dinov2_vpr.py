"""DINOv2 with a head for visual place recognition: one descriptor of an image, to compare by cosine.

Backbone: DINOv2, ViT-S/14 or ViT-B/14 without registers (Oquab et al. 2023; Meta, Apache-2.0), from
kornia (Apache-2.0), which keeps Meta's code and parameter names: meant for the checkpoints
`dinov2_vits14_pretrain.pth` and `dinov2_vitb14_pretrain.pth`.

Head: generalised mean of the patch tokens after the last norm (GeM, Radenovic et al. 2018), with its
usual exponent of 3, then L2 norm. It has no weights of its own, so a backbone's checkpoint is all.

Input `image`: float32, batch x 3 x size x size, RGB less ImageNet's mean, over its deviation.
Output `descriptor`: float32, batch x 384 (S) or 768 (B), of length 1.
Size 322: what DINOv2 models for place recognition are evaluated at (SALAD, Izquierdo & Civera 2024).
"""

import torch
from exporting import facts, give_weights, write
from kornia.feature.dedode.transformer.dinov2 import DinoVisionTransformer

PATCH = 14  # pixels
TRAINED_AT = 518  # pixels; the position embeddings of Meta's checkpoints are of 37 x 37 patches
LAYERS = 12
VARIANTS = {"s": (384, 6), "b": (768, 12)}  # width, heads


class PlaceDescriptor(torch.nn.Module):
    """Backbone and head."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, image):
        tokens = self.backbone.forward_features(image)["x_norm_patchtokens"]
        pooled = tokens.clamp(min=1e-6).pow(3).mean(1).pow(1 / 3)
        return torch.nn.functional.normalize(pooled, dim=1)


def vision_transformer(variant, size, layers=LAYERS):
    """DINOv2 as in Meta's checkpoints, for square images of so many pixels."""
    width, heads = VARIANTS[variant]
    shape = {"embed_dim": width, "num_heads": heads, "depth": layers}
    return DinoVisionTransformer(size, PATCH, **shape, init_values=1.0, block_chunks=0)


def build(variant="s", *, checkpoint=None, seed=0, size=322, layers=LAYERS):
    """(network, where its weights come from). layers: fewer than all are for tests."""
    if size % PATCH:
        raise ValueError(f"size={size}: the image must be a multiple of {PATCH} pixels")
    backbone = vision_transformer(variant, TRAINED_AT if checkpoint else size, layers)
    weights = give_weights(backbone, checkpoint, seed)
    _fix_positions(backbone, size)
    return PlaceDescriptor(backbone).eval(), weights


def _fix_positions(backbone, size):
    """Interpolate the position embeddings once, here, for the one size that will be exported."""
    count = 1 + (size // PATCH) ** 2
    with torch.no_grad():
        tokens = torch.empty(1, count, backbone.embed_dim)
        fixed = backbone.interpolate_pos_encoding(tokens, size, size)
    backbone.pos_embed = torch.nn.Parameter(fixed.clone(), requires_grad=False)
    del backbone.mask_token  # for training alone


def export(target, *, checkpoint=None, seed=0, variant="s", size=322, layers=LAYERS):
    """Write the ONNX, ViT-B with external data; returns facts for a receipt."""
    network, weights = build(variant, checkpoint=checkpoint, seed=seed, size=size, layers=layers)
    inputs = {"image": (torch.zeros(2, 3, size, size), {0: "batch"})}
    write(network, inputs, ["descriptor"], target, external=variant == "b")
    return facts(network, weights, "kornia")
