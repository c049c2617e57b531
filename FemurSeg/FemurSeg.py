"""FemurSeg in 3D Slicer: a click on "Segment femur" gives both femora of a CT as segments, boxes and STL.

In a script of your own:

    from FemurSeg import FemurSegLogic
    run = FemurSegLogic().segment(slicer.util.getNode("CT"))
    print(run.segmentation.GetName(), run.report["femurs"]["left_femur"]["volume_ml"])

This page is the shell that Slicer finds: the panel is in FemurSegPanel, the work is done in FemurSegLib.
"""

import pathlib
import sys

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

if not pathlib.Path(__file__).with_name("FemurSegLib").is_dir():  # a checkout, not an installed extension
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from FemurSegPanel.logic import FemurSegLogic
from FemurSegPanel.parameters import FemurSegParameterNode
from FemurSegPanel.sample import register_sample_data
from FemurSegPanel.selftest import FemurSegTest
from FemurSegPanel.widget import FemurSegWidget

__all__ = ["FemurSeg", "FemurSegLogic", "FemurSegParameterNode", "FemurSegTest", "FemurSegWidget"]


class FemurSeg(ScriptedLoadableModule):
    """What the application shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("FemurSeg")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["Segmentations", "SegmentEditor", "Markups", "Tables"]
        parent.contributors = ["The FemurSeg contributors"]
        parent.helpText = _(
            "Segments both femora in a lower-limb CT: choose the CT and click <b>Segment femur</b>. "
            "The femora are found in two radiographs made from the CT, then segmented inside a 3D box each. "
            "Drag a box and segment inside it again, correct the segments in the Segment Editor, and export "
            "surfaces for planning. For research; not a medical device."
        )
        parent.acknowledgementText = _(
            "After the two-stage femur network of Xie et al. (2025). Built on MONAI, PyTorch and SimpleITK. "
            "How the weights were made is told in the model cards."
        )
        slicer.app.connect("startupCompleted()", register_sample_data)
