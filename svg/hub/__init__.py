"""Shared models: folders in the form of the Hugging Face Hub, with a card, written, uploaded and loaded."""
