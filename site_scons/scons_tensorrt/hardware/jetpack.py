"""The JetPack version of an L4T release, by range, never guessed.

Ranges, because new patch releases would outdate a table of exact releases, and filenames need only
major.minor. 36.4.1 and 36.4.2 belong to no single JetPack. Source: NVIDIA's JetPack archive.
"""

from __future__ import annotations

import re

from ..errors import HardwareError

# (first L4T release, last L4T release, JetPack).
RANGES = (
    ((35, 2, 0), (35, 6, 999), "5.1"),
    ((36, 3, 0), (36, 3, 999), "6.0"),
    ((36, 4, 0), (36, 4, 0), "6.1"),
    ((36, 4, 3), (36, 999, 999), "6.2"),
    ((38, 2, 0), (38, 2, 999), "7.0"),
    ((38, 4, 0), (38, 4, 999), "7.1"),
    ((39, 2, 0), (39, 2, 999), "7.2"),
)
_RELEASE = r"R(\d{1,6})\s*\(release\),\s*REVISION:\s*(\d{1,6}(?:\.\d{1,6})*)"


def l4t_release(text: str) -> str:
    """The release in the text of /etc/nv_tegra_release, such as '36.4.3'. Raises HardwareError."""
    found = re.search(_RELEASE, text)
    if not found:
        raise HardwareError("/etc/nv_tegra_release: no L4T release found; set JETPACK=")
    return f"{found[1]}.{found[2]}"


def jetpack(release: str) -> str:
    """JetPack's major.minor for an L4T release such as '36.4.3'. Raises HardwareError."""
    numbers = release.split(".") if re.fullmatch(r"\d{1,6}(\.\d{1,6})*", release) else []
    parts = tuple(int(number) for number in numbers)
    padded = (*parts, 0, 0, 0)[:3]
    for first, last, version in RANGES:
        if first <= padded <= last:
            return version
    raise HardwareError(f"L4T {release} matches no single JetPack release; set JETPACK=")
