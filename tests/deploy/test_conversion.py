"""Single steps in ONNX Runtime, against numpy; whatever the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from scipy import special

from pirn_jax.deploy.conversion import convert
from pirn_jax.deploy.graph import BATCH, Graph, constant, fingerprint
from pirn_jax.errors import ConfigError

onnxruntime = pytest.importorskip("onnxruntime")
RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.standard_normal((7, 5)).astype(np.float32)
ROW = WEIGHTS[None, :, 0]


def run(function, array, **options):
    """A function of one array (B, 3, 7) as a graph for any batch."""
    (count,) = export.symbolic_shape(BATCH)
    spec = jax.ShapeDtypeStruct((count, *array.shape[1:]), array.dtype)
    graph = Graph(**options)
    given = [graph.input("x", spec.shape, spec.dtype)]
    found = convert(graph, jax.make_jaxpr(lambda x: (function(x),))(spec), given)
    model = graph.finish({"y": found[0]}, "test", {}).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": array})[0]


def shifted(x):
    def step(carry, row):
        return carry + row, carry * row

    return jax.lax.scan(step, jnp.zeros_like(x[:, 0]), jnp.swapaxes(x, 0, 1))[1]


def numpy_shifted(x):
    before = np.cumsum(x, 1) - x
    return (before * x).swapaxes(0, 1)


STEPS = {
    "products": (lambda x: x @ WEIGHTS, lambda x: x @ WEIGHTS),
    "batched": (
        lambda x: jnp.einsum("bnc,bmc->bnm", x, x),
        lambda x: np.einsum("bnc,bmc->bnm", x, x),
    ),
    "two free axes": (
        lambda x: jnp.einsum("bnc,cd->dbn", x, WEIGHTS),
        lambda x: np.einsum("bnc,cd->dbn", x, WEIGHTS),
    ),
    "softmax": (lambda x: jax.nn.softmax(x, -1), lambda x: special.softmax(x, -1)),
    "logsumexp": (lambda x: jax.nn.logsumexp(x, -1), lambda x: special.logsumexp(x, -1)),
    "gelu": (
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: x * special.ndtr(x.astype(np.float64)),
    ),
    "largest": (lambda x: jax.lax.top_k(x, 2)[0], lambda x: np.sort(x)[..., ::-1][..., :2]),
    "place of the largest": (lambda x: x.argmax(-1), lambda x: x.argmax(-1)),
    "looked up": (lambda x: jnp.asarray(WEIGHTS)[x.argmax(-1)], lambda x: WEIGHTS[x.argmax(-1)]),
    "one of an axis": (lambda x: x[:, 1], lambda x: x[:, 1]),
    "taken apart": (
        lambda x: jnp.stack(jnp.unstack(x, axis=1)[::-1]),
        lambda x: x.swapaxes(0, 1)[::-1],
    ),
    "reversed": (lambda x: jax.lax.rev(x, (1,)), lambda x: x[:, ::-1]),
    "padded": (
        lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0))),
        lambda x: np.pad(x, ((0, 0), (1, 2), (0, 0))),
    ),
    "loop": (shifted, numpy_shifted),
    "any": (
        lambda x: jnp.where((x > 1).any(-1, keepdims=True), x, 0.0),
        lambda x: np.where((x > 1).any(-1, keepdims=True), x, 0.0),
    ),
    "broadcast to the batch": (
        lambda x: jnp.concatenate([jnp.broadcast_to(ROW, (x.shape[0], 7)), x[:, 0]], 1),
        lambda x: np.concatenate([np.broadcast_to(ROW, (len(x), 7)), x[:, 0]], 1),
    ),
    "small numbers": (lambda x: jnp.expm1(x * 1e-3), lambda x: np.expm1(x * 1e-3)),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("batch", [1, 4])
def test_a_step_is_numpys(name, batch):
    ours, numpys = STEPS[name]
    array = RANDOM.standard_normal((batch, 3, 7)).astype(np.float32)
    found, expected = run(ours, array), numpys(array)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_weights_in_half_precision_are_those_rounded():
    weights = RANDOM.standard_normal((7, 1024)).astype(np.float32)
    array = RANDOM.standard_normal((2, 3, 7)).astype(np.float32)
    found = run(lambda x: x @ weights, array, stored="float16", matrices=[fingerprint(weights)])
    rounded = weights.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(found, array @ rounded, rtol=1e-5, atol=1e-5)
    same = run(lambda x: x @ weights, array, stored="float16")  # it is not among the matrices
    np.testing.assert_allclose(same, array @ weights, rtol=1e-6, atol=1e-6)


def test_a_matrix_in_8_bits_is_off_by_half_a_step_of_its_column_at_most():
    columns = np.logspace(-4, 2, 1024)
    weights = (RANDOM.standard_normal((7, 1024)) * columns).astype(np.float32)
    weights[:, 3] = 0.0
    rows = np.eye(7, dtype=np.float32)[None, :3]
    found = run(lambda x: x @ weights, rows, stored="int8", matrices=[fingerprint(weights)])
    steps = np.abs(weights).max(axis=0) / 127
    assert (np.abs(found[0] - weights[:3]) <= 0.5001 * steps).all()
    assert (found[0] != weights[:3]).any()
    same = run(lambda x: x @ weights, rows, stored="int8", matrices=[fingerprint(weights[::-1])])
    np.testing.assert_array_equal(same[0], weights[:3])


def test_in_8_bits_a_huge_constant_that_is_no_matrix_of_the_encoder_has_half_precision():
    weights = RANDOM.standard_normal((7, 1 << 16)).astype(np.float32)
    array = RANDOM.standard_normal((2, 3, 7)).astype(np.float32)
    found = run(lambda x: x @ weights, array, stored="int8")
    expected = array @ weights.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    same = run(lambda x: x @ weights, array, stored="float16")
    np.testing.assert_allclose(same, array @ weights, rtol=1e-5, atol=1e-5)


def test_what_is_asked_for_twice_is_stored_once():
    weights = RANDOM.standard_normal((7, 32)).astype(np.float32)
    graph = Graph()
    names = {graph.name(constant(array)) for array in (weights, weights.copy(), weights + 0)}
    assert len(names) == 1
    others = (weights.reshape(32, 7), weights.view(np.int32), weights + 1)
    names |= {graph.name(constant(array)) for array in others}
    assert len(names) == 4


def test_sizes_of_one_broadcast_on_either_side():
    row, column = WEIGHTS[None, :1], WEIGHTS[None, :3, :1]
    array = RANDOM.standard_normal((2, 3, 7)).astype(np.float32)
    found = run(lambda x: x[..., :5] * (jnp.asarray(row) - column), array)
    np.testing.assert_allclose(found, array[..., :5] * (row - column), rtol=1e-6)


def test_a_step_without_a_counterpart_is_named():
    array = np.ones((1, 3, 7), np.float32)
    with pytest.raises(ConfigError, match="cumsum"):
        run(lambda x: jax.lax.cumsum(x, axis=1), array)
