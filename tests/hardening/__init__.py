"""Programs that kill, fuzz, wear out and double-check, and short tests of each."""
