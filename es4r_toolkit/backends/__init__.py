"""Adapters to the libraries that hold the encoders, language models and voices, one a file."""
