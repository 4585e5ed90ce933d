"""Runnable examples: `lightning_digits` and `keras_digits` are ordinary training scripts; `demo` kills both."""
