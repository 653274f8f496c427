"""What a team has made once, for all of it: engines by their keys, and bytes by their sha256."""
