"""Inputs like those the networks of this folder are made for: for calibration and for accuracy gates.

Each function yields {input: array}; seeded, so that every run draws the same, and made with numpy alone.
Pictures are drawn, not taken: surfaces whose detail falls off with frequency as in photographs, and
rectangles before them. For a trained checkpoint, frames of the robot's own camera calibrate better.
"""

import numpy as np

# ImageNet's, of RGB from 0 to 1, which DINOv2 was trained with.
MEAN = np.float32([0.485, 0.456, 0.406])
DEVIATION = np.float32([0.229, 0.224, 0.225])


def _texture(random, height, width):
    """Noise whose amplitude is one over its frequency: height x width, 0 to 1."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(y, x)
    frequency[0, 0] = 1
    waves = random.normal(size=frequency.shape) + 1j * random.normal(size=frequency.shape)
    drawn = np.fft.irfft2(waves / frequency, s=(height, width))
    return (drawn - drawn.min()) / (drawn.max() - drawn.min())


def _picture(random, height, width):
    """A picture, float32, 3 x height x width, RGB from 0 to 1."""
    picture = np.stack([_texture(random, height, width) for _ in range(3)])
    picture = 0.5 * picture + 0.5 * picture.mean(0)
    for _ in range(24):
        high = random.integers(height // 16 + 2, height // 3)
        wide = random.integers(width // 16 + 2, width // 3)
        top, left = random.integers(0, height - high), random.integers(0, width - wide)
        shade = 0.7 * random.uniform(size=(3, 1, 1)) + 0.3 * _texture(random, high, wide)
        picture[:, top : top + high, left : left + wide] = shade
    picture = picture * random.uniform(0.5, 1) + random.normal(0, 0.01, picture.shape)
    return picture.clip(0, 1).astype(np.float32)


def dinov2_vpr(count=8, size=322):
    random = np.random.default_rng(11)
    for _ in range(count):
        picture = _picture(random, size, size)
        yield {"image": ((picture - MEAN[:, None, None]) / DEVIATION[:, None, None])[None]}


def aliked(count=8, height=480, width=640):
    random = np.random.default_rng(12)
    for _ in range(count):
        yield {"image": _picture(random, height, width)[None]}


def lightglue(count=8, most=512):
    """Two views of a flat scene: keypoints turned, scaled and moved by a little, a part of them lost and
    others in their stead. `most` keypoints or up to half fewer, in each view as many as come."""
    random = np.random.default_rng(13)
    for _ in range(count):
        there = random.uniform((-1, -0.75), (1, 0.75), (most, 2))  # of a picture of 4 to 3
        looks = random.normal(size=(most, 128))
        views = {}
        for view in range(2):
            turn, scale = random.uniform(-0.3, 0.3), random.uniform(0.8, 1)
            turned = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            places = there @ turned.T + random.uniform(-0.1, 0.1, 2)
            places += random.normal(0, 0.002, there.shape)
            descriptors = looks + random.normal(0, 0.3, looks.shape)
            own = random.uniform(size=most) < 0.2
            places[own] = random.uniform((-1, -0.75), (1, 0.75), (own.sum(), 2))
            descriptors[own] = random.normal(size=(own.sum(), 128))
            seen = random.permutation(most)[: random.integers(most // 2, most + 1)]
            descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
            views[f"keypoints{view}"] = places[seen].clip(-1, 1).astype(np.float32)[None]
            views[f"descriptors{view}"] = descriptors[seen].astype(np.float32)[None]
        yield views
