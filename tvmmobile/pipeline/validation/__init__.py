"""Compares a real board with its model: a fixed suite is measured on one and modelled on the other, and the model's parameters can be
fitted to it.
"""
