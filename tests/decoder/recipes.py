"""The two recipes the tests run: the paper's, and one with what the paper leaves off."""

from dataclasses import replace

from pirn_jax.decoder import DecoderConfig, LossConfig
from pirn_jax.training.recipe import TrainingRecipe

RECIPES = {
    "paper": TrainingRecipe(),
    "default": TrainingRecipe(
        decoder=DecoderConfig(
            token_scale="standardise_image",
            distance="squared",
            prototype_init="kmeans++",
            attention=True,
            heads=0,
            mlp_ratio=4,
            update_bias=2.0,
            mnc_residual="bottleneck",
            bottleneck_init="principal",
        ),
        loss=LossConfig(form="mean", exponent=0.0),
        learning_rate=2e-3,
        schedule="cosine",
        noise=1.0,
    ),
}


def small_config(recipe: str = "default", **changes) -> DecoderConfig:
    """The decoder of that recipe with 4 prototypes, 3 heads and one layer, unless changed."""
    return replace(RECIPES[recipe].decoder, **{"prototypes": 4, "heads": 3, "layers": 1, **changes})
