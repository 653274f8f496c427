"""SCons tools, for `toolpath=[PyPackageDir("scons_tensorrt.tools")]` after pip install."""
