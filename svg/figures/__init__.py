"""Pictures, films, plots and the report page."""
