"""Inputs like those the packaged networks were trained for: for calibration and for accuracy gates.

Each function yields {input: array}; seeded, so that every run draws the same.
"""

import numpy as np

SAMPLE_RATE = 16000  # Hz, of swift_f0's audio
WORDS = "TensorRT engines are build artifacts: 0123456789, which model, which options, whole or not?"


def _picture(random, height, width, lines):
    """A page of text as the OCR networks see it: float32, 1x3xHxW, -1 to 1."""
    import cv2

    page = np.full((height, width, 3), random.integers(180, 256), np.uint8)
    for number in range(lines):
        start = int(random.integers(0, len(WORDS) - 24))
        place = (8, (number + 1) * height // (lines + 1) + 8)
        ink = tuple(int(value) for value in random.integers(0, 100, 3))
        cv2.putText(page, WORDS[start : start + 24], place, cv2.FONT_HERSHEY_SIMPLEX, 0.9, ink, 2)
    noisy = page + random.normal(0, 6, page.shape)
    return ((noisy.clip(0, 255) / 255 - 0.5) / 0.5).astype(np.float32).transpose(2, 0, 1)[None]


def ppocr_det():
    random = np.random.default_rng(1)
    for _ in range(8):
        yield {"x": _picture(random, 320, 480, 5)}


def ppocr_rec():
    random = np.random.default_rng(2)
    for _ in range(8):
        yield {"x": _picture(random, 48, 320, 1)}


def magika():
    """The first and last 1,024 bytes of files, 256 for what is not there."""
    random = np.random.default_rng(3)
    alphabets = [np.frombuffer(text.encode(), np.uint8) for text in (WORDS, '{}[]",:0123 \n', "<a/>=' ")]
    alphabets.append(np.arange(256, dtype=np.uint8))
    for number in range(16):
        drawn = random.choice(alphabets[number % 4], 2048).astype(np.int32)
        drawn[: int(random.integers(0, 900))] = 256
        yield {"bytes": drawn[None]}


def swift_f0():
    """Voices: a gliding tone with harmonics and noise, one second each."""
    random = np.random.default_rng(4)
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    for _ in range(8):
        pitch = random.uniform(80, 400) * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(1, 5) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        voice = sum(np.sin(k * phase) / k for k in range(1, 6)) / 4 + random.normal(0, 0.01, time.size)
        band = {"fmin": np.float32(46.875), "fmax": np.float32(2093.75)}  # Hz, all of the model's
        yield {"audio": voice.astype(np.float32)[None], **band}
