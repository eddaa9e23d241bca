"""Ahead of time: compile emitted modules for targets that are not there, and pack them up."""
