"""What the user chooses in the panel; saved with the scene."""

import enum
import pathlib
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from FemurSegLib.models import DEFAULT_SET
from FemurSegLib.sides import LEFT, RIGHT


class Device(enum.Enum):
    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"

    def label(self):
        return {"auto": _("Automatic"), "cuda": _("NVIDIA GPU"), "mps": _("Apple GPU"), "cpu": _("CPU")}[self.value]


class Sides(enum.Enum):
    BOTH = (RIGHT, LEFT)
    RIGHT = (RIGHT,)
    LEFT = (LEFT,)

    def label(self):
        return {"BOTH": _("Both"), "RIGHT": _("Right"), "LEFT": _("Left")}[self.name]


class Network(enum.Enum):
    SEGRESNET = "segresnet"

    def label(self):
        return {"segresnet": _("SegResNet")}[self.value]


class Cortex(enum.Enum):
    NONE = "none"
    THRESHOLD = "threshold"
    NETWORK = "network"

    def label(self):
        return {"none": _("Not told apart"), "threshold": _("By threshold"), "network": _("By network")}[self.value]


class Weights(enum.Enum):
    OPEN = "open"
    RESEARCH = "research"

    def label(self):
        return {"open": _("Open data alone"), "research": _("All data (not for commercial use)")}[self.value]


class Space(enum.Enum):
    LPS = "LPS"
    RAS = "RAS"

    def label(self):
        return self.value


class Format(enum.Enum):
    STL = "stl"
    OBJ = "obj"
    PLY = "ply"
    VTP = "vtp"

    def label(self):
        return self.name


@parameterNodeWrapper
class FemurSegParameterNode:
    """What the user has chosen; saved with the scene. `marginMm` 0: what the network was trained with. `spread`: a
    whole number of copies."""

    ctVolume: vtkMRMLScalarVolumeNode
    device: Device = Device.AUTO
    sides: Sides = Sides.BOTH
    network: Network = Network.SEGRESNET
    weights: Weights = Weights(DEFAULT_SET)
    cortex: Cortex = Cortex.NONE
    spread: Annotated[float, WithinRange(0, 20)] = 0.0
    marginMm: Annotated[float, WithinRange(0, 50)] = 0.0
    smoothing: Annotated[float, WithinRange(0, 1)] = 0.5
    folder: pathlib.Path = pathlib.Path.home()
    caseName: str = ""
    format: Format = Format.STL
    space: Space = Space.LPS
    decimation: Annotated[float, WithinRange(0, 0.9)] = 0.0
