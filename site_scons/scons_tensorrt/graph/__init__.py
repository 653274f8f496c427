"""The SCons side: the one room that imports SCons."""
