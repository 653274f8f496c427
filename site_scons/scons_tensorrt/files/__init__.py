"""Safe file access: regular files only, atomic writes, locks, a digest cache."""
