"""Writing whole files, as the rooms above know it: what `identity` needs of it, too, lies there."""

from ..identity.writing import (
    STALE_SECONDS,
    new_file,
    remove_stale,
    sync_file,
    sync_folder,
    unlink_link,
    write_atomic,
)

__all__ = [
    "STALE_SECONDS",
    "new_file",
    "remove_stale",
    "sync_file",
    "sync_folder",
    "unlink_link",
    "write_atomic",
]
