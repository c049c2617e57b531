"""What the papers report, to be printed beside what is measured here: other people, scanners and computers."""

from __future__ import annotations

XIE_MEANS = {
    "region_iou": 0.9671,
    "map": 0.9656,
    "dice": 0.953,
    "sensitivity": 0.965,
    "specificity": 0.998,
    "pixel_accuracy": 0.996,
}
"""Xie 2025 by column of tables.summary: averaged IoU and mAP as the text tells Table 4, the others as the last line
of Table 5."""

PAPERS = (
    {
        "entrant": "Xie 2025, Table 6: two-stage",
        "train_seconds": 9755,
        "inference_seconds": 61,
        "dice": 0.9621,
    },
    {
        "entrant": "Xie 2025, Table 6: single-stage",
        "train_seconds": 21251,
        "inference_seconds": 87,
        "dice": 0.7899,
    },
    {
        "entrant": "Xie 2025, Table 7: SegResNet",
        "file_mb": 18,
        "largest_patch": 224,
        "inference_seconds": 4.2,
        "dice": 0.9523,
    },
    {
        "entrant": "Xie 2025, Table 7: TransUNet",
        "file_mb": 354,
        "largest_patch": 192,
        "inference_seconds": 10.7,
        "dice": 0.9378,
    },
    {  # sections 2.4; Table 1 (all), Table 2; 15 s for 60 slices; the relative error has a range only
        "entrant": "Zhao, Tables 1 and 2: V-Net, Dice + L2, 3 mm",
        "parameters": 8.6e6,
        "inference_seconds": 15,
        "dice": 0.9815,
        "dice_sd": 0.0009,
        "volume_r2": 0.9956,
        "volume_rmse": 1.29566,
        "volume_mae": 0.9014,
        "volume_re_low": -2.1476,
        "volume_re_high": 4.0612,
    },
    {  # Table 1; its volumes (Table 2) are those of parts of the femur
        "entrant": "Deng 2022, Table 1: V-Net, cross-entropy, 1 mm",
        "parameters": 8.6e6,
        "inference_seconds": 0.31,
        "dice": 0.9787,
        "msd": 0.2011,
    },
    {"entrant": "Deng 2022, section 5: U-Net, 1 mm", "dice": 0.9653},
    {
        "entrant": "Sultana 2024, Tables 1 and 3: 42 %, unseen",
        "dice": 0.918,
        "dice_sd": 0.025,
        "volume_r2": 0.338,
        "volume_rmse": 33.82,
        "volume_mae": 29.556,
        "volume_re": 6.61,
        "area_r2": 0.592,
        "area_rmse": 51.839,
        "area_mae": 43.077,
        "area_re": 12.082,
    },
)
"""Rows of a comparison, with the keys of comparison.table.CSV_COLUMNS: volumes in cm3, areas in cm2, relative
errors in percent."""
