"""Faces of the commands, one module each: options, help, an example; nothing heavy at the top."""
