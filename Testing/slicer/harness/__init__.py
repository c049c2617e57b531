"""Runs the unmodified module file off-screen: Slicer's real MRML, VTK and util.py over stand-ins for the application.

`harness.scene` needs slicer-core only; `harness.application` needs PySide6 too. What a stand-in does not know raises.
"""
