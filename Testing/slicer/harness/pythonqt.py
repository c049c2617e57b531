"""Qt as PythonQt shows it to Slicer's Python, over PySide6: the module `qt`.

PythonQt makes every Qt property an attribute (`button.enabled = False`, `label.text`) and keeps the setters
(`setText`), the slots and the signals. It connects by signature: `button.connect("clicked(bool)", f)`. A name
that Qt does not have, and a signal that a widget does not have, raise.
"""

from __future__ import annotations

import types
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtUiTools import QUiLoader as _QUiLoader

_LIBRARIES = (QtWidgets, QtGui, QtCore)
_STAY_METHODS = {"sizeHint", "minimumSizeHint", "singleShot"}
"""Names of properties that are virtual or static methods too, by which PySide finds them."""


class PythonQtMixin:
    """What PythonQt adds to every QObject."""

    def connect(self, *arguments):
        if len(arguments) != 2:  # PySide's own signals come by here
            return QtCore.QObject.connect(*arguments)
        signature, function = arguments
        getattr(self, self._signal(signature)).connect(function)
        return True

    def _signal(self, signature):
        normal = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
        if self.metaObject().indexOfSignal(normal) < 0:
            raise ValueError(f"{self.className()} has no signal {signature}")
        return signature.partition("(")[0]

    def className(self):
        return self.metaObject().className()

    def __setattr__(self, name, value):
        known = hasattr(type(self), name) or name.startswith("_") or name in self.__dict__
        if not known and not QUiLoader.busy:  # PySide's loader makes the children attributes of the window
            raise AttributeError(f"{type(self).__name__} has no property {name}")
        super().__setattr__(name, value)


def _attribute(name):
    return property(lambda self: self.property(name), lambda self, value: self.setProperty(name, value))


def with_properties(cls, **more):
    """Subclass of a QObject class as PythonQt shows it."""
    meta = cls.staticMetaObject
    names = {meta.property(index).name() for index in range(meta.propertyCount())}
    names -= _STAY_METHODS
    declared = {name for base in cls.__mro__ if base.__module__.startswith("harness") for name in vars(base)}
    names -= declared  # the stand-ins' own properties are attributes already
    body = {name: _attribute(name) for name in names}
    body["name"] = _attribute("objectName")
    body |= {name: method for name, method in vars(PythonQtMixin).items() if callable(method)}
    return type(cls.__name__, (PythonQtMixin, cls), {**body, **more})


class QUiLoader(_QUiLoader):
    """Makes the widgets of a .ui file; its connections, whose arguments are MRML, are wired by name."""

    busy = False

    def createWidget(self, class_name, parent=None, name=""):
        from . import ctk, widgets

        module = ctk if class_name.startswith("ctk") else widgets if class_name.startswith("q") else qt
        if not hasattr(module, class_name):
            raise ValueError(f"The .ui file asks for {class_name}, which the harness does not know.")
        widget = getattr(module, class_name)(parent)
        widget.setObjectName(name)
        return widget

    def load(self, device):
        tree = ElementTree.fromstring(bytes(device.readAll()).decode())
        connections = tree.find("connections")
        wires = [{part.tag: part.text for part in connection} for connection in connections]
        connections.clear()
        for stray in tree.findall("customwidgets"):
            tree.remove(stray)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QIODevice.ReadOnly)
        QUiLoader.busy = True
        widget = super().load(buffer)
        QUiLoader.busy = False
        if widget is None:
            raise ValueError(self.errorString())
        named = {child.property("objectName"): child for child in widget.findChildren(QtCore.QObject)}
        named[widget.property("objectName")] = widget
        for wire in wires:
            sender, receiver = named[wire["sender"]], named[wire["receiver"]]
            signal, slot = wire["signal"].partition("(")[0], wire["slot"].partition("(")[0]
            getattr(sender, signal).connect(getattr(receiver, slot))
        return widget


class _Qt(types.ModuleType):
    def __getattr__(self, name):
        for library in _LIBRARIES:
            found = getattr(library, name, None)
            if found is None:
                continue
            if isinstance(found, type) and issubclass(found, QtCore.QObject):
                found = with_properties(found)
            setattr(self, name, found)
            return found
        raise AttributeError(f"Qt has no {name}")


qt = _Qt("qt", __doc__)
qt.QUiLoader = QUiLoader
