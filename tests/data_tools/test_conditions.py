"""The form of conditions: columns of numbers or images."""

import numpy as np
import pytest

from data_tools.conditions import ConditionSpec
from data_tools.layout import DatasetInfo

NUMBERS = DatasetInfo("robot", "", 2, 1, [0.0] * 3, [1.0] * 3)
POSES = DatasetInfo("dance", "", 0, 0, store="poses", pose_channels=3)


def test_numbers():
    spec = ConditionSpec.of(NUMBERS, 4, 8)
    assert (spec.shape, spec.dtype, spec.channels, spec.nbytes, spec.is_image) == (
        (3,),
        "float32",
        3,
        12,
        False,
    )
    assert spec.columns == (
        "actions.csv column 1",
        "actions.csv column 2",
        "endeffector_positions.csv column 1",
    )
    values = spec.empty(5, 2)
    assert (values.shape, values.dtype) == ((5, 2, 3), np.float32)
    table = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert spec.numbers(table) is table and len(spec.images(table)) == 0
    assert spec.pick(table, slice(1, 3)).tolist() == [[1, 2], [4, 5]]
    assert spec.select(slice(1, 3)) == ConditionSpec(
        (2,), "float32", ("actions.csv column 2", "endeffector_positions.csv column 1")
    )
    assert spec.select(slice(0, 0)).channels == 0


def test_images():
    spec = ConditionSpec.of(POSES, 4, 8)
    assert spec == ConditionSpec((4, 8, 3), "uint8")
    assert (spec.channels, spec.nbytes, spec.is_image) == (3, 96, True)
    assert (spec.empty(2).shape, spec.empty(2).dtype) == ((2, 4, 8, 3), np.uint8)
    images = np.zeros((2, 4, 8, 3), np.uint8)
    assert spec.images(images) is images and spec.pick(images, slice(0, 0)) is images
    assert spec.numbers(images).shape == (2, 0) and spec.select(slice(0, 0)) == spec


def test_data_have_numbers_or_poses():
    with pytest.raises(ValueError, match="found both poses and 1 columns"):
        DatasetInfo("x", "", 1, 0, [0.0], [1.0], store="poses", pose_channels=3)
