from __future__ import annotations

import numpy as np

from FemurSegLib.anatomy.fitting import Line, Sphere, fit_cylinder, fit_line, fit_sphere, unit, vote_sphere

RNG = np.random.default_rng(3)


def ball(center, radius, count, noise=0.0):
    """Points, normals and areas of a whole sphere."""
    normals = RNG.normal(size=(count, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points = np.asarray(center) + (radius + noise * RNG.normal(size=(count, 1))) * normals
    return points, normals, np.full(count, 4 * np.pi * radius**2 / count)


def test_a_sphere_is_fitted_to_a_head_with_a_dent_and_a_neck_on_it():
    points, normals, areas = ball((10, -20, 30), 23.0, 6000, noise=0.2)
    dent = (points - [10, -20, 30]) @ unit(np.array([1, 0, 0.5])) > 22.0
    points[dent] -= 2.5 * normals[dent]
    gone = (points - [10, -20, 30]) @ unit(np.array([-1, 0, -1])) > 16.0
    neck = RNG.uniform(-1, 1, size=(1500, 3)) * [30, 15, 15] + [-20, -20, 5]
    sideways = np.tile([0.0, 1.0, 0.0], (1500, 1))
    points, normals = np.vstack([points[~gone], neck]), np.vstack([normals[~gone], sideways])
    areas = np.r_[areas[~gone], np.full(1500, 1.0)]
    start = vote_sphere(points, normals, areas, np.arange(16.0, 33.0))
    fit = fit_sphere(points, normals, areas, start, 3.0)
    assert np.linalg.norm(fit.center_mm - [10, -20, 30]) < 0.05
    assert abs(fit.radius_mm - 23.0) < 0.05
    assert 0.6 < fit.coverage < 0.95


def test_a_fit_that_stays_wide_does_not_jump_where_a_deep_part_is_taken_in_or_left_out():
    rng = np.random.default_rng(4)
    normals = rng.normal(size=(6000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    areas = np.full(6000, 4 * np.pi * 23.0**2 / 6000)
    noise, deep = rng.normal(size=6000), 2.0 * (normals @ unit(np.array([1, 1, 0.5])) > 0.7)
    narrow, wide = [], []
    for roughness in (0.1, 0.3):
        points = (23.0 - deep + roughness * noise)[:, None] * normals
        first = fit_sphere(points, normals, areas, Sphere(np.zeros(3), 23.0), 5.0)
        narrow.append(fit_sphere(points, normals, areas, first, 3.0).center_mm)
        wide.append(fit_sphere(points, normals, areas, first, 6.0, fade_deg=20.0, narrowest_mm=6.0).center_mm)
    assert np.linalg.norm(narrow[1] - narrow[0]) > 0.4
    assert np.linalg.norm(wide[1] - wide[0]) < 0.1


def test_nothing_round_gives_a_sphere_without_coverage():
    points = np.c_[RNG.uniform(-50, 50, (500, 2)), np.zeros(500)]
    fit = fit_sphere(points, np.tile([0.0, 0.0, -1.0], (500, 1)), np.ones(500), Sphere(np.zeros(3), 20.0), 3.0)
    assert fit.coverage < 0.2


def test_a_cylinder_is_found_from_a_rough_guess_of_its_axis():
    axis, point, radius = unit(np.array([1.0, 0.1, -0.05])), np.array([5.0, 6.0, 7.0]), 21.0
    first = unit(np.cross(axis, [0, 0, 1.0]))
    second = np.cross(axis, first)
    angle, along = RNG.uniform(0, 2.0, 3000), RNG.uniform(-40, 40, 3000)
    normals = np.cos(angle)[:, None] * first + np.sin(angle)[:, None] * second
    points = point + along[:, None] * axis + radius * normals
    start = Line(point + [0, 1.0, -1.0], unit(axis + [0, 0.08, 0.08]))
    line, found, residual = fit_cylinder(points, normals, np.ones(3000), start, 19.0, 4.0)
    assert abs(found - radius) < 1e-3 and residual < 1e-3
    assert line.direction @ axis > 1 - 1e-8
    assert Line(point, axis).distance_mm(line.point_mm) < 1e-3


def test_a_line_points_the_way_it_is_told():
    points = np.outer(np.arange(10.0), [0, 0, 1.0]) + [1, 2, 0]
    line = fit_line(points, np.array([0.1, 0, -1.0]))
    assert np.allclose(line.direction, [0, 0, -1])
    assert np.allclose(line.at(np.array([0, 0, 1.0]), 100.0), [1, 2, 100])
