"""Agents, their tracker, and sessions with them."""
