"""Tables of texts as nodes of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import vtk


def add_table(add: Callable, part: str, name: str, columns: Iterable[str], rows: Sequence[Sequence[str]]):
    """Add a table that the user does not write in, and return its node. `add(class name, part, name)` makes a node
    of the run."""
    node = add("vtkMRMLTableNode", part, name)
    for title in columns:
        column = vtk.vtkStringArray()
        column.SetName(title)
        node.AddColumn(column)
    fill(node, rows)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetLocked(True)
    return node


def fill(node, rows: Sequence[Sequence[str]]) -> None:
    """Write the rows; only what has changed, for a view that follows a mouse."""
    was_modifying = node.StartModify()
    while node.GetNumberOfRows() > len(rows):
        node.RemoveRow(node.GetNumberOfRows() - 1)
    while node.GetNumberOfRows() < len(rows):
        node.AddEmptyRow()
    for row, cells in enumerate(rows):
        for column, text in enumerate(cells):
            if node.GetCellText(row, column) != text:
                node.SetCellText(row, column, text)
    node.EndModify(was_modifying)
