################################################################################
#
# drone-engines
#
################################################################################

DRONE_ENGINES_VERSION = 1.0
# The repo with the SConstruct, site_scons/ of scons-tensorrt in it, and the engines/ and .trt/ that
# a bench with this board built.
DRONE_ENGINES_SITE = $(BR2_EXTERNAL_ENGINES_PATH)/../drone
DRONE_ENGINES_SITE_METHOD = local
DRONE_ENGINES_LICENSE = PROPRIETARY
DRONE_ENGINES_REDISTRIBUTE = NO
DRONE_ENGINES_DEPENDENCIES = host-scons

DRONE_ENGINES_OPTS = \
	HARDWARE=$(call qstrip,$(BR2_PACKAGE_DRONE_ENGINES_HARDWARE)) \
	VERIFY=full \
	prefix=/usr

define DRONE_ENGINES_BUILD_CMDS
	(cd $(@D); $(SCONS) $(DRONE_ENGINES_OPTS) engines)
endef

define DRONE_ENGINES_INSTALL_TARGET_CMDS
	(cd $(@D); $(SCONS) $(DRONE_ENGINES_OPTS) DESTDIR=$(TARGET_DIR) install)
endef

$(eval $(generic-package))
