"""Pictures of the scene as Slicer's own displayable managers draw it, off-screen, in 3D and in slices.

Needs OpenGL without a screen: EGL (libegl1) or OSMesa (libosmesa6).
"""

from __future__ import annotations

import slicer
import vtk

IN_3D = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
)
IN_SLICES = ("vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLMarkupsDisplayableManager")


class View:
    """A window with a renderer and the displayable managers of one view node."""

    def __init__(self, application_logic, factory, managers, node, size):
        self.renderer, self.window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(8)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.Initialize()
        factory = factory.GetInstance()
        factory.SetMRMLApplicationLogic(application_logic)
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self.group = slicer.vtkMRMLDisplayableManagerGroup()
        self.group.SetRenderer(self.renderer)
        self.group.Initialize(factory, self.renderer)
        self.group.SetMRMLDisplayableNode(node)

    def save(self, path):
        self.window.Render()
        grab, writer = vtk.vtkWindowToImageFilter(), vtk.vtkPNGWriter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        writer.SetInputConnection(grab.GetOutputPort())
        writer.SetFileName(str(path))
        writer.Write()
        self.window.Finalize()


def picture_3d(parts, path, size=(700, 700), zoom=1.0):
    """The 3D view from the front, slightly from the patient's left and above; zoom 1 shows all there is."""
    logic = slicer.vtkMRMLViewLogic()
    logic.SetMRMLApplicationLogic(parts.application)
    logic.SetMRMLScene(parts.scene)
    node = logic.AddViewNode(parts.scene.GetUniqueNameByString("View"))
    node.SetBoxVisible(False)
    node.SetAxisLabelsVisible(False)
    node.SetBackgroundColor(0.75, 0.77, 0.91)
    node.SetBackgroundColor2(0.45, 0.47, 0.75)
    view = View(parts.application, slicer.vtkMRMLThreeDViewDisplayableManagerFactory, IN_3D, node, size)
    camera = view.renderer.GetActiveCamera()
    camera.SetFocalPoint(0, 0, 0)
    camera.SetPosition(-0.35, 1, 0.15)
    camera.SetViewUp(0, 0, 1)
    view.window.Render()
    view.renderer.ResetCamera()
    camera.Zoom(zoom)
    view.renderer.ResetCameraClippingRange()
    view.save(path)


def picture_slice(parts, path, volume, orientation="Coronal", at_ras=None, size=(700, 700)):
    """A slice view with `volume` behind the segments and boxes, through `at_ras` or its middle."""
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(parts.scene, True)
    logic = slicer.vtkMRMLSliceLogic()
    logic.SetMRMLApplicationLogic(parts.application)
    logic.SetMRMLScene(parts.scene)
    node = logic.AddSliceNode(parts.scene.GetUniqueNameByString(orientation))
    parts.slices.AddItem(logic)
    node.SetOrientation(orientation)
    logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume.GetID())
    view = View(parts.application, slicer.vtkMRMLSliceViewDisplayableManagerFactory, IN_SLICES, node, size)
    logic.ResizeSliceNode(*size)
    logic.FitSliceToBackground(*size)
    if at_ras is not None:
        node.JumpSliceByOffsetting(*at_ras)
    mapper, actor = vtk.vtkImageMapper(), vtk.vtkActor2D()
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    mapper.SetInputConnection(logic.GetImageDataConnection())
    actor.SetMapper(mapper)
    actor.GetProperty().SetDisplayLocationToBackground()
    view.renderer.AddViewProp(actor)
    view.save(path)
