"""Simulated robot pushing and a simulated dancer, on MuJoCo."""
