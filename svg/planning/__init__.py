"""Planning with imagined futures; README.md beside this file shows how."""
