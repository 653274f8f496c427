"""The SCons side: the one room that imports SCons."""

import gc

YOUNG_OBJECTS = 10_000  # a megabyte or so, before the garbage collector walks them


def _collect_seldom() -> None:
    """The garbage collector is a tenth of a null build's time, and finds next to nothing: SCons, this
    room's modules and the graph that is read next live as long as the run."""
    gc.freeze()
    young, *older = gc.get_threshold()
    if 0 < young < YOUNG_OBJECTS:
        gc.set_threshold(YOUNG_OBJECTS, *older)


_collect_seldom()  # before the modules of this room are imported
