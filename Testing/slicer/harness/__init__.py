"""Runs the unmodified module file off-screen, over Slicer's real MRML, VTK and util.py.

What the application itself brings is stood in for; what a stand-in does not know raises. `harness.scene`
needs slicer-core only, `harness.application` needs PySide6 too.
"""
