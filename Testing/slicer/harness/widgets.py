"""The qMRML widgets that the panel uses, over the real scene; they become `slicer.qMRML...`."""

from __future__ import annotations

import slicer
import vtk
from PySide6.QtCore import Property, Signal
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from .pythonqt import with_properties


class _MRMLWidget(QWidget):
    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene):
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self):
        return self._scene


class _NodeComboBox(QComboBox):
    """Lists the nodes of a class in the scene and follows it; the first to come is chosen."""

    currentNodeChanged = Signal(object)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._tags = None, []
        self._types, self._flags = [], {"noneEnabled": False, "showHidden": False, "showChildNodeTypes": True}
        self.currentIndexChanged.connect(lambda index: self.currentNodeChanged.emit(self.currentNode()))

    def setMRMLScene(self, scene):
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._scene = scene
        events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
        self._tags = [scene.AddObserver(event, lambda *_: self._fill()) for event in events]
        self._fill()

    def mrmlScene(self):
        return self._scene

    def _nodes(self):
        found = []
        for name in self._types:
            nodes = vtk.vtkCollection.SafeDownCast(self._scene.GetNodesByClass(name))
            nodes.UnRegister(None)
            for index in range(nodes.GetNumberOfItems()):
                node = nodes.GetItemAsObject(index)
                if not self._flags["showChildNodeTypes"] and node.GetClassName() != name:
                    continue
                if self._flags["showHidden"] or not node.GetHideFromEditors():
                    found.append(node)
        return found

    def _fill(self):
        if self._scene is None:
            return
        before = self.currentNode()
        nodes = self._nodes()
        self.blockSignals(True)
        self.clear()
        if self._flags["noneEnabled"]:
            self.addItem("None", None)
        for node in nodes:
            self.addItem(node.GetName(), node.GetID())
        ids = [node.GetID() for node in nodes]
        if before is not None and before.GetID() in ids:
            self.setCurrentIndex(self.findData(before.GetID()))
        self.blockSignals(False)
        if self.currentNode() is not before:
            self.currentNodeChanged.emit(self.currentNode())

    def currentNode(self):
        node_id = self.itemData(QComboBox.currentIndex(self))
        return self._scene.GetNodeByID(node_id) if self._scene is not None and node_id else None

    def setCurrentNode(self, node):
        self.setCurrentIndex(self.findData(node.GetID()) if node is not None else -1)

    def _get_types(self):
        return self._types

    def _set_types(self, types):
        self._types = list(types)
        self._fill()

    def _flag(name):
        def write(self, value):
            self._flags[name] = value
            self._fill()

        return Property(bool, lambda self: self._flags[name], write)

    nodeTypes = Property("QStringList", _get_types, _set_types)
    noneEnabled, showHidden, showChildNodeTypes = map(_flag, ("noneEnabled", "showHidden", "showChildNodeTypes"))
    addEnabled = removeEnabled = renameEnabled = Property(bool, lambda self: False, lambda self, value: None)


class _TableView(QTableWidget):
    """Shows a table node and follows it."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._node = self._tag = None
        self.setEditTriggers(QAbstractItemView.NoEditTriggers)

    def setMRMLScene(self, scene):
        self._scene = scene

    def setMRMLTableNode(self, node):
        if self._tag is not None:
            self._node.RemoveObserver(self._tag)
        self._node = node
        self._tag = None if node is None else node.AddObserver("ModifiedEvent", lambda *_: self._fill(node))
        self._fill(node)

    def _fill(self, node):
        if node is None:
            self.setRowCount(0)
            return
        self.setColumnCount(node.GetNumberOfColumns())
        self.setRowCount(node.GetNumberOfRows())
        for column in range(node.GetNumberOfColumns()):
            self.setHorizontalHeaderItem(column, QTableWidgetItem(node.GetColumnName(column)))
            for row in range(node.GetNumberOfRows()):
                self.setItem(row, column, QTableWidgetItem(node.GetCellText(row, column)))

    def mrmlTableNode(self):
        return self._node


def _named(cls, name):
    made = with_properties(cls)
    made.__name__ = made.__qualname__ = name
    return made


qMRMLWidget = _named(_MRMLWidget, "qMRMLWidget")
qMRMLNodeComboBox = _named(_NodeComboBox, "qMRMLNodeComboBox")
qMRMLTableView = _named(_TableView, "qMRMLTableView")

for _widget in (qMRMLWidget, qMRMLNodeComboBox, qMRMLTableView):
    setattr(slicer, _widget.__name__, _widget)
