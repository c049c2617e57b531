"""The sample CT, which comes with the extension."""

import pathlib

import FemurSegLib

MODULE = pathlib.Path(__file__).resolve().parents[1]
SAMPLE_CT = (
    pathlib.Path(FemurSegLib.__file__).resolve().parents[1] / "Resources" / "SampleData" / "sample_ct.nii.gz"
)


def register_sample_data():
    """Offer the sample CT in the Sample Data module."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="FemurSeg",
        sampleName="FemurSegSample",
        thumbnailFileName=str(MODULE / "Resources" / "Icons" / "FemurSeg.png"),
        uris=SAMPLE_CT.as_uri(),
        fileNames="FemurSegSample.nii.gz",
        nodeNames="FemurSegSample",
    )
