"""The widgets of CTK that the panel uses, with CTK's properties and signals: the module `ctk`."""

from __future__ import annotations

from PySide6.QtCore import Property, Qt, Signal
from PySide6.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QHBoxLayout,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QSlider,
    QStyle,
    QStyleOptionButton,
    QStylePainter,
    QWidget,
)

from .pythonqt import with_properties


class _CollapsibleButton(QWidget):
    """A bar with a title that folds its children away."""

    contentsCollapsed = Signal(bool)

    BAR = 24

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(0, self.BAR, 0, 0)

    def getText(self):
        return self._text

    def setText(self, text):
        self._text = text
        self.update()

    def getCollapsed(self):
        return self._collapsed

    def setCollapsed(self, collapsed):
        self._collapsed = collapsed
        for child in self.children():
            if isinstance(child, QWidget):
                child.setVisible(not collapsed)
        self.setMaximumHeight(self.BAR if collapsed else 16777215)
        self.contentsCollapsed.emit(collapsed)

    text = Property(str, getText, setText)
    collapsed = Property(bool, getCollapsed, setCollapsed)

    def childEvent(self, event):
        super().childEvent(event)
        if event.added() and self._collapsed and isinstance(event.child(), QWidget):
            event.child().setVisible(False)

    def mousePressEvent(self, event):
        if event.position().y() < self.BAR:
            self.setCollapsed(not self._collapsed)

    def paintEvent(self, event):
        painter = QStylePainter(self)
        option = QStyleOptionButton()
        option.initFrom(self)
        option.rect.setHeight(self.BAR - 2)
        option.text = f"{'▸' if self._collapsed else '▾'} {self._text}"
        painter.drawControl(QStyle.CE_PushButtonBevel, option)
        painter.drawText(option.rect.adjusted(8, 0, 0, 0), Qt.AlignLeft | Qt.AlignVCenter, option.text)


class _SliderWidget(QWidget):
    """A slider with a spin box."""

    valueChanged = Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider, self._box = QSlider(Qt.Horizontal), QDoubleSpinBox()
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._slider.valueChanged.connect(
            lambda step: self._box.setValue(self._box.minimum() + step * self._step())
        )
        self._box.valueChanged.connect(self._follow)

    def _step(self):
        return self._box.singleStep() or 1.0

    def _follow(self, value):
        self._slider.blockSignals(True)
        self._slider.setRange(0, round((self._box.maximum() - self._box.minimum()) / self._step()))
        self._slider.setValue(round((value - self._box.minimum()) / self._step()))
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)

    def _of_box(kind, getter, setter):
        return Property(
            kind,
            lambda self: getattr(self._box, getter)(),
            lambda self, value: getattr(self._box, setter)(value),
        )

    value = _of_box(float, "value", "setValue")
    minimum = _of_box(float, "minimum", "setMinimum")
    maximum = _of_box(float, "maximum", "setMaximum")
    singleStep = _of_box(float, "singleStep", "setSingleStep")
    decimals = _of_box(int, "decimals", "setDecimals")
    suffix = _of_box(str, "suffix", "setSuffix")


class _DirectoryButton(QPushButton):
    """A button that shows a folder and lets the user choose another."""

    directoryChanged = Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._path = ""
        self.setSizePolicy(QSizePolicy.Expanding, QSizePolicy.Fixed)
        self.clicked.connect(lambda: self.setDirectory(QFileDialog.getExistingDirectory(self) or self._path))

    def setDirectory(self, directory):
        if directory != self._path:
            self._path = directory
            self.setText(directory)
            self.directoryChanged.emit(directory)

    directory = Property(str, lambda self: self._path, setDirectory)


def _named(cls, name, **more):
    made = with_properties(cls, **more)
    made.__name__ = made.__qualname__ = name
    return made


ctkCollapsibleButton = _named(_CollapsibleButton, "ctkCollapsibleButton")
ctkSliderWidget = _named(_SliderWidget, "ctkSliderWidget")
ctkDirectoryButton = _named(_DirectoryButton, "ctkDirectoryButton")
ctkMessageBox = _named(QMessageBox, "ctkMessageBox")
