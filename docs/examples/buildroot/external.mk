include $(sort $(wildcard $(BR2_EXTERNAL_ENGINES_PATH)/package/*/*.mk))
