"""The application around a module: `qt`, `ctk`, `slicer.app`, the scripted module classes, loading a module.

with Application(tmp_path) as application:
    widget = application.open("FemurSeg", path_of_FemurSeg_py)
    application.click(widget.ui.segmentButton)
    application.until(lambda: ...)
    application.picture("panel.png")
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
import unittest
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import slicer.util
from PySide6 import QtCore, QtTest, QtWidgets

from . import ctk, parameters, pythonqt, widgets
from .scene import start_scene


class ScriptedLoadableModule:
    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__


class ScriptedLoadableModuleWidget:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, name):
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / name)

    def setup(self):
        pass

    def cleanup(self):
        pass


class ScriptedLoadableModuleLogic:
    def __init__(self, parent=None):
        self.moduleName = type(self).__name__.removesuffix("Logic")

    def getParameterNode(self):
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
            node = slicer.mrmlScene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    def delayDisplay(self, message, requestedDelay=None, msec=None):
        QtWidgets.QApplication.processEvents()


class App:
    """`slicer.app`: only what is asked for below; anything else raises."""

    applicationName = "Slicer"

    def __init__(self, folder):
        self.temporaryPath = str(folder / "temporary")
        self.slicerUserSettingsFilePath = str(folder / "settings" / "Slicer.ini")
        os.makedirs(self.temporaryPath)
        self.testing, self.at_startup = False, []
        self.layout_manager = LayoutManager()

    def connect(self, signature, function):
        if signature != "startupCompleted()":
            raise ValueError(f"qSlicerApplication has no signal {signature}")
        self.at_startup.append(function)

    def testingEnabled(self):
        return self.testing

    def processEvents(self):
        QtWidgets.QApplication.processEvents()

    def topLevelWidgets(self):
        return [MainWindow.only] if MainWindow.only else []

    def layoutManager(self):
        return self.layout_manager

    def overrideCursor(self):
        return None


class LayoutManager:
    def __init__(self):
        self.resets = 0

    def resetThreeDViews(self):
        self.resets += 1

    def mrmlSliceLogics(self):
        return slicer.vtkMRMLSliceLogics() if hasattr(slicer, "vtkMRMLSliceLogics") else _Empty()


class _Empty:
    def GetNumberOfItems(self):
        return 0


class MainWindow:
    only = None
    objectName = "qSlicerMainWindow"

    def __init__(self):
        self.selected = None
        MainWindow.only = self

    def moduleSelector(self):
        return self

    def selectModule(self, name):
        slicer.util.getModule(name)
        self.selected = name

    @property
    def selectedModule(self):
        return self.selected


class SegmentEditor:
    """`qMRMLSegmentEditorWidget` as far as it is told what to edit."""

    def setSegmentationNode(self, node):
        self.segmentation = node

    def setSourceVolumeNode(self, node):
        self.volume = node


class qSlicerScriptedLoadableModuleWidget:
    def __init__(self, python):
        self._python = python

    def self(self):
        return self._python


class Module:
    def __init__(self, name, path, python):
        self.name, self.path, self._python = name, path, python

    def widgetRepresentation(self):
        return qSlicerScriptedLoadableModuleWidget(self._python)


class Application:
    """Stands for a started Slicer, with an empty scene; one at a time."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self):
        self.qapplication = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["Slicer"])
        self.parts = start_scene()
        self.keep_subject_hierarchy()
        slicer.mrmlScene.AddObserver(slicer.mrmlScene.EndCloseEvent, self.keep_subject_hierarchy)
        for name in ("Red", "Yellow", "Green"):
            composite = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSliceCompositeNode")
            composite.UnRegister(None)
            composite.SetLayoutName(name)
            composite.SetSingletonTag(name)
            slicer.mrmlScene.AddNode(composite)
        slicer.app = App(self.folder)
        slicer.util.loadVolume = self.load_volume
        slicer.qSlicerScriptedLoadableModuleWidget = qSlicerScriptedLoadableModuleWidget
        self.main_window = MainWindow()
        self.editor = SegmentEditor()
        slicer.modules.segmenteditor = Module("SegmentEditor", "", types.SimpleNamespace(editor=self.editor))
        slicer.app.moduleManager = lambda: types.SimpleNamespace(
            module=lambda name: getattr(slicer.modules, name.lower(), None)
        )
        standins = {
            "qt": pythonqt.qt,
            "ctk": ctk,
            "slicer.i18n": _module("slicer.i18n", tr=lambda text: text, translate=lambda context, text: text),
            "slicer.parameterNodeWrapper": _module(
                "slicer.parameterNodeWrapper",
                parameterNodeWrapper=parameters.parameterNodeWrapper,
                WithinRange=parameters.WithinRange,
            ),
            "slicer.ScriptedLoadableModule": _module(
                "slicer.ScriptedLoadableModule",
                ScriptedLoadableModule=ScriptedLoadableModule,
                ScriptedLoadableModuleWidget=ScriptedLoadableModuleWidget,
                ScriptedLoadableModuleLogic=ScriptedLoadableModuleLogic,
                ScriptedLoadableModuleTest=ScriptedLoadableModuleTest,
            ),
        }
        self._before = {name: sys.modules.get(name) for name in standins}
        self._path, self._imported = sys.path[:], set(sys.modules)
        sys.modules.update(standins)
        self.widget = self.window = None
        return self

    def __exit__(self, *_):
        if self.widget is not None:
            self.widget.cleanup()
            self.window.close()
            self.window.deleteLater()
        self.qapplication.processEvents()
        slicer.mrmlScene.Clear(True)
        sys.path[:] = self._path
        for name in set(sys.modules) - self._imported:
            if name.partition(".")[0].startswith("FemurSeg") and not name.startswith("FemurSegLib"):
                del sys.modules[name]
        for name, module in self._before.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
        MainWindow.only = None

    def load(self, name, path):
        """Execute the module file, unmodified, as Slicer does; returns the Python module."""
        sys.path.append(str(Path(path).parent))  # Slicer looks for Python packages beside its modules
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        self.parent = types.SimpleNamespace(path=str(path))
        self.module = getattr(module, name)(self.parent)
        setattr(slicer.modules, name.lower(), Module(name, str(path), None))
        return module

    def open(self, name, path):
        """Show the panel of a module, as if it were chosen in the module selector."""
        python = self.load(name, path)
        self.window = pythonqt.qt.QWidget()
        self.window.setLayout(QtWidgets.QVBoxLayout())
        self.window.resize(460, 900)
        self.widget = getattr(python, f"{name}Widget")(self.window)
        slicer.modules.__dict__[name.lower()]._python = self.widget
        self.widget.setup()
        self.widget.enter()
        self.window.show()
        self.qapplication.processEvents()
        return self.widget

    def keep_subject_hierarchy(self, *_):
        """The application makes one as soon as a scene is empty."""
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)

    def load_volume(self, path):
        """`slicer.util.loadVolume`, by the logic that does it in Slicer."""
        return slicer.modules.volumes.logic().AddArchetypeVolume(str(path), Path(path).name.partition(".")[0], 0)

    def click(self, button):
        """Press a button with the mouse, as a user would: it must be visible and enabled."""
        self.qapplication.processEvents()  # the panel as it is drawn
        assert button.isVisible(), f"{button.name} is not visible"
        assert button.isEnabled(), f"{button.name} is not enabled"
        QtTest.QTest.mouseClick(button, QtCore.Qt.LeftButton)
        self.qapplication.processEvents()

    def until(self, condition, seconds=60):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it took too long"
            self.qapplication.processEvents()
            time.sleep(0.01)

    def picture(self, path):
        """Save the panel as it is seen; in Slicer it scrolls, here the window is as high as it needs to be."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.qapplication.processEvents()
        size = self.window.size
        self.window.resize(size.width(), max(size.height(), self.window.minimumSizeHint().height()))
        self.qapplication.processEvents()
        assert self.window.grab().save(str(path))
        return path


def _module(name, **contents):
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


_ = widgets
