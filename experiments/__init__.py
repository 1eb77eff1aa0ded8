"""What a person runs: thin command-line front ends."""
