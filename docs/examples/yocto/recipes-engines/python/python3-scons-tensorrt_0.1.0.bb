SUMMARY = "TensorRT engines as build artifacts of SCons"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# Where you keep it; the revision is the version.
SRC_URI = "git://git.example.com/scons-tensorrt.git;protocol=https;branch=main"
SRCREV = "0000000000000000000000000000000000000000"
S = "${@d.getVar('UNPACKDIR') or d.getVar('WORKDIR')}/git"

inherit python_setuptools_build_meta

RDEPENDS:${PN} += "python3-core python3-json"
# SCons and filelock are what the build host needs; a device that verifies needs Python alone.
RDEPENDS:${PN}:append:class-native = " python3-scons-native python3-filelock-native"

BBCLASSEXTEND = "native"
