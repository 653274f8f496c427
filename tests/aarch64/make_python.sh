#!/bin/sh
# Make FOLDER/python, an aarch64 Python 3.11 with TensorRT for RTX, run by QEMU's user mode. As root:
#   apt-get install qemu-user-static debootstrap
#   tests/aarch64/make_python.sh FOLDER
# In a Python 3.11 environment that has tensorrt-rtx, whose version is taken. Some 500 MB; two minutes.
set -eu
folder=$(realpath -m "$1")
mkdir -p "$folder/wheels" "$folder/packages"
debootstrap --foreign --arch=arm64 --variant=minbase --include=python3,libstdc++6 bookworm "$folder/system"
for package in "$folder"/system/var/cache/apt/archives/*.deb; do
    dpkg -x "$package" "$folder/system"
done
version=$(python3 -c 'import importlib.metadata as m; print(m.version("tensorrt-rtx-cu13"))')
for part in libs bindings; do
    python3 -m pip download -q --no-deps --only-binary :all: --python-version 311 -d "$folder/wheels" \
        --platform manylinux_2_35_aarch64 "tensorrt-rtx-cu13-$part==$version"
done
for wheel in "$folder"/wheels/*.whl; do
    python3 -m zipfile -e "$wheel" "$folder/packages"
done
# The package over the bindings is pure Python.
site=$(python3 -c 'import os, tensorrt_rtx; print(os.path.dirname(os.path.dirname(tensorrt_rtx.__file__)))')
cp -r "$site"/tensorrt_rtx "$site"/tensorrt_rtx-*.dist-info "$site"/tensorrt_rtx_cu13-*.dist-info "$folder/packages"
cat > "$folder/python" <<END
#!/bin/sh
exec qemu-aarch64-static -L $folder/system -E PYTHONPATH=$folder/packages $folder/system/usr/bin/python3.11 "\$@"
END
chmod +x "$folder/python"
"$folder/python" -c 'import platform, tensorrt_rtx; print(platform.machine(), tensorrt_rtx.__version__)'
