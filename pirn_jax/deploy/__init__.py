"""Deploy: a trained model as one file that is judged with without this package."""
