"""The models, their parts, and the contract that they keep."""
