"""One exported model for all tests of this folder."""

import pytest

from .models import trained


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """The default model in a folder, the file made of it, and itself."""
    from pirn_jax.deploy.export import export_model

    model, place = trained("mixture"), tmp_path_factory.mktemp("part")
    model.save(place / "model")
    export_model(place / "model", place / "part.onnx")
    return model, place
