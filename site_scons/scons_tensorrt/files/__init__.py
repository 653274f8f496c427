"""Safe access to files: never through a link, atomic writes, locks, a cache of digests."""
