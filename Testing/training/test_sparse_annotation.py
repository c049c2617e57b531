import numpy as np

from FemurSegLib.training.sparse_annotation import ANNOTATED, annotate_part, pseudo_label


def test_the_upper_part_of_the_slices_keeps_its_labels():
    labels = np.random.default_rng(0).integers(0, 2, (100, 6, 5)).astype(np.uint8)
    annotated = annotate_part(labels)
    assert ANNOTATED == 0.42  # Sultana, section 5.1: 2316 of 5474 slices
    assert np.array_equal(annotated[58:], labels[58:]) and (annotated[:58] == 255).all()
    assert (labels != 255).all()  # not changed in place
    assert (annotate_part(labels, 1.0) == labels).all()


def test_only_sure_voxels_without_a_label_get_one():
    labels = np.array([0, 1, 255, 255, 255], np.uint8)
    probability = np.array([0.99, 0.01, 0.95, 0.05, 0.5], np.float32)
    assert pseudo_label(labels, probability).tolist() == [0, 1, 1, 0, 255]
