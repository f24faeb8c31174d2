"""Deploy: a trained model at work: as one file, judged with without this package; as a service."""
