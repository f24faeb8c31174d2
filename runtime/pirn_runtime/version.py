"""Of the runtime, as records say it."""

__version__ = "0.1.0"
