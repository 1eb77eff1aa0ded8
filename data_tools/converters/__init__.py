"""Converters from other formats to data sets."""
