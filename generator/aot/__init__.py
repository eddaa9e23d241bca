"""Ahead of time: what a deployment takes along, made without the device that it serves on."""
