"""Turns a stored model into another format and proves that it still predicts the same."""
