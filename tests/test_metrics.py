import numpy as np
import pytest
from scipy.spatial.distance import cdist
from skimage.metrics import peak_signal_noise_ratio

from nf2vec_cli.metrics import (
    average_precision_at,
    cloud_score,
    cloud_scores,
    f_score,
    iou,
    ndcg_at,
    nearest_distance,
    normal_consistency,
    part_score,
    parts_of_scores,
    psnr,
    rank_score,
    shape_part_iou,
    surface_distance,
)

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(300, 3)) * 0.1, RNG.normal(size=(200, 3)) * 0.1


def test_chamfer_distances_of_both_conventions_are_those_of_brute_force():
    table = cdist(A, B)
    there, back = table.min(1), table.min(0)

    score = cloud_score(A, B, 0.02)

    assert score.chamfer_t == pytest.approx((there**2).mean() + (back**2).mean())
    assert score.chamfer_p == pytest.approx((there.mean() + back.mean()) / 2)
    precision, recall = (there < 0.02).mean(), (back < 0.02).mean()
    assert score.f_score == pytest.approx(2 * precision * recall / (precision + recall))


def test_many_pairs_are_scored_as_one_by_one():
    many = np.stack([A, A + 0.01]), np.stack([B, B])

    assert cloud_scores(*many) == [cloud_score(a, b) for a, b in zip(*many, strict=True)]
    with pytest.raises(ValueError, match="2 clouds"):
        cloud_scores(many[0], B[None])


def test_chunks_change_nothing(monkeypatch):
    monkeypatch.setattr("nf2vec_cli.metrics.CHUNK", 7)

    np.testing.assert_array_equal(nearest_distance(A, B), cdist(A, B).min(1))


def test_a_cloud_without_points_is_refused():
    with pytest.raises(ValueError, match="without points"):
        cloud_score(A, np.empty((0, 3)))


@pytest.mark.parametrize(("there", "back", "expected"), [(0, 0, 1), (1, 1, 0), (0, 1, 0)])
def test_f_score_at_its_ends(there, back, expected):
    assert f_score(np.full(4, there), np.full(4, back), 0.5) == expected


def test_distance_to_a_triangle_is_that_of_another_library():
    import trimesh

    mesh = trimesh.creation.icosphere(2, 0.1)

    ours = surface_distance(A, np.asarray(mesh.vertices), np.asarray(mesh.faces))

    every = np.repeat(np.asarray(mesh.triangles)[None], len(A), axis=0).reshape(-1, 3, 3)
    points = np.repeat(A, len(mesh.faces), axis=0)
    nearest = trimesh.triangles.closest_point(every, points)
    expected = np.linalg.norm(nearest - points, axis=1).reshape(len(A), -1).min(1)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_normals_agree_with_themselves_whichever_way_they_look():
    normals = A / np.linalg.norm(A, axis=1, keepdims=True)

    assert normal_consistency(A, normals, A, -normals) == pytest.approx(1)
    turned = np.cross(normals, [0, 0, 1.0])
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    assert normal_consistency(A, normals, A, turned) == pytest.approx(0, abs=1e-9)


def test_iou_counts_cells():
    a, b = np.zeros((4, 4, 4), bool), np.zeros((4, 4, 4), bool)
    assert iou(a, b) == 1
    a[:2], b[1:3] = True, True
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a, ~a) == 0
    with pytest.raises(ValueError, match="cannot be compared"):
        iou(a, np.zeros((2, 2, 2), bool))


def test_psnr_is_that_of_another_library():
    a, b = RNG.random((8, 8, 3)), RNG.random((8, 8, 3))

    assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1))
    assert psnr(255 * a, 255 * b, peak=255) == pytest.approx(psnr(a, b))
    assert psnr(a, a) == np.inf


# five queries: A0 A1 B0 A2 B1 at 0, 1, 2.5, 10 and 12 on a line, each asking the four others
RANKED = np.array([[1, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 1, 1], [0, 1, 0, 0]], bool)
TOTAL = np.array([2, 2, 1, 2, 1])


def test_ranked_lists_by_hand():
    first = rank_score(RANKED, TOTAL, 1)
    assert (first.hit, first.map, first.precision, first.ndcg) == (40, 40, 40, 40)

    whole = rank_score(RANKED, TOTAL, 5)
    assert whole.hit == 100  # what the paper calls mAP@5
    assert whole.precision == pytest.approx(100 * (2 + 2 + 1 + 2 + 1) / 25)
    average = [(1 + 2 / 3) / 2, (1 + 2 / 3) / 2, 1 / 4, (1 / 3 + 2 / 4) / 2, 1 / 2]
    assert whole.map == pytest.approx(100 * np.mean(average))
    best = 1 + 1 / np.log2(3)
    gains = [1.5 / best, 1.5 / best, 1 / np.log2(5), (0.5 + 1 / np.log2(5)) / best, 1 / np.log2(3)]
    assert whole.ndcg == pytest.approx(100 * np.mean(gains))


def test_average_precision_asks_for_no_more_than_k_can_hold():
    ranked, total = np.array([[1, 1, 0]], bool), np.array([50])

    assert average_precision_at(ranked, total, 2).tolist() == [1]
    assert average_precision_at(ranked, total, 3) == pytest.approx([2 / 3])
    assert ndcg_at(ranked, total, 2).tolist() == [1]


def test_a_query_without_relevant_objects_is_a_miss():
    ranked, total = np.zeros((1, 3), bool), np.array([0])

    found = rank_score(ranked, total, 3)

    assert (found.hit, found.map, found.precision, found.ndcg) == (0, 0, 0, 0)
    with pytest.raises(ValueError, match="no query"):
        rank_score(np.zeros((0, 3), bool), np.zeros(0, int), 1)


def test_the_part_of_a_point_is_sought_among_those_of_its_class():
    scores = np.array([[9.0, 1.0, 2.0], [0.0, 5.0, 4.0]])

    assert parts_of_scores(scores, [1, 2]).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("truth", "found", "parts", "wanted"),
    [
        ([4, 4, 5, 5], [4, 4, 5, 5], [4, 5], 1),
        # part 4: 1 of 2 in either; part 5: 2 of 3
        ([4, 4, 5, 5], [4, 5, 5, 5], [4, 5], (1 / 2 + 2 / 3) / 2),
        # part 6 is in neither: 1
        ([4, 4, 5, 5], [4, 5, 5, 5], [4, 5, 6], (1 / 2 + 2 / 3 + 1) / 3),
        # part 6 is found where it is not: 0
        ([4, 4, 5, 5], [4, 4, 5, 6], [4, 5, 6], (1 + 1 / 2 + 0) / 3),
        ([7, 7], [7, 7], [7], 1),
    ],
)
def test_a_shapes_iou_is_the_mean_of_its_classes_parts(truth, found, parts, wanted):
    assert shape_part_iou(np.array(truth), np.array(found), parts) == pytest.approx(wanted)


def test_class_and_instance_means_differ_where_classes_are_unequal():
    score = part_score([1.0, 0.5, 0.6, 0.2], [3, 3, 3, 8])

    assert score.instance_miou == pytest.approx(2.3 / 4)
    assert score.by_class == pytest.approx({3: 0.7, 8: 0.2})
    assert score.class_miou == pytest.approx(0.45)


def test_parts_of_other_counts_cannot_be_compared():
    with pytest.raises(ValueError, match="2 parts cannot be compared with 3"):
        shape_part_iou(np.zeros(3, int), np.zeros(2, int), [0])
    with pytest.raises(ValueError, match="cannot be averaged"):
        part_score([], [])
