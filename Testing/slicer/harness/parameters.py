"""`slicer.parameterNodeWrapper` for the kinds of parameters and widgets that the panel uses.

Values are kept in a real vtkMRMLScriptedModuleNode, written as Slicer writes them. A kind of parameter, or a
pair of parameter and widget, that is not known here raises, as it does in Slicer for those it does not know.
"""

from __future__ import annotations

import enum
import pathlib
import typing
from dataclasses import dataclass

import slicer
import vtk


@dataclass
class WithinRange:
    minimum: float
    maximum: float


def parameterNodeWrapper(cls):
    fields = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind, notes = hint, ()
        if typing.get_origin(hint) is typing.Annotated:
            kind, *notes = typing.get_args(hint)
        fields[name] = (kind, notes)
        default = getattr(cls, name, None)
        _check(name, kind, notes, default)
        setattr(cls, name, _property(name, kind, notes, default))
    cls.__init__ = _make_init(fields)
    cls._fields = fields
    for method in (connectGui, disconnectGui):
        setattr(cls, method.__name__, method)
    return cls


def _check(name, kind, notes, default):
    if not (kind in (str, float, int, bool, pathlib.Path) or issubclass(kind, (enum.Enum, vtk.vtkObject))):
        raise TypeError(f"Unable to create serializer for member {name} of type {kind}")
    if not all(isinstance(note, WithinRange) for note in notes):
        raise TypeError(f"Unused annotations: {notes}")


def _make_init(fields):
    def __init__(self, parameterNode):
        self.parameterNode = parameterNode
        self._guis, self._updating = {}, False

    return __init__


def _property(name, kind, notes, default):
    def read(self):
        node = self.parameterNode
        if issubclass(kind, vtk.vtkObject):
            return node.GetNodeReference(name)
        if node.GetParameter(name) == "" and kind is not str:
            return kind() if default is None else default
        text = node.GetParameter(name)
        if issubclass(kind, enum.Enum):
            return kind[text]
        if kind is bool:
            return text == "True"
        return kind(text) if node.GetParameterCount() and text else (default if kind is str else kind(text))

    def write(self, value):
        if issubclass(kind, vtk.vtkObject):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"{name} takes a {kind.__name__}")
            self.parameterNode.SetNodeReferenceID(name, value.GetID() if value is not None else None)
            return
        for note in notes:
            if not note.minimum <= value <= note.maximum:
                raise ValueError(f"{name} must lie within {note.minimum} and {note.maximum}, not {value}")
        if not isinstance(value, kind):
            raise TypeError(f"{name} takes a {kind.__name__}, not {value!r}")
        self.parameterNode.SetParameter(name, value.name if isinstance(value, enum.Enum) else str(value))

    return property(read, write)


def connectGui(self, gui):
    connectors = {}
    for widget in vars(gui).values():
        name = widget.property("SlicerParameterName")
        if name:
            if name not in self._fields:
                raise ValueError(f"Cannot find a param with the given name: {name}")
            connectors[name] = _Connector(widget, *self._fields[name])

    def update(*_):
        if not self._updating:
            self._updating = True
            for name, connector in connectors.items():
                connector.write(getattr(self, name))
            self._updating = False

    def changed(name, connector):
        def slot(*_):
            if not self._updating:
                setattr(self, name, connector.read())

        return slot

    update()
    for name, connector in connectors.items():
        connector.connect(changed(name, connector))
    tag = len(self._guis)
    self._guis[tag] = (connectors, self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, update))
    return tag


def disconnectGui(self, tag):
    connectors, observer = self._guis.pop(tag)
    self.parameterNode.RemoveObserver(observer)
    for connector in connectors.values():
        connector.disconnect()


class _Connector:
    """Between a widget and a value; the pairs are those of Slicer's guiConnectors."""

    PAIRS = {
        ("qMRMLNodeComboBox", "node"): (
            "currentNodeChanged",
            lambda w: w.currentNode(),
            lambda w, v: w.setCurrentNode(v),
        ),
        ("QComboBox", "enum"): ("currentIndexChanged", None, None),
        ("QLineEdit", str): ("textChanged", lambda w: w.text, lambda w, v: setattr(w, "text", v)),
        ("ctkSliderWidget", float): ("valueChanged", lambda w: w.value, lambda w, v: setattr(w, "value", v)),
        ("ctkDirectoryButton", pathlib.Path): (
            "directoryChanged",
            lambda w: pathlib.Path(w.directory),
            lambda w, v: setattr(w, "directory", str(v)),
        ),
    }

    def __init__(self, widget, kind, notes):
        self.widget = widget
        family = "enum" if issubclass(kind, enum.Enum) else "node" if issubclass(kind, slicer.vtkMRMLNode) else kind
        pair = (type(widget).__name__, family)
        if pair not in self.PAIRS:
            raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{pair[0]}'")
        signal, self._read, self._write = self.PAIRS[pair]
        self.signal, self.slot = getattr(widget, signal), None
        if family == "enum":
            values = list(kind)
            label = getattr(kind, "label", lambda value: value.name)
            widget.clear()
            for value in values:
                widget.addItem(label(value))
            self._read = lambda w: values[w.currentIndex]
            self._write = lambda w, v: setattr(w, "currentIndex", values.index(v))
        if family == "node":
            widget.nodeTypes = [kind.__name__]
        for note in notes:
            widget.minimum, widget.maximum = note.minimum, note.maximum

    def read(self):
        return self._read(self.widget)

    def write(self, value):
        self._write(self.widget, value)

    def connect(self, slot):
        self.slot = slot
        self.signal.connect(slot)

    def disconnect(self):
        self.signal.disconnect(self.slot)
