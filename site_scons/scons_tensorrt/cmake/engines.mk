# Engines as targets of GNU make.
#
#   include $(shell scons-tensorrt cmake-dir)/engines.mk
#   $(eval $(call trt_engine,face,models/face.onnx,fp16,--shape=image=1x3x224x224))
#   all: $(face_fp16_ENGINE)
#
# trt_engine: name, ONNX, precision, options of `scons-tensorrt build`. The engine is built when the ONNX, its
# external data, its samples or its plugins are newer; what is up to date by content is reused.

SCONS_TENSORRT ?= scons-tensorrt

define trt_engine
$(1)_$(3)_ENGINE := $$(shell $$(SCONS_TENSORRT) name build $(1) --precision $(3) $$(filter --hardware=%,$(4)))
$$(if $$($(1)_$(3)_ENGINE),,$$(error $(1): no name for its engine, see above))
$$($(1)_$(3)_ENGINE): $(2)
	$$(SCONS_TENSORRT) build $(2) --name $(1) --precision $(3) $(4) --depfile .trt/$(1)_$(3).d
-include .trt/$(1)_$(3).d
endef
