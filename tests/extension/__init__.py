"""Extensions registered from outside of the package: what the pages on adding one show."""
