"""MRML nodes from a result folder and back: for the panel, for scripts and for front ends to come.

Needs `slicer` (the application, or slicer-core with a scene in `slicer.mrmlScene`); no Qt, no torch. This is
the only place where RAS is spoken.
"""
