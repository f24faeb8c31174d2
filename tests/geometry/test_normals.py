"""Normals against analytic surfaces, and against Open3D's 30 nearest neighbours."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pirn_jax.errors import BadInputError, ConfigError, MissingDependencyError
from pirn_jax.geometry import GeometryWarning, grid_normals, measured, surface_normals
from pirn_jax.geometry import open3d_normals as child
from pirn_jax.geometry.open3d_import import missing_open3d
from pirn_jax.geometry.plane_fits import measure_sampling, smallest_eigenvector
from tests.geometry import surfaces

angle = surfaces.angle


@pytest.mark.parametrize("holes", [0.0, 0.3])
@pytest.mark.parametrize(("noise", "limit"), [(0.0, 0.5), (0.2, 3.0), (0.4, 6.0)])
@pytest.mark.parametrize("surface", surfaces.SURFACES)
def test_median_error_on_analytic_surfaces(surface, noise, limit, holes):
    points, truth, seen = surfaces.SURFACES[surface]()
    xyz, valid = surfaces.measured(points, seen, noise, holes)
    normals = surface_normals(xyz, valid)
    defined = (normals != 0).any(-1)
    assert not defined[~valid].any()
    assert defined[valid].mean() > 0.99  # all but the grazing rim
    np.testing.assert_allclose(np.linalg.norm(normals[defined], axis=-1), 1, atol=1e-5)
    assert np.median(angle(normals, truth)[defined]) <= limit * (1.3 if holes else 1)
    assert (np.sum(normals * xyz, axis=-1)[defined] < 0).all()


@pytest.mark.parametrize("unit", [1.0, 1000.0])
@pytest.mark.parametrize("distance", [0.5, 5.0])
def test_fine_relief_far_away_is_not_lost_in_single_precision(unit, distance):
    row, column = np.mgrid[:120, :120] * 2e-4  # 0.2 mm between pixels
    relief = 2e-4 * np.sin(column / 2e-3)  # 0.2 mm high
    slope = 0.1 * np.cos(column / 2e-3)
    truth = np.stack([slope, 0 * slope, -np.ones_like(slope)], -1)
    truth /= np.linalg.norm(truth, axis=-1, keepdims=True)
    xyz = np.stack([column - 0.01, row - 0.01, distance + relief], -1) * unit
    error = angle(surface_normals(xyz.astype(np.float32)), truth)[4:-4, 4:-4]
    assert np.median(error) < 0.5


def test_points_across_a_depth_edge_do_not_enter_the_fit():
    points, truth, _ = surfaces.plane(120, (0.3, 0.2, -1.0))
    xyz = points.copy()
    xyz[:, 60:] *= 1.1  # the right half lies 6 cm behind: 60 pixel distances
    normals = surface_normals(xyz.astype(np.float32))
    assert angle(normals, truth)[5:-5, 5:-5].max() < 0.5


def test_undefined_where_the_points_make_no_plane():
    xyz = surfaces.plane(120)[0].astype(np.float32)
    valid = np.zeros((120, 120), bool)
    valid[20] = True  # a line
    valid[5, 5] = valid[5, 6] = valid[6, 5] = True  # three points
    assert not surface_normals(xyz, valid).any()


def test_missing_points_may_be_anything():
    points, _, seen = surfaces.sphere(120)
    xyz, valid = surfaces.measured(points, seen, 0.1, 0.2)
    expected = surface_normals(xyz)
    for missing in (np.nan, np.inf, 7.0):
        other = np.where(valid[..., None], xyz, np.float32(missing))
        given = None if not np.isfinite(missing) else valid
        np.testing.assert_array_equal(surface_normals(other, given), expected)


def test_batches_tracing_and_array_kinds():
    normals_of = functools.partial(surface_normals, window=3)  # compiles quickly
    scans = [
        surfaces.measured(*surface(120)[::2], 0.1, 0.1)[0]
        for surface in (surfaces.plane, surfaces.sphere)
    ]
    single = np.stack([normals_of(scan) for scan in scans])
    assert isinstance(normals_of(scans[0]), np.ndarray)
    batch = jnp.asarray(np.stack(scans))
    for together in (normals_of(batch), jax.vmap(normals_of)(batch), jax.jit(normals_of)(batch)):
        assert isinstance(together, jax.Array)
        np.testing.assert_allclose(together, single, atol=1e-4)
    inside = grid_normals(batch, (batch != 0).any(-1), window=3)
    np.testing.assert_allclose(inside, single, atol=1e-4)


@pytest.mark.parametrize("rows", [4, 33])
def test_a_large_scan_fitted_strip_by_strip_has_the_same_normals(rows, monkeypatch):
    points, _, seen = surfaces.sphere(90)
    xyz, valid = surfaces.measured(points, seen, 1e-4, 0.1)
    whole = surface_normals(xyz, valid)
    monkeypatch.setattr("pirn_jax.geometry.normals._LARGE", 4 * rows * 90)
    np.testing.assert_allclose(surface_normals(xyz, valid), whole, atol=1e-4)


def test_a_height_map_is_not_taken_for_a_camera():
    row, column = np.mgrid[:120, :120] * 1e-3
    rough = 4e-3 * np.random.default_rng(0).standard_normal((120, 120))
    xyz = np.stack([column + 0.8, row + 0.4, rough + 1.0], -1).astype(np.float32)
    sampling = measure_sampling(jnp, jnp.asarray(xyz), jnp.ones((120, 120), bool), 1.0)
    assert not sampling.pinhole
    np.testing.assert_allclose(sampling.step, 1e-3, rtol=1e-4)
    normals = surface_normals(xyz)
    assert (normals[..., 2][(normals != 0).any(-1)] < 0).all()


def test_the_focal_length_is_measured():
    points, _, seen = surfaces.sphere(120)
    xyz, valid = surfaces.measured(points, seen, 0.0, 0.3)
    sampling = measure_sampling(jnp, jnp.asarray(xyz), jnp.asarray(valid), 1.0)
    assert sampling.pinhole
    np.testing.assert_allclose(sampling.step, 1 / surfaces.FOCAL, rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e6])
def test_smallest_eigenvector_against_numpy(scale):
    random = np.random.default_rng(0)
    spectra = [(0, 1, 1), (0, 0.1, 1), (0, 1e-2, 1), (0.5, 0.6, 1), (1e-4, 1, 1), (0.2, 1, 1.01)]
    for spectrum in spectra:
        basis, _ = np.linalg.qr(random.standard_normal((200, 3, 3)))
        matrices = scale * np.einsum("nij,j,nkj->nik", basis, spectrum, basis)
        entries = [matrices[:, i, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))]
        vector, planar = smallest_eigenvector(
            jnp, tuple(jnp.asarray(e, jnp.float32) for e in entries)
        )
        _, expected = np.linalg.eigh(matrices)
        assert np.asarray(planar).all()
        aligned = np.abs(np.sum(np.stack(vector, -1) * expected[..., 0], -1))
        assert np.degrees(np.arccos(np.clip(aligned, 0, 1))).max() < 0.1
    *_, planar = smallest_eigenvector(jnp, (jnp.ones(1), *[jnp.zeros(1)] * 5))
    assert not planar.any()


@pytest.mark.open3d
def test_agrees_with_the_nearest_neighbours_on_real_scans(real_scan):
    import open3d

    valid = measured(real_scan)
    cloud = open3d.geometry.PointCloud(
        open3d.utility.Vector3dVector(real_scan[valid].astype(np.float64))
    )
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(30))
    cloud.orient_normals_towards_camera_location([0.0, 0.0, 0.0])
    theirs = np.zeros_like(real_scan)
    theirs[valid] = np.asarray(cloud.normals)
    normals = surface_normals(real_scan)
    defined = (normals != 0).any(-1)
    assert defined[valid].mean() > 0.99
    flat = defined.copy()  # away from depth edges and from the rim of what was measured
    z = np.where(valid, real_scan[..., 2], np.inf)
    for axis in (0, 1):
        for shift in range(-4, 5):
            with np.errstate(invalid="ignore"):
                flat &= np.abs(np.roll(z, shift, axis) - z) < 0.02
    error = angle(normals, theirs)
    assert np.median(error[flat]) <= 6
    assert np.mean(error[defined] < 90) >= 0.995


@pytest.mark.open3d
def test_the_papers_method_on_a_sphere():
    points, truth, seen = surfaces.sphere(60)
    xyz, valid = surfaces.measured(points, seen, 0.1, 0.1)
    normals = surface_normals(xyz, valid, method="open3d")
    assert isinstance(normals, np.ndarray)
    assert not normals[~valid].any()
    error = angle(normals, truth)[valid]
    assert np.median(error) < 2
    assert np.mean(error > 90) < 0.01


@pytest.mark.open3d
def test_the_time_limit_falls_back_to_the_sensor(monkeypatch):
    points, truth, seen = surfaces.sphere(50)
    xyz, valid = surfaces.measured(points, seen, 0.0, 0.0)
    slow = (
        "import time; from pirn_jax.geometry import open3d_normals as m; o = m.load_open3d(); "
        "o.geometry.PointCloud.orient_normals_consistent_tangent_plane = "
        "lambda *a: time.sleep(60); m._child()"
    )
    monkeypatch.setattr(child, "_CHILD", slow)
    with pytest.warns(GeometryWarning, match="did not finish within 6 s.*towards the sensor"):
        normals = surface_normals(xyz, valid, method="open3d", time_limit=6)
    assert np.median(angle(normals, truth)[valid]) < 1
    assert (np.sum(normals * xyz, -1)[valid] <= 0).all()


@pytest.mark.open3d
def test_a_crash_in_the_tangent_planes_falls_back(monkeypatch):
    points, truth, seen = surfaces.sphere(50)
    xyz, valid = surfaces.measured(points, seen, 0.0, 0.0)
    crash = (
        "import os; from pirn_jax.geometry import open3d_normals as m; o = m.load_open3d(); "
        "o.geometry.PointCloud.orient_normals_consistent_tangent_plane = "
        "lambda *a: os.abort(); m._child()"
    )
    monkeypatch.setattr(child, "_CHILD", crash)
    with pytest.warns(GeometryWarning, match="failed .*towards the sensor"):
        normals = surface_normals(xyz, valid, method="open3d")
    assert np.median(angle(normals, truth)[valid]) < 1


def test_nothing_came_back(monkeypatch):
    xyz = surfaces.plane(20)[0].astype(np.float32)
    monkeypatch.setattr(child, "_CHILD", "raise SystemExit('no such luck')")
    with pytest.raises(BadInputError, match="no such luck"):
        surface_normals(xyz, method="open3d")


def test_too_few_points_for_open3d():
    xyz = np.zeros((8, 8, 3), np.float32)
    xyz[0, 0] = 1
    with pytest.warns(GeometryWarning, match="too few"):
        assert not surface_normals(xyz, method="open3d").any()


def test_open3d_that_cannot_be_imported(monkeypatch, tmp_path):
    package = tmp_path / "open3d"
    package.mkdir()
    (package / "__init__.py").write_text(
        "raise OSError('libusb-1.0.so.0: cannot open shared object file: No such file')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(
        child,
        "_CHILD",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
        "from pirn_jax.geometry.open3d_normals import _child; _child()",
    )
    xyz = surfaces.plane(20)[0].astype(np.float32)
    with pytest.raises(MissingDependencyError, match=r"libusb-1\.0-0") as caught:
        surface_normals(xyz, method="open3d")
    assert "grid" in caught.value.remedy


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("OSError: libGL.so.1: cannot open shared object file", "libgl1"),
        ("ImportError: libfoo.so.3: cannot open shared object file", "libfoo.so"),
        ("ModuleNotFoundError: No module named 'open3d'", "pip install open3d"),
    ],
)
def test_what_to_install(reason, remedy):
    error = missing_open3d(reason)
    assert remedy in error.remedy
    assert reason in error.problem


def test_wrong_arguments():
    xyz = np.ones((8, 8, 3), np.float32)
    with pytest.raises(BadInputError, match="organised"):
        surface_normals(np.ones((64, 3), np.float32))
    with pytest.raises(BadInputError, match="valid"):
        surface_normals(xyz, np.ones((8, 9), bool))
    with pytest.raises(ConfigError, match="window"):
        surface_normals(xyz, window=4)
    with pytest.raises(ConfigError, match="method"):
        surface_normals(xyz, method="fast")


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, pirn_jax.geometry; from pirn_jax.geometry import Views, remove_background; "
        "heavy = {'open3d', 'matplotlib', 'jax', 'torch'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
