"""FemurSeg: both femora from a lower-limb CT."""

__version__ = "0.1.0"
