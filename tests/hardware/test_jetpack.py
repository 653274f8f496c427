"""JetPack is read off the L4T release, by range, and never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scons_tensorrt.errors import HardwareError
from scons_tensorrt.hardware.jetpack import RANGES, jetpack, l4t_release

# From NVIDIA's JetPack archive.
RELEASES = [
    ("35.2.1", "5.1"),
    ("35.3.1", "5.1"),
    ("35.4.1", "5.1"),
    ("35.5.0", "5.1"),
    ("35.6.0", "5.1"),
    ("35.6.4", "5.1"),
    ("36.3.0", "6.0"),
    ("36.4.0", "6.1"),
    ("36.4.3", "6.2"),
    ("36.4.4", "6.2"),
    ("36.5.0", "6.2"),
    ("38.2.0", "7.0"),
    ("38.2.1", "7.0"),
    ("38.4.0", "7.1"),
    ("39.2.0", "7.2"),
    ("39.2.1", "7.2"),
    ("36.3", "6.0"),  # a release of two parts
    ("36.4.7", "6.2"),  # a patch that came after the table
]


@pytest.mark.parametrize(("release", "version"), RELEASES)
def test_the_jetpack_of_a_release(release, version):
    assert jetpack(release) == version


UNKNOWN = [
    "36.4.1",  # never plainly one JetPack
    "36.4.2",  # ambiguous: 6.1 or 6.2
    "36.2.0",  # a developer preview
    "35.1.0",  # JetPack 5.0
    "35.7.0",  # past the range
    "32.7.1",  # JetPack 4
    "37.0.0",  # no such series
    "38.3.0",  # between two ranges
    "38.5.0",  # not yet
    "40.1.0",  # not yet
]


@pytest.mark.parametrize("release", UNKNOWN)
def test_a_release_outside_every_range_asks_for_jetpack(release):
    with pytest.raises(HardwareError, match=rf"{release}.*JETPACK="):
        jetpack(release)


@given(st.tuples(st.integers(30, 42), st.integers(0, 9), st.integers(0, 9)))
def test_no_release_is_in_two_ranges(release):
    assert sum(first <= release <= last for first, last, _ in RANGES) <= 1


LINES = [
    ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64", "36.4.3"),
    ("# R35 (release), REVISION: 5.0, GCID: 35550185, BOARD: t186ref", "35.5.0"),
    ("# R38 (release), REVISION: 2.1, GCID: 1\n# KERNEL_VARIANT: oot\n", "38.2.1"),
    ("# R36  (release),  REVISION: 3", "36.3"),  # spaces, one part
]


@pytest.mark.parametrize(("text", "release"), LINES)
def test_the_release_of_nv_tegra_release(text, release):
    assert l4t_release(text) == release


@pytest.mark.parametrize(
    "text",
    [
        "",  # empty
        "NVIDIA Jetson AGX Orin",  # the board's name, not its release
        "# R36 (alpha), REVISION: 4.3",  # not a release
        "# R36 (release), GCID: 1",  # no revision
    ],
)
def test_a_text_without_a_release_asks_for_jetpack(text):
    with pytest.raises(HardwareError, match="JETPACK="):
        l4t_release(text)
