"""Pages in which a model runs in the browser and is driven by hand."""
