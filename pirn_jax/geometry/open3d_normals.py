"""The paper's normals: Open3D, 30 nearest neighbours, consistent tangent planes, in a process.

Source: appendix B.2. `orient_normals_consistent_tangent_plane` triangulates all points and is
    known not to return on coplanar subsets (Open3D issues 4983 and 6482), to fail inside Qhull
    (5975), and to take memory without bound (2043). Only a process of its own can be stopped then.
Differs from the paper: the propagated orientation is consistent up to one sign for the whole
    cloud, which is chosen here so that most normals point towards the sensor. Where it fails or
    exceeds its time, the plane fits are kept, and each is turned towards the sensor.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Bool, Float, Float32

from pirn_jax.errors import BadInputError, MissingDependencyError
from pirn_jax.geometry.open3d_import import load_open3d, missing_open3d

NEIGHBOURS = 30
TANGENT_PLANE_NEIGHBOURS = 50
FEWEST_POINTS = 5  # a triangulation in space needs four and more

_CHILD = "from pirn_jax.geometry.open3d_normals import _child; _child()"
_IMPORT_FAILED = 3  # exit status of the child process


def tangent_plane_normals(
    xyz: Float32[np.ndarray, "H W 3"],
    valid: Bool[np.ndarray, "H W"],
    sight: Float[np.ndarray, "#H #W 3"],
    time_limit: float | int,
) -> tuple[Float32[np.ndarray, "H W 3"], str]:
    """Normals by Open3D, in a child process that is killed after `time_limit` seconds.

    Args:
        xyz: points, finite where `valid`.
        valid: the pixels whose points are used.
        sight: the direction from the sensor to each point, of any length.
        time_limit: seconds for everything, the start of the process included.

    Returns:
        The normals, zeros where not `valid`; and why the tangent planes were not used, or "".

    Raises:
        MissingDependencyError: the child cannot import open3d.
        BadInputError: not even the plane fits came back.
    """
    normals = np.zeros_like(xyz)
    points = xyz[valid].astype(np.float64)
    if len(points) < FEWEST_POINTS:
        return normals, f"{len(points)} points are too few for a plane: no normals"
    stages, why = _run_child(points, time_limit)
    away = np.sum(stages[-1] * np.broadcast_to(sight, xyz.shape)[valid], axis=-1) > 0
    if len(stages) == 2:  # fitted, and oriented by tangent planes
        sign = -1.0 if np.mean(away) > 0.5 else 1.0
    else:
        why = f"Open3D's tangent planes {why}: each normal was turned towards the sensor instead"
        sign = np.where(away, -1.0, 1.0)[:, None]
    normals[valid] = stages[-1] * sign
    return normals, why


def _run_child(
    points: Float[np.ndarray, "n 3"], time_limit: float | int
) -> tuple[list[Float[np.ndarray, "n 3"]], str]:
    """The stages the child finished (fitted; oriented), and why it did not finish both, or ""."""
    package_root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    question = io.BytesIO()
    np.save(question, points, allow_pickle=False)
    why = ""
    try:
        output, complaint = child.communicate(question.getvalue(), timeout=time_limit)
    except subprocess.TimeoutExpired:
        child.kill()
        output, complaint = child.communicate()  # what it had written before
        why = f"did not finish within {time_limit:g} s"
    except BaseException:
        child.kill()
        child.communicate()
        raise
    if child.returncode == _IMPORT_FAILED:
        raise missing_open3d(complaint.decode(errors="replace").strip().splitlines()[-1])

    stages, stream = [], io.BytesIO(output)
    while len(stages) < 2:
        try:
            stage = np.load(stream, allow_pickle=False)
        except (EOFError, ValueError):  # not written, or cut off in writing
            break
        stages.append(np.nan_to_num(stage))
    said = complaint.decode(errors="replace").strip()
    if len(stages) < 2:
        why = why or f"failed (exit status {child.returncode}: {said[-300:] or 'no message'})"
    if not stages:
        raise BadInputError(
            f"Open3D's plane fit to {len(points)} points {why}", 'use method="grid"'
        )
    return stages, why


def _child() -> None:
    """Runs in the child: points from stdin; fitted, then oriented normals to stdout."""
    _die_with_parent()
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Open3D prints its warnings to stdout
    points = np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    try:
        open3d = load_open3d()
    except MissingDependencyError as error:
        sys.stderr.write(f"{error.__cause__}\n")
        sys.stderr.flush()
        os._exit(_IMPORT_FAILED)
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    cloud.estimate_normals(open3d.geometry.KDTreeSearchParamKNN(NEIGHBOURS))
    _send(answer, np.asarray(cloud.normals, np.float32))
    cloud.orient_normals_consistent_tangent_plane(TANGENT_PLANE_NEIGHBOURS)
    _send(answer, np.asarray(cloud.normals, np.float32))


def _send(pipe: BinaryIO, array: Float32[np.ndarray, "n 3"]) -> None:
    message = io.BytesIO()  # np.save cannot write an array into a pipe
    np.save(message, array, allow_pickle=False)
    pipe.write(message.getvalue())
    pipe.flush()


def _die_with_parent() -> None:
    """Ends this process soon after its parent, however that ended: nobody waits for the answer."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
