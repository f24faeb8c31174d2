"""The other systems' shapes, against what is published of their networks."""

import systems
from bench.ast_system import STEM, Block, blocks
from bench.bank_systems import btf_flops, m3dm_flops

EFFICIENTNET_B5 = 30_389_784
"""Parameters of the whole network, as torchvision and its authors' code have it."""


def parameters(block: Block) -> int:
    """With normalisation's scale and shift after each convolution, and the channels' weights."""
    expand = block.inner != block.before and block.inner * (block.before + 2)
    depthwise = block.inner * (block.kernel**2 + 2)
    weights = 2 * block.inner * block.squeezed + block.squeezed + block.inner
    return expand + depthwise + weights + block.after * (block.inner + 2)


def test_the_blocks_are_those_of_efficientnet_b5():
    known = blocks()
    assert len(known) == 36
    last = known[-1]
    assert (last.after, last.side // last.stride) == (304, 24)  # what AST reads, at 768²
    unused = [Block(304, 1824, 512, 3, 1, 24)] + [Block(512, 3072, 512, 3, 1, 24)] * 2
    stem, head = STEM * (27 + 2), 2048 * (512 + 2) + 1000 * (2048 + 1)
    assert stem + sum(map(parameters, known + unused)) + head == EFFICIENTNET_B5


def test_flops_are_of_the_published_order():
    """WideResNet-50-2 up to stage 3 is 9.2 of torchvision's 11.4 G multiply-adds."""
    assert 18 < btf_flops()["WideResNet-50-2"] < 19
    paper = 263.27  # Table 4, which counts a multiply-add once or twice
    assert paper < sum(m3dm_flops().values()) < 2.2 * paper


def test_ours_stands_in_table_4_beside_them():
    times = {name: {"median_ms": 2.0} for name in (systems.OURS, *systems.SYSTEMS)}
    flops = {name: {"formula_g": {"a": 1.0, "b": 2.0}, "xla_g": 4.0} for name in times}
    rows = systems.table(times, flops)
    assert [row["system"] for row in rows] == [systems.OURS, *systems.LABELS.values()]
    assert [row["gflops"] for row in rows] == [4.0, 3.0, 3.0, 3.0]
    assert "768" in rows[-1]["system"]  # the one that sees another size says so
