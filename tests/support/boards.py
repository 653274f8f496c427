"""The board that tests compile for where it does not matter which."""

JETSON = {  # the fields that every hardware file of a Jetson has
    "schema": 1,
    "product": "tensorrt",
    "runtime_version": "10.3.0.30",
    "os": "linux",
    "machine": "aarch64",
    "compute_capability": "8.7",
}
