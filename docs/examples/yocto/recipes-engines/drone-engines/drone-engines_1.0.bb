SUMMARY = "The drone's TensorRT engines, verified, of this machine's hardware"
LICENSE = "CLOSED"

# The repo with the SConstruct, and what a bench with this board built: engines/ and .trt/.
SRC_URI = " \
    git://git.example.com/drone.git;protocol=https;branch=main;destsuffix=drone \
    https://artifacts.example.com/engines-${TRT_HARDWARE}.tar.gz;subdir=drone;name=engines \
"
SRCREV = "0000000000000000000000000000000000000000"
SRC_URI[engines.sha256sum] = "0000000000000000000000000000000000000000000000000000000000000000"
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/drone"

# hardware/<name>.json of the repo; one for each MACHINE, such as TRT_HARDWARE:jetson-agx-orin.
TRT_HARDWARE ?= "agx_orin"

inherit scons

DEPENDS += "python3-scons-tensorrt-native"
EXTRA_OESCONS = "HARDWARE=${TRT_HARDWARE} VERIFY=full"

# An engine is no program of the package's architecture: nothing to strip, nothing to scan.
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
FILES:${PN} += "${datadir}/engines"
PACKAGE_ARCH = "${MACHINE_ARCH}"
