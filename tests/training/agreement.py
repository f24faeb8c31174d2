"""Train in a process of its own and write what came out; run by test_parallel.py.

    python -m tests.training.agreement OUT KIND DTYPE JOBS [FULL] [--process I N ADDRESS]

KIND is none, pmap, sharding, or alone: one job after the other on one device. The number of devices
comes with XLA_FLAGS.
"""

import argparse

import jax

parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("kinds", nargs="+")
parser.add_argument("--dtype", default="float64")
parser.add_argument("--jobs", type=int, nargs="+", default=[1])
parser.add_argument("--full", action="store_true", help="the whole default recipe")
parser.add_argument("--process", nargs=3, metavar=("I", "N", "ADDRESS"))


def main() -> None:
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", arguments.dtype == "float64")
    jax.config.update("jax_default_matmul_precision", "highest")
    first = True
    if arguments.process:
        index, count, address = arguments.process
        jax.distributed.initialize(address, int(count), int(index))
        assert jax.process_count() == int(count)
        first = index == "0"

    import numpy as np

    from pirn_jax.decoder import DISTANCES, Tokens, abstract_params, merge
    from pirn_jax.training import train
    from tests.decoder.recipes import RECIPES
    from tests.training.problems import CHANNELS, job, recipe

    settings = RECIPES["default"] if arguments.full else recipe(epochs=4)
    graph, _, _ = abstract_params(settings.decoder, CHANNELS)
    distance = DISTANCES[settings.decoder.distance]
    result = {}
    for kind in arguments.kinds:
        for count in arguments.jobs:
            jobs = [job(i, masked=i > 0, dtype=arguments.dtype) for i in range(count)]
            if kind == "alone":
                results = [train([one], settings, parallel="none")[0] for one in jobs]
            else:
                results = train(jobs, settings, parallel=kind)
            for found, one in zip(results, jobs, strict=True):
                name = f"{kind}/{count}/{found.name}"
                for path, leaf in jax.tree.leaves_with_path(found.parameters):
                    key = jax.tree_util.keystr(path, simple=True, separator=".")
                    result[f"{name}/parameters/{key}"] = leaf
                result[f"{name}/losses"] = np.array([line["loss"] for line in found.history])
                tokens = Tokens(one.shots.values)

                @jax.jit
                def score(parameters, found=found, tokens=tokens):
                    rebuilt = merge(graph, parameters, found.statistics)(tokens)
                    return distance(rebuilt.target, rebuilt.values).sum(0).max(-1)

                result[f"{name}/scores"] = np.asarray(score(found.parameters))
    if first:
        np.savez(arguments.out, **result)


if __name__ == "__main__":
    main()
