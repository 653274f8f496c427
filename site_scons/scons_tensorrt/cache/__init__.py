"""The shared engine cache: entries by key, bytes by digest, in a folder or a bucket."""
