"""Otsu's threshold on a probability, as Zhao and Deng 2022 make masks of the maps of their V-Net."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

BINS = 256


def otsu(probability: np.ndarray) -> float:
    """The threshold that parts the values best (Otsu 1979); 0.5 where none passes 0.5, that is, without femur.

    Zhao and Deng run it on crops that always hold a femur; elsewhere it would part noise.
    """
    if probability.max(initial=0.0) <= 0.5:
        return 0.5
    otsu_filter = sitk.OtsuThresholdImageFilter()
    otsu_filter.SetNumberOfHistogramBins(BINS)
    otsu_filter.Execute(sitk.GetImageFromArray(probability.astype(np.float32, copy=False)))
    return float(np.clip(otsu_filter.GetThreshold(), 0.01, 0.99))


def centred(probability: np.ndarray, threshold: float) -> np.ndarray:
    """The probability bent (in two straight parts) so that `threshold` comes to lie at 0.5; 0 and 1 stay."""
    return np.interp(probability, (0, threshold, 1), (0, 0.5, 1)).astype(np.float32)
