"""Room: one API in the words of another. Pure; raises InvalidValue for what has no counterpart."""
