"""ES4R Toolkit: hear how something is said, and answer with empathy."""

__version__ = "0.1.0"
