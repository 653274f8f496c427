"""LightGlue for ALIKED's descriptors: which keypoint of one image is which of another.

Network and parameter names are kornia's (Apache-2.0; after Lindenberger et al. 2023, cvg/LightGlue,
Apache-2.0), meant for the authors' `aliked_lightglue.pth`. All 9 layers run: there is no early
stop and no pruning of points, both of which depend on data. What is ours instead of kornia's, for a
graph without scatters and without logarithms of zero, is proven equal to it in tests/corpus.

Inputs, for one pair of images:
  keypoints0, keypoints1: float32, 1 x N x 2: x and y in pixels, less half the image's width and height,
    over half of the larger of the two. The counts N0 and N1 are dynamic and independent.
  descriptors0, descriptors1: float32, 1 x N x 128.
Output `log_assignment`: float32, 1 x (N0 + 1) x (N1 + 1), logarithms of probabilities: of i being j, and
in the last column and row of having no partner. A match is where i and j are each other's best, above a
threshold (0.1 is usual). That stays outside: a rounding error would turn indices into other indices, and
an accuracy gate could not judge them.
"""

import re

import torch
from exporting import facts, give_weights, write
from kornia.feature import LightGlue
from torch.nn import functional as F

DIMENSIONS = 128  # of ALIKED's descriptors
LAYERS = 9


class PlainAttention(torch.nn.Module):
    """Attention in three operations; the exporter's own one reshapes by shapes that it computes."""

    def forward(self, q, k, v, mask=None):
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1) @ v


class Assignment(torch.nn.Module):
    """kornia's last MatchAssignment, its matrix put together instead of written into."""

    def __init__(self, original):
        super().__init__()
        self.matchability = original.matchability
        self.final_proj = original.final_proj

    def forward(self, desc0, desc1):
        scale = desc0.shape[-1] ** -0.25
        similar = (self.final_proj(desc0) * scale) @ (self.final_proj(desc1) * scale).transpose(1, 2)
        z0, z1 = self.matchability(desc0), self.matchability(desc1).transpose(1, 2)
        # log(sigmoid(z)) is -softplus(-z): no logarithm of a sigmoid that was rounded to 0.
        pairs = similar.log_softmax(2) + similar.log_softmax(1) - F.softplus(-z0) - F.softplus(-z1)
        corner = torch.zeros_like(z0[:, :1])
        with_column = torch.cat([pairs, -F.softplus(z0)], 2)
        return torch.cat([with_column, torch.cat([-F.softplus(z1), corner], 2)], 1)


class Matcher(torch.nn.Module):
    """The parts of kornia's LightGlue that a full pass runs."""

    def __init__(self, original):
        super().__init__()
        self.input_proj = original.input_proj
        self.posenc = original.posenc
        self.layers = original.transformers
        for layer in self.layers:
            layer.self_attn.inner_attn = PlainAttention()
        self.assignment = Assignment(original.log_assignment[-1])

    def forward(self, keypoints0, keypoints1, descriptors0, descriptors1):
        desc0, desc1 = self.input_proj(descriptors0), self.input_proj(descriptors1)
        place0, place1 = self.posenc(keypoints0), self.posenc(keypoints1)
        for layer in self.layers:
            desc0, desc1 = layer(desc0, desc1, place0, place1)
        return self.assignment(desc0, desc1)


def original(*, checkpoint=None, seed=0, layers=LAYERS):
    """(kornia's LightGlue, where its weights come from)."""
    full_pass = {"flash": False, "depth_confidence": -1, "width_confidence": -1}
    network = LightGlue(None, input_dim=DIMENSIONS, n_layers=layers, **full_pass)
    return network.eval(), give_weights(network, checkpoint, seed, _renamed)


def _renamed(state):
    """The authors' checkpoints call the parts of layer 3 self_attn.3 and cross_attn.3."""
    old = re.compile(r"^(self_attn|cross_attn)\.(\d+)\.")
    return {old.sub(r"transformers.\2.\1.", name): value for name, value in state.items()}


def export(target, *, checkpoint=None, seed=0, layers=LAYERS):
    """Write the ONNX; returns facts for a receipt."""
    whole, weights = original(checkpoint=checkpoint, seed=seed, layers=layers)
    network = Matcher(whole)
    inputs = {
        "keypoints0": (torch.zeros(1, 40, 2), {1: "N0"}),
        "keypoints1": (torch.zeros(1, 50, 2), {1: "N1"}),
        "descriptors0": (torch.zeros(1, 40, DIMENSIONS), {1: "N0"}),
        "descriptors1": (torch.zeros(1, 50, DIMENSIONS), {1: "N1"}),
    }
    write(network, inputs, ["log_assignment"], target)
    return facts(network, weights, "kornia")
