"""Accuracy of a library over labelled images."""
