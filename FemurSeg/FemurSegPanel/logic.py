"""Segmenting from Python, with or without the panel."""

import os

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from FemurSegLib.scene.process import engine_command
from FemurSegLib.scene.run import Options, Segmenting

from .parameters import FemurSegParameterNode


class FemurSegLogic(ScriptedLoadableModuleLogic):
    """Segment a volume node: `segment` waits for the result, `start` does not."""

    command = staticmethod(engine_command)
    """Takes the engine's arguments, gives its command line."""

    def getParameterNode(self):
        return FemurSegParameterNode(super().getParameterNode())

    def segment(self, volumeNode, **options):
        """Segment, and return the `Run` with its nodes. `options`: see `Options`. Raises FemurSegError."""
        return self.start(volumeNode, Options(**options)).wait(slicer.app.processEvents)

    def start(self, volumeNode, options=None, regions=None, onEvent=lambda event: None):
        """Start the engine in its own process and return the `Segmenting`, to be polled."""
        settings = os.path.dirname(slicer.app.slicerUserSettingsFilePath)
        return Segmenting(
            volumeNode,
            options,
            regions=regions,
            on_event=onEvent,
            command=self.command,
            folder=slicer.app.temporaryPath,
            log_folder=os.path.join(settings, "FemurSeg-logs"),
        )
