"""A MRML scene as the application has it, made of slicer-core's own parts; nothing here is a stand-in."""

from __future__ import annotations

import os
import tempfile
import types

import slicer
import vtk

LOGICS = {
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}


class Module:
    """`slicer.modules.NAME` of a loadable module, as far as it is without the application: its logic."""

    def __init__(self, logic):
        self._logic = logic

    def logic(self):
        return self._logic


class Parts:
    """The logics that keep a scene alive; hold on to it as long as to the scene."""


def start_scene() -> Parts:
    """Make `slicer.mrmlScene` and `slicer.modules`.

    With the logics that displayable managers, label volumes and .mrb files need.
    """
    parts = Parts()
    parts.scene = slicer.vtkMRMLScene()
    parts.application = slicer.vtkSlicerApplicationLogic()
    parts.application.SetMRMLScene(parts.scene)
    parts.slices, parts.views = vtk.vtkCollection(), vtk.vtkCollection()
    parts.application.SetSliceLogics(parts.slices)
    parts.application.SetViewLogics(parts.views)
    parts.cache_folder = tempfile.TemporaryDirectory()
    parts.application.SetHomeDirectory(parts.cache_folder.name)
    parts.application.SetShareDirectory("share")
    os.makedirs(os.path.join(parts.cache_folder.name, "share", "ColorFiles"))
    parts.application.SetTemporaryPath(parts.cache_folder.name)
    parts.colors = slicer.vtkSlicerColorLogic()
    parts.colors.SetMRMLApplicationLogic(parts.application)
    parts.colors.SetMRMLScene(parts.scene)
    parts.application.SetModuleLogic("Colors", parts.colors)
    parts.cache = slicer.vtkCacheManager()
    parts.cache.SetRemoteCacheDirectory(parts.cache_folder.name)
    parts.cache.SetMRMLScene(parts.scene)
    parts.scene.SetCacheManager(parts.cache)
    parts.remote = slicer.vtkMRMLRemoteIOLogic()
    parts.remote.SetMRMLScene(parts.scene)
    parts.remote.AddDataIOToScene()
    parts.data_manager = slicer.vtkDataIOManagerLogic()
    parts.data_manager.SetMRMLApplicationLogic(parts.application)
    parts.data_manager.SetAndObserveDataIOManager(parts.remote.GetDataIOManager())

    parts.modules = types.SimpleNamespace()
    for name, logic in LOGICS.items():
        logic = getattr(slicer, logic)()
        logic.SetMRMLApplicationLogic(parts.application)
        logic.SetMRMLScene(parts.scene)
        parts.application.SetModuleLogic(name, logic)
        setattr(parts.modules, name.lower(), Module(logic))
    slicer.mrmlScene, slicer.modules = parts.scene, parts.modules
    return parts
