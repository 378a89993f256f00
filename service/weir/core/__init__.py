"""The ground floor: the words that every room uses, and the errors a caller can read. Standard library only."""
