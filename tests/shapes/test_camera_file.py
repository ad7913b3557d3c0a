import json

import numpy as np
import pytest

from nf2vec_cli.errors import InputError
from nf2vec_cli.shapes.camera_file import read_cameras

POSE = np.eye(4)
POSE[:3, 3] = 1.0, 2.0, 3.0


def written(tmp_path, **facts):
    frames = facts.pop("frames", [{"transform_matrix": POSE.tolist()}])
    file = tmp_path / "any.json"
    file.write_text(json.dumps({"frames": frames} | facts))
    return file


def test_cameras_are_read_without_the_pictures_that_are_named(tmp_path):
    frames = [
        {"file_path": "./gone/r_0", "transform_matrix": POSE.tolist()},
        {"transform_matrix": POSE[:3].tolist(), "camera_angle_x": np.pi / 2},
    ]

    shots = read_cameras(written(tmp_path, frames=frames, camera_angle_x=1.0), usual=50)

    np.testing.assert_allclose(shots.poses, np.stack([POSE[:3]] * 2))
    np.testing.assert_allclose(shots.focal, [25 / np.tan(0.5), 25])
    assert shots.size.tolist() == [[50, 50], [50, 50]]


def test_the_files_own_size_and_one_that_is_asked_for(tmp_path):
    file = written(tmp_path, fl_x=80.0, w=100, h=60)

    own, asked = read_cameras(file, usual=50), read_cameras(file, size=200, usual=50)

    assert (own.size.tolist(), own.focal.tolist()) == ([[100, 60]], [80.0])
    assert (asked.size.tolist(), asked.focal.tolist()) == ([[200, 120]], [160.0])


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"frames": []}, "no frames"),
        ({"frames": [{"transform_matrix": POSE.tolist()}]}, "neither a camera_angle_x nor a fl_x"),
        ({"camera_angle_x": 1.0, "frames": [{"transform_matrix": [[1, 2]]}]}, "frame 0"),
        ({"camera_angle_x": 1.0, "frames": [{}]}, "transform_matrix"),
        ({"camera_angle_x": 1.0, "w": 9000, "h": 10}, "no size of a picture"),
        ({"camera_angle_x": float("nan")}, "camera_angle_x"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, facts, told):
    with pytest.raises(InputError, match=told):
        read_cameras(written(tmp_path, **facts), usual=50)


def test_a_length_in_pixels_of_an_unknown_picture_cannot_be_scaled(tmp_path):
    with pytest.raises(InputError, match="no w says of how many"):
        read_cameras(written(tmp_path, fl_x=80.0), size=20, usual=50)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    file = tmp_path / "any.json"
    file.write_text("{")

    with pytest.raises(InputError, match=r"any\.json"):
        read_cameras(file, usual=50)
