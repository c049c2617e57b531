"""The panel of the module FemurSeg: its parameters, its logic, its widget, its own test."""
