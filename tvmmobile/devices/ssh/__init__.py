"""Boards reached by SSH."""
