"""ALIKED-n16: keypoints of an image, and a descriptor of each.

Network and parameter names are kornia's (Apache-2.0; after Zhao et al. 2023, Shiaoming/ALIKED, BSD
3-Clause), meant for the authors' `aliked-n16.pth` and `aliked-n16rot.pth`. TensorRT's parser refuses
ONNX's DeformConv, so its four deformable convolutions are made of bilinear sampling (GridSample) and a
1x1 convolution here: the same sums, proven equal to a reference in tests/corpus.

It comes in parts:
  "dense": `image` to `score_map` and `feature_map`: may be fp16 or int8, judged by an accuracy gate;
  "selection": these two to `keypoints`, `scores` and `descriptors`. To be kept in float32: fp16 has no
    quarters of pixels above 512, and a rounding error makes another pixel the maximum;
  "whole": `image` to the keypoints, one engine, in float32 for the same reasons.

image: float32, batch x 3 x height x width, RGB from 0 to 1.
score_map: batch x 1 x height x width, 0 to 1.
feature_map: batch x 128 x height x width, of length 1 along the channels.
keypoints: batch x N x 2, x and y in pixels, between pixels.
scores: batch x N, falling but for what reading between pixels changes; 0 where the image has fewer local
  maxima than N, and then the keypoint and its descriptor mean nothing.
descriptors: batch x N x 128, of length 1, as LightGlue takes them.
"""

import torch
from exporting import facts, give_weights, write
from kornia.feature import ALIKED
from kornia.feature.aliked.aliked import DeformableConv2d
from torch.nn import functional as F

CHANNELS = 128
RADIUS = 2  # pixels, of the window in which a keypoint is the maximum
TEMPERATURE = 0.1  # of the soft maximum that places it between pixels


class SampledConv(torch.nn.Module):
    """A deformable convolution by bilinear sampling: zero outside the image, stride and dilation 1.

    Takes the parts of kornia's DeformableConv2d, and their names.
    """

    def __init__(self, original):
        super().__init__()
        self.offset_conv = original.offset_conv
        self.regular_conv = original.regular_conv
        self.padding = original.padding
        if original.mask or original.stride != 1 or original.dilation != 1:
            raise ValueError("a deformable convolution with a mask, a stride or a dilation")

    def forward(self, x):
        height, width = x.shape[2:]
        limit = max(height, width) / 4.0
        offsets = self.offset_conv(x).clamp(-limit, limit)
        return self.convolve(x, offsets)

    def convolve(self, x, offsets):
        """The convolution of x, batch x C x H x W, where the kernel's point k reads `offsets`[:, 2k]
        rows and [:, 2k + 1] columns away from its place. offsets: batch x 2K x H x W, pixels."""
        weight, bias = self.regular_conv.weight, self.regular_conv.bias
        (height, width), (k_high, k_wide) = x.shape[2:], weight.shape[2:]
        points = k_high * k_wide
        point = torch.arange(points)[:, None, None]
        rows = (torch.arange(height)[:, None] + point // k_wide - self.padding).to(x)
        columns = (torch.arange(width) + point % k_wide - self.padding).to(x)
        away = offsets.unflatten(1, (points, 2))
        # Pixel p of n lies at (2 p + 1) / n - 1.
        down = away[:, :, 0] * (2 / height) + ((2 * rows + 1) / height - 1)
        right = away[:, :, 1] * (2 / width) + ((2 * columns + 1) / width - 1)
        grid = torch.stack([right, down], -1).flatten(1, 2)
        read = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        read = read.reshape(-1, x.shape[1] * points, height, width)
        return F.conv2d(read, weight.flatten(1)[:, :, None, None], bias)


class Dense(torch.nn.Module):
    """kornia's backbone with its deformable convolutions exchanged."""

    def __init__(self, original):
        super().__init__()
        self.network = original
        for block in (original.block3, original.block4):
            block.conv1, block.conv2 = _sampled(block.conv1), _sampled(block.conv2)

    def forward(self, image):
        features, scores = self.network.extract_dense_map(image)
        return scores, features


def _sampled(layer):
    return SampledConv(layer) if isinstance(layer, DeformableConv2d) else layer


class Selection(torch.nn.Module):
    """The keypoints with the highest scores among those that are above all others in a window of 5 x 5
    pixels, and their descriptors: what kornia computes for top_k, image by image, in arrays of a fixed
    size. `places`: batch x N x 2, x and y in pixels."""

    def __init__(self, original, count):
        super().__init__()
        self.head = original.desc_head
        self.count = count

    def forward(self, score_map, feature_map):
        pixels, is_maximum = self.choose(score_map)
        places = self.refine(score_map, pixels)
        scores = _read_at(score_map, places)[:, 0] * is_maximum
        return places, scores, self.describe(feature_map, places)

    def choose(self, score_map):
        """(pixels: batch x N x 2; which of them are maxima: batch x N, 1 or 0)."""
        width = score_map.shape[3]
        inside = score_map[:, :, RADIUS:-RADIUS, RADIUS:-RADIUS]
        kept = (inside > _around(score_map)).to(score_map) * inside
        kept = F.pad(kept, [RADIUS] * 4)
        best, index = kept.flatten(1).topk(self.count)
        row = torch.div(index, width, rounding_mode="trunc")
        return torch.stack([index - row * width, row], -1).to(score_map), (best > 0).to(score_map)

    def refine(self, score_map, pixels):
        """Move pixels to the soft maximum of their window."""
        window = _window(torch.arange(-RADIUS, RADIUS + 1)).to(pixels)
        scores = _patches(score_map, pixels, window)[:, 0]
        weights = ((scores - scores.amax(-1, keepdim=True)) / TEMPERATURE).softmax(-1)
        return pixels + weights @ window

    def describe(self, feature_map, places):
        """kornia's SDDH: offsets from a patch of 3 x 3, features read there, summed with weights."""
        head = self.head
        height, width = feature_map.shape[2:]
        size = torch.tensor([width - 1, height - 1]).to(places)
        # As in kornia, down to its rounding: the patch's corner is at most size - 3.
        corner = torch.minimum((places.floor() - 1).clamp(min=0), size - 3)
        patch = _patches(feature_map, corner, _window(torch.arange(3)).to(places))
        first, gate, second = head.offset_conv
        offsets = torch.einsum("bcnk,ock->bno", patch, first.weight.flatten(2)) + first.bias
        offsets = F.linear(gate(offsets), second.weight.flatten(1), second.bias)
        limit = max(height, width) / 4.0
        offsets = offsets.clamp(-limit, limit).unflatten(2, (2, head.n_pos)).transpose(2, 3)
        around = (places[:, :, None] + offsets).flatten(1, 2)
        read = _read_at(feature_map, around)  # batch x C x (N points)
        read = F.selu(F.conv1d(read, head.sf_conv.weight[..., 0])).unflatten(2, (-1, head.n_pos))
        found = torch.einsum("bcnp,pcd->bnd", read, head.agg_weights)
        return F.normalize(found, dim=2)


class Whole(torch.nn.Module):
    """From an image to keypoints."""

    def __init__(self, original, count):
        super().__init__()
        self.dense = Dense(original)
        self.selection = Selection(original, count)

    def forward(self, image):
        return self.selection(*self.dense(image))


def _window(steps):
    """All pairs of steps, the second changing slower: (steps x steps) x 2."""
    return torch.stack([steps.repeat(len(steps)), steps.repeat_interleave(len(steps))], -1)


def _around(scores):
    """The highest score of the 5 x 5 pixels around each, without itself; the border is left out."""
    height, width = scores.shape[2:]
    rows = F.max_pool2d(scores, (1, 2 * RADIUS + 1), stride=1)
    middle = scores[:, :, RADIUS : height - RADIUS]
    parts = [
        F.max_pool2d(rows[:, :, : height - RADIUS - 1], (RADIUS, 1), stride=1),
        F.max_pool2d(rows[:, :, RADIUS + 1 :], (RADIUS, 1), stride=1),
        F.max_pool2d(middle[..., : width - RADIUS - 1], (1, RADIUS), stride=1),
        F.max_pool2d(middle[..., RADIUS + 1 :], (1, RADIUS), stride=1),
    ]
    return torch.stack(parts).amax(0)


def _read_at(values, places, mode="bilinear"):
    """batch x C x N: what is at places, batch x N x 2."""
    height, width = values.shape[2:]
    grid = places * (2 / torch.tensor([width - 1, height - 1]).to(places)) - 1
    return F.grid_sample(values, grid[:, :, None], mode=mode, align_corners=True)[..., 0]


def _patches(values, pixels, window):
    """batch x C x N x points of the window: what is at whole pixels; window: points x 2."""
    places = (pixels[:, :, None] + window).flatten(1, 2)
    return _read_at(values, places, mode="nearest").unflatten(2, (-1, len(window)))


def original(*, checkpoint=None, seed=0, keypoints=-1):
    """(kornia's ALIKED, where its weights come from)."""
    network = ALIKED("aliked-n16", keypoints, detection_threshold=-1, nms_radius=RADIUS)
    return network.eval(), give_weights(network, checkpoint, seed)


def export(target, *, checkpoint=None, seed=0, part="dense", size=(480, 640), keypoints=1024):
    """Write the ONNX; returns facts for a receipt.

    size: height and width of the image, pixels, multiples of 32. keypoints: how many, at most 3840,
    TensorRT's limit for TopK.
    """
    if size[0] % 32 or size[1] % 32:
        raise ValueError(f"size={size}: height and width must be multiples of 32 pixels")
    whole, weights = original(checkpoint=checkpoint, seed=seed)
    image = {"image": (torch.zeros(2, 3, *size), {0: "batch"})}
    maps = {
        "score_map": (torch.zeros(2, 1, *size), {0: "batch"}),
        "feature_map": (torch.zeros(2, CHANNELS, *size), {0: "batch"}),
    }
    found = ["keypoints", "scores", "descriptors"]
    if part == "dense":
        network, inputs, outputs = Dense(whole), image, list(maps)
        del whole.desc_head
    elif part == "selection":
        network, inputs, outputs = Selection(whole, keypoints), maps, found
    elif part == "whole":
        network, inputs, outputs = Whole(whole, keypoints), image, found
    else:
        raise ValueError(f"part={part!r}: it is one of dense, selection, whole")
    write(network, inputs, outputs, target)
    return facts(network, weights, "kornia")
