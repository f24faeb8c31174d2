"""Hostile uploads: each file of the readers' corpus is a 4xx, and the next part is judged."""

import pytest
from fastapi.testclient import TestClient

from pirn_jax.errors import BadInputError
from tests.deploy.service.stand_in import Brightness, app_of, make, png
from tests.scans.hostile.corpus import CASES

ROLES = {".png": "rgb", ".jpg": "rgb", ".bmp": "rgb", ".tif": "rgb", ".tiff": "xyz", ".npy": "xyz"}
ROLES |= {".npz": "xyz", ".ply": "xyz", ".pcd": "xyz"}
LARGEST = 1 << 20


@pytest.mark.slow
def test_hostile_uploads(tmp_path):
    import tests.scans.hostile.clouds
    import tests.scans.hostile.pictures
    import tests.scans.hostile.points  # noqa: F401

    parts = make(tmp_path / "state", judge=Brightness(), largest=LARGEST)
    sent = 0
    with TestClient(app_of(parts), base_url="http://127.0.0.1") as client:
        for number, (name, build) in enumerate(CASES.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            attempt = build(folder)
            files = [path for path in folder.rglob("*") if path.is_file()]
            if len(files) != 1 or files[0].suffix not in ROLES or files[0].is_symlink():
                continue
            if files[0].stat().st_size > 2 * LARGEST:
                continue
            with pytest.raises(BadInputError):
                attempt()
            role = ROLES[files[0].suffix]
            answer = client.post(
                "/v1/judge", files={role: ("a" + files[0].suffix, files[0].read_bytes())}
            )
            # Corpus files of another role may be sound ones of this.
            assert answer.status_code in (200, 413, 422), (name, answer.text)
            if answer.status_code == 422:
                said = answer.json()
                assert said["error"] or said["remedy"], name
                assert str(tmp_path) not in answer.text, name
                sent += 1
        assert client.post("/v1/judge", files={"rgb": ("a.png", png())}).status_code == 200
    assert sent >= 200
