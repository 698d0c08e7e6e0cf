"""Reusable building blocks of ES4R: torch in, torch out, SpeechBrain relative lengths."""
